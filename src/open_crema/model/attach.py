"""CREMA's senses beside a VLM that is already good: its own tower sees, adapters add the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from open_crema.backbones.base import Prompt
from open_crema.backbones.vlm import NAME, Conversation, Vlm
from open_crema.config import ModelConfig
from open_crema.data.sample import Batch, Sample, collate
from open_crema.errors import ConfigError, DataError
from open_crema.features import Features
from open_crema.model import files
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens
from open_crema.model.prompt import blocks_alone


@dataclass(frozen=True)
class ConversationBatch(Batch):
    """Conversations as the VLM's chat template takes them, with the features of other senses.

    read: what the processor made of them, by which of them hold sense tokens; pictures are
    processed once for each such pattern, and most batches have one.
    """

    conversations: tuple[Conversation, ...] = ()
    processing: Mapping[str, Any] = field(default_factory=dict)
    read: dict[tuple[bool, ...], dict[str, Any]] = field(
        default_factory=dict, repr=False, compare=False
    )


class Attached(Crema):
    """A frozen VLM that hears and feels: its own tower's tokens lead, all senses here assist them.

    Batches come from :meth:`prepare` or :meth:`join`; everything else is as in :class:`Crema`:
    ``model(batch)`` gives ``.loss`` and ``.logits``, ``generate`` and ``score`` answer, and the
    training strategies and ``save_pretrained`` take it. Raises ConfigError for what a VLM cannot
    have: a "video" sense of ours, dropout, or fused tokens added to its own ("placement: add").
    """

    def __init__(
        self,
        config: ModelConfig,
        backbone: Vlm,
        encoder_widths: Mapping[str, int] | None = None,
    ) -> None:
        own = [s for s in config.senses if s in backbone.sees]
        if own:
            raise ConfigError(
                f"a VLM has {', '.join(own)} already, through its own tower: put pictures and "
                "videos into the conversation, and name other senses only"
            )
        if config.fusion.placement == "add":
            raise ConfigError(
                "model.fusion.placement=add needs our own video tokens; beside a VLM use append"
            )
        if config.llm_dropout:
            raise ConfigError("model.llm_dropout must be 0: a VLM stays in evaluation mode")
        super().__init__(config, backbone, encoder_widths)

    @property
    def vlm(self) -> Vlm:
        return cast(Vlm, self.backbone)

    def prepare(
        self,
        conversations: Sequence[Conversation],
        senses: Sequence[Mapping[str, Features]] | None = None,
        *,
        answers: Sequence[str] = (),
        options: Sequence[Sequence[str]] = (),
        processing: Mapping[str, Any] | None = None,
    ) -> ConversationBatch:
        """A batch of conversations, each with what other senses there are of it (none is fine).

        conversations: lists of turns, as for ``processor.apply_chat_template``, the last of them
        the user's. answers: to train on. options: to choose from, with :meth:`score`. processing:
        options of the processor (``fps``, ``num_frames``, ...).
        Raises ConfigError for a sense without an adapter, DataError where counts differ or a
        conversation does not end with a question.
        """
        _check(conversations)
        features: Sequence[Mapping[str, Features]] = senses or [{} for _ in conversations]
        given = {"senses": features, "answers": answers, "options": options}
        for name, values in given.items():
            if values and len(values) != len(conversations):
                raise DataError(f"{len(conversations)} conversations with {len(values)} {name}")
        strangers = {s for own in features for s in own} - set(self.senses)
        if strangers:
            raise ConfigError(
                f"no adapter for {', '.join(sorted(strangers))}; "
                f"the model has {', '.join(self.senses)}"
            )
        samples = [
            Sample(
                id=str(i),
                question=_text_of(conversation[-1]),
                media={},
                answers=tuple(answers[i : i + 1]),
                options=tuple(options[i]) if options else (),
            )
            for i, conversation in enumerate(conversations)
        ]
        batch = collate(list(zip(samples, features, strict=True)))
        return self.join(batch, conversations, processing=processing)

    def join(
        self,
        batch: Batch,
        conversations: Sequence[Conversation],
        *,
        processing: Mapping[str, Any] | None = None,
    ) -> ConversationBatch:
        """A dataset's batch (its answers, options and features) with a conversation for each of
        its samples; otherwise as :meth:`prepare`."""
        _check(conversations)
        if len(batch) != len(conversations):
            raise DataError(f"{len(conversations)} conversations with {len(batch)} samples")
        moved = batch.to(self.vlm.device)
        return ConversationBatch(
            moved.samples,
            moved.senses,
            conversations=tuple(conversations),
            processing=dict(processing or {}),
        )

    def prompt(self, tokens: Mapping[str, QueryTokens], batch: Batch) -> Prompt:
        """The VLM's own prompt with the sense tokens right before the question's words."""
        if not isinstance(batch, ConversationBatch):
            raise DataError("beside a VLM a batch has conversations: use prepare() or join()")
        senses = self._sense_tokens(tokens, len(batch))
        marked = tuple(senses.mask.any(dim=1).tolist())
        if marked not in batch.read:
            batch.read[marked] = self.vlm.read(batch.conversations, marked, batch.processing)
        return self.vlm.splice(batch.read[marked], senses)

    def _sense_tokens(self, tokens: Mapping[str, QueryTokens], batch: int) -> Prompt:
        blocks = []
        if tokens:
            (video,) = self.vlm.sees
            # the VLM's own tokens lead, so all others assist; they are in its prompt already
            led = self.fusion({video: time_line(tokens), **tokens})
            blocks = [block for block in led if block.sense != video]
        return blocks_alone(self.vlm, blocks, batch)


def time_line(tokens: Mapping[str, QueryTokens]) -> QueryTokens:
    """The segments on which the senses of each sample meet: those of its sense with the most (the
    first in canonical order among equals), so that none loses detail. The tokens are zeros.

    A VLM's own tokens have no segments of ours to align to.
    """
    senses = list(tokens.values())
    longest = max(q.segments.shape[1] for q in senses)

    def stacked(tensors: Sequence[Tensor]) -> Tensor:
        padded = [x.new_zeros(x.shape[0], longest, *x.shape[2:]) for x in tensors]
        for room, x in zip(padded, tensors, strict=True):
            room[:, : x.shape[1]] = x
        return torch.stack(padded)

    segments = stacked([q.segments for q in senses])  # [M, B, T]
    counts = segments.sum(dim=2)
    first = torch.arange(len(senses), 0, -1, device=counts.device)
    leader = (counts * len(senses) + first[:, None] - 1).argmax(dim=0)  # [B]
    rows = torch.arange(len(leader), device=leader.device)
    like = senses[0].tokens
    return QueryTokens(
        like.new_zeros(len(leader), longest, *like.shape[2:]),
        segments[leader, rows],
        stacked([q.times for q in senses])[leader, rows],
    )


def attach(
    vlm: Any,
    processor: Any,
    senses: Sequence[str] | None = None,
    *,
    config: ModelConfig | None = None,
    qformer: str | Path | None = None,
    encoder_widths: Mapping[str, int] | None = None,
    from_pretrained: str | Path | None = None,
) -> Attached:
    """Gives a transformers VLM other senses: ``attach(vlm, processor, ["thermal", "audio"])``.

    The VLM is frozen, in place, and otherwise left as it is; without any sense it answers bit for
    bit as before. New adapters are made as ``config`` says (its ``senses``, unless named here, and
    not its ``llm``). qformer: the folder of a saved model, whose Q-Former they share; else a
    random one of the configuration's shape. encoder_widths: sense -> width of its features, where
    it is not that of the configured encoder. from_pretrained: the folder of a saved attached
    model, whose adapters and fusion are read, those of ``senses`` only where they are named.

    The result is in evaluation mode and trains adapters and fusion only.
    Raises ConfigError for what does not fit together, WeightsError for folders that do not.
    """
    backbone = Vlm(vlm, processor)
    if from_pretrained is not None:
        if config is not None or qformer is not None or encoder_widths is not None:
            raise ConfigError(
                "from_pretrained brings its own configuration, Q-Former and widths; "
                "give either it or those"
            )
        saved = files.from_pretrained(
            from_pretrained, senses=senses, backbone=backbone, kind=Attached
        )
        return cast(Attached, saved)
    if senses is None and config is None:
        raise ConfigError('name the senses: attach(vlm, processor, ["thermal", "audio"])')
    config = config or ModelConfig()
    config = replace(
        config,
        senses=tuple(senses) if senses is not None else config.senses,
        llm=NAME + type(vlm).__name__,
    )
    if qformer is not None:
        config = replace(config, qformer=files.run_of(qformer).model.qformer)
    model = Attached(config, backbone, encoder_widths)
    if qformer is not None:
        files.load_qformer(model, qformer)
    model.to_llm().eval()
    return model


def _check(conversations: Sequence[Conversation]) -> None:
    for i, conversation in enumerate(conversations):
        if isinstance(conversation, Mapping):
            raise DataError("one conversation is given as many: write [messages] for it")
        if not conversation or conversation[-1].get("role") != "user":
            raise DataError(f"conversation {i} does not end with the user's turn")


def _text_of(turn: Mapping[str, Any]) -> str:
    content = turn["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")
