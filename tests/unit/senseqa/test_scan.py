"""The scan: the whole room and its furniture, seen or not, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_render import back_projected, scene

from open_crema.senseqa import stage
from open_crema.senseqa.cloud import POINTS, scan
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.furniture import furnish, reach
from open_crema.senseqa.render import Renderer
from open_crema.senseqa.scene import COLOURS, FURNITURE, Scene
from open_crema.senseqa.solids import local

ERROR = 0.03  # metres: six times the scanner's


def off_solids(one: Scene, points: np.ndarray) -> np.ndarray:
    """How far points are outside the box around the nearest part of furniture, in metres."""
    found = np.full(len(points), np.inf)
    for fixture in one.fixtures:
        for solid in fixture.solids:
            beyond = np.maximum(np.abs(local(solid, points, np.array(solid.centre))) - 1, 0)
            found = np.minimum(found, np.linalg.norm(beyond * np.array(solid.half), axis=1))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_point_is_on_the_room_or_on_furniture(seed: int) -> None:
    one = scene(seed)
    xyz, rgb = scan(one)
    assert xyz.shape == rgb.shape == (POINTS, 3)
    x, y, z = xyz.T.astype(float)
    room = one.room
    planes = [z, np.abs(x) - room.half_width, y - room.front, y + room.back]
    on_room = np.min(np.abs(planes), axis=0) < ERROR
    assert (on_room | (off_solids(one, xyz.astype(float)) < ERROR)).all()
    assert z.max() <= room.height + ERROR
    assert not ((np.abs(z - room.height) < 1e-6) & ~on_room).any()


@pytest.mark.parametrize("seed", range(4))
def test_all_of_it_is_covered_also_behind_the_camera(seed: int) -> None:
    one = scene(seed)
    xyz, _ = scan(one)
    points = xyz.astype(float)
    for fixture in one.fixtures:
        for solid in fixture.solids:
            if max(solid.half) > 0.15:
                p = local(solid, points, np.array(solid.centre))
                assert (np.abs(p).max(axis=1) < 1.1).sum() >= 8, fixture.kind
    floor = points[np.abs(points[:, 2]) < ERROR]
    cells, _, _ = np.histogram2d(
        floor[:, 0],
        floor[:, 1],
        bins=4,
        range=[[-one.room.half_width, one.room.half_width], [-one.room.back, one.room.front]],
    )
    assert cells.min() > 30


def test_what_the_camera_sees_of_the_room_is_in_the_scan() -> None:
    one = scene(5)
    seen, owner = back_projected(one, 0), Renderer(one).mask()[0]
    low = (owner == 0) & (seen[..., 2] < one.room.height - 0.01)
    points = scan(one)[0].astype(float)
    sample = seen[low][::37]
    nearest = np.linalg.norm(points[None] - sample[:, None], axis=2).min(axis=1)
    assert np.quantile(nearest, 0.95) < 0.35


def test_things_are_not_in_it() -> None:
    one = scene(6)
    bare = replace(one, things=())
    for array, other in zip(scan(one), scan(bare), strict=True):
        assert array.tobytes() == other.tobytes()


def test_colours_are_those_of_the_furniture() -> None:
    room = replace(scene(1), fixtures=())
    for colour, rgb in COLOURS.items():
        piece = furnish("sofa", "behind", (0.0, -3.0), np.pi, colour, rgb, 1)
        xyz, shown = scan(replace(room, fixtures=(piece,)))
        own = (np.abs(xyz[:, 0]) < 0.8) & (xyz[:, 2] > 0.1) & (np.abs(xyz[:, 1] + 3.0) < 0.5)
        assert np.abs(np.median(shown[own], axis=0) - 255 * np.array(rgb)).max() < 15


@pytest.mark.parametrize("kind", FURNITURE)
def test_furniture_stands_on_the_floor_and_keeps_off_the_wall(kind: str) -> None:
    piece = furnish(kind, "front", (0.0, 0.0), 0.0, "red", (1, 0, 0), 0)
    low = min(s.centre[2] - s.half[2] for s in piece.solids)
    assert low == pytest.approx(0.0, abs=0.03)
    assert max(s.centre[1] + s.half[1] for s in piece.solids) <= reach(kind)


@pytest.mark.parametrize("seed", range(12))
def test_hidden_furniture_is_hidden_and_the_rest_is_not_in_the_way(seed: int) -> None:
    draw = Draw("hidden", seed)
    room = stage.empty(draw, 4)
    wanted = [(place, draw.choice(FURNITURE), draw.choice(list(COLOURS))) for place in stage.PLACES]
    for front in stage.SHALLOW:
        pieces = stage.furniture(draw.sub("f", front), room.room, wanted, front=front)
        full = stage.row(draw.sub("row"), replace(room, fixtures=pieces), ["red", "blue", "green"])
        owner = Renderer(full).mask()
        assert set(np.unique(owner[owner > 100])) <= {101}  # the piece in front comes first
        assert pieces[0].place == "front"
        for thing in full.things:
            back = thing.solid.centre[1] + 1.25 * max(thing.solid.half)
            for solid in pieces[0].solids:
                assert solid.centre[1] - solid.half[1] > back - 0.25
