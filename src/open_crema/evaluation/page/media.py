"""The media of a sample, through the data file that its results name, as far as they are there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from open_crema import tasks
from open_crema.config import Config, EncodersConfig, from_dict
from open_crema.data.extract import Extractor, Source
from open_crema.data.sample import Sample
from open_crema.errors import ConfigError, CremaError, SenseAbsent
from open_crema.evaluation.page.cases import Case, Suite
from open_crema.evaluation.page.pictures import Drawn, draw
from open_crema.media import Clip, Limits, read_time_line
from open_crema.modality import canonical, get, resolve


@dataclass(frozen=True)
class Library:
    """Where the media of a suite's samples are. problem: why they cannot be found, or what may be
    wrong with them; empty where nothing is."""

    config: Config
    samples: Mapping[str, Sample]
    problem: str = ""

    def has(self, case: Case) -> bool:
        """Whether a file of the sample is still there."""
        sample = self._sample(case)
        return sample is not None and any(map(os.path.exists, sample.media.values()))

    def missing(self, case: Case) -> str:
        """Why there is nothing to show of a sample; empty where there is."""
        if self.has(case):
            return ""
        if case.id not in self.samples:
            return "Its media are not shown: the data file that names them was not found."
        if self._sample(case) is None:
            return "Its media are not shown: the data file now asks something else under its id."
        return "Its media are not shown: their files are no longer there."

    def draw(self, case: Case) -> dict[str, Drawn]:
        """sense -> what it looks like, in canonical order: the senses that the sample names, those
        of the model, and the sound of a video. What cannot be read says why in its note."""
        sample = self._sample(case)
        if sample is None:
            return {}
        senses = canonical(
            [
                *sample.media,
                *self.config.model.senses,
                *(["audio"] if "video" in sample.media else []),
            ]
        )
        data = self.config.data
        extractor = Extractor(
            senses,
            EncodersConfig(),
            frames=data.store_frames,
            limits=Limits.from_config(data.limits),
            store=None,
        )
        drawn = {}
        for sense in senses:
            source = extractor.source(sample, sense)
            if isinstance(source, Source):
                drawn[sense] = self._drawn(source, sense)
        return drawn

    def _drawn(self, source: Source, sense: str) -> Drawn:
        data = self.config.data
        limits = Limits.from_config(data.limits)
        try:
            clip = Clip(data.store_frames, limits, source.timing.rate, source.timing.start)
            if source.video is not None:
                timing = source.video_timing
                line = Clip(data.store_frames, limits, timing.rate, timing.start)
                with suppress(SenseAbsent):  # a video without pictures has no time line
                    clip = replace(clip, video=read_time_line(source.video, line))
            return draw(resolve(source.maker)(source.path, clip), sense, data.frames)
        except SenseAbsent as absent:
            return Drawn(note=absent.reason.replace(source.path, "the file"))
        except Exception as error:  # whatever is wrong with one file, the rest is worth showing
            if not os.path.exists(source.path):
                return Drawn(note=f"{source.path}: no longer there")
            return Drawn(note=f"cannot be shown: {error}")

    def _sample(self, case: Case) -> Sample | None:
        sample = self.samples.get(case.id)
        return sample if sample is not None and sample.question == case.prompt else None


def open_library(suite: Suite) -> Library:
    """Never fails: what is wrong is the library's ``problem``."""
    summary = suite.fullest.summary
    problem = ""
    try:
        config: Config = from_dict(_known(summary["config"]), where="results.json")
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        config = Config()
        problem = f"Its configuration cannot be read as one of this version ({error}). "
    if not suite.path:
        return Library(config, {}, f"{problem}The results do not name their data file.")
    path = _locate(suite.path, suite.fullest.folder)
    if path is None:
        return Library(config, {}, f"{problem}The data file {suite.path} is no longer there.")
    root = config.data.media_root
    try:
        changed = tasks.digest(config.data.task, path) != suite.sha256
        samples = tasks.load(
            config.data.task,
            path,
            media_root=None if root is None else _locate(root, suite.fullest.folder) or root,
            options=config.data.options,
            split="test",
            answers_required=False,
        )
    except (CremaError, OSError) as error:
        return Library(config, {}, f"{problem}The data file cannot be read: {error}")
    if changed:
        problem += f"The data file {suite.path} has changed since it was answered."
    return Library(config, {sample.id: sample for sample in samples}, problem)


def _known(config: Mapping[str, object]) -> dict[str, object]:
    """Without senses whose package is not installed here: the others can be shown."""
    plain = dict(config)
    model = dict(config["model"])  # type: ignore[call-overload]
    model["senses"] = [sense for sense in model["senses"] if _is_known(sense)]
    plain["model"] = model
    return plain


def _is_known(sense: str) -> bool:
    try:
        get(sense)
    except ConfigError:
        return False
    return True


def _locate(path: str, folder: Path) -> Path | None:
    """Paths of a configuration start where the command ran: here, or above the results."""
    for start in (Path(), *folder.absolute().parents):
        if (start / path).exists():
            return start / path
    return None
