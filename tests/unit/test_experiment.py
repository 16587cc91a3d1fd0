"""From a configuration file to a trained and scored model, with parts of no size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny
from open_crema import backbones, config, experiment
from open_crema.data.extract import Source
from open_crema.errors import ConfigError, DataError, MediaError, SenseAbsent, WeightsError
from open_crema.features import Features
from open_crema.modality import canonical, get
from open_crema.model.files import save_pretrained
from tiny import one_seeded_thread  # noqa: F401

SPLITS = ("train", "validation", "test")
WIDTHS = {"video": 384, "audio": 1024, "flow": 384}
SHAPE = {
    "qformer": {"layers": 1, "width": 16, "heads": 2, "ffn": 16, "queries": 2, "encoder_width": 12},
    "lora": {"rank": 2},
}


class Extractor:
    """Noise for every named file."""

    store = None

    def __init__(self, senses: tuple[str, ...]) -> None:
        self.senses = canonical(senses)
        self.modalities = {sense: get(sense) for sense in self.senses}

    def source(self, sample, sense):
        if sense not in sample.media:
            return SenseAbsent(sense, "no file given")
        return Source(sample.media[sense], "noise")

    def features(self, sample, sense):
        found = self.source(sample, sense)
        return found if isinstance(found, SenseAbsent) else self.obtain(found, sense)

    def obtain(self, source, sense, *, making=None):
        return self.noise(sense)

    def noise(self, sense):
        times = torch.tensor([[0.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        mask = torch.ones(2, 3, dtype=torch.bool)
        return Features(torch.randn(2, 3, WIDTHS[sense]).bfloat16(), mask, times)


@pytest.fixture(autouse=True)
def tiny_parts(monkeypatch):
    monkeypatch.setattr(backbones, "load", lambda name, **_: tiny.backbone())
    monkeypatch.setattr(
        experiment.Extractor, "from_config", lambda run: Extractor(run.model.senses)
    )


@pytest.fixture
def write(tmp_path):
    """Writes a run: six questions a split and the YAML file; returns its path."""

    def write(**sections) -> Path:
        for split in SPLITS:
            lines = [
                {
                    "video": f"{split}{i}.mp4",
                    "media": {"audio": f"{i}.wav"} if i % 2 else {},
                    "question": "what is it",
                    "options": ["red", "two dogs"],
                    "answer": ["red", "two dogs"][i % 2],
                }
                for i in range(6)
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (tmp_path / f"{split}.jsonl").write_text(text)
        data = {split: str(tmp_path / f"{split}.jsonl") for split in SPLITS}
        run = {
            "out": str(tmp_path / "out"),
            "model": {**SHAPE, **sections.pop("model", {})},
            "data": {**data, **sections.pop("data", {})},
            "train": {"epochs": 2, "batch_size": 3, **sections.pop("train", {})},
        }
        path = tmp_path / "run.yaml"
        path.write_text(config.to_yaml(config.from_dict({**run, **sections})))
        return path

    return write


def test_a_run_from_yaml_to_results(write, tmp_path):
    run, folder = experiment.load_run(write())
    assert folder == tmp_path / "out" / "model"
    assert experiment.train(run) == folder
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    lines = [json.loads(s) for s in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    scored = [line["validation"] for line in lines if line["kind"] == "epoch"]
    assert [v["n"] for v in scored] == [6, 6]

    again, same = experiment.load_run(folder, ["eval.batch_size=2"])
    assert (same, again.eval.batch_size, again.train) == (folder, 2, run.train)
    found = experiment.evaluate_split(again, folder, out=tmp_path / "results").evaluation
    assert len(found.predictions) == found.expected == 6
    kept = json.loads((tmp_path / "results" / "results.json").read_text())
    assert kept["config"]["eval"]["batch_size"] == 2
    alone = experiment.evaluate_split(again, folder, senses=["video"], out=tmp_path / "alone")
    assert alone.evaluation.senses == ("video",)


def test_a_run_of_no_epochs_saves_the_model(write):
    run, folder = experiment.load_run(write(train={"epochs": 0}))
    assert experiment.train(run) == folder
    assert (folder / "config.json").exists()


def test_without_validation_the_last_epoch_is_kept(write, tmp_path):
    run, folder = experiment.load_run(write(data={"validation": None}))
    experiment.train(run)
    text = (tmp_path / "out" / "log.jsonl").read_text()
    assert "validation" not in text
    assert folder.exists()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_that_is_not_given(write, split):
    run = config.load(write(data={split: None}))
    with pytest.raises(ConfigError, match=rf"data\.{split} is not set; give it, as in"):
        experiment.read_samples(run, split)


def test_a_split_that_is_not_there(write, tmp_path):
    run = config.load(write(data={"train": str(tmp_path / "none.jsonl")}))
    with pytest.raises(DataError, match=r"none\.jsonl: no such data file"):
        experiment.train(run)


def test_a_fresh_model_is_a_function_of_the_seed(write):
    run = config.load(write())

    def queries(overrides: list[str]) -> torch.Tensor:
        return experiment.build_model(config.override(run, overrides)).adapters["video"].queries

    assert torch.equal(queries([]), queries(["train.epochs=9"]))
    assert not torch.equal(queries([]), queries(["seed=1"]))


def test_a_model_to_start_from_grows_and_shrinks(write, tmp_path):
    base = experiment.build_model(config.load(write()))
    folder = save_pretrained(base, tmp_path / "base")
    run = config.load(write(model={"senses": ["flow", "video"]}, train={"init": str(folder)}))
    model = experiment.build_model(run)
    assert model.senses == ["video", "flow"]
    assert model.config == run.model
    assert torch.equal(model.adapters["video"].queries, base.adapters["video"].queries)
    sole = config.override(run, ["model.senses=[flow]"])
    assert experiment.build_model(sole).senses == ["flow"]


def test_input_projections_are_compared_for_the_senses_that_a_run_has(write, tmp_path):
    def run(senses: list[str], named: list[str], init: Path | None = None) -> config.Config:
        model = {"senses": senses, "input_projection": named}
        train = {} if init is None else {"init": str(init)}
        return config.load(write(model=model, train=train))

    def saved(name: str, made: config.Config) -> Path:
        return save_pretrained(experiment.build_model(made), tmp_path / name)

    both = saved("both", run(["video", "flow"], ["flow"]))
    alone = saved("alone", run(["video"], []))
    for named in ([], ["flow"]):
        shrunk = run(["video"], named, both)
        assert experiment.build_model(shrunk).config == shrunk.model
        grown = run(["video", "flow"], named, alone)
        assert experiment.build_model(grown).config == grown.model
    with pytest.raises(ConfigError, match=r"its model\.input_projection differ"):
        experiment.build_model(run(["video", "flow"], [], both))


def test_a_run_does_not_replace_the_model_that_it_starts_from(write, tmp_path):
    base = experiment.build_model(config.load(write()))
    folder = save_pretrained(base, tmp_path / "out" / "model")
    run = config.load(write(train={"init": str(folder / ".." / "model")}))
    with pytest.raises(ConfigError, match="is what this run would replace: choose another `out`"):
        experiment.train(run, fresh=True)
    assert (folder / "config.json").exists()


@pytest.mark.parametrize(
    ("init", "said"), [("base", "video, audio have been trained"), ("nowhere", "nowhere")]
)
def test_what_a_run_starts_from_is_looked_at_before_features_are_made(
    write, tmp_path, monkeypatch, init, said
):
    base = experiment.build_model(config.load(write(model={"senses": ["video", "audio"]})))
    save_pretrained(base, tmp_path / "base")
    senses = {"senses": ["video", "audio"]}
    path = write(model=senses, train={"init": str(tmp_path / init), "scope": "own"})
    monkeypatch.setattr(experiment, "extract_all", None)
    with pytest.raises((ConfigError, WeightsError), match=said):
        experiment.train(config.load(path))
    assert not (tmp_path / "out").exists()


def test_a_model_to_start_from_of_another_shape(write, tmp_path):
    folder = save_pretrained(experiment.build_model(config.load(write())), tmp_path / "base")
    changed = write(model={"lora": {"rank": 3}}, train={"init": str(folder)})
    with pytest.raises(ConfigError, match=r"its model\.lora differ from this configuration's"):
        experiment.build_model(config.load(changed))
    with pytest.raises(WeightsError, match="nowhere"):
        experiment.build_model(config.load(write(train={"init": str(tmp_path / "nowhere")})))


def test_neither_a_configuration_nor_a_model(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        experiment.load_run(tmp_path / "none.yaml")
    with pytest.raises(WeightsError, match="is this a model folder"):
        experiment.load_run(tmp_path)


def test_the_default_model_is_in_the_cache_or_the_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.setenv("CREMA_HOME", str(tmp_path))
    assert experiment.default_model() == experiment.shipped_base()
    own = tmp_path / "models" / "default"
    own.mkdir(parents=True)
    assert experiment.default_model() == own


class TestBrokenFiles:
    """One question of six names a sound file that cannot be read."""

    @pytest.fixture(autouse=True)
    def broken(self, monkeypatch):
        obtain = Extractor.obtain

        def failing(self, source, sense, **options):
            if source.path.endswith("/3.wav"):
                raise MediaError(f"{source.path}: damaged")
            return obtain(self, source, sense, **options)

        monkeypatch.setattr(Extractor, "obtain", failing)

    def logged(self, tmp_path):
        lines = [json.loads(s) for s in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if line["kind"] in ("skipped", "masked")]

    def test_end_training(self, write, tmp_path):
        with pytest.raises(MediaError, match=r"'line-4', audio: .*3\.wav: damaged; .*=skip"):
            experiment.train(config.load(write()))
        assert not (tmp_path / "out").exists()

    def test_are_left_out_of_training(self, write, tmp_path, caplog):
        experiment.train(config.load(write(data={"on_error": "skip"})))
        (line,) = self.logged(tmp_path)
        assert (line["kind"], line["sample"]) == ("skipped", "line-4")
        assert "3.wav: damaged" in line["error"]
        assert "1 of 6 questions are left out" in caplog.text
        assert "3.wav: damaged" in caplog.text

    def test_are_withheld_in_training(self, write, tmp_path):
        experiment.train(config.load(write(data={"on_error": "mask"})))
        (line,) = self.logged(tmp_path)
        assert (line["kind"], line["sample"], line["sense"]) == ("masked", "line-4", "audio")

    @pytest.mark.parametrize("policy", ["skip", "mask"])
    def test_decide_what_a_run_is_trained_on(self, write, monkeypatch, policy):
        run = config.load(write(data={"on_error": policy}))
        experiment.train(run)
        monkeypatch.setattr(Extractor, "obtain", lambda self, s, sense, **_: self.noise(sense))
        with pytest.raises(ConfigError, match="training questions differ"):
            experiment.train(run)

    def test_nothing_but_broken_files(self, write, tmp_path):
        run = config.load(write(data={"on_error": "skip"}, model={"senses": ["audio"]}))
        line = {"media": {"audio": "3.wav"}, "question": "what is it", "answer": "red"}
        (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
        with pytest.raises(DataError, match=r"none of 1 questions .*3\.wav: damaged"):
            experiment.train(run)

    @pytest.mark.parametrize(("policy", "scored"), [("skip", 5), ("mask", 6)])
    def test_in_evaluation(self, write, tmp_path, policy, scored):
        run = config.load(write(data={"on_error": "skip"}, eval={"on_error": policy}))
        folder = experiment.train(run)
        found = experiment.evaluate_split(run, folder, out=tmp_path / "results").evaluation
        assert (found.expected, len(found.predictions)) == (6, scored)
        assert len(found.skipped) == 6 - scored

    def test_end_an_evaluation(self, write, tmp_path):
        run = config.load(write(data={"on_error": "skip"}, eval={"on_error": "error"}))
        folder = experiment.train(run)
        with pytest.raises(MediaError, match=r"'line-4'.*eval\.on_error=skip or eval"):
            experiment.evaluate_split(run, folder, out=tmp_path / "results")
        assert not (tmp_path / "results").exists()
