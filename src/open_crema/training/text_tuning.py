"""Text tuning: an LLM learns to read captions in the places of query tokens, without any media.

A small LLM that is told in words what there is still answers questions about it at chance. A
low-rank update, trained on words alone and then merged and frozen, gives it that skill, as Flan-T5
has it from its own tuning. Words stand exactly where adapters will put their tokens: a caption's
rows of the embedding matrix are the query tokens, and the fusion merges them as it starts
(``fusion.init=identity``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from open_crema import modality
from open_crema.backbones.base import Backbone
from open_crema.config import AlignConfig, FusionConfig, ModelConfig
from open_crema.data.sample import Told
from open_crema.errors import ConfigError
from open_crema.model.fusion import Fusion, QueryTokens
from open_crema.model.prompt import assemble_shared

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_WARM_UP = 8  # steps


@dataclass(frozen=True)
class Recipe:
    """rank, alpha: of the update. first_layer: layers below have none. wrong: the share of words
    that are replaced by another; noise: how much is added to their rows, relative to the spread of
    the embedding matrix, drawn anew for each step: what adapters say will not be exact either."""

    steps: int = 130
    lr: float = 1e-3
    rank: int = 16
    alpha: int = 32
    first_layer: int = 6
    clip: float = 1.0
    wrong: float = 0.03
    noise: tuple[float, ...] = (0.1, 0.3, 0.5)
    seed: int = 0


class TextTuning:
    """Trains the update of a decoder-only LLM.

    ``batches`` gives the clips of each step, all with as many segments where senses have one a
    frame; seconds: how long the clips are. Iterating trains, and gives each step's loss and the
    share of answers that were right; :meth:`save` writes what has been learnt.

    Raises ConfigError where the PEFT library is not installed.
    """

    def __init__(self, backbone: Backbone, recipe: Recipe, *, seconds: float) -> None:
        try:
            import peft
        except ImportError:
            raise ConfigError(
                "text tuning needs the PEFT library: pip install 'open-crema[tune]'"
            ) from None
        self.backbone, self.recipe, self.seconds = backbone, recipe, seconds
        torch.manual_seed(recipe.seed)
        layers = range(recipe.first_layer, backbone.llm.config.num_hidden_layers)
        lora = peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules=_TARGETS,
            layers_to_transform=list(layers),
        )
        self.tuned = peft.get_peft_model(backbone.llm, lora)
        self.rows = backbone.llm.get_input_embeddings().weight.detach()
        self._ids: dict[str, int] = {}

    def train(self, batches: Iterator[Sequence[Told]]) -> Iterator[tuple[float, float]]:
        recipe = self.recipe
        trained = [p for p in self.tuned.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=0.0)
        for step in range(recipe.steps):
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            share = 0.05 + 0.95 * (1 + math.cos(math.pi * step / recipe.steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * min(1.0, (step + 1) / _WARM_UP) * share
            loss, right = self._loss(next(batches))
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield loss.item(), right

    def save(self, folder: str | Path, base: str) -> None:
        """Writes the update in PEFT's layout, bfloat16. base: the name of the LLM."""
        self.tuned.peft_config["default"].base_model_name_or_path = base
        # Else PEFT asks the hub whether its base's vocabulary has been changed.
        self.tuned.to(torch.bfloat16).save_pretrained(str(folder), save_embedding_layers=False)
        # An empty template, but for where the LLM was on this machine.
        (Path(folder) / "README.md").unlink(missing_ok=True)

    def _loss(self, clips: Sequence[Told]) -> tuple[Tensor, float]:
        prefix, texts = assemble_shared(
            self.backbone,
            self._blocks(clips),
            [[question for question, _ in clip.asked] for clip in clips],
            ModelConfig(),
        )
        targets = [[self.backbone.target(answer) for _, answer in clip.asked] for clip in clips]
        out = self.backbone.forward_shared(prefix, texts, targets)
        right = ((out.logits.argmax(dim=2) == out.labels) | (out.labels < 0)).all(dim=1)
        return out.loss, right.float().mean().item()

    @torch.no_grad()
    def _blocks(self, clips: Sequence[Told]) -> Any:
        senses = modality.canonical(sense for clip in clips for sense in clip.captions)
        fusion = Fusion(
            senses, self.backbone.width, FusionConfig(init="identity"), AlignConfig()
        ).to(self.rows.device)
        return fusion({sense: self._tokens(clips, sense) for sense in senses})

    def _tokens(self, clips: Sequence[Told], sense: str) -> QueryTokens:
        own = [clip.captions.get(sense) for clip in clips]
        told = [parts for parts in own if parts is not None]
        segments, words = len(told[0]), len(told[0][0])
        ids = torch.zeros(len(clips), segments, words, dtype=torch.long)
        for row, parts in enumerate(own):
            if parts is not None:
                ids[row] = torch.tensor([[self._id(word) for word in part] for part in parts])
        present = torch.tensor([parts is not None for parts in own])[:, None].expand(-1, segments)
        wrong = torch.rand(ids.shape) < self.recipe.wrong
        known = torch.tensor(sorted(set(self._ids.values())))
        ids = torch.where(wrong, known[torch.randint(len(known), ids.shape)], ids)
        level = self.recipe.noise[int(torch.randint(len(self.recipe.noise), ()))]
        rows = self.rows[ids.to(self.rows.device)]
        rows = rows + level * self.rows.std() * torch.randn(rows.shape).to(rows)
        edges = torch.linspace(0, self.seconds, segments + 1, dtype=torch.float64)
        times = torch.stack([edges[:-1], edges[1:]], dim=1).expand(len(clips), -1, -1)
        present = present.to(rows.device)
        return QueryTokens(rows * present[:, :, None, None], present, times)

    def _id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = self.backbone.encode(f" {word}")[0]
        return self._ids[word]
