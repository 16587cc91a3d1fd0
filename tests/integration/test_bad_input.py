"""Whatever a user gets wrong: one line that says what, where and what to do; exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from command_line import QUESTION, tree, write_lines

import media_factory
from tiny import one_seeded_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("stand_ins")


def test_with_nothing_wrong_the_commands_work(crema, place):
    """What every refusal below would otherwise have been."""
    assert crema("train", place / "run.yaml").code == 0
    model = place / "out" / "model"
    assert crema("eval", place / "run.yaml").code == 0
    assert crema("eval", model, "--json").code == 0
    assert crema("ask", place / "clip.mp4", "What colour is it?", "--model", model).code == 0
    assert crema("cost", place / "run.yaml").code == 0


class TestConfigurations:
    @pytest.mark.parametrize("command", ["train", "eval", "cost"])
    def test_missing(self, crema, tmp_path, command):
        crema(command, tmp_path / "no.yaml").refused("no.yaml", "no such configuration file")

    @pytest.mark.parametrize("command", ["train", "eval", "cost"])
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("model: [video\n", ["not valid YAML", "line 2"]),
            ("- a\n- b\n", ["expected keys and values"]),
            ("train: {epoch: 3}\n", ["'train.epoch'", "did you mean 'train.epochs'"]),
            ("epochs: 3\n", ["'epochs'", "did you mean 'train.epochs'"]),
            ("train: {epochs: many}\n", ["train.epochs"]),
            ("train: 3\n", ["train"]),
            ("model: {senses: [vidio]}\n", ["'vidio'", "did you mean 'video'"]),
            ("model: {senses: []}\n", ["model.senses", "at least one"]),
            ("base: other.yaml\n", ["other.yaml", "no such configuration file", "its base"]),
            ("seed: 1\nseed: 2\n", ["'seed' stands twice"]),
            ("\x00\x01", ["not valid YAML"]),
        ],
    )
    def test_broken(self, crema, tmp_path, command, text, says):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        crema(command, path).refused("run.yaml", *says)
        assert not (tmp_path / "out").exists()

    def test_not_text(self, crema, made):
        crema("train", made / "clip.mp4").refused("clip.mp4", "cannot be read as text")

    def test_a_folder(self, crema, tmp_path):
        crema("train", tmp_path).refused(str(tmp_path), "cannot be read")
        crema("cost", tmp_path).refused(str(tmp_path), "is this a model folder?")
        crema("eval", tmp_path).refused(str(tmp_path), "is this a model folder?")

    @pytest.mark.parametrize("command", ["train", "eval", "cost"])
    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("train.epochs", ["'train.epochs'", "write key=value"]),
            ("=3", ["write key=value"]),
            ("train.epochs=[", ["not a YAML value"]),
            ("train.epochs=x", ["train.epochs"]),
            ("train.epochs=", ["train.epochs"]),
            ("--train.epoch=1", ["'train.epoch'", "did you mean 'train.epochs'"]),
            ("train.epochs.more=1", ["train.epochs"]),
            ("train..epochs=1", ["unknown key"]),
            ("out=", ["out"]),
        ],
    )
    def test_overrides(self, crema, place, command, override, says):
        before = tree(place)
        crema(command, place / "run.yaml", override).refused(*says)
        assert tree(place) == before

    def test_parts_that_do_not_exist(self, crema, place, monkeypatch):
        monkeypatch.undo()  # the real backbones
        run = place / "run.yaml"
        crema("cost", run, "model.llm=smollm2-135m").refused("did you mean 'smollm2-135m-")
        crema("cost", run, "model.encoders.vision=dino").refused("'dino'", "known: dinov2-small")
        crema("train", run, "data.task=vqa9").refused("'vqa9'", "known: music_avqa")

    @pytest.mark.parametrize("key", ["data.train", "data.store", "out", "train.init"])
    def test_names_that_no_file_can_have(self, crema, place, key):
        crema("train", place / "run.yaml", f"{key}={'x' * 300}").refused("xxx", alone=False)
        if key == "data.train":
            crema("train", place / "run.yaml", f'{key}="a\\0b"').refused("cannot be read")


class TestDataFiles:
    def test_missing(self, crema, place):
        (place / "train.jsonl").unlink()
        crema("train", place / "run.yaml").refused("train.jsonl", "no such data file")
        assert not (place / "out").exists()

    def test_not_named(self, crema, place):
        crema("train", place / "run.yaml", "data.train=null").refused("data.train is not set")
        crema("train", place / "run.yaml", "data.validation=no.jsonl").refused("no such data file")

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('{"video": "clip.mp4", "question": "wh', ["not valid JSON"]),
            ("[1, 2]", ["expected a JSON object, found a list"]),
            ({"answer": None}, ["'answer'", "must be a string"]),
            ({"answers": ["a"]}, ["'answer' or field 'answers', not both"]),
            ({"question": " "}, ["'question' is empty"]),
            ({"vidoe": "clip.mp4"}, ["'vidoe'", "did you mean 'video'"]),
            ({"media": {"adio": "sound.wav"}}, ["'adio'", "did you mean 'audio'"]),
            ({"media": {"video": "clip.mp4"}}, ["given twice"]),
            ({"options": ["blue", "green"]}, ["'red'", "not among the options"]),
            ({"options": ["red"]}, ["'options' has 1; give 2 to 26"]),
            ({"id": "train0"}, ["'train0' is already that of line 1"]),
            ('{"id": ' + "1" * 5000 + ', "video": "a", "question": "b", "answer": "c"}', ["JSON"]),
        ],
    )
    def test_a_broken_line(self, crema, place, line, says):
        text = line if isinstance(line, str) else json.dumps({**QUESTION, **line})
        with (place / "train.jsonl").open("a") as file:
            file.write(text + "\n")
        crema("train", place / "run.yaml").refused("train.jsonl, line 5: ", *says)
        assert not (place / "out").exists()

    def test_no_answer(self, crema, place):
        write_lines(place / "train.jsonl", {"video": "clip.mp4", "question": "What is it?"})
        crema("train", place / "run.yaml").refused("train.jsonl, line 1: ", "'answer' is missing")

    def test_no_questions(self, crema, place, model):
        (place / "test.jsonl").write_text("\n\n")
        crema("eval", model).refused("test.jsonl", "no questions")

    def test_no_sense_at_all(self, crema, place):
        media_factory.write_video(place / "mute.mp4", sound="mute")
        write_lines(place / "train.jsonl", {**QUESTION, "video": "mute.mp4"})
        said = crema("train", place / "run.yaml", "model.senses=[audio]")
        said.refused("none of 1 questions has any sense", "audio: ", "mute", alone=False)
        assert not (place / "out").exists()

    def test_any_name(self, crema, place, model):
        """What a shell passes on is a path as it is, not YAML."""
        for name in ("\U0001f600.jsonl", "null", "[a", "a: b # c.jsonl", " "):
            shutil.copy(place / "test.jsonl", place / name)
            ran = crema("eval", model, "--data", place / name, "--json")
            assert ran.code == 0, ran.err
            assert json.loads(ran.out)["data"]["path"] == str(place / name)

    def test_not_text(self, crema, place):
        (place / "train.jsonl").write_bytes(b"\n\xff\xfe")
        crema("train", place / "run.yaml").refused("train.jsonl, line 2: not UTF-8 text")


BAD_MEDIA = {
    "gone.mp4": "no such file",
    "text.mp4": "cannot be read as media",
    "text.txt": "unsupported extension '.txt'",
    "empty.mp4": "the file is empty",
    "cut.mp4": "cut short",
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD_MEDIA)
class TestMedia:
    def test_in_training(self, crema, place, name):
        write_lines(place / "train.jsonl", QUESTION, {**QUESTION, "id": "odd", "video": name})
        ran = crema("train", place / "run.yaml")
        ran.refused(name, "'odd'", BAD_MEDIA[name], alone=False)
        assert not (place / "out").exists()

    def test_in_the_test_it_is_skipped_and_counted(self, crema, place, model, name):
        odd = {**QUESTION, "id": "odd", "video": name}
        write_lines(place / "test.jsonl", QUESTION, odd, {**QUESTION, "id": "last"})
        ran = crema("eval", model, "--json")
        assert ran.code == 0, ran.err
        found = json.loads(ran.out)
        assert (found["expected"], found["scored"], found["skipped"]) == (
            3,
            2,
            {"unusable media": 1},
        )
        lines = (place / "out/results/predictions.jsonl").read_text().splitlines()
        skipped = json.loads(lines[-1])
        assert skipped["id"] == "odd"
        assert name in skipped["detail"]
        assert BAD_MEDIA[name] in skipped["detail"]

    def test_in_a_whole_test_there_is_no_score(self, crema, place, model, name):
        write_lines(place / "test.jsonl", {**QUESTION, "video": name})
        crema("eval", model).refused("no score", name, alone=False)
        assert not (place / "out/results").exists()

    def test_asked_about(self, crema, place, model, name):
        ran = crema("ask", place / name, "What is it?", "--model", model)
        ran.refused(name, BAD_MEDIA[name], alone=False)

    def test_as_a_file_of_a_sense(self, crema, place, model, name):
        if name == "nothing":
            pytest.skip("a folder is a video of pictures, without sound: absent, and said so")
        sense = f"audio={place / name}"
        ran = crema("ask", place / "clip.mp4", "What is it?", "--model", model, "--sense", sense)
        ran.refused(name, alone=False)


class TestAsking:
    @pytest.fixture
    def ask(self, crema, place, model):
        def ask(*arguments, video=None, question="What is it?"):
            return crema("ask", video or place / "clip.mp4", question, "--model", model, *arguments)

        return ask

    def test_an_empty_question(self, ask):
        ask(question=" ").refused("the question is empty")

    def test_half_a_character(self, ask):
        ask(question="what \ud83d is it").refused("not valid text")

    def test_an_endless_question(self, ask):
        ask(question="why " * 2000).refused("prompt.max_text_tokens", "shorten it")

    @pytest.mark.parametrize("text", ["depth", "=x", "depth=", ""])
    def test_a_sense_without_a_path(self, ask, text):
        ask("--sense", text).refused("write NAME=PATH")

    def test_an_unknown_sense(self, ask):
        ask("--sense", "adio=x.wav").refused("'adio'", "did you mean 'audio'")

    def test_a_sense_that_the_model_does_not_have(self, ask, place):
        said = ask("--sense", f"depth={place / 'clip.mp4'}")
        said.refused("no adapter for 'depth'", "it has video, audio")

    def test_a_sense_given_twice(self, ask, place):
        sound = f"audio={place / 'sound.wav'}"
        ask("--sense", sound, "--sense", sound).refused("audio", "twice")
        ask("--sense", f"video={place / 'clip.mp4'}").refused("the video is given twice")

    def test_nothing_to_look_at(self, ask):
        ask(video="-").refused("nothing to look at or listen to")

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["red"], "1 options: give 2 to 26"),
            (["red", "red"], "given twice"),
            (["red", " "], "option 2 is empty"),
            ([f"o{i}" for i in range(27)], "27 options"),
        ],
    )
    def test_options(self, ask, options, says):
        ask("--options", *options).refused(says)

    def test_options_one_by_one(self, ask):
        said = ask("--options", "red", "--options", "blue", "green", "--json")
        assert [o["option"] for o in json.loads(said.out)["options"]] == ["red", "blue", "green"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["train"], "required: config"),
        (["train", "run.yaml", "--quick"], "unrecognized arguments: --quick"),
        (["ask", "clip.mp4"], "required: question"),
        (["ask", "clip.mp4", "What?", "a=b"], "unrecognized arguments: a=b"),
        (["doctor", "more"], "unrecognized arguments: more"),
    ],
)
def test_usage(crema, arguments, says):
    said = crema(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("usage: crema")
    assert says in said.err.splitlines()[-1]


def test_a_reader_that_has_gone_is_no_error(tmp_path):
    """As in ``crema doctor --json | true``."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "CREMA_HOME": str(tmp_path), "PYTHONUNBUFFERED": ""}
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "open_crema.cli", "doctor", "--json"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_without_a_home(tmp_path):
    """A container's user without $HOME and without an entry: told to name a folder."""
    pytest.importorskip("pwd")
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("HOME", "XDG", "CREMA"))
    }
    code = (
        "import pwd\n"
        "def nobody(*_): raise KeyError\n"
        "pwd.getpwuid = nobody\n"
        "from open_crema.cli import main\n"
        "raise SystemExit(main(['doctor']))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("crema: error: ")
    assert "CREMA_HOME" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
