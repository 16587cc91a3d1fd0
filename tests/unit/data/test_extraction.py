import json
import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from averages import Averages, ask

from media_factory import write_text
from open_crema import modality
from open_crema.data import extract, extraction
from open_crema.data.extraction import extract_all
from open_crema.data.store import FeatureStore
from open_crema.errors import MediaError, WeightsError


@pytest.fixture
def mixed(media):
    """Samples: two on a good file, two on a broken one, one whose sound alone is broken."""
    write_text(media / "text.mp4")
    write_text(media / "text.wav")
    return [
        ask(media, "a", video="sound.mp4"),
        ask(media, "b", video="text.mp4"),
        ask(media, "c", video="sound.mp4"),
        ask(media, "d", video="silent.mp4", audio="text.wav"),
        ask(media, "e", video="text.mp4"),
    ]


def objects(extractor):
    store = extractor.store
    store.shards.refresh()
    packed = {place.key: place.read() for place in store.shards.entries()}
    return packed | {key: path.read_bytes() for key, path in store.loose()}


@pytest.mark.parametrize("workers", [1, 4])
def test_masking_loses_the_sense_and_nothing_else(encoders, media, make, mixed, workers):
    report = extract_all(make("video", "audio"), mixed, on_error="mask", workers=workers)
    assert (report.samples, report.usable, report.skipped) == (5, 3, ())
    video, audio = report.senses["video"], report.senses["audio"]
    assert (video.expected, video.present, list(video.failed)) == (5, 3, ["b", "e"])
    assert (audio.expected, audio.present, list(audio.failed)) == (5, 2, ["b", "d", "e"])
    assert (video.made, audio.made, report.found) == (2, 1, 0)


@pytest.mark.parametrize("workers", [1, 4])
def test_skipping_leaves_the_whole_sample_out(encoders, media, make, mixed, workers):
    report = extract_all(make("video", "audio"), mixed, on_error="skip", workers=workers)
    assert (report.usable, report.skipped) == (2, ("b", "d", "e"))
    assert json.loads(json.dumps(report.to_dict()))["skipped"] == ["b", "d", "e"]


def test_a_broken_file_is_reported_once_with_its_samples(encoders, media, make, mixed):
    first, second = extract_all(make("video", "audio"), mixed, on_error="mask").failures
    assert (first.path, first.senses) == (str(media / "text.mp4"), ("video", "audio"))
    assert (second.path, second.senses) == (str(media / "text.wav"), ("audio",))
    assert (first.samples, second.samples) == (("b", "e"), ("d",))
    assert str(first).startswith("video, audio of 2 samples, the first is 'b': ")
    assert str(second).startswith("audio of sample 'd': ")
    assert all("cannot be read as media" in str(failure) for failure in (first, second))


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_names_a_sample_and_keeps_what_was_made(encoders, media, make, mixed, workers):
    extractor = make("video", "audio")
    with pytest.raises(MediaError, match=r"sample '[bd]', \w+: .*text\.\w+: cannot be read"):
        extract_all(extractor, mixed, workers=workers)
    kept = len(objects(extractor))
    encoders.clear()
    again = extract_all(make("video", "audio"), [mixed[0], mixed[2]])
    assert again.found + again.made == 2
    if workers == 1:
        assert (kept, again.found) == (2, 2)


def test_after_an_error_no_more_files_are_opened(encoders, media, make, mixed, monkeypatch):
    opened = []

    def slowly(target):
        def read(path, clip):
            opened.append(path)
            time.sleep(0.05)
            return modality.resolve(target)(path, clip)

        return read

    monkeypatch.setattr(extract, "resolve", slowly)
    write_text(media / "1.mp4")
    samples = [ask(media, "1", video="1.mp4")]
    samples += [ask(media, str(i), thermal=f"{i}.mp4") for i in range(2, 30)]
    for i in range(2, 30):
        (media / f"{i}.mp4").write_bytes((media / "sound.mp4").read_bytes() + bytes([i]))
    with pytest.raises(MediaError):
        extract_all(make("video", "thermal"), samples, workers=1)
    assert len(opened) < 5


def test_the_number_of_workers_changes_no_bit(encoders, media, make, mixed, tmp_path):
    made = []
    for workers in (1, 2, 5):
        encoders.clear()
        extractor = make("video", "audio", "flow", "thermal")
        extractor.store = FeatureStore(tmp_path / f"store{workers}")
        report = extract_all(extractor, mixed, on_error="mask", workers=workers)
        made.append((report, objects(extractor)))
    assert made[0] == made[1] == made[2]
    assert len(made[0][1]) == 5
    assert not list(extractor.store.loose())  # it was packed


def test_a_second_run_opens_no_media_file(encoders, media, make, monkeypatch):
    samples = [ask(media, "a", video="sound.mp4"), ask(media, "b", video="mute.mkv")]
    first = extract_all(make("video", "audio"), samples)
    encoders.clear()

    def refuse(*_, **__):
        pytest.fail("a media file was opened")

    monkeypatch.setattr(extract, "resolve", refuse)
    monkeypatch.setattr(extract, "read_time_line", refuse)
    monkeypatch.setattr("hashlib.file_digest", refuse)
    again = extract_all(make("video", "audio"), samples)
    assert (again.made, again.found) == (0, first.made)
    assert again.senses["audio"].absent == first.senses["audio"].absent


def test_encoders_are_built_and_loaded_once_for_all_workers(media, make, monkeypatch):
    loading = []

    class Slow(Averages):
        def __call__(self, media):
            if not self.calls:
                loading.append(threading.get_ident())
                time.sleep(0.1)
            return super().__call__(media)

    monkeypatch.setattr(extract, "encoder_for", lambda kind, config: Slow(kind.encoder))
    samples = [ask(media, f, video=f) for f in ("sound.mp4", "silent.mp4", "mute.mkv")]
    extract_all(make("video", "flow"), samples, workers=3)
    assert len(loading) == 1


def test_torch_has_one_thread_in_each_worker_and_then_what_it_had(media, make, monkeypatch):
    seen = set()

    class Curious(Averages):
        def __call__(self, media):
            seen.add(torch.get_num_threads())
            return super().__call__(media)

    monkeypatch.setattr(extract, "encoder_for", lambda kind, config: Curious(kind.encoder))
    torch.set_num_threads(3)
    try:
        extract_all(make("video"), [ask(media, video="sound.mp4")], workers=2)
        assert (seen, torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_no_broken_file_ends_it(encoders, media, make, mixed, monkeypatch, workers):
    def missing(kind, config):
        raise WeightsError("the weights are gone")

    monkeypatch.setattr(extract, "encoder_for", missing)
    with pytest.raises(WeightsError, match="gone"):
        extract_all(make("video"), mixed, on_error="mask", workers=workers)


@pytest.mark.parametrize(
    "fault", [PermissionError(13, "Permission denied"), EOFError("no data"), ValueError("a pickle")]
)
def test_errors_of_a_reader_are_those_of_a_broken_file(encoders, media, make, monkeypatch, fault):
    def read(path, clip):
        raise fault

    monkeypatch.setattr(extract, "resolve", lambda target: read)
    report = extract_all(make("video"), [ask(media, "a", video="sound.mp4")], on_error="skip")
    (failure,) = report.failures
    said = "Permission denied" if isinstance(fault, OSError) else str(fault)
    assert failure.path in failure.error
    assert said in failure.error
    assert report.usable == 0


def test_what_was_refused_before_is_not_opened(encoders, media, make, mixed):
    extractor, path = make("video"), str(media / "sound.mp4")
    refused = {path: f"{path}: a link", "elsewhere": "elsewhere: closed"}
    report = extract_all(extractor, mixed, on_error="mask", refused=refused)
    assert list(report.senses["video"].failed) == ["a", "b", "c", "e"]
    assert [f.samples for f in report.failures] == [("a", "c"), ("b", "e"), ()]
    with pytest.raises(MediaError, match=r"^elsewhere: closed$"):
        extract_all(extractor, mixed, refused=refused)
    del refused["elsewhere"]
    with pytest.raises(MediaError, match=r"^sample 'a', video: .*a link$"):
        extract_all(extractor, mixed, refused=refused)
    encoders.clear()
    assert extract_all(make("thermal"), mixed, refused=refused).failures == ()


def test_a_store_that_can_only_be_read(encoders, media, make, monkeypatch):
    samples = [ask(media, "a", video="sound.mp4")]
    extract_all(make("video"), samples)
    encoders.clear()

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(extraction.FileLock, "acquire", refuse)
    assert extract_all(make("video"), samples).found == 1


def test_a_file_in_another_process_hand_is_left_to_it(encoders, media, make, monkeypatch):
    """The other process holds its claim, writes, and lets go; this one does the rest meanwhile."""
    names = ("sound.mp4", "silent.mp4", "mute.mkv")
    samples = [ask(media, f, video=f) for f in names]
    root = make("video").store.root
    stripe = extraction.claim_of(str(media / "sound.mp4"))
    (root / "claims").mkdir(parents=True)
    code = (
        "import sys, filelock\n"
        f"lock = filelock.FileLock({str(root / 'claims' / stripe)!r})\n"
        "lock.acquire(); print('held', flush=True); sys.stdin.read(); lock.release()\n"
    )
    order = []
    obtain = extract.Extractor.obtain

    def noted(self, source, sense, **options):
        order.append(os.path.basename(source.path))
        if len(order) == 2:
            other.stdin.close()
        return obtain(self, source, sense, **options)

    monkeypatch.setattr(extract.Extractor, "obtain", noted)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        report = extract_all(make("video"), samples, workers=1)
    assert order == ["silent.mp4", "mute.mkv", "sound.mp4"]
    assert report.made == 3


def test_an_interruption_ends_the_workers_and_keeps_what_they_made(
    encoders, media, make, monkeypatch
):
    from open_crema import progress

    extractor = make("video", "audio", "flow")
    samples = [ask(media, f, video=f) for f in ("sound.mp4", "silent.mp4", "mute.mkv")]
    advance = progress.Progress.advance

    def interrupted(self, *arguments):
        advance(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract_all(extractor, samples, workers=2)
    assert not [t for t in threading.enumerate() if t.name.startswith("extract")]
    kept = len(objects(extractor))
    assert 1 <= kept < 9
    encoders.clear()
    again = extract_all(make("video", "audio", "flow"), samples)
    assert (again.found, again.made) == (kept, 9 - kept)


def test_processes_of_torchrun_share_a_machines_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    assert extraction._cores() == 8
    for count, own in ((4, 2), (3, 2), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count))
        assert extraction._cores() == own
