"""The scripts in examples/: what they write and print, without training anything."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import tree
from PIL import Image

import tiny_vlm
from open_crema import attach, config, tasks
from open_crema.experts import senses
from open_crema.media import Clip, Limits

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMITS = Limits()


@pytest.fixture(scope="module", autouse=True)
def _importable():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    import make_clips

    folder = tmp_path_factory.mktemp("clips")
    make_clips.write_split(folder, "train", 8, seed=3)
    return folder


def test_lessons_of_several_senses_are_mixed(tmp_path):
    import mix_lessons

    for sense in ("audio", "flow"):
        lines = [
            {"id": f"q{clip}-{i}", "video": f"{clip}.mp4", "media": {sense: f"{clip}.npz"}}
            for clip in range(5)
            for i in range(2)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"lessons-video+{sense}.jsonl").write_text(text)
    mix_lessons.main(str(tmp_path), "3", "audio", "flow")
    mixed = [json.loads(line) for line in (tmp_path / "mix.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in mixed}) == len(mixed) == 2 * 3 * 2
    for sense in ("audio", "flow"):
        own = [line for line in mixed if sense in line["media"]]
        assert len({line["video"] for line in own}) == 3
        assert all(line["id"].startswith(f"{sense}-q") for line in own)


class TestClips:
    def test_the_seed_alone_decides(self, data, tmp_path):
        import make_clips

        make_clips.write_split(tmp_path / "same", "train", 2, seed=3)
        same = tree(tmp_path / "same")
        assert set(same) == {"train.jsonl", "clips/train0000.mp4", "clips/train0001.mp4"}
        text = (data / "train.jsonl").read_text()
        assert text.startswith(same.pop("train.jsonl").decode())
        assert same == {name: (data / name).read_bytes() for name in same}
        make_clips.write_split(tmp_path / "other", "train", 2, seed=4)
        assert tree(tmp_path / "other")["clips/train0000.mp4"] not in same.values()

    def test_splits_share_no_clip(self, data, tmp_path):
        import make_clips

        make_clips.write_split(tmp_path, "test", 2, seed=3)
        assert not set(tree(tmp_path / "clips").values()) & set(tree(data / "clips").values())

    def test_two_questions_a_clip(self, data):
        samples = tasks.load("jsonl", data / "train.jsonl")
        assert len(samples) == 16
        assert Counter(s.type for s in samples) == {"colour": 8, "sound": 8}
        assert len({s.media["video"] for s in samples}) == 8

    def test_each_clip_shows_its_colour_and_sounds(self, data):
        import make_clips

        for sample in tasks.load("jsonl", data / "train.jsonl"):
            path = sample.media["video"]
            if sample.type == "colour":
                images = senses.read_pictures(path, Clip(3, LIMITS)).images.astype(int)
                near = {
                    name: (abs(images - colour).max(axis=-1) < 60).mean()
                    for name, colour in make_clips.COLOURS.items()
                }
                assert max(near, key=near.get) == sample.answers[0], near
                assert near[sample.answers[0]] > 0.05
            else:
                sound = senses.read_sound(path, Clip(3, LIMITS))
                assert np.sqrt((sound.samples**2).mean()) > 0.02
                assert len(sound.samples) / sound.rate == pytest.approx(3, abs=0.2)

    def test_sounds_differ_in_pitch(self):
        import make_clips

        def loudest(kind, seed):
            wave = make_clips.sound(kind, np.random.default_rng(seed))
            power = abs(np.fft.rfft(wave)) ** 2
            hertz = np.fft.rfftfreq(wave.size, 1 / make_clips.RATE)
            return (hertz * power).sum() / power.sum()

        for seed in range(3):
            at = {kind: loudest(kind, seed) for kind in make_clips.SOUNDS}
            assert at["drum"] < at["bell"]
            assert at["wind"] < at["siren"]


class TestEsc10:
    @pytest.fixture
    def source(self, tmp_path):
        """Two classes, five folds, two clips each; and what must be left alone."""
        for number, name in ((1, "Dog bark"), (2, "Rain")):
            folder = tmp_path / "esc" / f"{number:03d} - {name}"
            folder.mkdir(parents=True)
            for fold in range(1, 6):
                for take in "AB":
                    (folder / f"{fold}-{number}00{fold}-{take}.ogg").touch()
        (tmp_path / "esc" / "001 - Dog bark" / "notes.txt").touch()
        (tmp_path / "esc" / "README").touch()
        return tmp_path / "esc"

    def test_folds(self, source, tmp_path, capsys):
        import esc10

        esc10.write(source, tmp_path / "out")
        assert "20 clips, 5 folds" in capsys.readouterr().out
        every = {str(p.resolve()) for p in source.glob("*/*.ogg")}
        tested = []
        for fold in range(1, 6):
            place = tmp_path / "out" / f"fold{fold}"
            for start in ("base", "scratch"):
                run = config.load(place / f"{start}.yaml")
                assert run.model.senses == ("audio",)
                assert run.out == str(place / start)
                assert (run.train.init is None) == (start == "scratch")
            train, test = (
                tasks.load("vggsound", file, media_root=run.data.media_root)
                for file in (run.data.train, run.data.test)
            )
            assert (len(train), len(test)) == (16, 4)
            heard = [str(Path(s.media["audio"]).resolve()) for s in test]
            assert all(Path(p).name.startswith(f"{fold}-") for p in heard)
            assert {str(Path(s.media["audio"]).resolve()) for s in train} == every - set(heard)
            assert {s.answers for s in train} == {("dog bark",), ("rain",)}
            assert {s.candidates for s in train} == {("dog bark", "rain")}
            tested += heard
        assert sorted(tested) == sorted(every)

    def test_another_folder(self, tmp_path):
        import esc10

        with pytest.raises(SystemExit, match="is this ESC-10"):
            esc10.write(tmp_path, tmp_path / "out")

    def test_table(self, tmp_path, capsys):
        import esc10

        for fold in range(1, 6):
            place = tmp_path / f"fold{fold}"
            (place / "base" / "results").mkdir(parents=True)
            ours = {
                "n": 10,
                "expected": 10,
                "correct": 5 + fold % 2,
                "accuracy": (5 + fold % 2) / 10,
                "lenient": 0.7,
                "outside": 0,
                "inside": None,
                "chance": 0.1,
                "blind": 0.1,
            }
            (place / "base" / "results" / "results.json").write_text(json.dumps(ours))
            (place / "probe.json").write_text(json.dumps({"accuracy": 0.8}))
        esc10.table(tmp_path)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("fold 1, base: N 10 of 10, chance 0.100, blind 0.100, strict")
        rest = dict(line.split(": ", 1) for line in lines[5:])
        assert rest["linear probe"].startswith("mean 0.800")
        assert rest["base, strict"] == "mean 0.560, standard deviation 0.055"
        assert rest["base, lenient"].startswith("mean 0.700")
        assert "28 of 50" in rest["base, all folds"]


def test_the_configurations_that_the_examples_use_load():
    root = EXAMPLES.parent / "configs" / "embedded"
    for name in ("from_scratch", "esc10"):
        assert config.load(root / f"{name}.yaml").name == name


def test_the_picture_of_the_colours_is_the_one_in_the_documentation(tmp_path):
    """A change of a scale has to change the picture that explains it."""
    import colours

    colours.main(tmp_path / "colours.png")
    drawn, kept = (
        # Small, because another version of the drawing library moves text by a pixel.
        np.asarray(Image.open(path).convert("RGB").resize((130, 56), Image.Resampling.BOX), int)
        for path in (tmp_path / "colours.png", EXAMPLES.parent / "docs" / "colours.png")
    )
    assert np.abs(drawn - kept).mean() < 0.5


def test_attaching_to_a_vlm(data, stand_ins, tmp_path, capsys):
    """A tiny random VLM, opened from its folder as a real one is; its processor is Idefics3's."""
    import attach_vlm

    vlm, processor = tiny_vlm.make("idefics3")
    vlm.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    shape = {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "queries": 2}
    run = {
        "model": {"senses": ["audio"], "qformer": shape},
        "data": {"frames": 2},
        "train": {"epochs": 1, "batch_size": 8},
        "eval": {"max_new_tokens": 2},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    file, out = data / "train.jsonl", tmp_path / "out"
    attach_vlm.main(tmp_path / "vlm", file, file, out, tmp_path / "run.yaml", "train.lr=1e-3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("trainable parameters: audio")
    assert sum("the VLM alone" in line for line in lines) == 16
    again = attach(*tiny_vlm.make("idefics3"), from_pretrained=out)
    assert again.senses == ["audio"]
    assert config.load(out / "run.yaml").train.lr == 1e-3
