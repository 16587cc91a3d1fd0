"""MMQA pre-training (paper A.3) and what it is a start of, with its own configurations made small:
image-pretrained start -> audio -> points -> a row with video, sound and a fusion; and zero-shot.

Encoders and LLM are stand-ins; the way from YAML and jsonl to results is the command's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny
from open_crema import backbones, cli, config, experiment
from open_crema.config import Config, EncodersConfig
from open_crema.data.extract import Source
from open_crema.errors import SenseAbsent
from open_crema.features import Features
from open_crema.modality import canonical, get
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, save_pretrained
from tiny import one_seeded_thread  # noqa: F401

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"
# The full size made small. What is no size stays as the file has it.
SIZES = {"layers": 2, "width": 16, "heads": 2, "ffn": 32, "queries": 3}
SMALL = [
    *(f"model.qformer.{name}={size}" for name, size in SIZES.items()),
    "model.lora.rank=2",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.warmup_steps=1",
]
WIDTHS = {"video": 1408, "audio": 768, "point": 1408, "flow": 1408, "depth": 1408}
SEGMENTS = {"audio": 2, "point": 1}


class Extractor:
    """Noise that depends on the file's name alone."""

    store = None

    def __init__(self, senses: tuple[str, ...]) -> None:
        self.senses = canonical(senses)
        self.modalities = {sense: get(sense) for sense in self.senses}
        self.encoders_config = EncodersConfig()

    def source(self, sample, sense):
        if sense not in sample.media:
            return SenseAbsent(sense, "no file given")
        return Source(sample.media[sense], "noise")

    def features(self, sample, sense):
        found = self.source(sample, sense)
        return found if isinstance(found, SenseAbsent) else self.obtain(found, sense)

    def obtain(self, source, sense, *, making=None):
        count = SEGMENTS.get(sense, 4)
        noise = torch.Generator().manual_seed(sum(map(ord, str(source))))
        edges = torch.linspace(0, 8, count + 1, dtype=torch.float64)
        times = torch.stack([edges[:-1], edges[1:]], dim=1)
        tokens = torch.randn(count, 3, WIDTHS[sense], generator=noise).bfloat16()
        return Features(tokens, torch.ones(count, 3, dtype=torch.bool), times)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(backbones, "of", lambda model: tiny.backbone("encoder-decoder"))
    monkeypatch.setattr(
        experiment.Extractor, "from_config", lambda run: Extractor(run.model.senses)
    )


def questions(path: Path, *senses: str) -> Path:
    """A made jsonl of question answering about these senses' files."""
    lines = [
        {
            "id": str(i),
            "media": {sense: f"{path.stem}{i}.{sense}" for sense in senses},
            "question": ["what is it", "is it red"][i % 2],
            "answer": ["dog", "yes"][i % 2],
        }
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = from_pretrained(folder)
    return {n: t for n, t in model.state_dict().items() if not n.startswith("backbone.")}


def changed(before: dict, after: dict) -> set[str]:
    return {n for n in before.keys() & after.keys() if not torch.equal(before[n], after[n])}


@pytest.fixture
def start(tmp_path) -> Path:
    """As `crema convert blip2` leaves it: the image's adapter, trained, its LoRA at nothing, senses
    one after the other and the released code's prompt."""
    said = config.load(PAPER / "pretrain_audio.yaml", [*SMALL, "model.senses=[video]"]).model
    reference = ["model.prompt.layout=reference", "model.align.audio=mean"]
    said = config.override(Config(model=said), reference).model
    torch.manual_seed(7)
    model = Crema(said, tiny.backbone("encoder-decoder"))
    with torch.no_grad():
        for part in (model.adapter("video").projection, model.adapter("video").input_norm):
            part.bias.normal_()
    return save_pretrained(model, tmp_path / "start", run=Config(model=said))


def train(name: str, tmp_path: Path, init: Path, data: Path, *more: str) -> Path:
    out = tmp_path / name
    own = [f"data.train={data}", "data.task=jsonl", "data.options=null"]
    options = [f"out={out}", f"train.init={init}", *own, *SMALL, *more]
    assert cli.main(["train", str(PAPER / f"{name}.yaml"), *options]) == 0
    return out / "model"


def results(yaml: str, model: Path, data: Path, out: Path, *more: str) -> dict:
    command = ["eval", str(PAPER / f"{yaml}.yaml"), "--model", str(model), "--data", str(data)]
    command += ["--task", "jsonl", "--no-drop-one"]
    assert cli.main([*command, "--results", str(out), "--json", *more]) == 0
    return json.loads((out / "results.json").read_text())


def test_sound_is_pretrained_and_starts_a_row_of_video_and_sound(tmp_path, start, caplog):
    sound = questions(tmp_path / "audiocaps.jsonl", "audio")
    untrained = weights(
        train("pretrain_audio", tmp_path / "untrained", start, sound, "train.epochs=0")
    )
    image, base = "adapters.video.", weights(start)
    for part in ("queries", "projection.weight", "projection.bias", "input_norm.bias"):
        assert torch.equal(untrained[f"adapters.audio.{part}"], base[f"{image}{part}"]), part
    lora = [n for n in untrained if n.startswith("adapters.audio.lora") and n.endswith(".b")]
    assert lora
    assert not any(untrained[n].any() for n in lora)

    pretrained = train("pretrain_audio", tmp_path, start, sound)
    assert "goes on with this configuration's" in caplog.text
    after = weights(pretrained)
    moved = changed(untrained, after)
    assert moved
    assert all(n.startswith("adapters.audio.") for n in moved)
    for part in ("queries", "projection.weight", "input_projection.weight", "input_norm.weight"):
        assert f"adapters.audio.{part}" in moved, part
    assert set(lora) & moved
    assert not changed(base, after), "the image's adapter and the Q-Former stay, to the bit"
    lines = (tmp_path / "pretrain_audio" / "log.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if line["kind"] == "step"]
    assert [line["sense"] for line in steps] == ["audio", "audio"], "one epoch of four questions"
    assert max(line["lr"] for line in steps) == 1e-5

    both = questions(tmp_path / "music.jsonl", "video", "audio")
    more = [pretrained, both]
    begun = weights(train("music_avqa_va", tmp_path / "begun", *more, "train.epochs=0"))
    assert begun.keys() == after.keys()
    assert not changed(begun, after), "what was pre-trained is in it"
    fine = weights(train("music_avqa_va", tmp_path, *more, "train.epochs=1"))
    moved = changed(after, fine)
    assert {n.split(".")[1] for n in moved} == {"video", "audio"}
    assert all(n.startswith("adapters.") for n in moved), "the Q-Former is frozen"


def test_points_join_and_a_row_begins_its_fusion_anew(tmp_path, start):
    sound = questions(tmp_path / "audiocaps.jsonl", "audio")
    points = questions(tmp_path / "3dllm.jsonl", "point")
    first = train("pretrain_audio", tmp_path, start, sound)
    second = train("pretrain_point", tmp_path, first, points)
    moved = changed(weights(first), weights(second))
    assert not moved, "audio and video stay as they are"
    assert torch.equal(
        weights(start)["adapters.video.queries"], weights(second)["adapters.video.queries"]
    )
    assert "adapters.point.input_norm.weight" not in weights(second)
    scene = questions(tmp_path / "sqa3d.jsonl", "video", "point", "depth")
    more = [second, scene, "train.like=video"]
    begun = weights(train("sqa3d_vpd", tmp_path / "begun", *more, "train.epochs=0"))
    assert "adapters.audio.queries" not in begun, "the row has no sound"
    assert begun["fusion.blocks.point"].any()
    assert not changed(begun, weights(second))
    assert torch.equal(begun["adapters.depth.queries"], begun["adapters.video.queries"])
    fine = weights(train("sqa3d_vpd", tmp_path, *more, "train.epochs=1"))
    moved = changed(begun, fine)
    assert {"fusion.blocks.point", "fusion.blocks.depth", "fusion.bias"} <= moved
    assert all(n.startswith(("adapters.", "fusion.")) for n in moved)


def test_zero_shot_rows_say_so(tmp_path, start, capsys):
    sound = questions(tmp_path / "audiocaps.jsonl", "audio")
    asked = questions(tmp_path / "music.jsonl", "audio")
    pretrained = train("pretrain_audio", tmp_path, start, sound)
    found = results(
        "music_avqa_a_zeroshot", pretrained, asked, tmp_path / "with", "--senses", "audio"
    )
    said = {"epochs": 1, "data": str(sound), "init": str(start), "zero_shot": True, "untrained": []}
    assert found["training"] == said
    assert found["scored"] == 4
    assert found["absent"] == {}

    # Table 17, "w/o PT": the same start, untrained. A run of no epochs needs no data.
    out = tmp_path / "without"
    options = [f"out={out}", f"train.init={start}", "train.epochs=0", *SMALL]
    assert cli.main(["train", str(PAPER / "pretrain_audio.yaml"), *options]) == 0
    left_out = results(
        "music_avqa_a_zeroshot", out / "model", asked, tmp_path / "a", "--senses", "audio"
    )
    assert left_out["absent"]["audio"] == {"its adapter has not been trained yet": 4}
    use = ["eval.untrained=use", "--senses", "audio"]
    used = results("music_avqa_a_zeroshot", out / "model", asked, tmp_path / "b", *use)
    assert used["absent"] == {}
    assert used["training"]["zero_shot"] is True
    assert used["training"]["epochs"] == 0
    assert used["training"]["untrained"] == ["audio"]
    assert from_pretrained(out / "model").untrained == ["audio"], "the model itself stays new"

    # A converted model that no run of ours has trained.
    seen = questions(tmp_path / "seen.jsonl", "video")
    converted = results("music_avqa_v_zeroshot", start, seen, tmp_path / "c")
    assert converted["training"]["epochs"] is None
    capsys.readouterr()
    table = ["eval", str(PAPER / "music_avqa_v_zeroshot.yaml"), "--model", str(start)]
    table += ["--task", "jsonl"]
    assert cli.main([*table, "--data", str(seen), "--results", str(tmp_path / "d")]) == 0
    assert "zero-shot" in " ".join(capsys.readouterr().out.split())
    # What was trained on the configuration's own data is not.
    tuned = train(
        "music_avqa_a_r64", tmp_path, pretrained, asked, "train.epochs=1", "model.lora.rank=2"
    )
    again = ["--model", str(tuned), "--data", str(asked), "--results", str(tmp_path / "e")]
    assert cli.main(["eval", str(tuned), *again]) == 0
    assert "zero-shot" not in capsys.readouterr().out
