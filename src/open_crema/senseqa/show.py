"""A picture of a question: its clips with all their senses side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from open_crema.errors import CremaError
from open_crema.media import Audio, Cloud, Frames
from open_crema.senseqa.clips import Clip, GroupClips
from open_crema.senseqa.scene import SECONDS
from open_crema.senseqa.sets import Group

_SUFFIXES = (".png", ".webp", ".jpg")
_COLUMNS = 8
_LABELS = {
    "flow": "flow",
    "depth": "depth",
    "normal": "normals",
    "thermal": "temperature",
}
_GROUND = "#8d8d99"  # behind points, of which some are white
_MARK = "#c2185b"  # around what differs from the first clip


def show(group: Group, path: str | Path) -> Path:
    """Writes a picture: the question, and for each of its worlds the answer and all senses. What
    differs from the first world is framed.

    path: ends in .png, .webp or .jpg. Raises CremaError where it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise CremaError(f"{path}: give a name that ends in {', '.join(_SUFFIXES)}")
    clips = list(GroupClips(group))
    figure = Figure(figsize=(13.0, 0.9 + 4.0 * len(clips)), layout="constrained", facecolor="white")
    question = clips[0].question
    lines = textwrap.wrap(question.text, 95)
    if question.options:
        lines.append(f"options: {', '.join(question.options)}")
    figure.suptitle("\n".join(lines), fontsize=14)
    blocks = figure.add_gridspec(len(clips), 1)
    for row, clip in enumerate(clips):
        _block(figure, blocks[row], clip, clips[0])
    try:
        figure.savefig(path, dpi=80)
    except OSError as error:
        raise CremaError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def _block(figure: Figure, place: SubplotSpec, clip: Clip, first: Clip) -> None:
    """One world: pictures, sound and scan above, maps and touch below."""
    frames = len(clip["video"]["rgb"])
    shown = np.linspace(0, frames - 1, 4).round().astype(int)
    grid = place.subgridspec(3, _COLUMNS, height_ratios=(0.12, 1, 1))
    title = figure.add_subplot(grid[0, :])
    title.axis("off")
    title.text(0, 0, f"answer: {clip.question.answer}", fontsize=13, weight="bold")
    for column, frame in enumerate(shown):
        ax = figure.add_subplot(grid[1, column])
        _picture(ax, clip, first, "video", frame, f"video, {frame * SECONDS / frames:.0f} s")
        ax = figure.add_subplot(grid[2, 4 + column])
        _picture(ax, clip, first, "touch", frame, f"touch, {frame * SECONDS / frames:.0f} s")
    for column, (sense, label) in enumerate(_LABELS.items()):
        ax = figure.add_subplot(grid[2, column])
        _picture(ax, clip, first, sense, 0, f"{label}, 0 s")
    _sound(figure.add_subplot(grid[1, 4]), clip, first)
    _from_above(figure.add_subplot(grid[1, 5]), clip, first)
    _aslant(figure.add_subplot(grid[1, 6:8]), clip, first)


def _picture(ax: Axes, clip: Clip, first: Clip, sense: str, frame: int, label: str) -> None:
    media = clip.media(sense)
    assert isinstance(media, Frames)
    ax.imshow(media.images[frame])
    _finish(ax, label, differs(clip[sense], first[sense]))


def _sound(ax: Axes, clip: Clip, first: Clip) -> None:
    media = clip.media("audio")
    assert isinstance(media, Audio)
    ax.specgram(
        media.samples, NFFT=512, Fs=media.rate, noverlap=256, cmap="magma", vmin=-110, vmax=-40
    )
    ax.set_ylim(0, 5000)
    _finish(ax, "sound, 0 to 4 s", differs(clip["audio"], first["audio"]))


def _from_above(ax: Axes, clip: Clip, first: Clip) -> None:
    media = clip.media("point")
    assert isinstance(media, Cloud)
    assert media.rgb is not None
    low = media.xyz[:, 2] < 2.4
    xyz, rgb = media.xyz[low], media.rgb[low] / 255
    order = np.argsort(xyz[:, 2], kind="stable")
    ax.scatter(xyz[order, 0], xyz[order, 1], s=1.5, c=rgb[order], linewidths=0)
    ax.plot([-0.5, 0, 0.5], [0.85, 0, 0.85], color="black", linewidth=1.5)
    ax.set(aspect="equal", facecolor=_GROUND)
    _finish(ax, "scan from above; V: camera", differs(clip["point"], first["point"]))


def _aslant(ax: Axes, clip: Clip, first: Clip) -> None:
    """From high up over the camera back into the room: what it does not see."""
    media = clip.media("point")
    assert isinstance(media, Cloud)
    assert media.rgb is not None
    inside = (media.xyz[:, 1] < 1.5) & (media.xyz[:, 2] < 2.2)
    xyz, rgb = media.xyz[inside].astype(np.float64), media.rgb[inside] / 255
    right, ahead = np.array([-1.0, 0.0, 0.0]), np.array([0.0, -np.cos(0.65), -np.sin(0.65)])
    axes = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    seen = (xyz - np.array([0.0, 3.5, 4.5])) @ axes
    order = np.argsort(-seen[:, 2], kind="stable")
    x, y, z = seen[order].T
    ax.scatter(x / z, -y / z, s=180 / z**2, c=rgb[order], linewidths=0)
    ax.set(aspect="equal", facecolor=_GROUND)
    _finish(ax, "scan: looking back over the camera", differs(clip["point"], first["point"]))


def differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a sense's arrays differ in a single byte."""
    return any(one[name].tobytes() != other[name].tobytes() for name in one)


def _finish(ax: Axes, label: str, marked: bool) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(label, fontsize=9, color=_MARK if marked else "black")
    for spine in ax.spines.values():
        spine.set(color=_MARK if marked else "#bbbbbb", linewidth=3 if marked else 0.5)
