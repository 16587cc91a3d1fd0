import io

import av
import numpy as np
import pytest
from PIL import Image

from open_crema.errors import MediaError
from open_crema.media import Audio
from open_crema.media.embed import mp3, webp


def tone(seconds, rate=16_000):
    times = np.arange(round(seconds * rate)) / rate
    return Audio((0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32), rate)


def test_a_picture_is_scaled_down_and_never_up():
    for shape, size in (((100, 50), (50, 100)), ((448, 224), (112, 224)), ((64, 900), (224, 16))):
        data = webp(np.full((*shape, 3), (200, 30, 60), np.uint8))
        picture = Image.open(io.BytesIO(data))
        assert (picture.format, picture.size) == ("WEBP", size)
        assert np.abs(np.asarray(picture.convert("RGB")).mean((0, 1)) - (200, 30, 60)).max() < 6


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="image must be"):
        webp(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_sound_keeps_its_pitch_and_is_cut(rate):
    data = mp3(tone(3.0, rate), seconds=2.0)
    with av.open(io.BytesIO(data)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        heard = container.streams.audio[0].rate
    assert len(sound) / heard == pytest.approx(2.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(sound))
    assert np.argmax(spectrum) * heard / len(sound) == pytest.approx(440, abs=2)
    assert len(data) < 12_000


def test_a_sound_of_nothing_is_refused():
    with pytest.raises(MediaError, match="too short"):
        mp3(Audio(np.full(1, 0.5, np.float32), 96_000))
