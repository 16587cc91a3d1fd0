"""read_audio on sound files and sound tracks made on the spot."""

import wave

import av
import numpy as np
import pytest
from PIL import Image

from media_factory import write_audio, write_covered_mp3, write_frames_folder, write_video
from open_crema import media
from open_crema.errors import MediaError, SenseAbsent


def pitch(audio):
    spectrum = np.abs(np.fft.rfft(audio.samples))
    return spectrum.argmax() * audio.rate / len(audio.samples)


def write_wav(path, values):
    """Integers [n, C] at 8 kHz, with any number of channels and samples."""
    with wave.open(str(path), "wb") as file:
        file.setparams((values.shape[1], 2, 8000, 0, "NONE", ""))
        file.writeframes(values.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".m4a"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_at_16_khz(tmp_path, suffix, channels):
    audio = media.read_audio(write_audio(tmp_path / f"a{suffix}", channels=channels))
    assert (audio.rate, audio.start) == (16000, 0.0)
    assert audio.samples.dtype == np.float32
    assert len(audio.samples) == pytest.approx(16000, abs=400)
    assert pitch(audio) == pytest.approx(440, abs=2)
    assert np.abs(audio.samples[4000:12000]).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_resampling_keeps_time(tmp_path, rate):
    click = np.zeros(44100)
    click[22050] = 0.9  # at 0.5 s
    audio = media.read_audio(write_audio(tmp_path / "a.wav", sound=click, rate=44100), rate=rate)
    assert audio.rate == rate
    assert len(audio.samples) == pytest.approx(rate, abs=2)
    assert np.abs(audio.samples).argmax() / rate == pytest.approx(0.5, abs=2 / rate)


@pytest.mark.parametrize("channels", [2, 3, 6, 8, 9])
def test_channels_are_averaged_with_equal_weight(tmp_path, channels):
    levels = np.arange(1, channels + 1) * 1000
    path = write_wav(tmp_path / "a.wav", np.tile(levels, (8000, 1)))
    samples = media.read_audio(path).samples
    np.testing.assert_allclose(samples[1000:-1000], levels.mean() / 32768, rtol=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg"])
def test_sound_track_of_a_video(tmp_path, suffix):
    path = write_video(tmp_path / f"v{suffix}", fps=25, frames=50, sound="tone", channels=2)
    audio = media.read_audio(path)
    assert len(audio.samples) == pytest.approx(2 * 16000, abs=800)
    assert pitch(audio) == pytest.approx(440, abs=2)
    assert audio.start == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".ts"])
def test_sound_that_starts_later_than_the_pictures(tmp_path, suffix):
    path = write_video(tmp_path / f"v{suffix}", frames=30, fps=10, sound="tone", sound_start=1.0)
    audio = media.read_audio(path)
    assert audio.start == pytest.approx(1.0, abs=0.03)
    assert len(audio.samples) / audio.rate == pytest.approx(2.0, abs=0.05)


def test_pictures_that_start_later_than_the_sound(tmp_path):
    times = [0.5 + i / 10 for i in range(20)]
    path = write_video(tmp_path / "v.mkv", frames=20, times=times, sound="tone")
    assert media.read_audio(path).start == pytest.approx(-0.5, abs=0.01)
    assert media.read_frames(path, 4).times[0, 0] == 0


def test_a_hole_in_a_sound_track_is_silence(tmp_path):
    """A lost second must not pull the rest of the sound away from its pictures."""
    path = write_video(tmp_path / "v.mkv", frames=40, sound="tone")
    whole = media.read_audio(path).samples
    cut = remux(path, tmp_path / "cut.mkv", lambda time: not 1.0 < time < 2.0)
    holed = media.read_audio(cut).samples
    assert len(holed) == pytest.approx(len(whole), abs=32)
    assert np.abs(holed[18000:30000]).max() == 0
    assert np.abs(holed[34000:] - whole[34000 : len(holed)]).max() < 0.02


def remux(source, target, keep):
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio" and not keep(float(packet.pts * packet.time_base)):
                continue
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return target


def test_loud_sound_stays_within_full_scale(tmp_path):
    square = np.sign(np.sin(2 * np.pi * 440 * np.arange(44100) / 44100))
    path = write_audio(tmp_path / "a.wav", sound=square, rate=44100)
    assert np.abs(media.read_audio(path).samples).max() == 1.0


def test_cover_pictures_are_no_video(tmp_path):
    path = write_covered_mp3(tmp_path / "a.mp3")
    assert len(media.read_audio(path).samples) == pytest.approx(16000, abs=400)
    with pytest.raises(SenseAbsent, match="cover picture: there are no moving pictures") as caught:
        media.read_frames(path, 4)
    assert caught.value.sense == "video"
    assert media.probe(path).kind == "audio"


def test_a_sound_file_has_no_pictures(tmp_path):
    with pytest.raises(SenseAbsent, match=r"a\.wav holds no pictures") as caught:
        media.read_frame_pairs(write_audio(tmp_path / "a.wav"), 4)
    assert caught.value.sense == "video"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: write_video(p / "v.mp4"), "has no sound track"),
        (lambda p: write_video(p / "v.mp4", sound="mute"), "mute sound track"),
        (lambda p: write_audio(p / "a.wav", sound="mute"), "mute sound track"),
        (lambda p: write_audio(p / "a.wav", sound=np.full(900, 2 / 32768)), "mute sound track"),
        (lambda p: write_wav(p / "a.wav", np.zeros((0, 1))), "without samples"),
        (lambda p: write_frames_folder(p / "f", frames=2), "not a video or sound file"),
        (lambda p: Image.new("RGB", (4, 4)).save(p / "i.png") or p / "i.png", "not a video or"),
    ],
)
def test_absent_sound_has_a_reason(tmp_path, make, reason):
    path = make(tmp_path)
    with pytest.raises(SenseAbsent, match=reason) as caught:
        media.read_audio(path)
    assert caught.value.sense == "audio"
    assert str(path) in caught.value.reason


def test_faint_sound_is_not_mute(tmp_path):
    faint = 0.0005 * np.sin(np.arange(16000) / 5)
    audio = media.read_audio(write_audio(tmp_path / "a.wav", sound=faint, rate=16000))
    assert np.abs(audio.samples).max() > 4e-4


def test_values_that_are_not_numbers_are_refused(tmp_path):
    samples = np.full(1000, np.nan, "<f4").tobytes()
    head = b"WAVEfmt " + np.array([16, 3 | 1 << 16, 8000, 32000, 4 | 32 << 16], "<u4").tobytes()
    body = head + b"data" + np.uint32(len(samples)).tobytes() + samples
    (tmp_path / "a.wav").write_bytes(b"RIFF" + np.uint32(len(body)).tobytes() + body)
    with pytest.raises(MediaError, match="not numbers"):
        media.read_audio(tmp_path / "a.wav")


def test_seconds_are_limited(tmp_path):
    path = write_audio(tmp_path / "a.flac", seconds=3.0)
    with pytest.raises(MediaError, match=r"a\.flac: too large: the limit is 2 seconds"):
        media.read_audio(path, limits=media.Limits(max_seconds=2.0))
    assert media.read_audio(path, limits=media.Limits(max_seconds=3.0)).rate == 16000


def test_senseless_rate(tmp_path):
    with pytest.raises(ValueError, match="rate must be at least 1"):
        media.read_audio(write_audio(tmp_path / "a.wav"), rate=0)
