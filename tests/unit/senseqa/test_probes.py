"""What probes see: where a colour is, which voice that was; and that they see what a model sees."""

from __future__ import annotations

import numpy as np
import pytest

from open_crema.senseqa.clips import Clip, GroupClips
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.looks import Look, feel, middle, pooled, shape, spectrum, timbre, tunes
from open_crema.senseqa.probes import PROBES
from open_crema.senseqa.scene import COLOURS
from open_crema.senseqa.sets import Spec, groups
from open_crema.senseqa.sounds import VOICES, Note, mix
from open_crema.senseqa.touch import tactile
from open_crema.senseqa.types import TYPES

NOTHING = np.zeros((112, 112), dtype=bool)


class Blindfold(Clip):
    """A clip of which nothing can be seen but what a model sees."""

    @property
    def scene(self):
        raise AssertionError("a probe looks at the scene")

    @property
    def mask(self):
        raise AssertionError("a probe looks at the mask")


def clips(*types, count=1, seed=0):
    """Of that many groups of each type: the truth, and what sees it."""
    for group in groups(Spec("train", seed, 1 << 20, types)):
        if group.turn == count:
            return
        of, memo = GroupClips(group), {}
        for clip in of:
            yield clip, Look(Blindfold(of, clip.variant, clip.question), memo)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.fixture(scope="module")
def coloured():
    """(colour, where it is, where it is seen) of all things of some clips, and of what is not."""
    there, missing = [], []
    kinds = ("flow_fastest", "thermal_hottest", "touch_which", "depth_nearer", "audio_which")
    for clip, look in clips(*kinds, count=7):
        if not any(clip.variant):
            colours = [thing.colour for thing in clip.scene.things]
            for number, colour in enumerate(colours, start=1):
                there.append((colour, clip.mask[0] == number, look.where(colour)))
            missing += [(c, look.where(c)) for c in COLOURS if c not in colours]
    return there, missing


def test_things_are_found_by_their_colours(coloured):
    there, _ = coloured
    found = [overlap(truth, seen) for colour, truth, seen in there if colour != "white"]
    assert len(found) > 50
    assert np.mean(found) > 0.9
    assert min(found) > 0.7


def test_white_things_are_mostly_found(coloured):
    there, _ = coloured
    pairs = [(truth, seen) for colour, truth, seen in there if colour == "white"]
    assert len(pairs) > 5
    assert np.mean([overlap(*pair) for pair in pairs]) > 0.6
    assert np.mean([truth[seen].mean() > 0.5 for truth, seen in pairs if seen.any()]) > 0.8


def test_colours_that_are_not_there_are_not_found(coloured):
    _, missing = coloured
    assert not [colour for colour, seen in missing if colour != "white" and seen.any()]


def test_three_things_are_found_from_left_to_right():
    for clip, look in clips("thermal_side", count=6):
        truth = [middle(clip.mask[0] == number)[0] for number in (1, 2, 3)]
        if "white" not in {thing.colour for thing in clip.scene.things}:
            seen = [middle(mask)[0] for mask in look.things(3)]
            assert seen == pytest.approx(truth, abs=2)


def test_fewer_things_than_asked_for_leave_empty_regions():
    (_, look), *_ = clips("flow_direction")
    assert [mask.shape for mask in look.things(7)] == [(112, 112)] * 7


def test_a_region_is_pooled_by_its_middle_value():
    values = np.zeros((112, 112))
    values[10:20, 10:20] = 5
    values[15, 15] = 1000
    mask = values > 0
    assert pooled(values, mask) == [5]
    assert pooled(np.stack([values, values], axis=-1), mask).tolist() == [5, 5]
    assert pooled(values, NOTHING) == [0]
    assert pooled(values, np.eye(112, dtype=bool)) == [0]  # no inner part


def test_nothing_has_a_shape_and_a_middle():
    (_, look), *_ = clips("video_shape")
    assert not shape(look, NOTHING).any()
    assert middle(NOTHING) == (0, 0)


def test_arcs_tell_which_thing_sounds_early():
    right = []
    for clip, look in clips("audio_which", count=8):
        early, late = (next(iter(cue)) for cue in (clip.scene.cues[0], clip.scene.cues[-1]))
        at = [look.where(thing.colour) for thing in clip.scene.things]
        if at[early].any() and at[late].any():
            right.append(look.sounds_early(at[early]) > 0.2 > -0.2 > look.sounds_early(at[late]))
    assert np.mean(right) > 0.8


def test_the_finger_is_seen_where_it_touches():
    right = []
    for clip, look in clips("touch_which", count=8):
        touches = [look.touched(look.where(thing.colour)) for thing in clip.scene.things]
        for frame, contact in enumerate(clip.scene.contacts):
            right.append(np.argmax([t[frame] for t in touches]) == contact.thing)
    assert np.mean(right) > 0.8


def test_a_voice_has_the_same_timbre_at_any_loudness():
    def heard(voice, pitch, gain):
        notes = [Note(voice, 0.1, 0.4, pitch, gain), Note(voice, 0.8, 0.4, pitch * 1.2, gain)]
        return timbre(spectrum(mix(notes, 1.5, Draw(voice, int(pitch)))))

    one = np.stack([heard(voice, 300, 1.0) for voice in VOICES])
    other = np.stack([heard(voice, 310, 0.4) for voice in VOICES])
    apart = np.linalg.norm(one[:, None] - other, axis=-1)
    assert apart.argmin(axis=1).tolist() == list(range(len(VOICES)))


def test_tunes_go_up_and_down():
    pitches = [250 * 1.3**i for i in range(4)]

    def heard(pitches):
        notes = [Note("organ", 0.1 + i, 0.4, pitch, 0.8) for i, pitch in enumerate(pitches)]
        return tunes(mix(notes, 4.0, Draw("tune")))

    up, down = heard(pitches), heard(pitches[::-1])
    assert up[17:].max() > up[:16].max()
    assert down[:16].max() > down[17:].max()
    assert not tunes(np.zeros(64_000, np.float32)).any()


def test_ridges_have_a_direction():
    across = feel(tactile("ridged", Draw("gel"), angle=0.0))
    upright = feel(tactile("ridged", Draw("gel"), angle=np.pi / 2))
    assert abs(int(across[-8:].argmax()) - int(upright[-8:].argmax())) == 4


def test_textures_feel_different():
    one = np.stack([feel(tactile(kind, Draw(kind, 0)))[:14] for kind in ("smooth", "rough")])
    other = np.stack([feel(tactile(kind, Draw(kind, 1)))[:14] for kind in ("smooth", "rough")])
    apart = np.linalg.norm(one[:, None] - other, axis=-1)
    assert apart.argmin(axis=1).tolist() == [0, 1]


def test_furniture_stands_where_it_is_in_the_scan():
    for clip, look in clips("point_count", count=4):
        places = {fixture.place for fixture in clip.scene.fixtures}
        assert {side for side, piece in look.rooms().items() if piece[4] > 0.02} == places


def test_every_type_has_a_probe():
    assert set(PROBES) == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_probes_look_at_what_a_model_is_given_and_see_no_difference_without_the_sense(name):
    probe, seen = PROBES[name], {}
    for clip, look in clips(name, seed=1):
        features = probe.see(look)
        assert np.isfinite(features).all()
        assert features.ndim == 1 or len(features) == len(clip.question.candidates)
        for sense, pair in clip.question.pairs.items():
            seen.setdefault((sense, pair), []).append(probe.without(look, sense))
    for one, other in seen.values():
        assert one.tobytes() == other.tobytes()
        assert np.isfinite(one).all()


def test_what_clips_share_is_looked_at_once():
    (_, one), (_, other) = clips("audio_voice")
    assert one.where("red") is other.where("red")
    assert one.spectrum() is not other.spectrum()
