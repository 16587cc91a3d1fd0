import json
import math
import shutil

import numpy as np
import pytest
import torch

import media_factory
import tiny
from open_crema import modality
from open_crema.config import DataConfig, EvalConfig
from open_crema.data.dataset import FeatureDataset
from open_crema.data.sample import Batch, Sample
from open_crema.data.store import FeatureStore
from open_crema.errors import ConfigError, CremaError, MediaError
from open_crema.features import Features
from open_crema.model.crema import UNTRAINED
from open_crema.predictor import Predictor
from open_crema.tasks import jsonl

OPTIONS = ["a phone", "a bird", "rain"]


class Brightness:
    """A stand-in for a frozen vision encoder: each picture's brightness, spread over 12 numbers."""

    name, width, fingerprint = "brightness", 12, "brightness"
    calls = 0

    def __call__(self, media):
        Brightness.calls += 1
        levels = torch.from_numpy(media.images.mean(axis=(1, 2, 3))).float() / 255
        waves = torch.sin(levels[:, None, None] * torch.arange(1.0, 25).view(2, 12) * 5)
        return Features(
            waves, torch.ones(waves.shape[:2], dtype=torch.bool), torch.from_numpy(media.times)
        )


class Loudness:
    """A stand-in for a frozen audio encoder: half-second windows of the spectrum, 10 numbers."""

    name, width, fingerprint = "loudness", 10, "loudness"

    def __call__(self, media):
        step = media.rate // 2
        count = max(1, len(media.samples) // step)
        windows = np.resize(media.samples, count * step).reshape(count, step)
        bands = np.abs(np.fft.rfft(windows))[:, 1:2501].reshape(count, 10, 250).mean(axis=2)
        start = media.start + torch.arange(count, dtype=torch.float64) / 2
        return Features(
            torch.from_numpy(bands).float().log1p()[:, None],
            torch.ones(count, 1, dtype=torch.bool),
            torch.stack([start, start + 0.5], dim=1),
        )


@pytest.fixture(autouse=True)
def _encoders(monkeypatch, tmp_path):
    monkeypatch.setenv("CREMA_HOME", str(tmp_path / "home"))
    Brightness.calls = 0
    monkeypatch.setattr(
        "open_crema.data.extract.encoder_for",
        lambda kind, config: {"vision": Brightness, "audio": Loudness}[kind.encoder](),
    )


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    level = media_factory.grey_level
    return {
        "clip": media_factory.write_video(folder / "clip.mp4", sound="tone", picture=level),
        "silent": media_factory.write_video(folder / "silent.mp4", picture=level),
        "mute": media_factory.write_video(folder / "mute.mp4", sound="mute", picture=level),
        "sound": media_factory.write_audio(folder / "sound.wav"),
        "thermal": media_factory.write_frames_folder(folder / "thermal", frames=20),
        "text": media_factory.write_text(folder / "text.mp4"),
    }


def predictor(*senses, **options):
    return Predictor(tiny.crema(*(senses or ("video", "audio"))), **options)


def test_options_are_answered_with_their_probabilities(media):
    p = predictor()
    p.set_media(media["clip"])
    answer = p.ask("What is ringing?", OPTIONS)
    assert [o.option for o in answer.options] == OPTIONS
    assert sum(o.probability for o in answer.options) == pytest.approx(1, abs=1e-5)
    assert answer.answer == max(answer.options, key=lambda o: o.probability).option


def test_the_answer_is_that_of_training_and_evaluation(media, tmp_path):
    p = predictor()
    line = {"video": str(media["clip"]), "question": " What is it? ", "options": OPTIONS}
    lines = [line, {**line, "id": "open"}]
    del lines[1]["options"]
    file = tmp_path / "ask.jsonl"
    file.write_text("".join(json.dumps(x) + "\n" for x in lines))
    samples = jsonl.load(file, answers_required=False)
    data = FeatureDataset(samples, p._extractor, frames=4)
    p.set_media(media["clip"])
    scored = p.ask(" What is it? ", OPTIONS)
    expected = p.model.score(data.batch([0])).probabilities()[0].tolist()
    assert [o.probability for o in scored.options] == pytest.approx(expected, abs=1e-5)
    said = p.ask("What is it?")
    assert said.answer == p.model.generate(data.batch([1]), max_new_tokens=10).texts[0]


def test_what_is_seen_and_heard_changes_the_answer(media, tmp_path):
    p = predictor()
    probabilities = []
    for name in ("clip", "silent"):
        p.set_media(media[name])
        answer = p.ask("What is it?", OPTIONS)
        probabilities.append([o.probability for o in answer.options])
    dark = media_factory.write_video(
        tmp_path / "dark.mp4", picture=lambda n, w, h: np.zeros((h, w, 3), np.uint8)
    )
    p.set_media(dark)
    probabilities.append([o.probability for o in p.ask("What is it?", OPTIONS).options])
    alone = Batch((jsonl_sample("What is it?", OPTIONS),))
    probabilities.append(p.model.score(alone).probabilities()[0].tolist())
    for i, one in enumerate(probabilities):
        for other in probabilities[i + 1 :]:
            assert one != pytest.approx(other, abs=1e-4)


def jsonl_sample(question, options):
    return Sample("", jsonl.multiple_choice(question, options), {}, (), tuple(options))


def test_media_are_read_once_for_many_questions(media, tmp_path):
    clip = shutil.copy(media["clip"], tmp_path / "clip.mp4")
    p = predictor()
    p.set_media(clip)
    (tmp_path / "clip.mp4").unlink()
    first = p.ask("What is it?", OPTIONS)
    p.ask("How many?")
    again = p.ask("What is it?", OPTIONS)
    assert Brightness.calls == 1
    assert again.options == first.options
    assert again.seconds["read+encode"] == first.seconds["read+encode"]


def test_a_store_is_used_by_the_next_run(media, tmp_path):
    store = FeatureStore(tmp_path)
    answers = []
    for _ in range(2):
        p = predictor(store=store)
        p.set_media(media["clip"])
        answers.append(p.ask("What is it?", OPTIONS).options)
    assert Brightness.calls == 1
    assert answers[0] == answers[1]


def test_senses_are_reported_with_gates_segments_and_times(media):
    p = predictor("video", "audio", "flow", "thermal", data=DataConfig(store_frames=6, frames=3))
    p.set_media(media["clip"], {"thermal": media["thermal"]})
    answer = p.ask("What is it?")
    assert list(answer.senses) == ["video", "audio", "flow", "thermal"]
    assert answer.senses["video"].gate is None
    gates = [answer.senses[s].gate for s in ("audio", "flow", "thermal")]
    assert all(0 < g < 1 for g in gates)
    assert sum(gates) == pytest.approx(1, abs=1e-5)
    assert [x.segments for x in answer.senses.values()] == [3, 4, 3, 3]
    assert answer.absent == {}
    assert set(answer.seconds) == {"read+encode", "answer"}
    assert set(answer.seconds["read+encode"]) == set(answer.senses)
    assert all(t > 0 for t in (*answer.seconds["read+encode"].values(), answer.seconds["answer"]))


def test_an_untrained_sense_has_no_part(media):
    model = tiny.crema("video", "audio")
    model.add_sense("thermal", 12)
    p = Predictor(model)
    p.set_media(media["clip"], {"thermal": media["thermal"]})
    answer = p.ask("What is it?")
    assert answer.absent == {"thermal": UNTRAINED}
    assert set(answer.senses) == {"video", "audio"}
    assert answer.senses["audio"].gate == pytest.approx(1)


def test_without_a_gate_there_is_no_strength(media):
    p = Predictor(tiny.crema("video", "audio", fusion={"kind": "concat"}))
    p.set_media(media["clip"])
    assert {s: x.gate for s, x in p.ask("?").senses.items()} == {"video": None, "audio": None}


def test_without_video_the_first_sense_present_is_primary(media):
    p = predictor("video", "audio", "thermal")
    p.set_media(senses={"thermal": media["thermal"], "audio": media["sound"]})
    answer = p.ask("What is it?")
    assert list(answer.senses) == ["audio", "thermal"]
    assert answer.senses["audio"].gate is None
    assert answer.senses["thermal"].gate == pytest.approx(1)
    assert list(answer.absent) == ["video"]


@pytest.mark.parametrize(
    ("name", "reason"), [("silent", "has no sound track"), ("mute", "mute sound track")]
)
def test_absent_senses_come_with_their_reason(media, name, reason):
    p = predictor("video", "audio", "depth")
    p.set_media(media[name])
    answer = p.ask("What is it?")
    assert list(answer.senses) == ["video"]
    assert reason in answer.absent["audio"]
    assert "no file given" in answer.absent["depth"]
    assert str(media[name]) not in answer.absent["audio"]


def test_the_dictionary_has_these_keys_and_is_json(media):
    p = predictor()
    p.set_media(media["silent"])
    said = p.ask("What is it?").to_dict()
    assert list(said) == ["answer", "senses", "absent", "seconds"]
    assert said["senses"] == {"video": {"gate": None, "segments": 4}}
    assert json.loads(json.dumps(said)) == said
    chosen = p.ask("What is it?", OPTIONS).to_dict()
    assert list(chosen) == ["answer", "options", "senses", "absent", "seconds"]
    assert [set(o) for o in chosen["options"]] == [{"option", "probability"}] * 3
    chosen["senses"].clear()
    chosen["absent"].clear()
    assert p.ask("What is it?").to_dict()["senses"] == said["senses"]


def test_open_answers_are_as_long_as_configured(media):
    lengths = []
    for longest in (1, 6):
        p = predictor(eval=EvalConfig(max_new_tokens=longest))
        p.set_media(media["clip"])
        lengths.append(len(p.ask("What is it?").answer.split()))
    assert lengths[0] <= 1 < lengths[1] <= 6


def test_a_model_in_training_answers_in_evaluation_mode(media):
    p = Predictor(tiny.crema(dropout=0.5).train())
    p.set_media(media["clip"])
    assert p.ask("?", OPTIONS).options == p.ask("?", OPTIONS).options
    assert not p.model.training


def test_an_unknown_sense_names_the_nearest(media):
    with pytest.raises(ConfigError, match="did you mean 'thermal'"):
        predictor().set_media(media["clip"], {"termal": media["thermal"]})


def test_a_sense_without_adapter_lists_those_there_are(media):
    with pytest.raises(ConfigError, match="no adapter for 'thermal'; it has video, audio"):
        predictor().set_media(media["clip"], {"thermal": media["thermal"]})


def test_a_video_serves_a_model_that_only_hears(media):
    p = predictor("audio")
    p.set_media(media["clip"])
    assert list(p.ask("What is it?").senses) == ["audio"]


def test_a_video_given_twice_is_refused(media):
    with pytest.raises(ConfigError, match="twice"):
        predictor().set_media(media["clip"], {"video": media["silent"]})


@pytest.mark.parametrize("path", ["/no/such/clip.mp4", "", "x" * 5000, "a\0b"])
def test_a_missing_file_is_named(path, media):
    with pytest.raises(MediaError, match=r"no such file.*video"):
        predictor().set_media(path)
    with pytest.raises(MediaError, match=r"no such file.*audio"):
        predictor().set_media(media["clip"], {"audio": path})


def test_a_file_that_is_no_media_is_refused(media):
    with pytest.raises(MediaError, match=r"text\.mp4"):
        predictor().set_media(media["text"])


def test_nothing_to_look_at_or_listen_to(media):
    p = predictor()
    with pytest.raises(MediaError, match="nothing to look at or listen to: give a video, or"):
        p.set_media()
    with pytest.raises(MediaError, match=r"silent\.mp4: nothing to look .*audio: .*no sound track"):
        predictor("audio").set_media(media["silent"])
    with pytest.raises(MediaError, match="nothing to look at or listen to"):
        predictor("depth").set_media(media["clip"])


def test_after_media_that_failed_there_is_nothing_to_ask_about(media):
    p = predictor()
    with pytest.raises(CremaError, match=r"set_media\(\) first"):
        p.ask("What is it?")
    p.set_media(media["clip"])
    with pytest.raises(MediaError):
        p.set_media(media["text"])
    with pytest.raises(CremaError, match=r"set_media\(\) first"):
        p.ask("What is it?")


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("", None, "the question is empty"),
        (" \n", OPTIONS, "the question is empty"),
        ("\ud83d?", None, "not valid text"),
        ("?", [], "0 options"),
        ("?", ["one"], "1 options"),
        ("?", [str(i) for i in range(27)], "27 options"),
        ("?", ["one", " "], "option 2 is empty"),
        ("?", ["one", " one "], "given twice"),
    ],
)
def test_questions_and_options_that_cannot_be_asked(media, question, options, message):
    p = predictor()
    p.set_media(media["clip"])
    with pytest.raises(CremaError, match=message):
        p.ask(question, options)


def test_a_question_longer_than_the_prompt_is_refused(media):
    p = predictor()
    p.set_media(media["clip"])
    with pytest.raises(CremaError, match="max_text_tokens"):
        p.ask("why " * 2000)


SURE = ("video", "audio", "flow")


def costs(tmp_path, **seconds):
    """What an earlier process measured: one second figure a sense."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    kinds = {sense: modality.get(sense) for sense in seconds}
    measured = {f"{s} by {kinds[s].expert}": [value] for s, value in seconds.items()}
    (home / "sense_costs.json").write_text(json.dumps(measured))


@pytest.mark.parametrize("options", [OPTIONS, None])
def test_at_confidence_1_nothing_changes(media, options):
    answers = []
    for confidence in (None, 1.0):
        p = predictor(*SURE, confidence=confidence)
        p.set_media(media["clip"])
        answers.append(p.ask("What is it?", options).to_dict())
    plain, sure = answers
    assert sure.pop("confidence")["spared"] == {}
    for answer in answers:
        del answer["seconds"]
    assert plain == sure


def test_a_low_confidence_reads_the_cheapest_sense_alone(media, tmp_path):
    costs(tmp_path, video=0.5, audio=0.2, flow=2.5)
    p = predictor(*SURE, confidence=1e-6)
    p.set_media(media["clip"])
    answer = p.ask("What is it?", OPTIONS)
    assert list(answer.senses) == ["audio"]
    assert answer.confidence.spared == {"video": 0.5, "flow": 2.5}
    assert answer.confidence.rounds == 1
    assert Brightness.calls == 0
    assert answer.confidence.probability == max(o.probability for o in answer.options)
    alone = Predictor(tiny.crema(*SURE))
    alone.set_media(senses={"audio": media["clip"]})
    expected = alone.ask("What is it?", OPTIONS)
    assert answer.options == expected.options


def test_senses_are_added_until_the_answer_is_sure_enough(media, tmp_path):
    probabilities = []
    for senses in (["audio"], ["video", "audio"], list(SURE)):
        p = predictor(*SURE)
        p.set_media(media["clip"])
        batch = p._media.batch.only(senses)
        sample = jsonl_sample("What is it?", OPTIONS)
        scored = p.model.score(Batch((sample,), batch.senses))
        probabilities.append(float(scored.probabilities().max()))
    for threshold in (p - 1e-4 for p in probabilities):
        costs(tmp_path, video=0.5, audio=0.2, flow=2.5)  # not what the predictors above took
        p = predictor(*SURE, confidence=threshold)
        p.set_media(media["clip"])
        found = p.ask("What is it?", OPTIONS)
        passed = [i for i, q in enumerate(probabilities) if q > threshold]
        assert found.confidence.rounds == len(found.senses) == passed[0] + 1
        assert found.confidence.probability == pytest.approx(probabilities[passed[0]], abs=1e-5)
    p = predictor(*SURE, confidence=max(probabilities) + 1e-3)
    p.set_media(media["clip"])
    everything = p.ask("What is it?", OPTIONS)
    assert set(everything.senses) == set(SURE)
    assert everything.confidence.spared == {}


def test_an_answer_does_not_depend_on_what_an_earlier_question_read(media):
    p = predictor(*SURE, confidence=1e-6)
    p.set_media(media["clip"])
    before = p.ask("What is it?", OPTIONS)
    p.confidence = 0.9999
    assert len(p.ask("How many?", OPTIONS).senses) == 3
    p.confidence = 1e-6
    after = p.ask("What is it?", OPTIONS)
    assert after.options == before.options
    assert list(after.senses) == list(before.senses)
    assert len(before.confidence.spared) == 2
    assert after.confidence.spared == {}  # all were read by then


def test_what_is_spared_is_guessed_from_what_has_been_measured(media, tmp_path):
    p = predictor(*SURE, confidence=1e-6)
    p.set_media(media["clip"])
    took = p._extractor.seconds["audio"]
    spared = p.ask("What is it?", OPTIONS).confidence.spared
    assert spared == {"video": pytest.approx(2 * took), "flow": pytest.approx(6 * took)}


def test_an_absent_cheap_sense_costs_no_round(media, tmp_path):
    costs(tmp_path, video=0.5, audio=0.2, flow=2.5)
    p = predictor(*SURE, confidence=1e-6)
    p.set_media(media["mute"])
    answer = p.ask("What is it?", OPTIONS)
    assert list(answer.senses) == ["video"]
    assert "mute" in answer.absent["audio"]
    assert list(answer.confidence.spared) == ["flow"]


def test_the_probability_of_an_open_answer_is_that_of_its_tokens(media):
    p = predictor(*SURE, confidence=0.999999)
    p.set_media(media["clip"])
    answer = p.ask("What is it?")
    said = p._media.batch
    sample = Sample("", jsonl.open_ended("What is it?"), {}, (answer.answer,))
    loss = p.model.forward(Batch((sample,), said.senses)).loss
    tokens = len(p.model.backbone.target(answer.answer))
    assert answer.confidence.probability == pytest.approx(math.exp(-loss.item() * tokens), rel=1e-4)


def test_costs_are_measured_and_kept_for_the_next_process(media, tmp_path):
    predictor(*SURE).set_media(media["clip"])
    kept = json.loads((tmp_path / "home" / "sense_costs.json").read_text())
    assert len(kept) == 3
    assert all(len(values) == 1 and values[0] > 0 for values in kept.values())
    predictor(*SURE).set_media(media["clip"])
    again = json.loads((tmp_path / "home" / "sense_costs.json").read_text())
    assert all(len(values) == 2 for values in again.values())


def test_a_damaged_or_unwritable_record_of_costs_is_no_obstacle(media, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "sense_costs.json").write_text("[not json")
    predictor(*SURE, confidence=0.5).set_media(media["clip"])
    shutil.rmtree(home)
    home.write_text("a file where the folder should be")
    p = predictor(*SURE, confidence=0.5)
    p.set_media(media["clip"])
    assert p.ask("What is it?", OPTIONS).answer in OPTIONS


@pytest.mark.parametrize("confidence", [0.0, -0.5, 1.01, float("nan")])
def test_a_confidence_that_is_no_probability(confidence):
    with pytest.raises(ConfigError, match="give a probability"):
        predictor(confidence=confidence)
