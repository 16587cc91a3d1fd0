"""Media containers through FFmpeg (PyAV): opening, and decoding that survives damage."""

import logging
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


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """The file as a container; nothing of it may be used after it closes.

    Raises MediaError when it is not media, or is cut so short that its index is lost.
    """
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


def check_decoder(path: Path, stream: Stream) -> None:
    if stream.codec_context is None:  # PyAV types it as always there
        raise MediaError(f"{path}: its {stream.type} codec is not known here: convert it")
