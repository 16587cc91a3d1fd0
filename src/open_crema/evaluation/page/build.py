"""The page itself: everything that was found, put into the template as one HTML text."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

import open_crema
from open_crema.errors import CremaError
from open_crema.evaluation.page import cases, charts, found, media, scores, tables
from open_crema.evaluation.page.cases import Case, Suite
from open_crema.evaluation.page.pictures import Drawn, shown_of
from open_crema.modality import BUILT_INS, canonical

_WIDEST = 8  # types that fit as columns beside the overall rate; more become rows
_OTHER_COLOURS = 4
_KNOWN = {modality.name for modality in BUILT_INS}


@dataclass(frozen=True)
class Sense:
    """One sense of a clip. role: how it reached the model, in a few words; gates: its share of each
    shown frame, None where it has none."""

    name: str
    role: str
    given: bool
    drawn: Drawn
    gates: Sequence[float] | None


@dataclass(frozen=True)
class Clip:
    """missing: why there is nothing to see. frames: for each frame the share of each assistant."""

    case: Case
    senses: tuple[Sense, ...]
    missing: str
    frames: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Part:
    """All that is said of the results on one data file."""

    suite: Suite
    rates: tables.Table
    scores: Sequence[scores.Grid]
    gates: tables.GateTable | None
    confusions: Sequence[tables.Confusion]
    problem: str
    lead: str


def write(folder: str | Path, out: str | Path | None = None, *, clips: int = 8) -> Path:
    """Makes the page of a run, by default ``report.html`` in its folder; returns its path.

    The same run gives the same bytes. Media, data files and lines that cannot be read are named on
    the page, which shows the rest.

    Raises CremaError where there is nothing to show, or the page cannot be written.
    """
    folder = Path(folder)
    with _as_read_before():
        text = page(folder, clips=clips)
    out = folder / "report.html" if out is None else Path(out)
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CremaError(f"{out}: cannot be written ({error.strerror or error})") from None
    return out


@contextmanager
def _as_read_before() -> Iterator[None]:
    """In this block nothing is said of how maps are aligned: the run that read them has said it."""
    media_log = logging.getLogger("open_crema.media")
    before = media_log.level
    media_log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        media_log.setLevel(before)


def page(folder: Path, *, clips: int) -> str:
    """The HTML text."""
    there = found.find(folder)
    suites = cases.suites(there.results)
    libraries = [media.open_library(suite) for suite in suites]
    library_of = {id(suite): library for suite, library in zip(suites, libraries, strict=True)}
    chosen = cases.choose(suites, clips, lambda suite, case: library_of[id(suite)].has(case))
    problems = list(there.problems)
    parts = [_part(*both, problems) for both in zip(suites, libraries, strict=True)]
    others = _others(there, problems)
    script, style = (_template(name).strip() for name in ("script.js", "style.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=_title(folder, there),
            style=Markup(style),
            script=Markup(script),
            script_digest=f"sha256-{digest}",
            problems=problems,
            parts=parts,
            others=others,
            clips=[_clip(library_of[id(suite)], case) for suite, case in chosen],
            counts=_counts(suites),
            logs=[(log, charts.charts(log), charts.indicators(log)) for log in there.logs],
            temperature=_temperature(there),
            provenance=_provenance(there),
            widest=_WIDEST,
            version=open_crema.__version__,
        )
    )


_BROKEN = (KeyError, TypeError, ValueError, AttributeError)


def _grids(suite: Suite, problems: list[str]) -> list[scores.Grid]:
    try:
        return scores.grids(suite.fullest)
    except _BROKEN as error:
        problems.append(f"{suite.fullest.folder / 'results.json'}: scores left out ({error!r})")
        return []


def _others(there: found.Found, problems: list[str]) -> list[scores.Grid]:
    made = []
    for name, kept in there.others.items():
        for file, content in kept.items():
            try:
                draw = scores.lost if file == "dropout.json" else scores.compared
                made.append(draw(content))
            except _BROKEN as error:
                problems.append(f"{name}/{file}: left out ({error!r})")
    return made


def _part(suite: Suite, library: media.Library, problems: list[str]) -> Part:
    rates = tables.rates(suite)
    return Part(
        suite=suite,
        rates=rates,
        scores=_grids(suite, problems),
        gates=tables.gate_table(suite),
        confusions=tables.confusions(suite.cases),
        problem=library.problem,
        lead=_lead(suite),
    )


def _lead(suite: Suite) -> str:
    """The result in one sentence."""
    summary, name = suite.fullest.summary, suite.labels[-1]
    low, high = (round(100 * float(x)) for x in summary["interval"])
    given = f"Given {name}" if suite.fullest.senses else "From the question alone"
    text = (
        f"{given}, the model answers {_percent(float(summary['accuracy']))}\u00a0% of "
        f"{summary['n']} questions right (95\u00a0% interval {low} to {high}). "
        f"Guessing gives {_percent(float(summary['chance']))}\u00a0%"
    )
    if suite.fullest.senses and summary.get("blind") is not None:
        text += f", the question alone {_percent(float(summary['blind']))}\u00a0%"
    return f"{text}."


def _counts(suites: Sequence[Suite]) -> Mapping[str, int]:
    """Of the samples that are right with some senses and wrong with others."""
    every = [case for suite in suites for case in suite.cases]
    differ = [case for case in every if case.differs]
    gained = sum(case.fullest.correct for case in differ)
    return {"all": len(every), "gained": gained, "lost": len(differ) - gained}


def _clip(library: media.Library, case: Case) -> Clip:
    drawn = library.draw(case)
    view = case.fullest
    gates = {s: shown_of(view.gates[s]) for s in canonical(view.gates)}
    there = [s for s in view.senses if s not in view.absent]
    senses = tuple(
        Sense(sense, _role(sense, there, case), sense in there, what, gates.get(sense))
        for sense, what in drawn.items()
    )
    count = max(map(len, gates.values()), default=0)
    frames = tuple({s: own[i] for s, own in gates.items() if i < len(own)} for i in range(count))
    return Clip(case, senses, library.missing(case), frames)


def _role(sense: str, there: Sequence[str], case: Case) -> str:
    view = case.fullest
    if sense in view.absent:
        return f"absent: {view.absent[sense]}"
    if sense not in there:
        return "not given"
    if shares := view.gates.get(sense):
        return f"{_percent(sum(shares) / len(shares))}\u00a0% of the fused tokens"
    return "leads, not fused" if view.gates else "given"


def _title(folder: Path, there: found.Found) -> str:
    runs: list[found.Result | found.Log] = [*there.results, *there.logs]
    names = {str(run.config.get("name") or "") for run in runs} - {""}
    name = names.pop() if len(names) == 1 else ""
    return name or folder.absolute().name


def _temperature(there: found.Found) -> float | None:
    """What early exit compared the indicator with, where the files say it."""
    runs: list[found.Result | found.Log] = [*there.logs, *there.results]
    for run in runs:
        try:
            return float(run.config["train"]["exit"]["temperature"])
        except (KeyError, TypeError, ValueError):
            continue
    return None


@dataclass(frozen=True)
class Origin:
    """Where the numbers of a result or a training came from. config: as YAML; same_as: the name of
    one before, whose configuration is the same."""

    name: str
    facts: Sequence[tuple[str, str]]
    config: str
    same_as: str


def _provenance(there: found.Found) -> list[Origin]:
    found: list[tuple[str, list[tuple[str, str]], Mapping[str, Any]]] = []
    for result in there.results:
        summary = result.summary
        skipped = sum(map(int, summary["skipped"].values()))
        why = _reasons(summary["skipped"])
        counted = f"{summary['expected']} expected = {summary['scored']} scored + {skipped} skipped"
        facts = [("samples", counted + (f" ({why})" if why else ""))]
        facts += [(f"without {s}", _reasons(why)) for s, why in summary["absent"].items()]
        for key in ("seed", "data", "model", "code"):
            facts += _flat(key, summary.get(key))
        found.append((f"{cases.label(result.senses)} ({result.name})", facts, result.config))
    for log in there.logs:
        steps = len({line["step"] for line in log.of("step")})
        facts = [("log", str(log.folder / "log.jsonl")), ("steps", str(steps))]
        found.append((f"training ({log.name})", facts, log.config))
    origins: list[Origin] = []
    first: dict[str, str] = {}
    for name, facts, run in found:
        config = yaml.safe_dump(dict(run), sort_keys=False, allow_unicode=True) if run else ""
        same_as = first.setdefault(config, name)
        again = config != "" and same_as != name
        origins.append(Origin(name, facts, "" if again else config, same_as if again else ""))
    return origins


def _reasons(counts: Mapping[str, Any]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in counts.items())


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [fact for name, inner in value.items() for fact in _flat(f"{key}: {name}", inner)]
    return [] if value is None else [(key, str(value))]


def _environment() -> Environment:
    """Everything that is put in is escaped; a name that is not given is an error."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "hue": _hue, "breakable": _breakable}
    return environment


def _template(name: str) -> str:
    place = files("open_crema") / "templates" / "report" / f"{name}.tmpl"
    return place.read_text(encoding="utf-8")


def _percent(rate: float, digits: int = 0) -> str:
    return f"{100 * rate:.{digits}f}"


def _hue(sense: str) -> str:
    """The class of a sense's colour: its own for the built-in ones, else one of a few."""
    if sense in _KNOWN or sense in ("all", "accuracy", "alignment"):
        return f"s-{sense}"
    return f"s-x{sum(sense.encode()) % _OTHER_COLOURS}"


def _breakable(text: str) -> Markup:
    """With places where long names may be broken."""
    broken: Markup = escape(text).replace("_", Markup("_<wbr>")).replace("/", Markup("/<wbr>"))
    return broken
