"""crema extract, and the policies for broken files from there to training and evaluation."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time

import pytest
import torch
from command_line import QUESTION, write_lines

import media_factory
from open_crema import cli
from open_crema.data import extract
from open_crema.features import Features
from tiny import one_seeded_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("stand_ins")
SIZES = ["data.store_frames=2"]  # below the default of data.frames, which does not matter here


@pytest.fixture
def clips(tmp_path, made):
    """A folder: a good clip, its copy with a broken sound of its own, a file that is no video."""
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(made / "clip.mp4", folder / "good.mp4")
    shutil.copy(made / "clip.mp4", folder / "deaf.mp4")
    media_factory.write_text(folder / "deaf.audio.wav")
    media_factory.write_text(folder / "text.mp4")
    old = time.time() - 100
    for path in folder.iterdir():
        os.utime(path, (old, old))
    return folder


@pytest.fixture
def fill(crema, clips, tmp_path):
    def fill(*arguments, media=clips):
        senses = () if "--senses" in arguments else ("--senses", "video", "audio")
        out = ("--out", tmp_path / "store")
        return crema("extract", media, *senses, *out, *arguments, *SIZES)

    return fill


def report(tmp_path):
    return json.loads((tmp_path / "store/report.json").read_text())


@pytest.mark.parametrize(
    ("policy", "usable", "skipped"),
    [("skip", 1, ["deaf.mp4", "text.mp4"]), ("mask", 2, [])],
)
def test_broken_files_are_named_and_counted(fill, tmp_path, caplog, policy, usable, skipped):
    ran = fill("--on-error", policy)
    assert ran.code == 0
    assert "Traceback" not in ran.err
    assert "audio of sample 'deaf.mp4'" in caplog.text
    assert "video, audio of sample 'text.mp4'" in caplog.text
    found = report(tmp_path)
    assert (found["samples"], found["usable"], found["skipped"]) == (3, usable, skipped)
    for tally in found["senses"].values():
        absent = sum(map(len, tally["absent"].values()))
        assert tally["expected"] == 3 == tally["present"] + absent + len(tally["failed"])
    assert list(found["senses"]["audio"]["failed"]) == ["deaf.mp4", "text.mp4"]
    assert len(found["failures"]) == 2


def test_a_broken_file_is_an_error_by_default(fill, clips, tmp_path):
    ran = fill()
    ran.refused(
        "deaf.audio.wav", "sample 'deaf.mp4', audio", "--on-error skip or mask", alone=False
    )
    assert not (tmp_path / "store/report.json").exists()
    (clips / "deaf.audio.wav").unlink()
    (clips / "text.mp4").unlink()
    ran = fill()
    assert ran.code == 0
    assert report(tmp_path)["senses"]["video"]["found"] >= 1  # what was made before is kept


def test_a_second_run_does_nothing_and_says_so(fill, tmp_path, monkeypatch):
    assert "nothing to do" not in fill("--on-error", "mask").out
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "store/shards").iterdir()}
    opened = []
    read = extract.Extractor._read
    monkeypatch.setattr(
        extract.Extractor,
        "_read",
        lambda self, source, *rest: opened.append(source.path) or read(self, source, *rest),
    )
    ran = fill("--on-error", "mask")
    assert "nothing to do: all 3 results were there already" in " ".join(ran.out.split())
    assert {os.path.basename(path) for path in opened} == {"text.mp4", "deaf.audio.wav"}
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "store/shards").iterdir()} == before


def test_nothing_usable(fill, clips, tmp_path):
    for name in ("good.mp4", "deaf.mp4", "deaf.audio.wav"):
        (clips / name).unlink()
    for policy in ("skip", "mask"):
        ran = fill("--on-error", policy)
        assert ran.code == 2
        last = ran.err.splitlines()[-1]
        assert last.startswith("crema: error: none of 1 samples can be used: ")
        assert "text.mp4: cannot be read as media" in last
        assert report(tmp_path)["usable"] == 0


def test_training_after_it_makes_nothing_new(crema, place, tmp_path, monkeypatch):
    store = tmp_path / "store"
    ran = crema("extract", place / "train.jsonl", "--config", place / "run.yaml", "--out", store)
    assert ran.code == 0, ran
    monkeypatch.setattr(extract, "resolve", lambda _: pytest.fail("a media file was read"))
    ran = crema("train", place / "run.yaml", f"data.store={store}")
    assert ran.code == 0, ran


def test_a_data_file_of_media_alone(fill, clips, tmp_path):
    write_lines(tmp_path / "media.jsonl", {"video": "good.mp4"}, {"media": {"audio": "deaf.mp4"}})
    ran = fill("--media-root", clips, media=tmp_path / "media.jsonl")
    assert ran.code == 0
    found = report(tmp_path)
    assert (found["samples"], found["usable"]) == (2, 2)
    assert found["senses"]["video"]["absent"] == {
        "no file given, and no video to make it from": ["line-2"]
    }


def test_a_link_out_of_the_folder(fill, clips, tmp_path):
    for name in ("text.mp4", "deaf.audio.wav"):
        (clips / name).unlink()
    (clips / "link.mp4").symlink_to(tmp_path / "clip.mp4")
    fill().refused("link.mp4", "a symbolic link out of", "sample 'link.mp4'", alone=False)
    ran = fill("--on-error", "skip")
    assert (ran.code, report(tmp_path)["skipped"]) == (0, ["link.mp4"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--senses", "vidio"], ["'vidio'", "did you mean 'video'"]),
        (["--workers", "-1"], ["data.workers"]),
        (["data.store_frame=3"], ["did you mean 'data.store_frames'"]),
        (["--overlay", "x.yaml"], ["x.yaml", "--config"]),
        (["--config", "none.yaml"], ["none.yaml", "no such configuration file"]),
    ],
)
def test_usage(fill, tmp_path, arguments, says):
    fill(*arguments).refused(*says)
    assert not (tmp_path / "store").exists()


def test_nothing_there(fill, tmp_path):
    (tmp_path / "bare").mkdir()
    fill(media=tmp_path / "bare").refused("bare", "holds no video or sound file")
    fill(media=tmp_path / "none.jsonl").refused("none.jsonl", "no such data file")


def test_overrides_may_follow_the_senses(crema, clips, tmp_path):
    (clips / "text.mp4").unlink()
    ran = crema("extract", clips, "--out", tmp_path / "store", "--senses", "video", *SIZES)
    assert ran.code == 0, ran
    assert list(report(tmp_path)["senses"]) == ["video"]


class TestPolicies:
    """Training and evaluation on four questions, one of them about a file that is no video."""

    @pytest.fixture(autouse=True)
    def broken(self, place):
        for split in ("train", "test"):
            lines = [{**QUESTION, "id": f"{split}{i}"} for i in range(3)]
            lines.append({**QUESTION, "id": "bad", "media": {"audio": "text.mp4"}})
            write_lines(place / f"{split}.jsonl", *lines)

    def test_error(self, crema, place):
        ran = crema("train", place / "run.yaml")
        ran.refused("sample 'bad', audio", "text.mp4", "data.on_error=skip", alone=False)
        assert not (place / "out").exists()

    @pytest.mark.parametrize("policy", ["skip", "mask"])
    def test_going_on(self, crema, place, caplog, policy):
        trained = crema("train", place / "run.yaml", f"data.on_error={policy}")
        assert trained.code == 0, trained
        assert "audio of sample 'bad'" in caplog.text
        scored = crema("eval", place / "run.yaml", f"eval.on_error={policy}", "--json")
        results = json.loads(scored.out)
        assert results["expected"] == 4 == results["scored"] + sum(results["skipped"].values())
        assert results["scored"] == (3 if policy == "skip" else 4)
        if policy == "mask":
            assert results["absent"]["audio"] == {"unusable media": 1}

    def test_evaluation_stops(self, crema, place, model):
        ran = crema("eval", place / "run.yaml", "eval.on_error=error")
        ran.refused("sample 'bad', audio", "text.mp4", "eval.on_error=skip", alone=False)
        assert not (place / "out/results").exists()


class Started:
    """A command in a process of its own, whose encoder takes a while; forked, so that nothing has
    to be imported again."""

    def __init__(self, folder, name, seconds, *arguments):
        self.made, self.said = folder / f"{name}.made", folder / f"{name}.said"
        self.made.touch()
        self.process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(seconds, [str(a) for a in arguments])
        )
        self.process.start()

    def _run(self, seconds, arguments):
        sys.stdout = sys.stderr = self.said.open("w", buffering=1)
        made = self.made

        class Slow:
            name, width, fingerprint = "slow", 4, "slow"

            def __call__(self, media):
                with made.open("a") as file:
                    file.write("made\n")
                time.sleep(seconds)
                times = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
                return Features(torch.ones(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), times)

        extract.encoder_for = lambda kind, config: Slow()
        code = cli.main(["extract", *arguments])
        sys.stdout.flush()
        os._exit(code)

    def count(self):
        return self.made.read_text().count("made")

    def wait(self):
        self.process.join(60)
        assert self.process.exitcode is not None
        return self.process.exitcode, self.said.read_text()


@pytest.fixture
def many(tmp_path, made):
    """Twelve clips of different content."""
    folder = tmp_path / "many"
    folder.mkdir()
    data = (made / "clip.mp4").read_bytes()
    for i in range(12):
        path = folder / f"{i:02}.mp4"
        path.write_bytes(data + bytes([i]))
        os.utime(path, (time.time() - 100,) * 2)
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_a_stopped_run_made_is_kept(many, tmp_path, number):
    arguments = (many, "--senses", "video", "--out", tmp_path / "store", "--workers", "2")
    ran = Started(tmp_path, "first", 1.0, *arguments)  # four seconds are left after the fourth
    while ran.count() < 4:
        time.sleep(0.01)
    os.kill(ran.process.pid, number)
    code, said = ran.wait()
    assert "Traceback" not in said
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 130
        assert "run the same command again to continue" in said.splitlines()[-1]
    begun = ran.count()
    assert begun < 12
    again = Started(tmp_path, "second", 0, *arguments)
    assert again.wait()[0] == 0
    found = report(tmp_path)["senses"]["video"]
    assert found["present"] == 12
    # What was in hand of the two workers is lost at most, and only to SIGKILL.
    assert found["found"] >= begun - (2 if number == signal.SIGKILL else 0)
    assert found["made"] == again.count() == 12 - found["found"]


def test_processes_share_the_work(many, tmp_path):
    arguments = (many, "--senses", "video", "--out", tmp_path / "store", "--workers", "1")
    both = [Started(tmp_path, name, 0.05, *arguments) for name in ("one", "other")]
    assert [ran.wait()[0] for ran in both] == [0, 0], [ran.said.read_text() for ran in both]
    assert sum(ran.count() for ran in both) == 12
    assert min(ran.count() for ran in both) > 2
    assert report(tmp_path)["senses"]["video"]["present"] == 12
