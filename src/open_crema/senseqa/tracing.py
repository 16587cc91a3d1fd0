"""What each pixel of a key frame sees: the one ray casting that all maps are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from open_crema.senseqa.scene import FOCAL, SIZE, Scene, Solid, Vector
from open_crema.senseqa.solids import Floats, meet, turn

FIXTURE, FINGER = 100, 250  # owners: things are 1, 2, ...; furniture is 101, 102, ...
_CLOSEST = 0.3  # metres; nothing stands nearer to the camera
_TIP, _FINGER = 0.06, 0.35  # metres: radius and half length of the finger
_SKIN = (0.88, 0.62, 0.50)


@dataclass(frozen=True)
class Body:
    """A solid where it is at one moment, whose it is, and its velocity (m/s)."""

    owner: int
    solid: Solid
    centre: Floats
    velocity: Floats


@dataclass(frozen=True)
class View:
    """The camera at one moment: place, rays [H, W, 3] in camera coordinates with z = 1, axes
    [3, 3] (columns right, down, ahead), and its velocity (m/s) and turn (radians/s) in them."""

    place: Floats
    rays: Floats
    axes: Floats
    velocity: Floats
    turning: Floats


@dataclass(frozen=True)
class Hits:
    """depth [H, W]: metres along the camera's axis. owner [H, W]: 0 is the room. body [H, W]: index
    into bodies, -1 is the room. normal [H, W, 3]: unit, world. point [H, W, 3]: metres, world."""

    view: View
    bodies: tuple[Body, ...]
    depth: Floats
    owner: npt.NDArray[np.uint8]
    body: npt.NDArray[np.int64]
    normal: Floats
    point: Floats


def look(scene: Scene, frame: int) -> View:
    """The camera at a key frame."""
    camera = scene.camera
    yaw, pitch = camera.yaw + camera.drift * scene.times[frame], camera.pitch
    level = turn(yaw)
    ahead = level @ np.array([0.0, np.cos(pitch), -np.sin(pitch)])
    right = level[:, 0]
    axes = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    v, u = np.mgrid[:SIZE, :SIZE]
    middle = (SIZE - 1) / 2
    rays = np.stack([(u - middle) / FOCAL, (v - middle) / FOCAL, np.ones((SIZE, SIZE))], axis=-1)
    up = axes.T @ np.array([0.0, 0.0, 1.0])
    place = np.array([0.0, 0.0, camera.height])
    turning = (camera.drift + camera.turn) * up
    return View(place, rays, axes, np.array(camera.dart), turning)


def bodies(scene: Scene, frame: int) -> tuple[Body, ...]:
    """Every solid at a key frame."""
    time, found = scene.times[frame], []
    for number, thing in enumerate(scene.things, start=1):
        drift = np.array(thing.drift)
        centre = np.array(thing.solid.centre) + drift * time
        found.append(Body(number, thing.solid, centre, drift + np.array(thing.dart)))
    for number, fixture in enumerate(scene.fixtures, start=FIXTURE + 1):
        found += [Body(number, s, np.array(s.centre), np.zeros(3)) for s in fixture.solids]
    touched = scene.contacts[frame].thing
    if touched is not None:
        found += _finger(found[touched])
    return tuple(found)


def _finger(on: Body) -> list[Body]:
    """A finger that points down onto a thing."""
    top = on.centre + np.array([0.0, 0.0, on.solid.half[2]])
    if on.solid.kind == "ring":  # its middle is open, its top is not
        top = top - np.array([0.0, 0.0, 0.02])
    tip: Vector = (_TIP, _TIP, _TIP)
    length: Vector = (_TIP, _TIP, _FINGER)
    parts = []
    for kind, half, height in (("ball", tip, _TIP), ("cylinder", length, _TIP + _FINGER)):
        centre = top + np.array([0.0, 0.0, height])
        x, y, z = centre.tolist()
        parts.append(Body(FINGER, Solid(kind, (x, y, z), half, colour=_SKIN), centre, on.velocity))
    return parts


def trace(scene: Scene, frame: int) -> Hits:
    """Casts one ray a pixel."""
    view = look(scene, frame)
    world = view.rays @ view.axes.T
    depth, normal = _room(scene, view.place, world)
    owner = np.zeros((SIZE, SIZE), np.uint8)
    body = np.full((SIZE, SIZE), -1, np.int64)
    found = bodies(scene, frame)
    for index, one in enumerate(found):
        window = _window(one, view)
        if window is None:
            continue
        rays = world[window]
        t, n = meet(one.solid, one.centre, view.place, rays.reshape(-1, 3))
        t = t.reshape(rays.shape[:2])
        nearer = t < depth[window]
        depth[window][nearer] = t[nearer]
        normal[window][nearer] = n.reshape(rays.shape)[nearer]
        owner[window][nearer] = one.owner
        body[window][nearer] = index
    return Hits(view, found, depth, owner, body, normal, view.place + depth[..., None] * world)


def _room(scene: Scene, place: Floats, world: Floats) -> tuple[Floats, Floats]:
    """From inside a box: the first of its planes ahead on each axis."""
    room = scene.room
    low = np.array([-room.half_width, -room.back, 0.0])
    high = np.array([room.half_width, room.front, room.height])
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(world > 0, high - place, low - place) / world
    t = np.where(np.abs(world) < 1e-12, np.inf, t)
    axis = t.argmin(axis=-1)
    normal = -np.sign(world) * (np.arange(3) == axis[..., None])
    return t.min(axis=-1), normal


def _window(body: Body, view: View) -> tuple[slice, slice] | None:
    """Rows and columns that hold the body, or nothing where it is out of sight."""
    x, y, z = ((body.centre - view.place) @ view.axes).tolist()
    radius = float(np.linalg.norm(body.solid.half))
    if z + radius < _CLOSEST:
        return None
    near = max(z - radius, _CLOSEST)
    slices = []
    for at in (y, x):
        ends = [(at + side * radius) / d for side in (-1, 1) for d in (near, z + radius)]
        middle = (SIZE - 1) / 2
        first = int(np.floor(FOCAL * min(ends) + middle))
        last = int(np.ceil(FOCAL * max(ends) + middle)) + 1
        slices.append(slice(max(first, 0), min(last, SIZE)))
    rows, columns = slices
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return rows, columns
