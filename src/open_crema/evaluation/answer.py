"""How a batch is answered: options by their likelihood, open-ended questions by generation.

Evaluation and the predictor share this, so that a score is about what a user gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from open_crema.config import EvalConfig
from open_crema.data.sample import Batch
from open_crema.evaluation.gates import Gates
from open_crema.evaluation.metrics import choose
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens


@dataclass(frozen=True)
class Said:
    """An answer. probabilities: of the options, in their order; empty for an open-ended question.
    letter: the option that the released code's way takes (None where nobody asked for it, or the
    LLM has no tokens for letters).

    confidence: what early exit at inference goes by: the probability of the answer among the
    options or, for an open-ended question, of all its tokens (None where nobody asked for it).
    senses: those that the sample was given; absent: why it was not given the others. gates: as of
    :func:`~open_crema.evaluation.gates.gates`.
    """

    text: str
    probabilities: tuple[float, ...] = ()
    letter: str | None = None
    confidence: float | None = None
    senses: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    gates: Gates = field(default_factory=dict)


def answer(
    model: Crema,
    batch: Batch,
    config: EvalConfig,
    *,
    tokens: Mapping[str, QueryTokens] | None = None,
    confident: bool = False,
    letters: bool = False,
) -> list[Said]:
    """What the model says to each sample; all of them have options, or none has.

    tokens: the batch's query tokens where they are known, instead of its senses. confident: also
    how sure each answer is, which takes a second pass of the LLM for open-ended questions. letters:
    also what the released code's way would choose, which takes another for options.

    Raises CremaError where likelihoods are not numbers.
    """
    if not len(batch):
        return []
    batch = batch.to(model.backbone.device)
    if batch.samples[0].options:
        scores = model.score(batch, tokens=tokens)
        chosen = model.letters(batch, tokens=tokens) if letters else None
        lettered: Sequence[int | None] = chosen or [None] * len(batch)
        probabilities = scores.probabilities().tolist()
        rows = zip(batch.samples, choose(scores), probabilities, lettered, strict=True)
        return [
            Said(
                s.options[best],
                tuple(p[: len(s.options)]),
                None if letter is None else s.options[letter],
                p[best] if confident else None,
            )
            for s, best, p, letter in rows
        ]
    texts = model.generate(
        batch,
        tokens=tokens,
        max_new_tokens=config.max_new_tokens,
        beams=config.beams,
        length_penalty=config.length_penalty,
    ).texts
    if not confident:
        return [Said(text) for text in texts]
    pairs = zip(batch.samples, texts, strict=True)
    alone = replace(batch, samples=tuple(replace(s, options=(text,)) for s, text in pairs))
    scores = model.score(alone, tokens=tokens)
    choose(scores)  # refuses what is not a number
    likely = scores.log_likelihood[:, 0].exp().tolist()
    return [Said(text, confidence=p) for text, p in zip(texts, likely, strict=True)]
