"""crema extract: frozen features of a data file or a folder, made before they are needed."""

from __future__ import annotations

import argparse
import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from open_crema.cli.arguments import command, overridable
from open_crema.errors import ConfigError, DataError, MediaError

if TYPE_CHECKING:
    from open_crema.config import Config
    from open_crema.data.report import Report
    from open_crema.tasks.media_folder import MediaFolder

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    extract = command(
        commands, "extract", _extract, "Fill a feature store from a data file or a folder of clips."
    )
    extract.add_argument("media", type=Path, help="data file (.jsonl), or folder of clips")
    extract.add_argument(
        "--senses", nargs="+", action="extend", metavar="SENSE", help="default: model.senses"
    )
    extract.add_argument("--out", type=Path, metavar="STORE", help="default: data.store")
    extract.add_argument(
        "--on-error",
        choices=("error", "skip", "mask"),
        help="a file that cannot be used stops it, leaves its sample out, or leaves only the sense "
        "out; default: data.on_error",
    )
    extract.add_argument("--workers", type=int, help="threads; default: one a core")
    extract.add_argument("--media-root", help="where a data file's relative paths start")
    extract.add_argument("--report", type=Path, help="JSON file; default: STORE/report.json")
    extract.add_argument(
        "--config", type=Path, help="YAML of the training that will use it: encoders, frames"
    )
    overridable(extract)


def _extract(options: argparse.Namespace) -> None:
    # KEY=VALUE after --senses counts as one of them to argparse.
    senses = [text for text in options.senses or () if "=" not in text]
    options.overrides += [text for text in options.senses or () if "=" in text]
    config = _configured(options, senses)

    from open_crema.data.extract import Extractor
    from open_crema.data.extraction import extract_all

    extractor = Extractor.from_config(config)
    assert extractor.store is not None
    store = extractor.store.root
    found = _found(options.media, config, store)
    for path in found.ignored[:5]:
        logger.info("ignored, belongs to no clip: %s", path)
    if len(found.ignored) > 5:
        logger.info("and %d more; the report names all", len(found.ignored) - 5)
    data = config.data
    with _stopped_by_sigterm():
        try:
            report = extract_all(
                extractor,
                found.samples,
                on_error=data.on_error,
                workers=data.workers,
                refused=found.refused,
            )
        except MediaError as error:
            raise MediaError(
                f"{error}; repair it, or go on without it by --on-error skip or mask"
            ) from error
    place = options.report or store / "report.json"
    _write(place, {**report.to_dict(), "ignored": list(found.ignored)})
    for failure in report.failures:
        logger.warning("%s", failure)
    Console().print(_table(report))
    print(f"written to {place}")
    if not report.usable:
        raise DataError(
            f"none of {report.samples} samples can be used: {_why_nothing(report)}; {place} names "
            "all"
        )


def _configured(options: argparse.Namespace, senses: list[str]) -> Config:
    from open_crema import config as configuration

    # How many of the kept frames a sample uses is not decided here: it must not be in the way.
    overrides = ["data.frames=1", *options.overrides]
    if options.config is not None:
        config = configuration.load(options.config, overrides, overlays=options.overlay)
    elif options.overlay:
        raise ConfigError(f"{options.overlay[0]}: an overlay goes over a YAML file; give --config")
    else:
        config = configuration.override(configuration.Config(), overrides)
    plain = configuration.to_dict(config)
    if senses:
        plain["model"]["senses"] = list(dict.fromkeys(senses))
    given = {
        "store": options.out and str(options.out),
        "on_error": options.on_error,
        "workers": options.workers,
        "media_root": options.media_root,
    }
    plain["data"].update({key: value for key, value in given.items() if value is not None})
    made: Config = configuration.from_dict(plain, where="crema extract")
    return made


def _found(media: Path, config: Config, store: Path) -> MediaFolder:
    """The samples of a data file, or of a folder."""
    from open_crema import tasks
    from open_crema.tasks import media_folder

    if media.is_dir():
        return media_folder.scan(media, leave_out=store)
    samples = tasks.load(
        config.data.task,
        media,
        media_root=config.data.media_root,
        answers_required=False,
        questions_required=False,
    )
    return media_folder.MediaFolder(tuple(samples), {}, ())


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: what is in hand is finished and kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(path: Path, report: dict[str, Any]) -> None:
    """Whole or not at all; of several processes with one store, the last one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def _table(report: Report) -> Table:
    title = f"{report.samples} samples, {report.usable} usable"
    if report.skipped:
        title += f", {len(report.skipped)} skipped"
    shown = Table(title=title)
    shown.add_column("sense")
    for name in ("present", "absent", "failed", "made now", "already there"):
        shown.add_column(name, justify="right")
    for sense, tally in report.senses.items():
        absent = sum(map(len, tally.absent.values()))
        counts = (tally.present, absent, len(tally.failed), tally.made, tally.found)
        shown.add_row(sense, *map(str, counts))
    notes = [
        f"{len(ids)} without {sense}: {reason}"
        for sense, tally in report.senses.items()
        for reason, ids in tally.absent.items()
    ]
    if report.found and not report.made:
        notes.append(f"nothing to do: all {report.found} results were there already")
    shown.caption = Text("\n".join(notes))
    return shown


def _why_nothing(report: Report) -> str:
    if report.failures:
        return str(report.failures[0])
    return "; ".join(f"{sense}: {', '.join(t.absent)}" for sense, t in report.senses.items())
