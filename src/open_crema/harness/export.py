"""A task's questions as a folder that lmms-eval takes by ``--include_path``.

::

    NAME.yaml                    the group of the tasks below: --tasks NAME
    NAME_open.yaml, open.jsonl   questions without options, generated
    NAME_options.yaml, options.jsonl    those with options, by likelihood
    NAME_options_generated.yaml  the same, by what a model writes
    utils.py, normal.py, lenience.py    prompts, media, scores; they need nothing of ours
    README.md                    the commands
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml

from open_crema import __version__
from open_crema.data import normal
from open_crema.data.sample import UNTIMED, Sample
from open_crema.errors import ConfigError, DataError
from open_crema.harness import NAME as MODEL
from open_crema.storage import replacing
from open_crema.tasks import Task, lenience

_RULES = {lenience.CONTAINED: "contained", lenience.PART_OF: "part_of"}
_UTILS = "utils.py"
_README = "README.md"
_MARK = "Written by open-crema"


@dataclass(frozen=True)
class Exported:
    """counts: of questions by task of the harness. unanswered: those left out, as they name no
    answer to compare with. missing: media files that are not there now."""

    name: str
    counts: Mapping[str, int]
    unanswered: int
    missing: Sequence[str]


@dataclass(frozen=True)
class _Part:
    """A task of the harness: its questions, its file of them, and how it is scored."""

    suffix: str
    data: str
    samples: Sequence[Sample]
    process: str
    scores: Sequence[str]
    output: str
    says: str


def export(
    task: Task,
    folder: str | Path,
    data: str | Path,
    *,
    media: str | Path | None = None,
    split: str | None = None,
    name: str | None = None,
) -> Exported:
    """Writes a task's questions and replaces what an earlier export left in the folder.

    data, media: as of :meth:`~open_crema.tasks.Task.load`. split: of a folder of files ("train",
    "val", "test"). name: of the tasks in the harness; default: crema_ and the task's.

    Raises DataError for a broken file, or where no question names its answer; ConfigError for a
    name that is none, or a folder that holds other things.
    """
    folder, name = Path(folder), name or f"crema_{task.name}"
    if not name.replace("_", "").isalnum() or not name.isascii():
        raise ConfigError(f"name {name!r}: use letters, digits and '_'")
    _check_replaceable(folder)
    data = Path(data)
    samples = task.load(data, media_root=media, split=split)
    kept = [sample for sample in samples if sample.answers]
    if not kept:
        raise DataError(f"{data}: none of its {len(samples)} questions names an answer to score by")
    root = Path(media or (data if data.is_dir() else data.parent)).absolute()
    parts = _parts(kept, _RULES.get(task.lenience))
    with replacing(folder) as new:
        for part in parts:
            lines = [json.dumps(_line(sample, root), ensure_ascii=False) for sample in part.samples]
            (new / part.data).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            _write_yaml(new / f"{name}_{part.suffix}.yaml", _task(name, part, new / part.data))
        main = [f"{name}_{part.suffix}" for part in parts if part.suffix != _GENERATED]
        _write_yaml(new / f"{name}.yaml", {"group": name, "task": main})
        for module in (normal, lenience):
            shutil.copyfile(str(module.__file__), new / Path(str(module.__file__)).name)
        values = {"version": __version__, "media": repr(str(root))}
        rule = _RULES.get(task.lenience)
        _fill(new / _UTILS, {**values, "lenient": repr(rule)})
        counts = {f"{name}_{part.suffix}": len(part.samples) for part in parts}
        _fill(new / _README, {**values, **_told(task, name, data, root, parts, counts)})
    paths = sorted({path for sample in kept for path in sample.media.values()})
    missing = [path for path in paths if not os.path.exists(path)]
    return Exported(name, counts, len(samples) - len(kept), missing)


_GENERATED = "options_generated"


def _parts(samples: Sequence[Sample], rule: str | None) -> list[_Part]:
    plain = [sample for sample in samples if not sample.options]
    choice = [sample for sample in samples if sample.options]
    parts = []
    if plain:
        scores = ("exact_match", "lenient") if rule else ("exact_match",)
        says = "`exact_match`, normalised" + (
            "; `lenient`, as the released code has it" if rule else ""
        )
        parts.append(
            _Part("open", "open.jsonl", plain, "process_open", scores, "generate_until", says)
        )
    if choice:
        parts += [
            _Part(
                "options",
                "options.jsonl",
                choice,
                "process_options",
                ("acc",),
                "multiple_choice",
                "`acc` of the option of the least loss per token; for models that give likelihoods",
            ),
            _Part(
                _GENERATED,
                "options.jsonl",
                choice,
                "process_generated",
                ("acc", "lenient"),
                "generate_until",
                "`acc` of replies that name an option and nothing else; `lenient`: also by a "
                "letter at the beginning; for models that generate alone",
            ),
        ]
    return parts


def _line(sample: Sample, root: Path) -> dict[str, Any]:
    """Every line has every field in one type: the harness's reader infers a table."""
    media = []
    for sense, path in sample.media.items():
        timing = sample.timing.get(sense, UNTIMED)
        place = Path(path).absolute()
        media.append(
            {
                "sense": sense,
                "path": str(place.relative_to(root) if place.is_relative_to(root) else place),
                "rate": float(timing.rate or 0),  # 0: not stated
                "start": float(timing.start),
            }
        )
    line = {
        "id": sample.id,
        "type": _type(sample),
        "clip": sample.clip or _digest(json.dumps(media, sort_keys=True).encode())[:16],
        "question": sample.question,
        "answers": list(sample.answers),
        "media": media,
    }
    if sample.options:
        line |= {"options": list(sample.options), "said": list(sample.spoken or sample.options)}
    return line


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _type(sample: Sample) -> str:
    return sample.type.replace(",", ";")  # the harness joins names of scores and filters by commas


def _task(name: str, part: _Part, data: Path) -> dict[str, Any]:
    types = dict.fromkeys(_type(sample) for sample in part.samples if sample.type)
    scores = [score for own in part.scores for score in (own, *(f"{own}_{t}" for t in types))]
    content: dict[str, Any] = {
        "task": f"{name}_{part.suffix}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": part.data}},
        "test_split": "test",
        "output_type": part.output,
        "doc_to_visual": _Function("doc_to_visual"),
        "doc_to_text": _Function("doc_to_text"),
        "doc_to_target": _Function("doc_to_target"),
    }
    if part.output == "multiple_choice":
        content["doc_to_choice"] = _Function("doc_to_choice")
    else:
        # No stop text and no length: a model's own configuration says how it answers.
        content["generation_kwargs"] = {"until": [], "do_sample": False}
    return content | {
        "process_results": _Function(part.process),
        "metric_list": [
            {"metric": score, "aggregation": _Function("mean"), "higher_is_better": True}
            for score in scores
        ],
        "cluster_key": "clip",
        "lmms_eval_specific_kwargs": {"default": {"senses": "paths"}, MODEL: {"senses": "own"}},
        "metadata": {
            "version": 1,
            "open_crema": __version__,
            "data_sha256": _digest(data.read_bytes()),
        },
    }


@dataclass(frozen=True)
class _Function:
    """Of utils.py, as the harness's YAML names one."""

    name: str


class _Dumper(yaml.SafeDumper):
    """Writes functions, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    _Function,
    lambda dumper, function: dumper.represent_scalar("!function", f"utils.{function.name}"),
)


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    text = yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def _fill(path: Path, values: Mapping[str, str]) -> None:
    place = files("open_crema") / "templates" / "lmms-eval" / f"{path.name}.tmpl"
    text = Template(place.read_text(encoding="utf-8")).substitute(values)
    path.write_text(text, encoding="utf-8")


def _told(
    task: Task,
    name: str,
    data: Path,
    root: Path,
    parts: Iterable[_Part],
    counts: Mapping[str, int],
) -> dict[str, str]:
    """What the README says."""
    rows = [f"| `{name}_{part.suffix}` | {part.says} |\n" for part in parts]
    listed = ", ".join(f"{count} questions in `{own}`" for own, count in counts.items())
    return {
        "title": task.title[:1].upper() + task.title[1:],
        "licence": task.licence,
        "home": task.home,
        "layout": task.media,
        "name": name,
        "data": data.name,
        "media": str(root),
        "counts": f"{listed}.",
        "rows": "".join(rows),
    }


def _check_replaceable(folder: Path) -> None:
    """Raises ConfigError where an export would replace somebody's other files."""
    if not folder.exists():
        return
    if folder.is_dir():
        ours = folder / _UTILS
        if not any(folder.iterdir()):
            return
        if ours.is_file() and _MARK in ours.read_text(encoding="utf-8", errors="replace"):
            return
    raise ConfigError(f"{folder}: holds other things than an export; choose another folder")
