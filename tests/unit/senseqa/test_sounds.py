"""Notes: their loudness, that they can be counted, and that their voices can be told apart."""

import numpy as np
import pytest

from open_crema.media.audio import MUTE
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.sounds import RATE, VOICES, Note, mix

QUIET = 10 ** (-60 / 20)


def loudness(sound):
    """rms over the loudest 0.25 s, without what the background adds."""
    energy = np.concatenate([[0], np.cumsum(sound.astype(np.float64) ** 2)])
    window = RATE // 4
    return np.sqrt((energy[window:] - energy[:-window]).max() / window - QUIET**2)


def single(voice, number, *, gain=1.0, seconds=0.5):
    draw = Draw("single", voice, number)
    note = Note(voice, draw.uniform(0.1, 0.3), seconds, draw.uniform(220, 660), gain)
    return mix([note], 1.2, draw.sub("mix"))


def onsets(sound):
    """How often the level rises from 15 dB to 6 dB below the highest, in steps of 10 ms."""
    frames = sound[: len(sound) // 160 * 160].astype(np.float64).reshape(-1, 160)
    level = 10 * np.log10(np.convolve((frames**2).mean(axis=1), [0.5, 0.5]))
    count, waiting = 0, True
    for decibel in level - level.max():
        if waiting and decibel > -6:
            count, waiting = count + 1, False
        elif decibel < -15:
            waiting = True
    return count


def test_same_draw_gives_the_same_bytes_and_another_other_ones():
    notes = [Note(voice, 0.1 * i, 0.4, 330, 1) for i, voice in enumerate(VOICES)]
    first, again, other = (mix(notes, 1.0, Draw("clip", seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_what_a_note_is_changes_nothing_of_the_others():
    late = Note("flute", 1.0, 0.3, 330, 1)
    sounds = [mix([Note(v, 0.0, 0.3, 330, 1), late], 1.5, Draw(0)) for v in ("harp", "drum")]
    np.testing.assert_array_equal(sounds[0][RATE:], sounds[1][RATE:])
    assert loudness(sounds[0][RATE:]) > 5 * QUIET


@pytest.mark.parametrize("seconds", [0.5, 1.23456, 4.0])
def test_length_and_type(seconds):
    sound = mix([Note("bell", 0.1, 9.0, 300, 1)], seconds, Draw(0))
    assert sound.shape == (round(seconds * RATE),)
    assert sound.dtype == np.float32


def test_without_notes_there_is_a_background_that_is_not_mute():
    sound = mix([], 2.0, Draw("silence"))
    assert np.abs(sound).max() > 10 * MUTE
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(QUIET, rel=0.1)


@pytest.mark.parametrize("voice", VOICES)
def test_six_notes_together_are_not_clipped(voice):
    for seed in range(10):
        pitches = 150 + 600 * Draw("pitch", seed).uniforms(3)
        notes = [Note(voice, 0.1, 0.3, pitch, 1) for pitch in np.repeat(pitches, 2)]
        assert np.abs(mix(notes, 0.6, Draw(voice, seed))).max() < 1


def test_more_than_fits_stays_in_range():
    sound = mix([Note("organ", 0.0, 0.5, 220, 60)], 0.5, Draw(0))
    assert np.abs(sound).max() == 1


@pytest.mark.parametrize("voice", VOICES)
def test_loudness_follows_the_gain(voice):
    loud, soft = (loudness(single(voice, 0, gain=gain)) for gain in (2.0, 0.5))
    assert loud / soft == pytest.approx(4, rel=0.1)


def test_equal_gain_is_equal_loudness_in_every_voice():
    each = [loudness(single(voice, i)) for voice in VOICES for i in range(15)]
    assert 20 * np.log10(max(each) / min(each)) < 2


@pytest.mark.parametrize("voice", VOICES)
def test_notes_can_be_counted(voice):
    for count in range(1, 6):
        draw = Draw("count", voice, count)
        notes = [
            Note(voice, 0.1 + 0.6 * i, 0.35, draw.uniform(220, 660), 0.5) for i in range(count)
        ]
        assert onsets(mix(notes, 3.5, draw.sub("mix"))) == count


@pytest.mark.parametrize("voice", VOICES)
def test_a_long_note_is_one_note(voice):
    assert [onsets(single(voice, i, seconds=0.8)) for i in range(5)] == [1] * 5


@pytest.mark.parametrize("voice", VOICES)
def test_a_note_is_over_soon_after_its_end(voice):
    sound = mix([Note(voice, 0.2, 0.3, 440, 1)], 1.0, Draw(voice))
    before, after = sound[: RATE // 5], sound[round(0.565 * RATE) :]
    for rest in (before, after):
        assert np.sqrt(np.mean(rest**2)) == pytest.approx(QUIET, rel=0.1)


@pytest.mark.parametrize("voice", ["organ", "flute", "trumpet"])
def test_held_notes_die_away_smoothly(voice):
    sound = mix([Note(voice, 0.0, 0.4, 440, 1)], 0.6, Draw(voice))
    parts = sound[round(0.38 * RATE) : round(0.46 * RATE)].reshape(4, -1)  # the first is held
    levels = 20 * np.log10(np.sqrt(np.mean(parts**2, axis=1)))
    assert (np.diff(levels) < (0, -2, -6)).all()
    assert (np.diff(levels) > -20).all()


def test_notes_are_cut_at_the_end():
    notes = [Note("organ", 0.8, 2.0, 300, 1), Note("drum", 5.0, 0.3, 300, 1)]
    short, long = mix(notes, 1.0, Draw(0)), mix(notes[:1], 1.0, Draw(0))
    np.testing.assert_array_equal(short, long)
    assert np.sqrt(np.mean(short[-1600:] ** 2)) > 5 * QUIET


def test_voices_can_be_told_apart():
    def bands(sound):
        """Log power in 20 bands by 4 parts of the 0.6 s after the onset."""
        start = int(np.argmax(np.abs(sound) > 0.02))
        parts = sound[start : start + 9600].reshape(4, -1) * np.hanning(2400)
        power = np.abs(np.fft.rfft(parts)) ** 2
        edges = np.geomspace(15, 1150, 21).astype(int)
        return np.log(np.add.reduceat(power, edges, axis=1)[:, :-1] + 1e-3).ravel()

    each = 30
    features = np.array([bands(single(v, i)) for v in VOICES for i in range(2 * each)])
    labels = np.repeat(np.arange(len(VOICES)), 2 * each)
    seen = np.arange(len(labels)) % (2 * each) < each
    inputs = np.column_stack([features - features[seen].mean(axis=0), np.ones(len(labels))])
    square = inputs[seen].T @ inputs[seen] + 10 * np.eye(inputs.shape[1])
    weights = np.linalg.solve(square, inputs[seen].T @ np.eye(len(VOICES))[labels[seen]])
    right = (inputs[~seen] @ weights).argmax(axis=1) == labels[~seen]
    assert right.mean() > 0.95


def test_unknown_voices_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'kazoo'.*harp, organ, bell, flute, drum, trumpet"):
        Note("kazoo", 0, 1, 440, 1)


@pytest.mark.parametrize(
    ("onset", "seconds", "pitch", "gain"),
    [(-0.1, 1, 440, 1), (0, 0, 440, 1), (0, 1, 440, -1), (0, 1, 10, 1), (0, 1, 9000, 1)],
)
def test_notes_that_cannot_be_played_are_refused(onset, seconds, pitch, gain):
    with pytest.raises(ValueError, match="must be"):
        Note("harp", onset, seconds, pitch, gain)


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("pitch", [20, 4000])
def test_the_ends_of_the_pitches_sound(voice, pitch):
    sound = mix([Note(voice, 0, 0.5, pitch, 1)], 0.6, Draw(voice))
    assert loudness(sound) == pytest.approx(0.032, rel=0.4)


@pytest.mark.parametrize("voice", ["harp", "bell", "organ", "trumpet"])
def test_nothing_folds_back_below_the_lowest_partial(voice):
    sound = mix([Note(voice, 0, 0.5, 3000, 6)], 0.5, Draw(voice))
    power = np.abs(np.fft.rfft(sound)) ** 2  # in steps of 2 Hz
    assert power[:600].sum() < 0.002 * power.sum()
