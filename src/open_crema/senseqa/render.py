"""The maps of a scene: what each sense shows of it at the key frames.

Exact but for the noise that is named: pictures, temperatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.patterns import brightness
from open_crema.senseqa.scene import FOCAL, SIZE, TILTS, Relief, Scene
from open_crema.senseqa.solids import Floats, local
from open_crema.senseqa.tracing import FINGER, Hits, trace

_SHADOW = 0.45  # of the light, right below a thing
_SLOPE = np.tan(np.radians(35.0))  # of slats and of a mark's rim
_MARK = 0.55  # radius of a mark, in half sizes of its panel
_RIM = 0.22
_EDGE = 0.3  # of a warm body's excess is lost towards its outline, which is seen aslant
_SKIN = 33.0  # degrees Celsius
_HEAT_NOISE = 0.15  # degrees Celsius


class Renderer:
    """One scene; the rays are cast when first needed.

    frames: which of the key frames, T of them; by default all.
    """

    def __init__(self, scene: Scene, frames: Sequence[int] | None = None) -> None:
        self.scene = scene
        self.frames = range(len(scene.times)) if frames is None else frames

    @cached_property
    def hits(self) -> tuple[Hits, ...]:
        return tuple(trace(self.scene, frame) for frame in self.frames)

    def video(self) -> npt.NDArray[np.uint8]:
        """[T, H, W, 3] RGB."""
        shown = zip(self.frames, self.hits, strict=True)
        return np.stack([self._picture(frame, hits) for frame, hits in shown])

    def depth(self) -> npt.NDArray[np.float32]:
        """[T, H, W] metres along the camera's axis, to a millimetre."""
        return np.stack([np.round(hits.depth, 3).astype(np.float32) for hits in self.hits])

    def mask(self) -> npt.NDArray[np.uint8]:
        """[T, H, W]: 0 the room, 1 + i thing i, 101 + i piece of furniture i, 250 the finger."""
        return np.stack([hits.owner for hits in self.hits])

    def normal(self) -> npt.NDArray[np.float16]:
        """[T, H, W, 3] unit vectors in camera coordinates, fine relief included."""
        found = []
        for hits in self.hits:
            normal = hits.normal @ hits.view.axes
            for number, thing in enumerate(self.scene.things, start=1):
                if thing.relief is not None:
                    at = hits.owner == number
                    own = self._local(hits, at)
                    normal[at] = _with_relief(normal[at], own, thing.relief)
            found.append(normal.astype(np.float16))
        return np.stack(found)

    def flow(self) -> npt.NDArray[np.float16]:
        """[T, H, W, 2] (x right, y down): velocity in the picture, in its widths per second."""
        found = []
        for hits in self.hits:
            view = hits.view
            velocities = np.array([*(b.velocity for b in hits.bodies), np.zeros(3)])
            seen = hits.depth[..., None] * view.rays
            moving = velocities[hits.body] @ view.axes - view.velocity
            moving = moving - np.cross(view.turning, seen)
            z = hits.depth[..., None]
            flow = (moving[..., :2] - moving[..., 2:] * view.rays[..., :2]) / z
            found.append((flow * (FOCAL / SIZE)).astype(np.float16))
        return np.stack(found)

    def thermal(self) -> npt.NDArray[np.float16]:
        """[T, H, W] degrees Celsius, in steps of 0.1."""
        scene, found = self.scene, []
        base = np.full(256, scene.room.celsius)
        for number, thing in enumerate(scene.things, start=1):
            base[number] = thing.celsius
        base[FINGER] = _SKIN
        for frame, hits in zip(self.frames, self.hits, strict=True):
            rays = hits.view.rays @ hits.view.axes.T
            facing = np.abs((hits.normal * rays).sum(-1)) / np.linalg.norm(rays, axis=-1)
            excess = base[hits.owner] - scene.room.celsius
            heat = scene.room.celsius + excess * (1 - _EDGE * (1 - facing))
            heat = heat + np.where(hits.owner == 0, 0.4 * (hits.point[..., 2] - 1), 0.0)
            floor = self._floor(hits)
            for spot in scene.spots:
                x, y = hits.point[..., 0] - spot.x, hits.point[..., 1] - spot.y
                heat = heat + floor * spot.degrees * np.exp(-(x * x + y * y) / spot.radius**2)
            noise = Draw(*scene.seed, "heat", frame).normals(SIZE, SIZE) * _HEAT_NOISE
            found.append(np.round(heat + noise, 1).astype(np.float16))
        return np.stack(found)

    def _picture(self, frame: int, hits: Hits) -> npt.NDArray[np.uint8]:
        scene, light = self.scene, self.scene.light
        towards = np.array(light.towards) / np.linalg.norm(light.towards)
        lit = light.ambient + (1 - light.ambient) * np.maximum(hits.normal @ towards, 0.0)
        shown = self._albedo(hits) * lit[..., None] * np.array(light.tint)
        shown = shown * self._shadows(hits)[..., None]
        shown = _with_cues(shown, hits, scene.cues[frame])
        noise = Draw(*scene.seed, "grain", frame).normals(SIZE, SIZE, 3) * scene.grain
        return np.clip(np.rint(shown * 255 + noise), 0, 255).astype(np.uint8)

    def _albedo(self, hits: Hits) -> Floats:
        """[H, W, 3] colours of the surfaces."""
        room = self.scene.room
        up = np.abs(hits.normal[..., 2]) > 0.5
        colour = np.where(up[..., None], np.array(room.floor), np.array(room.wall))
        for index, body in enumerate(hits.bodies):
            at = hits.body == index
            if at.any():
                own = local(body.solid, hits.point[at], body.centre)
                shade = brightness(body.solid.pattern, own)
                colour[at] = np.array(body.solid.colour) * shade[:, None]
        for pattern, here in ((room.floor_pattern, up), (room.wall_pattern, ~up)):
            at = here & (hits.owner == 0)
            colour[at] *= brightness(pattern, hits.point[at])[:, None]
        for number, thing in enumerate(self.scene.things, start=1):
            if thing.relief is not None and thing.relief.bulge:
                at = hits.owner == number
                across = np.hypot(*self._local(hits, at)[:, ::2].T)
                colour[at] *= np.where(np.abs(across - _MARK) < _RIM / 2, 0.6, 1.0)[:, None]
        return colour

    def _shadows(self, hits: Hits) -> Floats:
        """[H, W]: the light that things leave to the floor."""
        floor, left = self._floor(hits), np.ones((SIZE, SIZE))
        for body, thing in zip(hits.bodies, self.scene.things, strict=False):
            if thing.grounded:
                x, y = hits.point[..., 0] - body.centre[0], hits.point[..., 1] - body.centre[1]
                near = np.exp(-(((x * x + y * y) / (1.3 * max(body.solid.half[:2])) ** 2) ** 2))
                left = left * (1 - floor * _SHADOW * near)
        return left

    def _floor(self, hits: Hits) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = (hits.owner == 0) & (hits.point[..., 2] < 0.01)
        return found

    def _local(self, hits: Hits, at: npt.NDArray[np.bool_]) -> Floats:
        """Points of one thing [n, 3] in its own coordinates."""
        if not at.any():
            return np.zeros((0, 3))
        body = hits.bodies[int(hits.body[at][0])]
        return local(body.solid, hits.point[at], body.centre)


def _with_relief(normal: Floats, own: Floats, relief: Relief) -> Floats:
    """Normals [n, 3] of a panel's front with its slats and its mark."""
    front = own[:, 1] < -0.999
    if relief.tilt is not None:
        lean = np.where(front[:, None], _SLOPE * np.array(TILTS[relief.tilt]), 0.0)
        normal = normal + lean
    if relief.bulge:
        across = np.maximum(np.hypot(own[:, 0], own[:, 2]), 1e-9)
        rim = front & (np.abs(across - _MARK) < _RIM / 2)
        outwards = np.column_stack([own[:, 0], -own[:, 2], np.zeros(len(own))]) / across[:, None]
        normal = normal + np.where(rim[:, None], relief.bulge * _SLOPE * outwards, 0.0)
    unit: Floats = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return unit


def _with_cues(shown: Floats, hits: Hits, sounding: frozenset[int]) -> Floats:
    """The picture with white arcs to both sides of the things that sound."""
    v, u = np.mgrid[:SIZE, :SIZE].astype(float)
    for thing in sorted(sounding):
        rows, columns = np.nonzero(hits.owner == thing + 1)
        if not len(rows):
            continue
        middle = rows.min() + rows.max(), columns.min() + columns.max()
        y, x = v - middle[0] / 2, u - middle[1] / 2
        radius = (columns.max() - columns.min() + 1) / 2
        away = np.hypot(x, y)
        beside = np.abs(y) < 0.6 * away
        for step in (3.0, 6.0):
            arc = np.clip(1.4 - np.abs(away - radius - step), 0.0, 1.0) * beside
            shown = shown * (1 - arc[..., None]) + arc[..., None]
    return shown
