"""Sequences of maps on the video's time line: what says when they appear, and which are taken."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_factory import frame_number, grey_level, write_frames_folder, write_video
from open_crema import media
from open_crema.errors import MediaError
from open_crema.media import Clip, Limits, TimeLine, timeline

VIDEO = TimeLine(np.arange(10) / 10, 1.0, 64, 48, "video.mp4")


def taken(line, clip):
    return timeline.choose("m", line, clip)[0].tolist()


def place(count, clip, **said):
    return timeline.place("m", count, clip, **said)


def test_time_stamps_win_over_a_rate_and_a_rate_over_the_count():
    clip = Clip(4, rate=5.0, video=VIDEO)
    stamps = np.arange(10) / 20
    assert place(10, clip, stamps=stamps, rate=3.0).starts.tolist() == stamps.tolist()
    assert place(10, clip, rate=3.0).starts.tolist() == (np.arange(10) / 5).tolist()
    assert place(10, Clip(4, video=VIDEO), rate=2.0).starts.tolist() == (np.arange(10) / 2).tolist()
    assert place(10, Clip(4, video=VIDEO)).starts.tolist() == VIDEO.starts.tolist()


@pytest.mark.parametrize(
    ("count", "clip", "said", "rule"),
    [
        (3, Clip(video=VIDEO), {"stamps": np.array([0.0, 0.3, 0.5])}, "timestamps"),
        (3, Clip(video=VIDEO, rate=4), {}, "rate"),
        (10, Clip(video=VIDEO), {}, "pictures"),
        (9, Clip(video=VIDEO), {"between": True}, "pictures"),
        (1, Clip(video=VIDEO), {}, "whole"),
        (1, Clip(), {}, "whole"),
        (3, Clip(), {}, "second"),
    ],
)
def test_the_rule_that_applies(count, clip, said, rule):
    assert place(count, clip, **said).rule == rule


@pytest.mark.parametrize("count", [9, 11, 2])
def test_a_count_that_does_not_fit_names_both_and_the_remedies(count):
    with pytest.raises(MediaError) as caught:
        place(count, Clip(video=VIDEO))
    for part in (f"{count} maps", "video.mp4 has 10 pictures", "timestamps.txt", '"rate"'):
        assert part in str(caught.value)


def test_maps_are_taken_at_the_midpoints_of_the_video():
    clip = Clip(4, rate=100.0, video=VIDEO)  # midpoints 0.125 0.375 0.625 0.875
    indices, times = timeline.choose("m", place(100, clip), clip)
    assert indices.tolist() == [12, 37, 62, 87]
    assert times.tolist() == [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1]]


def test_a_start_moves_the_maps():
    clip = Clip(4, rate=100.0, start=0.1, video=VIDEO)
    assert taken(place(100, clip), clip) == [2, 27, 52, 77]
    clip = Clip(4, start=0.1, video=VIDEO)
    assert taken(place(3, clip, stamps=np.array([0.0, 0.3, 0.6])), clip) == [0, 0, 1, 2]
    clip = Clip(4, start=0.3, video=VIDEO)
    assert taken(place(10, clip), clip) == [0, 0, 3, 5]
    assert taken(place(9, clip, between=True), clip) == [0, 0, 3, 5]


def test_maps_that_leave_much_of_the_video_without_any_are_worth_a_warning(caplog):
    for rate, warned in ((100.0, True), (20.0, True), (12.0, False), (5.0, False)):
        clip = Clip(4, rate=rate, video=VIDEO)
        caplog.clear()
        timeline.say("m", place(10, clip), clip)
        assert ("the nearest map stands in" in caplog.text) == warned, rate


def test_maps_outside_the_video_are_cut_off_and_a_gap_is_held():
    clip = Clip(4, video=VIDEO)
    stamps = np.array([-5.0, -0.2, 0.3, 0.31, 0.8, 7.0])
    assert taken(place(6, clip, stamps=stamps), clip) == [1, 3, 3, 4]


def test_where_there_is_no_map_the_nearest_stands_in_so_that_segments_keep_their_moment():
    clip = Clip(4, video=VIDEO)
    indices, times = timeline.choose("m", place(3, clip, stamps=np.array([0.4, 0.5, 0.7])), clip)
    assert indices.tolist() == [0, 0, 1, 2]
    assert times.tolist() == timeline.even(VIDEO.starts, VIDEO.end, 4)[1].tolist()


@pytest.mark.parametrize("first", [1.0, 50.0, -9.0])
def test_no_common_time_is_an_error_with_both_spans(first):
    clip = Clip(4, video=VIDEO)
    line = place(3, clip, stamps=first + np.array([0, 0.1, 0.2]))
    with pytest.raises(MediaError, match=rf"from {first:g} to .* s, the video .* from 0 to 1 s"):
        timeline.choose("m", line, clip)


def test_the_videos_own_clock_is_the_clock_of_the_maps():
    """Recordings stamp everything with the time of day."""
    video = TimeLine(np.arange(10) / 10, 1.0, 64, 48, "v", zero=1.7e9)
    line = place(2, Clip(video=video), stamps=1.7e9 + np.array([0.25, 0.75]))
    assert line.starts.tolist() == [0.25, 0.75]


def test_a_single_map_stands_for_the_whole_clip():
    for said in ({}, {"stamps": np.array([0.4])}, {"stamps": np.array([[0.4, 0.5]])}):
        clip = Clip(4, video=VIDEO)
        indices, times = timeline.choose("m", place(1, clip, **said), clip)
        assert (indices.tolist(), times.tolist()) == ([0], [[0, 1]])


def test_without_a_video_the_first_map_is_the_zero():
    clip = Clip(2, start=0.5)
    line = place(4, clip, stamps=np.array([7.0, 7.5, 8.0, 8.5]))
    indices, times = timeline.choose("m", line, clip)
    assert (indices.tolist(), times.tolist()) == ([1, 3], [[0.5, 1.5], [1.5, 2.5]])


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        ([0, 1], r"3 maps need time stamps \[3\] or \[3, 2\], found \[2\]"),
        ([[0, 1, 2]] * 3, r"found \[3, 3\]"),
        ([0, np.nan, 1], "NaN or infinity"),
        ([0, 1, np.inf], "NaN or infinity"),
        ([0, 2, 1], r"must increase, but 1 s follows 2 s \(map 3\)"),
        ([0, 1, 1], "must increase"),
        ([[0, 1], [1, 1], [2, 3]], "ends before it starts"),
    ],
)
def test_time_stamps_that_do_not_fit(stamps, said):
    with pytest.raises(MediaError, match=said):
        place(3, Clip(video=VIDEO), stamps=np.array(stamps, float))


def test_a_sequence_longer_than_the_limit():
    clip = Clip(limits=Limits(max_seconds=2.0), video=VIDEO)
    with pytest.raises(MediaError, match=r"limit is 2 seconds.*data\.limits\.seconds"):
        place(30, Clip(limits=clip.limits, rate=10, video=VIDEO))
    with pytest.raises(MediaError, match="limit is 2 seconds"):
        place(2, clip, stamps=np.array([0.0, 1e9]))


@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=30),
    st.integers(1, 12),
)
def test_maps_with_the_times_of_the_pictures_are_chosen_as_the_pictures_are(steps, count):
    """Whatever the video's frame rate does."""
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    video = TimeLine(starts[:-1], float(starts[-1]), 64, 48, "v")
    own = timeline.even(video.starts, video.end, count)
    clip = Clip(count, video=video)
    for line in (place(len(steps), clip), place(len(steps), clip, stamps=video.starts)):
        indices, times = timeline.choose("m", line, clip)
        assert indices.tolist() == own[0].tolist()
        assert len(steps) == 1 or times.tolist() == own[1].tolist()


# --- folders and videos beside a video ------------------------------------------------------------


def beside(path, count=4, **stated):
    return Clip(count, video=media.read_time_line(path, Clip()), **stated)


def numbers(frames):
    return [frame_number(image) for image in frames.images]


@pytest.fixture
def clip(tmp_path):
    times = [0, 0.1, 0.2, 0.3, 1.0, 1.9, 2.0, 2.1]  # variable frame rate
    path = write_video(tmp_path / "v.mkv", frames=8, times=times, picture=grey_level)
    return beside(path)


def folder(tmp_path, stamps=None, frames=8):
    path = write_frames_folder(tmp_path / "maps", frames=frames, picture=grey_level)
    if stamps is not None:
        (path / "timestamps.txt").write_text(stamps)
    return path


def test_as_many_maps_as_pictures_go_picture_by_picture(tmp_path, clip, caplog):
    caplog.set_level(logging.INFO)
    found = media.read_pictures(folder(tmp_path), clip)
    assert numbers(found) == numbers(media.read_frames(tmp_path / "v.mkv", 4)) == [2, 3, 4, 5]
    assert caplog.text.count("8 maps, aligned by their count, picture by picture") == 1


@pytest.mark.parametrize(
    "stamps",
    [
        "0\n0.5\n1.5\n2\n",
        "# seconds\n\n0\n0.5\n1.5\n2",
        "frame3.png 1.5\nframe1.png 0\nframe2.png 0.5\nframe4.png 2\n",
        "frame1 0\nframe2 0.5\nframe3 1.5\nframe4 2\n",
        "\ufeffframe1 0\r\nframe2 0.5\r\nframe3 1.5\r\nframe4 2\r\n",
    ],
)
def test_a_file_of_time_stamps(tmp_path, clip, stamps):
    found = media.read_pictures(folder(tmp_path, stamps, frames=4), clip)
    assert numbers(found) == [0, 1, 1, 2]  # midpoints 0.275 0.825 1.375 1.925


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        ("0\n1\n", "2 time stamps for 4 files: write one a file"),
        ("0\n1\n2\nx\n", "expected seconds"),
        ("0\n1\n2\n3 4 5\n", "expected a number a line"),
        ("a 0\nb 1\nc 2\nd 3\n", r"no time stamp of frame1\.png"),
        ("frame1 0\nframe1 1\nframe2 2\nframe3 3\n", r"no time stamp of frame4\.png"),
        ("0\n1\n2\nnan\n", "NaN"),
        ("0\n2\n1\n3\n", "must increase"),
        ("", r"timestamps\.txt: the file is empty"),
        ("\xff\x00", "expected seconds|time stamps for 4|not text"),
    ],
)
def test_a_file_of_time_stamps_that_does_not_fit(tmp_path, clip, stamps, said):
    path = folder(tmp_path, frames=4)
    (path / "timestamps.txt").write_bytes(stamps.encode("latin-1"))
    with pytest.raises(MediaError, match=said) as caught:
        media.read_pictures(path, clip)
    assert str(path) in str(caught.value)


def test_a_video_folder_with_time_stamps_sets_the_clock(tmp_path):
    stamps = "\n".join(f"{1.7e9 + i / 4:.2f}" for i in range(8))
    video = write_frames_folder(tmp_path / "rgb", frames=8, picture=grey_level)
    (video / "timestamps.txt").write_text(stamps)
    clip = beside(video, 2)
    assert (clip.video.zero, clip.video.end) == (1.7e9, 2.0)
    maps = folder(tmp_path, f"{1.7e9 + 0.2:.2f}\n{1.7e9 + 1:.2f}\n", frames=2)
    assert numbers(media.read_pictures(maps, clip)) == [0, 1]
    assert media.read_frames(video, 2).times.tolist() == [[0, 1], [1, 2]]


def test_a_stated_rate_holds_for_a_folder_that_is_the_video(tmp_path):
    path = folder(tmp_path, frames=8)
    assert media.read_pictures(path, Clip(2, rate=4.0)).times.tolist() == [[0, 1], [1, 2]]
    assert media.read_time_line(path, Clip(rate=4.0)).end == 2.0


def test_a_video_beside_the_video_keeps_its_own_times(tmp_path, clip):
    thermal = write_video(tmp_path / "t.mp4", frames=20, fps=10, picture=grey_level)
    found = media.read_pictures(thermal, clip)  # midpoints 0.275 0.825 1.375 1.925
    assert numbers(found) == [2, 8, 13, 19]
    late = beside(tmp_path / "v.mkv", start=0.5)
    assert numbers(media.read_pictures(thermal, late)) == [0, 3, 8, 14]
    with pytest.raises(MediaError, match="no time in common"):
        media.read_pictures(thermal, beside(tmp_path / "v.mkv", start=-2.0))


def test_a_gap_in_the_numbering_is_no_gap_in_time(tmp_path, clip):
    path = folder(tmp_path, frames=9)
    (path / "frame5.png").unlink()
    found = media.read_pictures(path, clip)
    assert numbers(found) == [2, 3, 5, 6]


def test_another_shape_than_the_videos_is_refused(clip):
    clip.check_view("d.png", 128, 96)
    clip.check_view("d.png", 62, 48)
    Clip().check_view("d.png", 5, 100)
    with pytest.raises(
        MediaError, match=r"d\.png: 48 x 48 pixels, while the video .* 64 x 48.*Crop"
    ):
        clip.check_view("d.png", 48, 48)
