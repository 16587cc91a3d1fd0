"""The clips of a group: every sense of every world, made when it is first asked for.

Worlds of a group differ in the senses that their type flips. All other senses are made once, of the
first world, and shared: so they are the same bytes by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from open_crema.experts.colour import depth_to_rgb, flow_to_rgb, normal_to_rgb, thermal_to_rgb
from open_crema.media import Audio, Cloud, Frames
from open_crema.senseqa import cloud, sounds, touch
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.render import Renderer
from open_crema.senseqa.scene import SECONDS, Scene
from open_crema.senseqa.sets import Group, Question
from open_crema.senseqa.types import Variant

SENSES = ("video", "audio", "flow", "depth", "normal", "point", "touch", "thermal")
_SEEN = ("video", "flow", "depth", "normal", "thermal")
Array = npt.NDArray[Any]


class Clip:
    """One world: what its eight senses hold.

    ``clip[sense]`` is the sense's own arrays, the same that its file holds:

    ========  =====================================================================
    video     rgb uint8 [T, H, W, 3]
    audio     samples float32 [n], mono at 16 kHz
    flow      flow_widths_per_second float16 [T, H, W, 2]: x right, y down
    depth     depth float32 [T, H, W], metres along the camera's axis
    normal    normal float16 [T, H, W, 3]: unit vectors, x right, y down, z ahead
    point     xyz float32 [N, 3] metres, rgb uint8 [N, 3]
    touch     touch uint8 [T, H, W, 3]
    thermal   thermal float16 [T, H, W], degrees Celsius
    ========  =====================================================================
    """

    def __init__(self, of: GroupClips, variant: Variant, question: Question) -> None:
        self._of = of
        self.variant = variant
        self.question = question

    @property
    def frames(self) -> int:
        """T, the number of key frames."""
        return self._of.group.frames

    @property
    def scene(self) -> Scene:
        """The truth of this world."""
        return self._of.group.asked.worlds[self.variant]

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """[T, H, W]: 0 the room, 1 + i thing i, 101 + i piece of furniture i, 250 the finger."""
        return self._of.renderer(self._of.world_of("mask", self.variant)).mask()

    def __getitem__(self, sense: str) -> Mapping[str, Array]:
        return self._of.sense(sense, self.variant)

    def at(self, sense: str, frame: int) -> Array:
        """The map of one key frame of a sense that the camera sees, without the cost of the others.
        Raises ValueError for another sense."""
        return self._of.at(sense, self.variant, frame)

    def world_of(self, sense: str) -> Variant:
        """Clips of a group for which this is equal share the sense."""
        return self._of.world_of(sense, self.variant)

    def media(self, sense: str) -> Frames | Audio | Cloud:
        """What the sense's reader gives of its file, for an encoder (video and sound as they were
        before the codec)."""
        arrays = self[sense]
        if sense == "audio":
            return Audio(arrays["samples"], sounds.RATE)
        if sense == "point":
            return Cloud(arrays["xyz"], arrays["rgb"])
        (maps,) = arrays.values()
        paint = _PAINT.get(sense)
        images = maps if paint is None else paint(maps.astype(np.float32))
        edges = np.linspace(0.0, SECONDS, len(maps) + 1)
        return Frames(images, np.stack([edges[:-1], edges[1:]], axis=1))

    def tensors(self) -> dict[str, Tensor]:
        """``sense/array`` -> the same as tensors."""
        return {
            f"{sense}/{name}": torch.from_numpy(np.array(array))
            for sense in SENSES
            for name, array in self[sense].items()
        }


_PAINT: dict[str, Callable[[Array], npt.NDArray[np.uint8]]] = {
    "flow": flow_to_rgb,
    "depth": depth_to_rgb,
    "normal": normal_to_rgb,
    "thermal": thermal_to_rgb,
}


class GroupClips:
    """The clips of one group; what they share is made once."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._renderers: dict[Variant, Renderer] = {}
        self._made: dict[tuple[str, Variant], Mapping[str, Array]] = {}
        self._glances: dict[tuple[Variant, int], Renderer] = {}
        self._maps: dict[tuple[str, Variant, int], Array] = {}

    def __iter__(self) -> Iterator[Clip]:
        rows = zip(self.group.variants, self.group.questions, strict=False)
        return (Clip(self, variant, question) for variant, question in rows)

    def world_of(self, sense: str, variant: Variant) -> Variant:
        """The world whose sense this is: that of the variant in this sense alone."""
        flips = self.group.kind.flips
        return tuple(v if flips[i] == sense else 0 for i, v in enumerate(variant))

    def renderer(self, world: Variant) -> Renderer:
        if world not in self._renderers:
            self._renderers[world] = Renderer(self.group.asked.worlds[world])
        return self._renderers[world]

    def sense(self, sense: str, variant: Variant) -> Mapping[str, Array]:
        """Raises KeyError for a sense that there is not."""
        key = sense, self.world_of(sense, variant)
        if key not in self._made:
            self._made[key] = render(sense, self.renderer(key[1]))
        return self._made[key]

    def at(self, sense: str, variant: Variant, frame: int) -> Array:
        """As `Clip.at`."""
        if sense not in _SEEN:
            raise ValueError(f"{sense!r} is not seen by the camera; these are: {', '.join(_SEEN)}")
        key = sense, self.world_of(sense, variant), frame
        if key not in self._maps:
            world = key[1]
            if (world, frame) not in self._glances:
                self._glances[world, frame] = Renderer(self.group.asked.worlds[world], (frame,))
            (maps,) = render(sense, self._glances[world, frame]).values()
            self._maps[key] = maps[0]
        return self._maps[key]


def render(sense: str, renderer: Renderer) -> dict[str, Array]:
    """The arrays of one sense of one world, as in :class:`Clip`."""
    scene = renderer.scene
    if sense == "video":
        return {"rgb": renderer.video()}
    if sense == "audio":
        return {"samples": sounds.mix(scene.notes, SECONDS, Draw(*scene.seed, "hiss"))}
    if sense == "flow":
        return {"flow_widths_per_second": renderer.flow()}
    if sense == "depth":
        return {"depth": renderer.depth()}
    if sense == "normal":
        return {"normal": renderer.normal()}
    if sense == "thermal":
        return {"thermal": renderer.thermal()}
    if sense == "touch":
        return {"touch": _touch(scene)}
    if sense == "point":
        xyz, rgb = cloud.scan(scene)
        return {"xyz": xyz, "rgb": rgb}
    raise KeyError(sense)


def _touch(scene: Scene) -> npt.NDArray[np.uint8]:
    """[T, H, W, 3]: one picture a contact, as long as it lasts."""
    made: dict[Any, npt.NDArray[np.uint8]] = {}
    for contact in scene.contacts:
        if contact not in made:
            # By thing and not by texture, so that worlds differ in the texture alone.
            draw = Draw(*scene.seed, "gel", -1 if contact.thing is None else contact.thing)
            made[contact] = touch.tactile(contact.texture, draw, angle=contact.angle)
    return np.stack([made[contact] for contact in scene.contacts])
