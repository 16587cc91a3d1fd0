import re
from dataclasses import dataclass

import pytest
import torch
from averages import Averages, ask, ones

from media_factory import write_video
from open_crema import modality
from open_crema.config import Config, from_dict
from open_crema.data import extract
from open_crema.data.extract import Extractor
from open_crema.data.extraction import extract_all
from open_crema.errors import MediaError, SenseAbsent
from open_crema.features import Features
from open_crema.media import Limits
from open_crema.modality import Modality


def test_each_sense_of_a_video(encoders, media, make):
    extractor = make("flow", "audio", "video")
    sample = ask(media, video="sound.mp4")
    found = {sense: extractor.features(sample, sense) for sense in extractor.senses}
    assert list(found) == ["video", "audio", "flow"]
    assert found["video"].tokens.shape == found["flow"].tokens.shape == (4, 2, 3)
    assert found["audio"].tokens.shape == (1, 1, 3)
    assert not torch.equal(found["video"].tokens, found["flow"].tokens)
    assert set(encoders) == {"vision", "audio"}  # video and flow share one


def test_the_store_changes_nothing(encoders, media, make):
    sample = ask(media, video="sound.mp4")
    plain = make("video", store=False).features(sample, "video")
    encoders.clear()
    first = make("video").features(sample, "video")
    encoders.clear()
    second = make("video").features(sample, "video")
    for other in (first, second):
        assert torch.equal(plain.tokens, other.tokens)
        assert plain.tokens.dtype == other.tokens.dtype == torch.bfloat16
        assert torch.equal(plain.times, other.times)


def test_a_warm_store_opens_no_media_and_runs_no_encoder(encoders, media, make, monkeypatch):
    samples = [ask(media, "a", video="sound.mp4"), ask(media, "b", video="mute.mkv")]
    cold = extract_all(make("video", "audio"), samples)
    encoders.clear()
    monkeypatch.setattr(extract, "resolve", lambda target: pytest.fail("media was opened"))
    again = extract_all(make("video", "audio"), samples)
    assert (again.made, again.found) == (0, cold.made)
    assert all(encoder.calls == 0 for encoder in encoders.values())


def test_what_a_result_depends_on_makes_another_key(encoders, media, make, monkeypatch):
    def calls(extractor, sample, sense="video"):
        encoders.clear()
        extractor.features(sample, sense)
        return sum(encoder.calls for encoder in encoders.values())

    sample = ask(media, video="silent.mp4")
    assert calls(make("video"), sample) == 1
    assert calls(make("video"), sample) == 0
    assert calls(make("video", frames=5), sample) == 1
    assert calls(make("flow"), sample, "flow") == 1
    assert calls(make("thermal"), ask(media, thermal="silent.mp4"), "thermal") == 1
    (media / "copy.mp4").write_bytes((media / "silent.mp4").read_bytes())
    assert calls(make("video"), ask(media, video="copy.mp4")) == 0
    monkeypatch.setattr(extract, "RECIPE", extract.RECIPE + 1)
    assert calls(make("video"), sample) == 1
    monkeypatch.undo()


def test_another_fingerprint_makes_another_key(encoders, media, make):
    sample = ask(media, video="silent.mp4")
    make("video").features(sample, "video")
    encoders.clear()
    extractor = make("video")
    extractor._encoder("video")
    encoders["vision"].fingerprint = "averages/other weights"
    extractor.features(sample, "video")
    assert encoders["vision"].calls == 1


def test_stored_content_under_an_extension_that_is_refused(encoders, media, make):
    make("video").features(ask(media, video="silent.mp4"), "video")
    (media / "copy.txt").write_bytes((media / "silent.mp4").read_bytes())
    encoders.clear()
    with pytest.raises(MediaError, match=r"unsupported extension '\.txt'"):
        make("video").features(ask(media, video="copy.txt"), "video")


def test_a_changed_file_is_read_again(encoders, media, make):
    sample = ask(media, video="silent.mp4")
    before = make("video").features(sample, "video")
    write_video(media / "silent.mp4", frames=9)
    encoders.clear()
    after = make("video").features(sample, "video")
    assert encoders["vision"].calls == 1
    assert not torch.equal(before.times, after.times)


def test_a_sense_of_its_own_file_goes_before_the_video(encoders, media, make):
    extractor = make("audio")
    own = extractor.features(ask(media, video="mute.mkv", audio="own.wav"), "audio")
    assert isinstance(own, Features)
    assert isinstance(extractor.features(ask(media, video="mute.mkv"), "audio"), SenseAbsent)


def test_a_file_of_flow_is_not_the_flow_of_a_file(encoders, media, make):
    extractor = make("flow")
    drawn = extractor.features(ask(media, flow="silent.mp4"), "flow")
    made = extractor.features(ask(media, video="silent.mp4"), "flow")
    assert not torch.equal(drawn.tokens, made.tokens)
    both = extractor.features(ask(media, video="sound.mp4", flow="silent.mp4"), "flow")
    assert torch.equal(both.tokens, drawn.tokens)


@pytest.mark.parametrize("store", [True, False])
def test_questions_on_one_file_read_it_once(encoders, media, make, store):
    samples = [ask(media, str(i), video="sound.mp4") for i in range(5)]
    counts = extract_all(make("video", "audio", store=store), samples).senses
    assert (counts["video"].present, counts["audio"].present) == (5, 5)
    assert (encoders["vision"].calls, encoders["audio"].calls) == (1, 1)


def test_absences_and_their_reasons(encoders, media, make):
    extractor = make("video", "audio", "flow", "depth")
    samples = [
        ask(media, "1", video="sound.mp4"),
        ask(media, "2", video="silent.mp4"),
        ask(media, "3", video="silent.mp4"),
        ask(media, "4", video="mute.mkv"),
        ask(media, "5", audio="own.wav"),
    ]
    counts = extract_all(extractor, samples).senses
    assert list(counts) == ["video", "audio", "flow", "depth"]
    assert {sense: count.present for sense, count in counts.items()} == {
        "video": 4,
        "audio": 2,
        "flow": 4,
        "depth": 0,
    }
    assert counts["audio"].absent["the file has no sound track"] == ["2", "3"]
    assert counts["video"].absent == {"no file given, and no video to make it from": ["5"]}
    assert counts["depth"].absent == {
        "no file given, and the file is not an RGB-D folder that it could be made from": list(
            "1234"
        ),
        "no file given, and no video to make it from": ["5"],
    }
    for count in counts.values():
        assert count.expected == len(samples)
        assert not any(str(media) in reason for reason in count.absent)
    again = extract_all(extractor, samples).senses
    assert {s: c.absent for s, c in again.items()} == {s: c.absent for s, c in counts.items()}


def test_progress_goes_to_stderr(encoders, media, make, capsys):
    extract_all(make("video"), [ask(media, video="silent.mp4")])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/1" in shown.err


def test_no_samples(encoders, make):
    assert extract_all(make("video"), []).senses["video"].present == 0
    assert encoders == {}


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    ("file", "said"),
    [("none.mp4", "no such"), ("text.mp4", "cannot be read as media"), ("empty.mp4", "empty")],
)
def test_broken_media_names_the_sample_and_the_file(encoders, media, make, store, file, said):
    (media / "text.mp4").write_text("not a video")
    (media / "empty.mp4").write_bytes(b"")
    sample = ask(media, "question 17", video=file)
    for attempt in (
        lambda: make("video", store=store).features(sample, "video"),
        lambda: extract_all(make("video", store=store), [sample]),
    ):
        encoders.clear()
        with pytest.raises(MediaError, match=rf"'question 17', video: .*{file}.*{said}"):
            attempt()


def test_what_is_too_large_is_refused_before_it_is_hashed(encoders, media, make, monkeypatch):
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed"))
    extractor = make("video", limits=Limits(max_bytes=10))
    with pytest.raises(MediaError, match=r"too large: the limit is 10 bytes"):
        extractor.features(ask(media, video="sound.mp4"), "video")


def test_features_that_are_not_numbers_are_refused(encoders, media, make, monkeypatch):
    monkeypatch.setattr(
        Averages, "__call__", lambda self, media: ones(torch.full((1, 1, 3), torch.nan), [[0, 1]])
    )
    extractor = make("video")
    with pytest.raises(MediaError, match="not finite"):
        extractor.features(ask(media, video="silent.mp4"), "video")
    assert not list(extractor.store.root.glob("objects/*/*"))


@dataclass(frozen=True)
class Steps:
    values: tuple[float, ...]


class ImuEncoder:
    name, width, fingerprint = "imu", 2, "imu/1"

    def __call__(self, media):
        tokens = torch.tensor(media.values)[:, None, None].expand(-1, 1, 2)
        return ones(tokens, [[i, i + 1] for i in range(len(media.values))])


def read_imu(path, clip):
    with open(path) as file:
        values = tuple(float(word) for word in file.read().split())
    if not values:
        raise SenseAbsent("imu", f"{path} holds no step")
    return Steps(values)


def test_a_third_partys_sense(tmp_path, make, monkeypatch):
    monkeypatch.setattr(modality, "_registry", dict(modality._registry))
    modality.register(Modality("imu", "Motion Sensor", ImuEncoder, read_imu, alignment="overlap"))
    (tmp_path / "a.txt").write_text("1 2 3")
    (tmp_path / "b.txt").write_text("")
    extractor = make("imu")
    found = extractor.features(ask(tmp_path, imu="a.txt"), "imu")
    assert found.tokens[:, 0].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert extractor.features(ask(tmp_path, imu="b.txt"), "imu").reason == "the file holds no step"
    assert make("imu").features(ask(tmp_path, imu="a.txt"), "imu").tokens.equal(found.tokens)


@pytest.mark.parametrize("where", ["reader", "encoder"])
def test_what_fails_in_a_third_partys_sense_is_about_one_file(tmp_path, make, monkeypatch, where):
    class Fragile(ImuEncoder):
        def __call__(self, media):
            if where == "encoder" and media.values == (13.0,):
                raise RuntimeError("shape '[-1, 10]' is invalid")
            return super().__call__(media)

    def read(path, clip):
        found = read_imu(path, clip)
        if where == "reader" and found.values == (13.0,):
            raise KeyError("timestamp")
        return found

    monkeypatch.setattr(modality, "_registry", dict(modality._registry))
    modality.register(Modality("imu", "Motion Sensor", Fragile, read, alignment="overlap"))
    (tmp_path / "good.txt").write_text("1 2 3")
    (tmp_path / "bad.txt").write_text("13")
    samples = [ask(tmp_path, name, imu=f"{name}.txt") for name in ("bad", "good")]
    report = extract_all(make("imu"), samples, on_error="skip")
    (failure,) = report.failures
    assert failure.path == str(tmp_path / "bad.txt")
    said = "KeyError.*timestamp" if where == "reader" else "encoder of 'imu'.*RuntimeError.*shape"
    assert re.search(f"bad.txt: .*{said}.*repair or replace", failure.error)
    assert report.usable == 1


def test_an_encoders_refusal_names_the_file(encoders, media, make, monkeypatch):
    def refuse(self, media):
        raise MediaError("too dark")

    monkeypatch.setattr(Averages, "__call__", refuse)
    with pytest.raises(MediaError, match=r"silent\.mp4: too dark"):
        make("video").features(ask(media, video="silent.mp4"), "video")


def test_a_bug_of_our_own_encoder_is_no_broken_file(encoders, media, make, monkeypatch):
    def fail(self, media):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Averages, "__call__", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        make("video").features(ask(media, video="silent.mp4"), "video")


def test_from_config(monkeypatch, tmp_path):
    monkeypatch.setenv("CREMA_HOME", str(tmp_path / "home"))
    config = from_dict(
        {
            "model": {"senses": ["flow", "video"]},
            "data": {
                "store_frames": 3,
                "frames": 3,
                "limits": {"bytes": 7, "seconds": 8.0, "pixels": 9},
            },
        }
    )
    extractor = Extractor.from_config(config)
    assert extractor.senses == ["video", "flow"]
    assert (extractor.frames, extractor.limits) == (3, Limits(7, 8.0, 9))
    assert extractor.store.root == tmp_path / "home" / "features"
    assert Extractor.from_config(Config()).limits == Limits()
    named = from_dict({"data": {"store": str(tmp_path / "mine")}})
    assert Extractor.from_config(named).store.root == tmp_path / "mine"
