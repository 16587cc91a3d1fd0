"""Media containers through FFmpeg (PyAV): opening, and decoding that survives damage."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from open_crema.errors import MediaError

log = logging.getLogger(__name__)

# A file may hold a playlist under any name; neither other files nor the network are opened for it.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": (
        "aac,aiff,asf,avi,flac,flv,gif,matroska,webm,mov,mp4,mp3,mpeg,mpegts,mpegvideo,ogg,w64,wav"
    ),
}

# Containers whose header says how long a track is (how the names of FFmpeg's demuxers begin);
# elsewhere FFmpeg estimates it from the file's size.
_DECLARES = ("mov,", "matroska,", "flac")
_WHOLE = 0.9  # of the declared duration; the last pictures are often missing from whole files


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """The file as a container; nothing of it may be used after it closes.

    Raises MediaError when it is not media, or is cut so short that its index is lost.
    """
    _check_riff(path)
    try:
        # Absolute, so that no part of the name reads as a protocol. Tags in another encoding
        # must not make a file unreadable.
        container = av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise MediaError(
            f"{path}: cannot be read as media ({error.strerror}): it is not a media file, or it "
            f"was cut short. Copy or download it again, or convert it with ffmpeg"
        ) from None
    with container:
        yield container


def moving_pictures(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def decoded(path: Path, container: InputContainer, stream: Stream) -> Iterator[Any]:
    """The stream's frames from where the container stands.

    What is damaged is left out, with one warning in the log; a file that ends early gives what it
    holds.
    """
    damaged = 0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:  # decoded, half a picture would pass for a whole one
                damaged += 1
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError:
                damaged += 1
                continue
            yield from frames
    except av.FFmpegError as error:
        log.warning("%s: reading stopped early: %s", path, error.strerror)
    if damaged:
        log.warning("%s: %d damaged packets of %s were left out", path, damaged, stream.type)


def declared_seconds(container: InputContainer, stream: Stream) -> float:
    """How long the stream is as the file's own header says; 0 where it does not, or FFmpeg guesses.

    The container's duration is that of its longest track, and counts only where it is the shorter:
    a clip trimmed without new encoding keeps more than it shows.
    """
    if not container.format.name.startswith(_DECLARES):
        return 0.0
    whole = (container.duration or 0) / 1e6
    own = 0.0
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    if stream.duration and stream.time_base:
        own = float(stream.duration * stream.time_base)
    elif tag:  # Matroska
        own = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return min(own, whole) if own and whole else own or whole


def check_whole(path: Path, held: float, declared: float, unit: str = "seconds") -> None:
    """Raises MediaError where the file holds clearly less than it declares."""
    if held < _WHOLE * declared:
        found, said = (f"{round(amount, 1):.12g}" for amount in (held, declared))
        raise MediaError(
            f"{path}: holds {found} of its {said} {unit}: it was cut short. Copy or download it "
            f"again, or keep what is left by converting it with ffmpeg"
        )


def _check_riff(path: Path) -> None:
    """WAV and AVI say in their first bytes how large they are; FFmpeg passes over it."""
    with path.open("rb") as file:
        kind, size = file.read(4), int.from_bytes(file.read(4), "little")
    if kind == b"RIFF" and size != 2**32 - 1:  # what a recorder that streams leaves there
        check_whole(path, path.stat().st_size, size, "bytes")


def check_decoder(path: Path, stream: Stream) -> None:
    if stream.codec_context is None:  # PyAV types it as always there
        raise MediaError(f"{path}: its {stream.type} codec is not known here: convert it")
