"""The model: query each sense, fuse, prompt the frozen LLM.

A batch goes through ``query`` (adapters and the shared Q-Former), ``fusion`` (blocks),
``assemble`` (prompt), the backbone (answer, loss or option scores).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from open_crema import modality
from open_crema.backbones.base import Backbone, Generation, OptionScores, Output, Prompt
from open_crema.config import AlignConfig, FusionConfig, ModelConfig, PromptConfig
from open_crema.data.sample import Batch, SenseBatch
from open_crema.encoders.registry import width_for
from open_crema.errors import ConfigError, DataError
from open_crema.modality import canonical
from open_crema.model.adapter import Adapter
from open_crema.model.facts import AdapterInfo
from open_crema.model.fusion import Fusion, Inner, QueryTokens
from open_crema.model.prompt import assemble, assemble_shared
from open_crema.model.qformer import QFormer


@dataclass(frozen=True)
class Origin:
    """The file that an adapter came from: what it says, and the fingerprint of its tensors without
    the fusion block."""

    info: AdapterInfo
    without_block: str


UNTRAINED = "its adapter has not been trained yet"


def _check_layout(config: ModelConfig, backbone: Backbone) -> None:
    if config.prompt.layout == "reference" and backbone.side != "right":
        raise ConfigError(
            "model.prompt.layout=reference is the released code's, for encoder-decoder LLMs "
            f"only; {config.llm} is decoder-only: use packed"
        )


def _fusion(config: ModelConfig, backbone: Backbone) -> Fusion:
    return Fusion(
        (*backbone.sees, *config.senses),
        backbone.width,
        config.fusion,
        config.align,
        queries=config.qformer.queries,
        inner=config.qformer.width,
    )


def _placed(rows: Tensor, segments: Tensor) -> Tensor:
    """``[B, S, ...]``: what was made of the real segments (``[B, S]`` bool), 0 elsewhere."""
    if rows.shape[0] == segments.numel():
        return rows.view(*segments.shape, *rows.shape[1:])
    placed = rows.new_zeros(*segments.shape, *rows.shape[1:])
    return placed.index_put(segments.nonzero(as_tuple=True), rows)


class Crema(nn.Module):
    """A frozen LLM with one adapter a sense, a shared Q-Former and a fusion.

    encoder_widths: sense -> width of its frozen encoder's features, where it differs from what
    the configured encoder gives.
    """

    def __init__(
        self,
        config: ModelConfig,
        backbone: Backbone,
        encoder_widths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        _check_layout(config, backbone)
        self.config = config
        self.senses = canonical(config.senses)
        # Under qformer.own=each nothing reads it: it is what each sense's own starts from.
        self.qformer = QFormer(config.qformer).requires_grad_(False)
        self.adapters = nn.ModuleDict()
        for sense in self.senses:  # in canonical order: listing order must not change the init
            self.adapters[sense] = self._adapter(sense, backbone, (encoder_widths or {}).get(sense))
        self.fusion = _fusion(config, backbone)
        self.backbone = backbone
        self.origins: dict[str, Origin] = {}

    def _adapter(self, sense: str, backbone: Backbone, encoder_width: int | None) -> Adapter:
        kind = modality.get(sense)
        width = encoder_width or width_for(kind, self.config.encoders)
        adapter = Adapter(kind, self.config, width, backbone.width)
        if adapter.own is not None:
            adapter.own.load_state_dict(self.qformer.state_dict())
        return adapter

    def add_sense(
        self,
        sense: str,
        encoder_width: int | None = None,
        *,
        like: str | None = None,
        projected: bool | None = None,
    ) -> None:
        """Grows by a fresh adapter and a fusion block: outputs stay as they are until these are
        trained. like: the sense whose adapter the new one starts as. projected: as in
        ``model.input_projection``, by default what that says of the sense.

        Raises ConfigError for an unknown sense or one that is there already.
        """
        if sense in self.adapters:
            raise ConfigError(f"the model has an adapter for {sense!r} already")
        if like is not None and like not in self.adapters:
            raise ConfigError(
                f"no adapter of {like!r} to start {sense!r} as; the model has "
                f"{', '.join(self.senses)}"
            )
        if projected is not None:
            self.config = self.config.projecting(sense, projected)
        adapter = self._adapter(sense, self.backbone, encoder_width)
        if like is not None:
            adapter.start_as(self.adapter(like))
        adapter.fresh.fill_(True)
        shared = next(self.qformer.parameters())
        self.adapters[sense] = adapter.to(shared.device, shared.dtype).train(self.training)
        self.fusion.add(sense, shared)
        self._set_senses([*self.config.senses, sense])
        for name in self.senses:  # parameters stay in canonical order, however the model grew
            self.adapters[name] = self.adapters.pop(name)

    def own_qformers(self) -> None:
        """Every sense gets a Q-Former of its own that starts as the shared one
        (``model.qformer.own=each``); outputs stay as they are."""
        for sense in self.senses:
            self.adapter(sense).take_own(self.qformer)
        shape = replace(self.config.qformer, own="each")
        self.config = replace(self.config, qformer=shape)
        self.origins.clear()

    def change_fusion(self, config: FusionConfig) -> None:
        """A new, untrained fusion of that kind in the place of the one that is there."""
        self.config = replace(self.config, fusion=config)
        like = next(self.qformer.parameters())
        self.fusion = _fusion(self.config, self.backbone).to(like.device, like.dtype)
        self.fusion.train(self.training)

    def change_prompt(self, prompt: PromptConfig, align: AlignConfig) -> None:
        """Blocks and text are put together otherwise from now on; no weight depends on how. Raises
        ConfigError for a layout that the LLM cannot have."""
        config = replace(self.config, prompt=prompt, align=align)
        _check_layout(config, self.backbone)
        if align != self.config.align:  # what adapters' files said of it is no longer true
            self.origins.clear()
        self.config, self.fusion.align = config, align

    def remove_sense(self, sense: str) -> None:
        """Takes a sense out; what remains is as if it had never been there."""
        if sense not in self.adapters or len(self.adapters) == 1:
            raise ConfigError(f"cannot remove {sense!r} from a model of {', '.join(self.senses)}")
        del self.adapters[sense]
        self.origins.pop(sense, None)
        self.fusion.remove(sense)
        self.config = self.config.projecting(sense, False)
        self._set_senses([s for s in self.config.senses if s != sense])

    def _set_senses(self, listed: Sequence[str]) -> None:
        self.config = replace(self.config, senses=tuple(listed))
        self.senses = canonical(listed)

    def to_llm(self) -> Self:
        """Moves all but the LLM to the device where that embeds its prompt."""
        if self.backbone.device.type != "meta":  # a stand-in's
            for part in (self.qformer, self.adapters, self.fusion):
                part.to(self.backbone.device)
        return self

    def train(self, mode: bool = True) -> Crema:
        """The frozen LLM stays in evaluation mode unless ``llm_dropout`` is set."""
        super().train(mode)
        self.backbone.train(mode and self.config.llm_dropout > 0)
        return self

    def adapter(self, sense: str) -> Adapter:
        return cast(Adapter, self.adapters[sense])

    def query(self, sense: str, x: SenseBatch) -> QueryTokens:
        """One sense's tokens in the LLM's space, ``[B, S, Q, D]``; padded segments are not run.

        Raises DataError for features of another width than the adapter's.
        """
        adapter = self.adapter(sense)
        segments = x.segments
        if x.tokens.shape[3] != adapter.encoder_width:
            raise DataError(
                f"{sense}: features of width {x.tokens.shape[3]}, its adapter reads "
                f"{adapter.encoder_width}; use the encoder that it was trained with"
            )
        if bool(segments.all()):
            rows, mask = x.tokens.flatten(0, 1), x.mask.flatten(0, 1)
        else:
            rows, mask = x.tokens[segments], x.mask[segments]
        if not self.fusion.inside:
            tokens = adapter(self.qformer, rows, mask)
            return QueryTokens(_placed(tokens, segments), segments, x.times)
        states = adapter.states(self.qformer, rows, mask)
        tokens = _placed(adapter.projection(states), segments)
        projection: tuple[Tensor, Tensor] = (adapter.projection.weight, adapter.projection.bias)
        if not torch.is_grad_enabled():  # a constant, also where the fusion that reads it is not
            projection = (projection[0].detach(), projection[1].detach())
        inner = Inner(_placed(states, segments), *projection)
        return QueryTokens(tokens, segments, x.times, inner)

    @property
    def untrained(self) -> list[str]:
        """Senses that were added and not trained yet; evaluation leaves them out."""
        return [s for s in self.senses if bool(self.adapter(s).fresh)]

    def senses_in(self, batch: Batch) -> list[str]:
        """The model's senses that at least one sample has; evaluation leaves untrained ones out."""
        out = [] if self.training else self.untrained
        there = [s for s in self.senses if s in batch.senses and s not in out]
        return [s for s in there if bool(batch.senses[s].present.any())]

    def query_all(self, batch: Batch) -> dict[str, QueryTokens]:
        """Every sense of the batch that this model has."""
        return {s: self.query(s, batch.senses[s]) for s in self.senses_in(batch)}

    def prompt(self, tokens: Mapping[str, QueryTokens], batch: Batch) -> Prompt:
        questions = [sample.question for sample in batch.samples]
        return assemble(self.backbone, self.fusion(tokens), questions, self.config)

    def targets(self, batch: Batch) -> list[list[list[int]]]:
        """Token ids of the first answer to each question about each of the media. Raises DataError
        where there is none."""
        return [[self.backbone.target(sample.target) for sample in own] for own in batch.asked()]

    def answer(self, tokens: Mapping[str, QueryTokens], batch: Batch) -> Output:
        """Loss and logits from given query tokens (so that unchanged ones can be reused)."""
        targets = self.targets(batch)
        if batch.others:
            questions = [[sample.question for sample in own] for own in batch.asked()]
            blocks = self.fusion(tokens)
            prefix, texts = assemble_shared(self.backbone, blocks, questions, self.config)
            return self.backbone.forward_shared(prefix, texts, targets)
        output: Output = self.backbone(self.prompt(tokens, batch), [own for (own,) in targets])
        return output

    def forward(self, batch: Batch) -> Output:
        """``.loss`` over the first answers' tokens and their ``.logits``."""
        return self.answer(self.query_all(batch), batch)

    @torch.no_grad()
    def generate(
        self,
        batch: Batch,
        *,
        max_new_tokens: int = 10,
        tokens: Mapping[str, QueryTokens] | None = None,
        **search: Any,
    ) -> Generation:
        """Answers as text; tokens: the batch's query tokens where they are known, instead of its
        senses; ``search``: beams, length_penalty, scores."""
        prompt = self.prompt(self.query_all(batch) if tokens is None else tokens, batch)
        return self.backbone.generate(prompt, max_new_tokens=max_new_tokens, **search)

    @torch.no_grad()
    def score(
        self, batch: Batch, *, tokens: Mapping[str, QueryTokens] | None = None
    ) -> OptionScores:
        """How likely each of the samples' options is; tokens: as of :meth:`generate`. Raises
        DataError where there are none."""
        for sample in batch.samples:
            if not sample.options:
                raise DataError(f"sample {sample.id!r} has no options to score")
        options = [[self.backbone.target(o) for o in s.spoken or s.options] for s in batch.samples]
        prompt = self.prompt(self.query_all(batch) if tokens is None else tokens, batch)
        return self.backbone.score(prompt, options)

    @torch.no_grad()
    def letters(
        self, batch: Batch, *, tokens: Mapping[str, QueryTokens] | None = None
    ) -> list[int] | None:
        """The released code's choice among each sample's options: the letter of the highest logit
        in the second token of a greedy answer. None where the LLM has no tokens for letters."""
        ids = self.backbone.letters(max(len(s.options) for s in batch.samples))
        if ids is None:
            return None
        prompt = self.prompt(self.query_all(batch) if tokens is None else tokens, batch)
        said = self.backbone.generate(prompt, max_new_tokens=2, scores=True)
        logits = said.letters(ids, self.backbone.stops)
        rows = zip(batch.samples, logits.tolist(), strict=True)
        return [max(range(len(s.options)), key=row.__getitem__) for s, row in rows]

    def trains(self, sense: str) -> bool:
        """Whether anything that makes the sense's tokens requires a gradient."""
        path: tuple[nn.Module, ...] = (self.adapter(sense), self.qformer)
        return any(p.requires_grad for module in path for p in module.parameters())

    def unit(self, sense: str) -> Iterator[nn.Parameter]:
        """What one sub-step of sequential training updates, where it is trainable: the sense's
        adapter and the fusion."""
        yield from self.adapter(sense).parameters()
        yield from self.fusion.parameters()
