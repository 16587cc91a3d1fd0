"""A saved model as a model of lmms-eval: ``--model open_crema --model_args pretrained=FOLDER``.

The harness finds the class by the entry point ``lmms_eval.models``. Without it this module can be
imported all the same; making a model then says what to install.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any, Never

import torch

from open_crema import progress
from open_crema.config import EvalConfig
from open_crema.errors import ConfigError, MediaError, did_you_mean
from open_crema.harness.answering import Answering, Asked

logger = logging.getLogger(__name__)

_ARGUMENTS = ("pretrained", "senses", "batch_size", "device", "store")
_MISSING: ImportError | None = None

try:
    from lmms_eval.api.model import lmms as _Base
except ImportError as error:
    _MISSING = error

    class _Base:  # type: ignore[no-redef]
        """In the place of the harness's own class where that cannot be imported."""


class OpenCrema(_Base):  # type: ignore[misc]
    """Answers the harness's requests with a saved model.

    pretrained: model folder, or user/name on the hub; default: what ``crema ask`` takes. senses:
    as in ``video+audio``, those of the model's that it is given; default: all. batch_size: a
    number, or "auto" for that of the model's configuration. device: as "cuda"; under several
    processes each takes the one of its rank. store: folder of features that are kept between runs.

    Prompts are read as the task writes them, without a word added. Requests for likelihoods get the
    mean *loss* per token, the lower the likelier, as the harness's own models give it and its
    multiple-choice tasks read it (they take the least); its documentation says log-likelihood.

    Raises ConfigError for other arguments, and where lmms-eval is not installed; WeightsError for
    what is no model.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        senses: str | Sequence[str] | None = None,
        batch_size: int | str | None = None,
        device: str | None = None,
        store: str | None = None,
        max_batch_size: int | None = None,
        **others: Any,
    ) -> None:
        if _MISSING is not None:
            raise ConfigError(
                f"lmms-eval cannot be imported ({_MISSING}): pip install 'open-crema[lmms-eval]'"
            ) from _MISSING
        for name in others:
            hint = did_you_mean(name, _ARGUMENTS)
            raise ConfigError(f"model_args {name}: {hint}known: {', '.join(_ARGUMENTS)}")
        super().__init__()
        self.answering = Answering(
            pretrained,
            senses=_senses(senses),
            batch_size=_batch_size(batch_size),
            device=_device(device),
            store=store,
        )
        self._warned: set[str] = set()

    @property
    def batch_size(self) -> int:
        return self.answering.batch_size

    @property
    def device(self) -> torch.device:
        """Where the harness puts what its processes tell each other."""
        return self.answering.model.backbone.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each request ``(context, generation_kwargs, doc_to_visual, doc_id, task,
        split)``, cut at the first of its stop texts."""
        said = [""] * len(requests)
        searches: dict[EvalConfig, list[int]] = {}
        for place, request in enumerate(requests):
            searches.setdefault(self._search(request.args[1] or {}), []).append(place)
        with self._counted(len(requests), "answering") as done:
            for search, places in searches.items():
                asked = [self._asked(*_generation(requests[i])) for i in places]
                texts = self.answering.generate(asked, search, done=done)
                for place, text in zip(places, texts, strict=True):
                    said[place] = _cut(text, (requests[place].args[1] or {}).get("until"))
        return said

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """For each request ``(context, continuation, doc_to_visual, doc_id, task, split)`` the mean
        loss of the continuation and whether a greedy search would give it, as a pair (in a
        GenerationResult where the harness would make a text of a pair). Neighbours that differ in
        the continuation alone, as the options of a question do, are read once."""
        asked, sizes = [], 0
        for _, group in groupby(requests, key=_context):
            own = list(group)
            options = tuple(self._continuation(request) for request in own)
            asked.append(self._asked(*_likelihood(own[0]), options=options))
            sizes += len(own)
        assert sizes == len(requests)
        with self._counted(len(asked), "scoring options") as done:
            found = self.answering.losses(asked, done=done)
        return [_kept((loss.mean, loss.greedy)) for losses in found for loss in losses]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> Never:
        """Raises ConfigError: a model answers one question about its media, without a dialogue."""
        raise ConfigError(
            "open_crema answers single questions: tasks of output_type generate_until_multi_round "
            "are not for it; choose one of generate_until or multiple_choice"
        )

    def _asked(
        self,
        context: str,
        doc_to_visual: Callable[[Any], Any] | None,
        where: tuple[Any, str, str] | None,
        options: tuple[str, ...] = (),
    ) -> Asked:
        if doc_to_visual is None or where is None:  # a text alone
            return Asked(context[:40], context, lambda: None, options)
        doc_id, task, split = where
        name = f"{task}/{split}/{doc_id}"

        def visuals() -> Any:
            try:
                return doc_to_visual(self.task_dict[task][split][doc_id])
            except OSError as error:
                raise MediaError(f"{name}: its visuals cannot be had ({error})") from error

        return Asked(name, context, visuals, options)

    def _continuation(self, request: Any) -> str:
        """Without the space before it: the LLM's own way to begin an answer stands there."""
        given = request.args[1]
        if callable(given):
            doc_id, task, split = request.args[3:6]
            given = given(self.task_dict[task][split][doc_id])
        text = str(given).strip()
        if not text:
            raise ConfigError(f"an empty continuation of {request.args[0][:40]!r} has no loss")
        return text

    def _search(self, asked: Mapping[str, Any]) -> EvalConfig:
        """How answers are searched: as the task asks, and else as the model's configuration has
        it."""
        config, changes = self.answering.config, dict[str, Any]()
        names = {"max_new_tokens": "max_new_tokens", "num_beams": "beams"}
        for theirs, ours in names.items():
            if asked.get(theirs) is not None:
                changes[ours] = int(asked[theirs])
        if asked.get("length_penalty") is not None:
            changes["length_penalty"] = float(asked["length_penalty"])
        if asked.get("do_sample") and float(asked.get("temperature") or 0) > 0:
            self._warn("the task asks for sampled answers; open_crema always gives the likeliest")
        return replace(config, **changes)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text)

    @contextmanager
    def _counted(self, total: int, text: str) -> Iterator[Callable[[int], None]]:
        """A bar on the first rank; after it, what was absent from the media."""
        counts = self.answering
        counts.asked, counts.blind = 0, 0
        counts.absent.clear()
        with progress.bar() as bar:
            task = bar.add_task(text, total=total, note="", visible=self.rank == 0)
            yield lambda count: bar.advance(task, count)
        for sense, reasons in counts.absent.items():
            for reason, count in reasons.items():
                logger.warning("without %s: %d of %d: %s", sense, count, counts.asked, reason)
        if counts.blind:
            logger.warning(
                "%d of %d questions have media, and none of the model's senses in them: they were "
                "answered from the question alone",
                counts.blind,
                counts.asked,
            )


_Where = tuple[Any, str, str] | None


def _generation(request: Any) -> tuple[str, Any, _Where]:
    context, _, doc_to_visual, doc_id, task, split = request.args
    return context, doc_to_visual, (doc_id, task, split)


def _likelihood(request: Any) -> tuple[str, Any, _Where]:
    """Requests for a likelihood without any media have two arguments."""
    if len(request.args) == 2:
        return request.args[0], None, None
    context, _, doc_to_visual, doc_id, task, split = request.args
    return context, doc_to_visual, (doc_id, task, split)


def _kept(pair: tuple[float, bool]) -> Any:
    """In a form that reaches the task as it is: lmms-eval 0.7.3 makes a text of a pair of numbers
    and leaves alone what a GenerationResult holds."""
    try:
        from lmms_eval.api.instance import GenerationResult, unwrap_generation_output
    except ImportError:  # before there was one, pairs were left alone
        return pair
    return pair if unwrap_generation_output(pair)[0] == pair else GenerationResult(pair)


def _context(request: Any) -> tuple[Any, ...]:
    return (request.args[0], *request.args[3:6])


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    for stop in [until] if isinstance(until, str) else until or ():
        if stop:
            text = text.split(stop)[0]
    return text


def _senses(given: str | Sequence[str] | None) -> list[str] | None:
    if given is None:
        return None
    names = given.split("+") if isinstance(given, str) else list(given)
    names = [name.strip() for name in names]
    if not all(names):
        raise ConfigError(f"model_args senses={given}: write names with + between, as video+audio")
    return names


def _batch_size(given: int | str | None) -> int | None:
    if given is None or str(given).startswith("auto"):
        return None
    if not str(given).isdigit() or int(given) < 1:
        raise ConfigError(f"batch_size {given}: give a number of at least 1, or auto")
    return int(given)


def _device(given: str | None) -> str | None:
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if given == "cuda" and rank is not None else given
