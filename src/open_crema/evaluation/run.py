"""A model over a data set: every sample answered, or counted as skipped by a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from open_crema import modality
from open_crema.config import EvalConfig
from open_crema.data.dataset import UNUSABLE, FeatureDataset
from open_crema.data.sample import Batch, Sample, enter_pairs, normalise
from open_crema.errors import ConfigError, DataError, MediaError, SenseAbsent
from open_crema.evaluation import metrics
from open_crema.evaluation.answer import Said, answer
from open_crema.evaluation.gates import gates
from open_crema.evaluation.result import Evaluation, Prediction, Scores, Skipped
from open_crema.model.crema import UNTRAINED, Crema
from open_crema.tasks import Jsonl, Task

UNANSWERED = "no answer to compare with"


def evaluate(
    model: Crema,
    dataset: FeatureDataset,
    *,
    config: EvalConfig,
    senses: Sequence[str] | None = None,
    train: Sequence[Sample] = (),
    blind: bool = True,
    task: Task | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """The model's answers to a data set, in evaluation mode.

    Samples with options are answered by the likelihood of each, others by generation. A sample
    that has none of the senses is answered from its question alone, so that every subset of
    senses is scored on the same samples; one without an answer to compare with is skipped and
    counted. One with unusable media is skipped and counted, too, or answered without the senses in
    question, or ends the evaluation, as ``config.on_error`` says.

    senses: those that the model is given, by default all of its own. train: the samples whose
    answers make the majority rate. blind: also ask the same model without any sense. task: whose
    lenient score stands beside the strict one, and whose order the types have; by default that of
    one's own questions. progress: called with the number of samples done and of all.

    Raises ConfigError for a sense that the model or the data set does not have, DataError for a
    right option or candidate that is not offered and for pairs that are none, CremaError where
    nothing could be scored, MediaError for unusable media under the policy "error".
    """
    (found,) = evaluate_each(
        model,
        dataset,
        [senses],
        config=config,
        train=train,
        blind=blind,
        task=task,
        progress=progress,
    )
    return found


def evaluate_each(
    model: Crema,
    dataset: FeatureDataset,
    subsets: Sequence[Sequence[str] | None],
    *,
    config: EvalConfig,
    train: Sequence[Sample] = (),
    blind: bool = True,
    task: Task | None = None,
    confident: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, ...]:
    """:func:`evaluate` for several sets of senses at once, in their order, on the same samples.

    Each has the same predictions, to the last bit, as an evaluation of its own; features are read
    and query tokens computed once for all of them. confident: predictions have their confidence,
    too. Raises what :func:`evaluate` does.
    """
    dataset = dataset.masking()
    task = task or Jsonl()
    used = [given_senses(model, dataset, senses) for senses in subsets]
    report = progress or (lambda done, total: None)
    _check(dataset.samples)
    training = model.training
    model.eval()
    try:
        said, skipped = _answer_all(model, dataset, config, used, confident, report)
        kept = [dataset.samples[i] for i in said]
        alone = _blind(model, kept, config) if blind else {}
    finally:
        model.train(training)
    guessed = metrics.majority(kept, train) if train else [None] * len(kept)
    clips = _clips(kept)
    rows = list(zip(kept, said.values(), metrics.chance(kept), guessed, clips, strict=True))
    return tuple(
        Evaluation(
            senses=senses,
            expected=len(dataset),
            predictions=tuple(
                _prediction(task, sample, own[i], alone.get(_asked(sample)), by_chance, usual, clip)
                for sample, own, by_chance, usual, clip in rows
            ),
            skipped=skipped,
            scores=Scores.of(task, kept),
        )
        for i, senses in enumerate(used)
    )


def _check(samples: Sequence[Sample]) -> None:
    """Raises DataError for samples whose score would mean nothing."""
    entered: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        if sample.options and not sample.accepted <= set(sample.options):
            raise DataError(f"sample {sample.id!r}: its answer is not among its options")
        if sample.candidates and not sample.accepted <= sample.left_open:
            raise DataError(f"sample {sample.id!r}: its answer is not among its candidates")
        enter_pairs(sample, entered)


def given_senses(
    model: Crema, dataset: FeatureDataset, senses: Sequence[str] | None
) -> tuple[str, ...]:
    """In canonical order those that are asked for, or all of the model's. Raises ConfigError for
    one that the model or the data set does not have."""
    wanted = model.senses if senses is None else modality.canonical(senses)
    for sense in wanted:
        modality.get(sense)
        for name, has in (("model", model.senses), ("data set", dataset.extractor.senses)):
            if sense not in has:
                raise ConfigError(f"the {name} has no sense {sense!r}; it has {', '.join(has)}")
    return tuple(wanted)


def _answer_all(
    model: Crema,
    dataset: FeatureDataset,
    config: EvalConfig,
    subsets: Sequence[Sequence[str]],
    confident: bool,
    report: Callable[[int, int], None],
) -> tuple[dict[int, list[Said]], tuple[Skipped, ...]]:
    """What was said to each scored sample with each subset of senses, by its place in the data
    set, and the other samples."""
    wanted = {sense for senses in subsets for sense in senses}
    said: dict[int, list[Said]] = {}
    skipped: dict[int, Skipped] = {}
    done = 0
    for places in _places(dataset.samples, config.batch_size):
        for i in places:
            if not dataset.samples[i].answers:
                skipped[i] = _skipped(dataset.samples[i], UNANSWERED, "it names no answer")
        usable = [i for i in places if i not in skipped]
        try:
            batch = dataset.batch(usable)
        except MediaError:
            if config.on_error == "error":
                raise
            for i, sense, failure in _unusable(dataset, usable):
                if config.on_error == "mask":
                    dataset.masked[dataset.samples[i].id, sense] = str(failure.__cause__ or failure)
                elif i not in skipped:
                    skipped[i] = _skipped(dataset.samples[i], UNUSABLE, str(failure))
            usable = [i for i in usable if i not in skipped]
            batch = dataset.batch(usable)
        batch = batch.only(wanted).to(model.backbone.device)
        with torch.no_grad():  # a sense's tokens do not depend on the other senses
            queried = model.query_all(batch)
        said.update({place: [] for place in usable})
        for senses in subsets:
            part = batch.only(senses)
            tokens = {sense: x for sense, x in queried.items() if sense in senses}
            answers = answer(model, part, config, tokens=tokens, confident=confident, letters=True)
            shares = gates(model.fusion, tokens, len(answers))
            for row, (place, one) in enumerate(zip(usable, answers, strict=True)):
                there, absent = _presence(model, dataset, place, part, row, senses)
                one = replace(one, senses=there, absent=absent, gates=shares[row])
                said[place].append(one)
        done += len(places)
        report(done, len(dataset))
    return dict(sorted(said.items())), tuple(skipped[i] for i in sorted(skipped))


def _places(samples: Sequence[Sample], batch_size: int) -> Iterator[list[int]]:
    """Batches of places in the data set; with and without options, never mixed."""
    for choice in (True, False):
        places = [i for i, sample in enumerate(samples) if bool(sample.options) == choice]
        for start in range(0, len(places), batch_size):
            yield places[start : start + batch_size]


def _unusable(
    dataset: FeatureDataset, places: Sequence[int]
) -> Iterator[tuple[int, str, MediaError]]:
    """The samples and senses whose media cannot be used."""
    for i in places:
        for sense in dataset.extractor.senses:
            try:
                dataset.features(i, sense)
            except MediaError as error:
                yield i, sense, error


def _blind(
    model: Crema, samples: Sequence[Sample], config: EvalConfig
) -> dict[tuple[str, ...], str]:
    """What the model says to each distinct question without any sense."""
    distinct = list({_asked(sample): sample for sample in samples}.values())
    said = {}
    for places in _places(distinct, config.batch_size):
        batch = Batch(tuple(distinct[i] for i in places))
        for sample, found in zip(batch.samples, answer(model, batch, config), strict=True):
            said[_asked(sample)] = found.text
    return said


def _asked(sample: Sample) -> tuple[str, ...]:
    return (sample.question, *sample.options)


def _presence(
    model: Crema, dataset: FeatureDataset, place: int, batch: Batch, row: int, senses: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The senses that a sample of the batch has, and why it does not have the others."""
    absent = dict.fromkeys((s for s in senses if s in model.untrained), UNTRAINED)
    given = [s for s in senses if s in batch.senses and bool(batch.senses[s].present[row])]
    there = [s for s in given if s not in absent]
    for sense in senses:
        if sense not in given and sense not in absent:
            found = dataset.features(place, sense)
            assert isinstance(found, SenseAbsent)
            absent[sense] = found.reason
    return tuple(there), absent


def _skipped(sample: Sample, reason: str, detail: str) -> Skipped:
    return Skipped(sample.id, sample.type, sample.question, reason, detail, sample.pairs)


def _clips(samples: Sequence[Sample]) -> list[int]:
    """For each sample which clip it is about, by number in the order in which they come."""
    numbers: dict[object, int] = {}
    names = [sample.clip or tuple(sorted(sample.media.items())) for sample in samples]
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _prediction(
    task: Task,
    sample: Sample,
    said: Said,
    blind: str | None,
    chance: float,
    majority: bool | None,
    clip: int,
) -> Prediction:
    lenient: bool | None = task.lenient(sample, said.text)
    if sample.options:
        lenient = None if said.letter is None else said.letter in sample.answers
    outside = bool(sample.candidates) and normalise(said.text) not in sample.left_open
    return Prediction(
        id=sample.id,
        type=sample.type,
        question=sample.question,
        answers=sample.answers,
        prediction=said.text,
        correct=metrics.is_correct(sample, said.text),
        lenient=lenient,
        options=sample.options,
        probabilities=said.probabilities,
        letter=said.letter,
        confidence=said.confidence,
        senses=said.senses,
        absent=said.absent,
        blind=blind,
        blind_correct=None if blind is None else metrics.is_correct(sample, blind),
        chance=chance,
        majority=majority,
        needs=sample.needs,
        pairs=sample.pairs,
        gates=said.gates,
        outside=outside,
        clip=clip,
    )
