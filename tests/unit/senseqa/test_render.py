"""The maps against each other and against the world that they are views of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from open_crema.senseqa import stage
from open_crema.senseqa.clips import GroupClips, render
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.render import Renderer
from open_crema.senseqa.scene import COLOURS, FOCAL, SIZE, Camera, Scene, Spot
from open_crema.senseqa.sets import Group
from open_crema.senseqa.solids import turn
from open_crema.senseqa.tracing import look, trace
from open_crema.senseqa.types import TYPES

DT = 1e-3


def scene(seed: int, count: int = 3, frames: int = 4) -> Scene:
    draw = Draw("test", seed)
    colours = draw.sub("colours").sample(list(COLOURS), count)
    return stage.row(draw.sub("row"), stage.empty(draw, frames), colours)


def back_projected(one: Scene, frame: int) -> np.ndarray:
    """Depth [H, W] as points [H, W, 3] of the world, by the pinhole model alone."""
    depth = Renderer(one).depth()[frame].astype(float)
    v, u = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    seen = np.stack([u / FOCAL * depth, v / FOCAL * depth, depth], axis=-1)
    camera = one.camera
    yaw = camera.yaw + camera.drift * one.times[frame]
    c, s = np.cos(camera.pitch), np.sin(camera.pitch)
    level = np.array([[1, 0, 0], [0, -s, c], [0, -c, -s]], dtype=float)  # x, y, z of each axis
    return seen @ level.T @ turn(yaw).T + np.array([0, 0, camera.height])


@pytest.mark.parametrize("seed", range(4))
def test_depth_leads_back_to_floor_and_walls(seed: int) -> None:
    one = scene(seed)
    points, owner = back_projected(one, 3), Renderer(one).mask()[3]
    room = one.room
    x, y, z = np.moveaxis(points, -1, 0)
    planes = [z, z - room.height, y - room.front, np.abs(x) - room.half_width]
    off = np.min(np.abs(planes), axis=0)[owner == 0]
    assert off.max() < 0.005
    assert (np.abs(z[owner == 0]) < 0.005).mean() > 0.2  # floor is seen


@pytest.mark.parametrize("seed", range(4))
def test_depth_leads_back_to_the_things(seed: int) -> None:
    one = scene(seed)
    owner = Renderer(one).mask()
    for frame in (0, 3):
        points = back_projected(one, frame)
        for number, thing in enumerate(one.things, start=1):
            own = points[owner[frame] == number]
            centre = np.array(thing.solid.centre) + one.times[frame] * np.array(thing.drift)
            assert len(own) > 60
            reach = np.linalg.norm(thing.solid.half)
            assert np.linalg.norm(own - centre, axis=1).max() < reach + 0.01


@pytest.mark.parametrize("seed", range(4))
def test_normals_are_those_of_the_depth(seed: int) -> None:
    """Smooth surfaces have the normal that differences of neighbouring points give."""
    one = scene(seed)
    # Not the files' depth: a millimetre is a lot between two neighbouring pixels.
    hits = trace(one, 0)
    across, down = np.gradient(hits.point, axis=1), np.gradient(hits.point, axis=0)
    crossed = np.cross(down, across) @ hits.view.axes
    crossed /= np.linalg.norm(crossed, axis=-1, keepdims=True)
    normal = Renderer(one).normal()[0].astype(float)
    assert np.abs(np.linalg.norm(normal, axis=-1) - 1).max() < 2e-3
    rays = hits.view.rays
    assert ((normal * rays).sum(-1) < 1e-3).all()  # what is seen faces the camera
    smooth = np.ones((SIZE, SIZE), bool)
    for axis in (0, 1):
        for step in (1, -1):
            smooth &= hits.body == np.roll(hits.body, step, axis)
            smooth &= (normal * np.roll(normal, step, axis)).sum(-1) > 0.98
    smooth[[0, -1]] = smooth[:, [0, -1]] = False
    assert smooth.mean() > 0.6
    assert np.quantile((crossed * normal).sum(-1)[smooth], 0.01) > 0.99


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", ["drift", "dart", "camera drift", "camera turn", "camera dart"])
def test_flow_is_where_points_go(seed: int, what: str) -> None:
    """Each visible point, carried on for a moment and projected again, by finite difference."""
    one = scene(seed)
    velocity = (0.3, -0.4, 0.2)
    still = tuple(replace(t, drift=(0.0, 0.0, 0.0)) for t in one.things)
    camera = replace(one.camera, drift=0.0)
    if what in ("drift", "dart"):
        still = tuple(replace(t, **{what: velocity}) for t in still)
    elif what == "camera drift":
        camera = replace(camera, drift=0.4)
    elif what == "camera turn":
        camera = replace(camera, turn=-0.3)
    else:
        camera = replace(camera, dart=velocity)
    one = replace(one, things=still, camera=camera, times=(0.0, 1.0, 2.0, 3.0))
    flow, hits = Renderer(one).flow()[0].astype(float), trace(one, 0)
    view = look(one, 0)
    moving = (hits.owner >= 1) & (hits.owner < 100)
    points = hits.point + moving[..., None] * DT * (
        np.array(velocity) if what in ("drift", "dart") else np.zeros(3)
    )
    yaw = DT * (camera.drift + camera.turn)
    axes = turn(yaw) @ view.axes
    place = view.place + DT * view.axes @ np.array(camera.dart)
    seen = (points - place) @ axes
    middle = (SIZE - 1) / 2
    later = seen[..., :2] / seen[..., 2:] * FOCAL + middle
    v, u = np.mgrid[:SIZE, :SIZE]
    expected = (later - np.stack([u, v], axis=-1)) / DT / SIZE
    assert np.abs(flow - expected).max() < 0.003 + 0.003 * np.abs(expected).max()
    assert np.abs(expected).max() > 0.05


def test_a_dart_shows_in_the_flow_alone() -> None:
    one = scene(1)
    moved = replace(one, things=tuple(replace(t, dart=(0.5, 0.0, 0.3)) for t in one.things))
    before, after = Renderer(one), Renderer(moved)
    assert np.array_equal(before.video(), after.video())
    assert np.array_equal(before.depth(), after.depth())
    assert not np.array_equal(before.flow(), after.flow())


def test_temperatures_are_those_of_the_things() -> None:
    one = scene(2)
    things = tuple(replace(t, celsius=20.0 + 20 * i) for i, t in enumerate(one.things))
    spot = Spot(0.0, 2.0, 0.2, 9.0)
    one = replace(one, things=things, spots=(spot,), room=replace(one.room, celsius=21.0))
    renderer = Renderer(one)
    heat, owner = renderer.thermal().astype(float), renderer.mask()
    for number, thing in enumerate(things, start=1):
        own = heat[owner == number]
        low, high = sorted((21.0 + 0.65 * (thing.celsius - 21.0), thing.celsius))
        assert low - 1 < np.median(own) < high + 1
    points = back_projected(one, 0)
    on_spot = (np.hypot(points[..., 0], points[..., 1] - 2.0) < 0.05) & (owner[0] == 0)
    assert on_spot.any()
    assert np.abs(heat[0][on_spot] - 29.5).max() < 1.5


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    for sense in ("video", "thermal", "audio", "point", "touch"):
        one, again, other = (render(sense, Renderer(scene(s))) for s in (5, 5, 6))
        for name, array in one.items():
            assert array.tobytes() == again[name].tobytes()
            assert array.tobytes() != other[name].tobytes()


def test_every_frame_has_noise_of_its_own() -> None:
    one = replace(scene(8), camera=Camera(drift=0.0))
    one = replace(one, things=tuple(replace(t, drift=(0.0, 0.0, 0.0)) for t in one.things))
    video = Renderer(one).video().astype(int)
    noise = video[0] - video[1]
    assert 0.5 * one.grain < noise.std() / np.sqrt(2) < 1.5 * one.grain
    assert np.array_equal(Renderer(one).depth()[0], Renderer(one).depth()[1])


@pytest.mark.parametrize("frames", [3, 5, 8])
def test_any_number_of_key_frames(frames: int) -> None:
    renderer = Renderer(scene(1, frames=frames))
    assert renderer.video().shape == (frames, SIZE, SIZE, 3)
    assert renderer.flow().shape == (frames, SIZE, SIZE, 2)
    assert renderer.mask().dtype == np.uint8


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(5))
def test_every_thing_is_seen_whole_and_apart(count: int, seed: int) -> None:
    owner = Renderer(scene(seed, count)).mask()
    for frame in (0, 3):
        for number in range(1, count + 1):
            rows, columns = np.nonzero(owner[frame] == number)
            assert len(rows) > 50
            assert columns.min() > 0
            assert columns.max() < SIZE - 1
            assert rows.max() < SIZE - 1


def test_one_frame_alone_is_that_of_all() -> None:
    one = Group(TYPES["depth_gap"], "val", 0, 0, 4, 2)
    for alone, whole in zip(GroupClips(one), GroupClips(one), strict=True):
        for sense in ("video", "flow", "depth", "normal", "thermal"):
            (maps,) = whole[sense].values()
            for frame in (0, 3):
                assert alone.at(sense, frame).tobytes() == maps[frame].tobytes()
        with pytest.raises(ValueError, match="not seen by the camera"):
            alone.at("audio", 0)
