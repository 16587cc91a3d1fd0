"""Text tuning: an LLM learns to read captions in the places of query tokens, without any media.

A small LLM that is told in words what there is still answers questions about it at chance. A
low-rank update, trained on words alone and then merged and frozen, gives it that skill, as Flan-T5
has it from its own tuning. Words stand exactly where adapters will put their tokens: a caption's
rows of the embedding matrix are the query tokens, and the fusion merges them as it starts
(``fusion.init=identity``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from open_crema import modality
from open_crema.backbones import lora
from open_crema.backbones.base import Output
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.config import AlignConfig, FusionConfig, ModelConfig
from open_crema.data.sample import Told
from open_crema.errors import ConfigError, WeightsError
from open_crema.model.fusion import Fusion, QueryTokens
from open_crema.model.prompt import assemble_shared
from open_crema.storage import read_json, read_tensors, replacing, write_json, write_tensors
from open_crema.training.optimizer import set_rate
from open_crema.training.words import token_of

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_WARM_UP = 8  # steps
_BLEND = 0.6  # most that a word has of another's row
_STATE, _TENSORS = "state.json", "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
# The LLM's own has 30 tokens around a question, half of all that it would read here. The space at
# the end is the answer's: " red" is then the very token that a caption has.
TEMPLATE = "<|im_start|>{{ messages[0]['content'] }}\n "


@dataclass(frozen=True)
class Recipe:
    """rank, alpha: of the update. first_layer: layers below have none. What adapters say will not
    be exact, so of the words that a sense says in a batch some stand for each other: wrong is the
    share that is replaced, blended the share that is mixed with another word, which has up to
    ``_BLEND`` of the weight. Whole words are scaled by something between faint and 1. noise: how
    much is added to the rows, relative to the spread of the embedding matrix, one of these for each
    step.
    template: the chat template (Jinja) that prompts are read in from then on, "": the LLM's own.
    """

    steps: int = 600
    lr: float = 1.2e-3
    rank: int = 16
    alpha: int = 32
    first_layer: int = 6
    clip: float = 1.0
    wrong: float = 0.03
    blended: float = 0.15
    faint: float = 0.4
    noise: tuple[float, ...] = (0.1, 0.3, 0.5)
    template: str = TEMPLATE
    seed: int = 0


class TextTuning:
    """Trains the update of a decoder-only LLM.

    ``batches`` gives the clips of each step, all with as many segments where senses have one a
    frame; seconds: how long the clips are. Iterating trains, and gives each step's number, loss and
    the share of answers that were right; :meth:`save` writes what has been learnt.

    Raises ConfigError where the PEFT library is not installed.
    """

    def __init__(self, backbone: DecoderOnly, recipe: Recipe, *, seconds: float) -> None:
        try:
            import peft
        except ImportError:
            raise ConfigError(
                "text tuning needs the PEFT library: pip install 'open-crema[tune]'"
            ) from None
        self.backbone, self.recipe, self.seconds = backbone, recipe, seconds
        if recipe.template:
            backbone.use_template(recipe.template)
        torch.manual_seed(recipe.seed)
        layers = range(recipe.first_layer, backbone.llm.config.num_hidden_layers)
        config = peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules=list(TARGETS),
            layers_to_transform=list(layers),
        )
        self.tuned = peft.get_peft_model(backbone.llm, config)
        count = backbone.llm.get_input_embeddings().num_embeddings
        with torch.no_grad():
            self.spread = backbone.embed(torch.arange(count, device=backbone.device)).std()
        self._trained = {n: p for n, p in self.tuned.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(self._trained.values(), lr=recipe.lr, weight_decay=0.0)
        self._done = 0
        self._tokens_of: dict[str, tuple[int, float]] = {}

    def train(self, batches: Iterator[Sequence[Told]]) -> Iterator[tuple[int, float, float]]:
        """The steps that are left; batches: from the first step on, as always."""
        recipe, trained = self.recipe, list(self._trained.values())
        for step, batch in enumerate(islice(batches, self._done, recipe.steps), self._done):
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            share = 0.05 + 0.95 * (1 + math.cos(math.pi * step / recipe.steps)) / 2
            set_rate(self._optimizer, recipe.lr * min(1.0, (step + 1) / _WARM_UP) * share)
            out = self._read(batch)
            out.loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, recipe.clip)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._done = step + 1
            yield self._done, out.loss.item(), _right(out).float().mean().item()

    @torch.no_grad()
    def check(self, batches: Iterable[Sequence[Told]]) -> dict[str, tuple[int, int]]:
        """Type of question -> how many were answered right, and how many asked."""
        found: dict[str, tuple[int, int]] = {}
        for clips in batches:
            right = iter(_right(self._read(clips)).tolist())
            for question in (question for clip in clips for question in clip.asked):
                before, asked = found.get(question.type, (0, 0))
                found[question.type] = before + next(right), asked + 1
        return dict(sorted(found.items()))

    def save(self, folder: str | Path, base: str) -> None:
        """Writes the update in PEFT's layout, bfloat16. base: the name of the LLM."""
        self.tuned.peft_config["default"].base_model_name_or_path = base
        # Else PEFT asks the hub whether its base's vocabulary has been changed.
        self.tuned.to(torch.bfloat16).save_pretrained(str(folder), save_embedding_layers=False)
        # An empty template, but for where the LLM was on this machine.
        (Path(folder) / "README.md").unlink(missing_ok=True)
        if self.recipe.template:
            (Path(folder) / lora.TEMPLATE).write_text(self.recipe.template, encoding="utf-8")

    def pause(self, folder: Path) -> None:
        """Writes what :meth:`resume` needs to go on from here. Raises WeightsError."""
        tensors = {}
        for name, parameter in self._trained.items():
            tensors[name] = parameter
            for moment in _MOMENTS:
                tensors[f"{moment} {name}"] = self._optimizer.state[parameter][moment]
        with replacing(folder) as place:
            write_tensors(place / _TENSORS, tensors)
            write_json(place / _STATE, {"done": self._done, "recipe": repr(self.recipe)})

    @torch.no_grad()
    def start_from(self, folder: Path) -> None:
        """Begins with an update that :meth:`save` has written, of the same shape.

        Raises WeightsError where there is none or it does not fit.
        """
        tensors = read_tensors(folder / lora.TENSORS)
        for name, parameter in self._trained.items():
            saved = tensors.get(name.replace(".default.", "."))
            if saved is None or saved.shape != parameter.shape:
                raise WeightsError(f"{folder}: not an update of this recipe; it has no {name}")
            parameter.copy_(saved)

    @torch.no_grad()
    def resume(self, folder: Path) -> int:
        """Goes on from where :meth:`pause` was called; how many steps that was.

        Raises WeightsError for a folder that cannot be read or is of another recipe.
        """
        state = read_json(folder / _STATE, "no text tuning was paused there")
        tensors = read_tensors(folder / _TENSORS)
        if state.get("recipe") != repr(self.recipe):
            raise WeightsError(
                f"{folder}: of another recipe ({state.get('recipe')}); run the command it was "
                "begun with, or choose another folder"
            )
        self._done = int(state["done"])
        for name, parameter in self._trained.items():
            parameter.copy_(tensors[name])
            moments = {moment: tensors[f"{moment} {name}"] for moment in _MOMENTS}
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(self._done)),
                **moments,
            }
        return self._done

    def _read(self, clips: Sequence[Told]) -> Output:
        prefix, texts = assemble_shared(
            self.backbone,
            self._blocks(clips),
            [[question.text for question in clip.asked] for clip in clips],
            ModelConfig(),
        )
        targets = [[self.backbone.target(q.answer) for q in clip.asked] for clip in clips]
        return self.backbone.forward_shared(prefix, texts, targets)

    @torch.no_grad()
    def _blocks(self, clips: Sequence[Told]) -> Any:
        senses = modality.canonical(sense for clip in clips for sense in clip.captions)
        tokens = {sense: self._tokens(clips, sense) for sense in senses}
        fusion = Fusion(
            senses,
            self.backbone.width,
            FusionConfig(init="identity"),
            AlignConfig(),
            queries=tokens[senses[0]].tokens.shape[2],
        ).to(self.backbone.device)
        return fusion(tokens)

    def _tokens(self, clips: Sequence[Told], sense: str) -> QueryTokens:
        own = [clip.captions.get(sense) for clip in clips]
        told = [parts for parts in own if parts is not None]
        segments, words = len(told[0]), len(told[0][0])
        said = {word: i for i, word in enumerate(sorted({w for p in told for x in p for w in x}))}
        tokens, shares = zip(*map(self._token, said), strict=True)
        table = self.backbone.embed(torch.tensor(tokens, device=self.backbone.device))
        table = table * torch.tensor(shares).to(table)[:, None]
        which = torch.zeros(len(clips), segments, words, dtype=torch.long)  # of the table
        for row, parts in enumerate(own):
            if parts is not None:
                which[row] = torch.tensor([[said[word] for word in part] for part in parts])
        present = torch.tensor([parts is not None for parts in own])[:, None].expand(-1, segments)
        other = torch.randint(len(said), which.shape)
        which = torch.where(torch.rand(which.shape) < self.recipe.wrong, other, which)
        other = torch.randint(len(said), which.shape)
        share = torch.rand(which.shape) * _BLEND * (torch.rand(which.shape) < self.recipe.blended)
        level = self.recipe.noise[int(torch.randint(len(self.recipe.noise), ()))]
        device = table.device
        rows = table[which.to(device)].lerp(table[other.to(device)], share[..., None].to(table))
        scale = self.recipe.faint + (1 - self.recipe.faint) * torch.rand(which.shape)
        soft = torch.tensor(shares)[which] < 1
        scale = torch.where(soft, 1.0, scale)
        rows = rows * scale[..., None].to(rows)
        rows = rows + level * self.spread * torch.randn(rows.shape).to(rows)
        edges = torch.linspace(0, self.seconds, segments + 1, dtype=torch.float64)
        times = torch.stack([edges[:-1], edges[1:]], dim=1).expand(len(clips), -1, -1)
        present = present.to(rows.device)
        return QueryTokens(rows * present[:, :, None, None], present, times)

    def _token(self, word: str) -> tuple[int, float]:
        if word not in self._tokens_of:
            self._tokens_of[word] = token_of(self.backbone, word)
        return self._tokens_of[word]


def _right(out: Output) -> Tensor:
    """``[N]`` bool: whether each answer is what the LLM would have said."""
    return ((out.logits.argmax(dim=2) == out.labels) | (out.labels < 0)).all(dim=1)
