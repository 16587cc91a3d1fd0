"""One configuration, run: build the model, read the data, train, evaluate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from open_crema import backbones, processes, progress, tasks, weights
from open_crema import config as configuration
from open_crema.config import Config
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Extractor
from open_crema.data.extraction import extract_all
from open_crema.data.report import Policy, Report
from open_crema.data.sample import Sample
from open_crema.errors import ConfigError, DataError, MediaError
from open_crema.evaluation import dropout, result
from open_crema.evaluation.beside import beside
from open_crema.evaluation.difficulty import split as split_by_difficulty
from open_crema.evaluation.exit_curve import ExitCurve, exit_curve, prices, write_curve
from open_crema.evaluation.report import curves
from open_crema.evaluation.result import Evaluation, Training
from open_crema.evaluation.run import evaluate, evaluate_each, given_senses
from open_crema.evaluation.subsets import choose_subsets, unique, write_subsets
from open_crema.model.crema import Crema
from open_crema.model.files import RUN, from_pretrained, run_of, save_pretrained
from open_crema.model.prompt import reference_takes
from open_crema.sense_costs import measured_here
from open_crema.training import checkpoint
from open_crema.training.folder import RunFolder, check_out
from open_crema.training.loop import Trainer
from open_crema.training.scope import new_senses

logger = logging.getLogger(__name__)


def build_model(config: Config) -> Crema:
    """A fresh model, or the one of ``train.init`` with whatever senses it does not have yet.

    A model whose senses are concatenated has no fusion that could be lost, so the configuration may
    name any: it is then trained from its start. Another prompt or alignment is the configuration's,
    with a warning.

    Raises ConfigError where the saved model's shape is not the configuration's, or where the run
    would replace it.
    """
    # The seed is set after loading, which draws random numbers or not, as the LLM has it.
    if config.train.init is None:
        llm = backbones.of(config.model)
        torch.manual_seed(config.seed)
        return Crema(config.model, llm).to_llm()
    if Path(config.train.init).resolve() == (Path(config.out) / "model").resolve():
        raise ConfigError(
            f"train.init {config.train.init} is what this run would replace: choose another `out`"
        )
    model = from_pretrained(config.train.init, held=config.model)
    torch.manual_seed(config.seed)
    if (config.model.qformer.own, model.config.qformer.own) == ("each", "shared"):
        model.own_qformers()
    for sense in config.model.senses:
        if sense not in model.senses:
            projected = sense in config.model.input_projection
            model.add_sense(sense, like=config.train.like, projected=projected)
    for sense in model.senses:
        if sense not in config.model.senses:
            model.remove_sense(sense)
    model.config = replace(model.config, senses=config.model.senses)
    theirs, ours = (set(c.input_projection) & set(c.senses) for c in (model.config, config.model))
    if theirs == ours:  # in any order, whatever is said of other senses
        model.config = replace(model.config, input_projection=config.model.input_projection)
    _change_prompt(model, config)
    if model.config.fusion.kind == "concat" and model.config.fusion != config.model.fusion:
        model.change_fusion(config.model.fusion)
        if config.train.scope == "own" and model.fusion.merges:
            raise ConfigError(
                f"train.init {config.train.init} concatenates its senses: a fusion of kind "
                f"{config.model.fusion.kind} is new to all of them; use train.scope=all"
            )
    differ = [
        f"model.{f.name}"
        for f in fields(config.model)
        if getattr(model.config, f.name) != getattr(config.model, f.name)
    ]
    if differ:
        raise ConfigError(
            f"train.init {config.train.init}: its {', '.join(differ)} differ from this "
            "configuration's; give both the same `model` section"
        )
    return model


def _change_prompt(model: Crema, config: Config) -> None:
    changed = [
        f"model.{part}"
        for part in ("prompt", "align")
        if getattr(model.config, part) != getattr(config.model, part)
    ]
    if changed:
        logger.warning(
            "train.init %s was made with another %s; it goes on with this configuration's",
            config.train.init,
            " and ".join(changed),
        )
        model.change_prompt(config.model.prompt, config.model.align)


def read_samples(config: Config, split: str) -> list[Sample]:
    """The questions of a split. Raises ConfigError where the configuration names no file for it."""
    path = getattr(config.data, split)
    if path is None:
        raise ConfigError(f"data.{split} is not set; give it, as in data.{split}=FILE.jsonl")
    return tasks.load(
        config.data.task,
        path,
        media_root=config.data.media_root,
        options=config.data.options,
        split=split,
    )


def check_held_out(config: Config) -> None:
    """Raises ConfigError where validation and test are the same questions under two names."""
    data = config.data
    if data.validation is None or data.test is None:
        return
    one, other = Path(data.validation), Path(data.test)
    both = one.is_file() and other.is_file()
    if both and tasks.digest(data.task, one) == tasks.digest(data.task, other):
        raise ConfigError(
            f"data.validation {one} has the same content as data.test {other}: a model that is "
            "chosen by the test answers has no test score; give other questions, or none"
        )


def read_data(config: Config, samples: Sequence[Sample]) -> FeatureDataset:
    """Questions with their features, which are extracted now where the store lacks them.

    Files that cannot be used are treated, and named in the log, as ``data.on_error`` says. Raises
    MediaError at the first under "error", DataError where no question has any of the model's
    senses.
    """
    extractor = Extractor.from_config(config)
    policy = config.data.on_error
    report = _extract(config, extractor, samples, "data.on_error", policy)
    for sense, tally in report.senses.items():
        for reason, ids in tally.absent.items():
            logger.info("%d of %d questions without %s: %s", len(ids), len(samples), sense, reason)
    if report.skipped:
        logger.warning("%d of %d questions are left out", len(report.skipped), len(samples))
    if samples and not report.usable:
        why = [f"{s}: {', '.join(tally.absent)}" for s, tally in report.senses.items()]
        why = [str(failure) for failure in report.failures[:1]] or why
        raise DataError(
            f"none of {len(samples)} questions has any sense of the model ({'; '.join(why)})"
        )
    return FeatureDataset(
        samples,
        extractor,
        frames=config.data.frames,
        failed=report.failed,
        on_error=policy,
    )


def _extract(
    config: Config, extractor: Extractor, samples: Sequence[Sample], key: str, policy: Policy
) -> Report:
    """Fills the store; names each file that cannot be used, and the key that says what then."""
    try:
        report = extract_all(extractor, samples, on_error=policy, workers=config.data.workers)
    except MediaError as error:
        raise MediaError(
            f"{error}; repair it, or go on without it by {key}=skip or {key}=mask"
        ) from error
    for failure in report.failures:
        logger.warning("%s=%s: %s", key, policy, failure)
    return report


def train(config: Config, *, fresh: bool = False) -> Path:
    """Trains as configured (or continues a run that was cut off); returns the model's folder.

    Files go to ``config.out``: see :class:`~open_crema.training.loop.Trainer`, and ``curves.png``.
    A run of no epochs saves the model as it starts, for zero-shot evaluation; it needs no data.
    Several processes (:mod:`open_crema.processes`) share features to extract, questions and
    validation.
    """
    check_out(config.out)
    _check_devices(config)
    if config.data.train is None and not _epochs(config):
        return _save_as_it_starts(config, fresh=fresh)
    check_held_out(config)
    samples = read_samples(config, "train")
    held_out = read_samples(config, "validation") if config.data.validation else None
    model = build_model(config)  # before hours of extraction: what does not fit is said now
    if config.train.scope == "own":
        new_senses(model)
    data = read_data(config, samples)
    validation = None if held_out is None else read_data(config, held_out)

    def validate(model: Crema) -> Mapping[str, float]:
        assert validation is not None
        task = tasks.get(config.data.task, config.data.options)
        own = validation.shared(processes.rank(), processes.count())
        right = n = 0
        # A share in which no question has an answer is no fault where others have some.
        if processes.count() == 1 or any(sample.answers for sample in own.samples):
            found = evaluate(model, own, config=config.eval, blind=False, task=task).overall
            right, n = found.correct, found.n
        right_in_all, in_all = processes.total([right, n])
        return {"accuracy": right_in_all / in_all if in_all else 0.0, "n": int(in_all)}

    trainer = Trainer(model, config, data, config.out, validate=validate if held_out else None)
    folder = trainer.run(fresh=fresh)
    log = Path(config.out) / "log.jsonl"
    if log.exists() and processes.rank() == 0:  # a run of no epochs has none
        curves(log, log.with_name("curves.png"))
    return folder


def _check_devices(config: Config) -> None:
    """Raises ConfigError where several processes would share a device that is meant for one."""
    own = (None, "cpu", "cuda")
    given = {
        "model.loading.device_map": config.model.loading.device_map,
        "model.encoders.device": config.model.encoders.device,
    }
    for key, device in given.items():
        if processes.count() > 1 and device not in own:
            raise ConfigError(
                f"{key}={device}: of {processes.count()} processes each needs a device of its own; "
                "give cuda, which is each one's own GPU"
            )


def _epochs(config: Config) -> int:
    return config.train.epochs + config.train.alignment.epochs


def _save_as_it_starts(config: Config, *, fresh: bool) -> Path:
    model, folder = build_model(config), RunFolder(config.out)
    with folder.alone():
        if fresh:
            folder.discard()
        processes.wait()
        if checkpoint.latest(folder.checkpoints) is not None:
            raise ConfigError(
                f"{config.out}: holds a run, which an untrained model would replace; choose "
                "another `out` or start again with --fresh"
            )
        if folder.writes:
            save_pretrained(model, folder.model, run=config)
        processes.wait()
    return folder.model


@dataclass(frozen=True)
class Results:
    """evaluation: with all senses that were asked for; drop_one: without one each. more: what
    ``results.json`` has besides."""

    evaluation: Evaluation
    drop_one: tuple[Evaluation, ...]
    more: Mapping[str, Any]


def evaluate_split(
    config: Config,
    model_folder: str | Path,
    *,
    split: str = "test",
    senses: Sequence[str] | None = None,
    drop_one: bool = False,
    difficulty: str | Path | None = None,
    out: str | Path,
) -> Results:
    """Scores a saved model on a split and writes ``results.json`` and ``predictions.jsonl``.

    drop_one: also without each of its senses, into ``drop-one/``. difficulty: results by which
    questions are easy or hard (:mod:`open_crema.evaluation.difficulty`). Beside them stands what
    the paper has for the task. Raises what :func:`~open_crema.evaluation.run.evaluate` does.
    """
    config, model, data, seen, training = _to_evaluate(config, model_folder, split)
    given = given_senses(model, data, senses)
    wanted = [given]
    if drop_one and len(given) > 1:
        free = model.config.prompt.layout != "reference"
        fewer = choose_subsets("drop-one", given)[1:]
        wanted += [senses for senses in fewer if free or reference_takes(senses)]
    task = tasks.get(config.data.task, config.data.options)
    _fill_store(config, data)
    with progress.bar() as bar:
        shown = bar.add_task("evaluating", total=len(data), note="")
        every = evaluate_each(
            model,
            data,
            wanted,
            config=config.eval,
            train=seen,
            task=task,
            progress=lambda done, _: bar.update(shown, completed=done),
        )
    found, *others = (replace(one, training=training) for one in every)
    more: dict[str, Any] = {}
    if others:
        lost = [set(given).difference(one.senses).pop() for one in others]
        rows = zip(lost, others, strict=True)
        more["drop_one"] = {sense: one.summary() for sense, one in rows}
    if (published := beside(task, data.samples, found)) is not None:
        more["published"] = published
    if difficulty is not None:
        more["difficulty"] = split_by_difficulty(found, difficulty)
    file = getattr(config.data, split)
    if others:
        place = Path(out) / "drop-one"
        write_subsets(others, place, config=config, model=model, data=file)
    result.write(found, out, config=config, model=model, data=file, more=more)
    return Results(found, tuple(others), more)


def evaluate_subsets(
    config: Config,
    model_folder: str | Path,
    *,
    subsets: str | None = None,
    curve: bool = False,
    split: str = "test",
    senses: Sequence[str] | None = None,
    out: str | Path,
) -> tuple[tuple[Evaluation, ...], ExitCurve | None]:
    """Scores a saved model on several sets of its senses in one pass over a split.

    subsets: as :func:`~open_crema.evaluation.subsets.choose_subsets` has them, of all the model's
    senses or of the given ones. curve: also of every prefix of the senses in the order of their
    cost, for the curve of early exit. Writes a results folder a subset and ``subsets.json``, and
    ``exit_curve.json`` with a picture of it, below ``out``; where every subset of the senses is
    among them, also the curves of their loss (:mod:`open_crema.evaluation.dropout`). Raises what
    :func:`evaluate_split` does, and ConfigError for subsets that there are not.
    """
    config, model, data, seen, training = _to_evaluate(config, model_folder, split)
    given = given_senses(model, data, senses)
    chosen = [] if subsets is None else choose_subsets(subsets, given)
    paid = None
    if curve:
        trained = [sense for sense in given if sense not in model.untrained]
        paid = prices(data, trained, measured_here())
        chosen = unique([*chosen, *paid.subsets])
    _fill_store(config, data)  # after what was asked for is known to make sense
    with progress.bar() as bar:
        task = bar.add_task(f"evaluating {len(chosen)} subsets", total=len(data), note="")
        found = evaluate_each(
            model,
            data,
            chosen,
            config=config.eval,
            train=seen,
            task=tasks.get(config.data.task, config.data.options),
            confident=curve,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    found = tuple(replace(one, training=training) for one in found)
    write_subsets(found, out, config=config, model=model, data=getattr(config.data, split))
    if (lost := dropout.dropout(found)) is not None:
        dropout.write(lost, out)
    if paid is None:
        return found, None
    drawn = exit_curve(found, paid)
    write_curve(drawn, out)
    return found, drawn


def _to_evaluate(
    config: Config, model_folder: str | Path, split: str
) -> tuple[Config, Crema, FeatureDataset, list[Sample], Training]:
    """The configuration with the saved model's own section, that model, the split whose features
    are to be made, the training samples, and how the model came to be."""
    samples = read_samples(config, split)
    # The training file only makes the majority rate; a model may have come without it.
    seen = read_samples(config, "train") if _exists(config.data.train) else []
    model = from_pretrained(model_folder, held=config.model)
    fresh = model.untrained if config.eval.untrained == "use" else []
    for sense in fresh:
        model.adapter(sense).fresh.fill_(False)
    training = _training_of(Path(model_folder), config.data.train, fresh)
    config = replace(config, model=model.config)
    data = FeatureDataset(samples, Extractor.from_config(config), frames=config.data.frames)
    return config, model, data, seen, training


def _exists(path: str | None) -> bool:
    return path is not None and Path(path).exists()


def _training_of(folder: Path, data: str | None, fresh: Sequence[str]) -> Training:
    run, untrained = _recorded(folder), tuple(fresh)
    if run is None:
        return Training(None, None, None, None, untrained)
    epochs, of = _epochs(run), run.data.train
    same = None not in (data, of) and Path(data or "").resolve() == Path(of or "").resolve()
    of = of if epochs else None
    return Training(epochs, of, run.train.init, not (epochs and same), untrained)


def _recorded(folder: Path) -> Config | None:
    """The run that trained a saved model; if that had no epochs, the one that trained what it
    started from. Where nothing was trained, the run without epochs, or None."""
    if not (folder / RUN).exists():
        return None
    run = run_of(folder)
    if _epochs(run):  # without data: a configuration that was kept by a conversion or other code
        return run if run.data.train is not None else None
    before = None if run.train.init is None else _recorded(Path(run.train.init))
    return before or run


def _fill_store(config: Config, data: FeatureDataset) -> None:
    """Media that cannot be used are found, counted and treated again where each is scored."""
    answered = [sample for sample in data.samples if sample.answers]
    _extract(config, data.extractor, answered, "eval.on_error", config.eval.on_error)


def load_run(
    path: str | Path, overrides: Sequence[str] = (), overlays: Sequence[Path] = ()
) -> tuple[Config, Path]:
    """The configuration and model folder behind a YAML file or a saved model.

    Raises ConfigError where there is neither.
    """
    path = Path(path)
    if not path.is_dir():
        config = configuration.load(path, overrides, overlays=overlays)
        return config, Path(config.out) / "model"
    if overlays:
        raise ConfigError(f"{path}: an overlay goes over a YAML file, not over a saved model")
    return configuration.override(run_of(path), overrides), path


def default_model() -> Path:
    """Where ``crema ask`` looks when no model is named: one of the user's own, else the base."""
    own = weights.home() / "models" / "default"
    return own if own.exists() else shipped_base()


def shipped_base() -> Path:
    """The folder of the base that ships with this package (docs/model-card.md)."""
    return Path(str(files("open_crema") / "assets" / "base"))
