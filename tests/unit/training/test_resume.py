"""A run that is killed, starved of disk or asked to stop, at any moment, ends as if it had not
been. Deaths are real (SIGKILL, in forked processes), and so are exits, validation, both stages."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_loop import EXIT, items, log, outcome, trainer

import faults
from open_crema.config import Config, from_dict, to_dict
from open_crema.errors import WeightsError
from open_crema.model.crema import Crema
from open_crema.termination import Stopped
from open_crema.training import checkpoint, identity
from open_crema.training.loop import Trainer
from tiny import Questions

BOTH = {"accumulate": 2, "exit": EXIT, "epochs": 3}  # 10 questions: 2 steps an epoch
RUNS = {
    "sequential": {**BOTH, "checkpoint_every": 1},
    "joint": {**BOTH, "checkpoint_every": 3, "strategy": "joint", "clip": 0.5},
    "aligned": {
        "alignment": {"epochs": 2, "batch_size": 4},
        "qformer": "alignment",
        "epochs": 1,
        "checkpoint_every": 2,
    },
    "begun anew": {"alignment": {"epochs": 1, "batch_size": 4}, "epochs": 1},
}


def validate(model: Crema) -> dict[str, float]:
    """As good as the weights' last digits say, so that the best epoch is any."""
    total = sum(float(p.detach().abs().sum()) for p in model.adapters.parameters())
    return {"accuracy": total * 1000 % 1}


def run(kind: str, out: Path, data: Questions | None = None) -> Trainer:
    return trainer(out, data, validate=validate, **RUNS[kind])


def to_the_end(kind: str, out: Path) -> Callable[[], object]:
    made = run(kind, out)  # here, so that a child process does not do it
    return lambda: made.run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], dict[str, bytes]]:
    """What each run leaves that nothing has happened to."""
    made: dict[str, dict[str, bytes]] = {}

    def outcome_of(kind: str) -> dict[str, bytes]:
        if kind not in made:
            out = tmp_path_factory.mktemp("whole") / "run"
            run(kind, out).run()
            made[kind] = outcome(out)
        return made[kind]

    return outcome_of


def leftovers(out: Path) -> list[str]:
    return [p.name for p in out.rglob(".*-*")]


def test_senses_exit_and_the_best_epoch_varies_in_the_runs_below(tmp_path):
    sequential, joint = (run(kind, tmp_path / kind) for kind in ("sequential", "joint"))
    sequential.run()
    joint.run()
    assert sequential.exits.exited
    assert sequential.best_step != sequential.step or joint.best_step != joint.step


@pytest.mark.parametrize("kind", RUNS)
def test_killed_again_and_again(tmp_path, whole, kind):
    """Each life is a random number of file operations long, until one is long enough."""
    draw, deaths, long = random.Random(kind), 0, 10
    while faults.killed(to_the_end(kind, tmp_path), at=long):
        deaths, long = deaths + 1, draw.randint(5, 120)
        assert deaths < 100
    assert deaths > 0
    assert outcome(tmp_path) == whole(kind)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["sequential", "joint"])
@pytest.mark.parametrize("step", [0, 1, 3, 5])
def test_killed_inside_a_step(tmp_path, whole, kind, step):
    class Deadly(Questions):
        def batches(self, *args: Any, **options: Any) -> Any:
            for batch in super().batches(*args, **options):
                if len(self.given) == 2 * step + 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    made = run(kind, tmp_path, Deadly(items()))
    assert faults.killed(made.run, at=10**9)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # half a line
    run(kind, tmp_path).run()
    assert outcome(tmp_path) == whole(kind)


def end_of_an_epoch(tmp_path: Path, **options: Any) -> tuple[Path, Callable[[Path], Trainer]]:
    """A run of one epoch that stopped before its validation, and what continues a copy of it."""

    def made(out: Path, validation: Any = validate) -> Trainer:
        return trainer(out, validate=validation, **{**BOTH, "epochs": 1, **options})

    def stopped(model: Crema) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(model)

    with pytest.raises(Stopped, match=r"saved \(step 2\); run the same command again"):
        made(tmp_path / "ready", stopped).run()
    return tmp_path / "ready", made


@pytest.mark.parametrize(("strategy", "every"), [("sequential", 1), ("joint", 5)])
def test_killed_at_every_point_of_the_end_of_an_epoch(tmp_path, strategy, every):
    """The epoch's line in the log, its checkpoint, the model, what is removed: every point of it
    is the last of one process, and the next one puts it right. Joint training has the same points,
    of which some are enough."""
    ready, made = end_of_an_epoch(tmp_path, strategy=strategy)
    made(tmp_path / "whole").run()
    expected = outcome(tmp_path / "whole")
    for k in itertools.count(1, every):
        out = shutil.copytree(ready, tmp_path / str(k))
        came_so_far = faults.killed(made(out).run, at=k)
        made(out).run()
        assert outcome(out) == expected, f"at point {k}"
        assert leftovers(out) == [], f"at point {k}"
        if not came_so_far:
            break
    assert k > 40


def test_a_full_disk_at_points_of_the_end_of_an_epoch(tmp_path):
    ready, made = end_of_an_epoch(tmp_path)
    made(tmp_path / "whole").run()
    expected, codes = outcome(tmp_path / "whole"), []
    for k in itertools.count(1, 3):  # every point of a checkpoint is in its own test
        out = shutil.copytree(ready, tmp_path / str(k))
        codes.append(faults.full_disk(made(out).run, at=k))
        made(out).run()
        assert outcome(out) == expected, f"at point {k}"
        if codes[-1] == 0:
            break
    assert codes == [2] * (len(codes) - 1) + [0]
    assert len(codes) > 8


@pytest.mark.parametrize("kind", ["sequential", "joint", "aligned", "begun anew"])
def test_asked_to_stop_again_and_again(tmp_path, whole, kind):
    """SIGTERM while any batch is read: the step is finished and saved, nothing is done twice."""

    class Asked(Questions):
        def batches(self, *args: Any, **options: Any) -> Any:
            for number, batch in enumerate(super().batches(*args, **options)):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    handler, given, stops = signal.getsignal(signal.SIGTERM), [], 0
    done = False
    while not done:
        data = Asked(items())
        try:
            run(kind, tmp_path, data).run()
            done = True
        except Stopped:
            stops += 1
        given += data.given
        assert signal.getsignal(signal.SIGTERM) is handler
        assert stops < 100
    assert stops > 1
    assert outcome(tmp_path) == whole(kind)
    alone = Questions(items())
    run(kind, tmp_path.with_name(f"{tmp_path.name}-alone"), alone).run()
    assert len(given) - len(alone.given) <= stops  # a batch that was read for the next step


def test_a_request_at_the_very_end_is_not_lost(tmp_path):
    run = trainer(tmp_path, epochs=1)
    save = run._save_model

    def asked() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save()

    run._save_model = asked
    with pytest.raises(Stopped):
        run.run()
    assert (tmp_path / "model" / "config.json").exists()


def test_in_another_thread_the_signal_is_left_alone(tmp_path):
    seen = []

    def look(model: Crema) -> dict[str, float]:
        seen.append(signal.getsignal(signal.SIGTERM))
        return {"accuracy": 0.5}

    thread = threading.Thread(target=trainer(tmp_path, epochs=1, validate=look).run)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_costs_only_time(tmp_path, whole, caplog, name, damage):
    class Cut(Questions):
        def batches(self, *args: Any, **options: Any) -> Any:
            for batch in super().batches(*args, **options):
                if len(self.given) == 7:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    with pytest.raises(Stopped):
        run("sequential", tmp_path, Cut(items())).run()
    newest = checkpoint.latest(tmp_path / "checkpoints").place
    content = bytearray((newest / name).read_bytes())
    if damage == "gone":
        (newest / name).unlink()
    elif damage == "cut":
        (newest / name).write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 3] ^= 4
        (newest / name).write_bytes(content)
    run("sequential", tmp_path).run()
    assert f"damaged checkpoint: {newest / name}: " in caplog.text
    assert outcome(tmp_path) == whole("sequential")


def test_without_a_whole_checkpoint_it_says_what_to_do(tmp_path):
    trainer(tmp_path, epochs=1).run()
    for state in (tmp_path / "checkpoints").glob("*/state.json"):
        state.write_text("")
    before = log(tmp_path)
    with pytest.raises(WeightsError, match=r"step-00000004.state.json: .*no other.*--fresh"):
        trainer(tmp_path, epochs=1).run()
    assert log(tmp_path) == before
    trainer(tmp_path, epochs=1).run(fresh=True)


def test_a_model_that_was_being_replaced_is_put_back(tmp_path):
    trainer(tmp_path, epochs=1).run()
    before = outcome(tmp_path)
    (tmp_path / "model").rename(tmp_path / ".model.old-0123456789ab")
    trainer(tmp_path, epochs=1).run()
    assert outcome(tmp_path) == before
    assert leftovers(tmp_path) == []


def test_the_lock_of_a_dead_process_does_not_count(tmp_path):
    made = trainer(tmp_path, Questions(items()), epochs=1)
    with made.folder.alone(), pytest.raises(Exception, match="another process is training"):
        trainer(tmp_path).run()
    assert faults.killed(made.run, at=30)
    assert (tmp_path / ".lock").exists()
    trainer(tmp_path, epochs=1).run()


@pytest.mark.parametrize("other", [{"torch": "2.9.0"}, {"threads": 64}])
def test_what_was_computed_by_something_else_goes_on_with_a_warning(
    tmp_path, monkeypatch, caplog, other
):
    trainer(tmp_path, epochs=1, schedule="constant").run()
    assert "bit for bit" not in caplog.text
    here = identity.computed_by()
    monkeypatch.setattr(identity, "computed_by", lambda: {**here, **other})
    trainer(tmp_path, epochs=2, schedule="constant").run()
    assert "not bit for bit" in caplog.text
    assert str(next(iter(other.values()))) in caplog.text


def test_what_an_earlier_version_did_not_know_has_its_default():
    now = to_dict(Config())
    old = to_dict(Config())
    del old["train"]["alignment"]["commit"], old["model"]["input_projection"], old["train"]["exit"]
    assert identity.differences(old, now) == []
    changed = from_dict({"train": {"alignment": {"commit": True}, "exit": {"enabled": True}}})
    assert identity.differences(old, to_dict(changed)) == ["train.exit", "train.alignment"]


def test_timings_are_in_a_file_of_their_own(tmp_path):
    trainer(tmp_path, epochs=1).run()
    assert (tmp_path / "timing.jsonl").read_text().count("seconds") == 4
    assert "seconds" not in (tmp_path / "log.jsonl").read_text()
