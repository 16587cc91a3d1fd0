"""The scan: points on all surfaces of the room and its furniture, seen or not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.patterns import brightness
from open_crema.senseqa.scene import Scene, Solid
from open_crema.senseqa.solids import Floats, local, turn

POINTS = 8192
_FURNITURE = 0.5  # the part of the points that lies on it
_ERROR = 0.005  # metres, of each coordinate
_GRAIN = 4.0  # levels of 255


def scan(scene: Scene) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """xyz [N, 3] in metres and rgb [N, 3].

    The scanner saw the room from everywhere before the things came in: floor, walls (no ceiling, so
    that one can look in from above) and furniture, in even light. Its axes are the world's: the
    camera stands at x = y = 0 and looks along y.
    """
    draw = Draw(*scene.seed, "scan")
    solids = [solid for fixture in scene.fixtures for solid in fixture.solids]
    share = round(POINTS * _FURNITURE) if solids else 0
    points, colours = _room(scene, POINTS - share, draw.sub("room"))
    parts, shades = [points], [colours]
    areas = np.array([_area(solid) for solid in solids])
    counts = _split(share, areas)
    for number, (solid, count) in enumerate(zip(solids, counts, strict=True)):
        own = _on_surface(solid, count, draw.sub("solid", number))
        found = own * np.array(solid.half) @ turn(solid.yaw).T + np.array(solid.centre)
        parts.append(found)
        shade = brightness(solid.pattern, local(solid, found, np.array(solid.centre)))
        shades.append(np.array(solid.colour) * shade[:, None])
    xyz = np.concatenate(parts)
    rgb = np.concatenate(shades) * 255 + draw.sub("grain").normals(len(xyz), 3) * _GRAIN
    xyz = xyz + draw.sub("error").normals(len(xyz), 3) * _ERROR
    return xyz.astype(np.float32), np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _room(scene: Scene, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """Points on the floor and the four walls, and their colours."""
    room = scene.room
    wide, long = 2 * room.half_width, room.front + room.back
    counts = _split(
        count, np.array([wide * long, *(2 * [long * room.height]), *(2 * [wide * 2.5])])
    )
    points, floor = [], counts[0]
    for side, number in enumerate(counts):
        u = draw.uniforms(number, 3)
        p = u * np.array([wide, long, room.height]) - np.array([room.half_width, room.back, 0.0])
        if side == 0:
            p[:, 2] = 0.0
        elif side in (1, 2):
            p[:, 0] = room.half_width * (1 if side == 1 else -1)
        else:
            p[:, 1] = room.front if side == 3 else -room.back
        points.append(p)
    xyz = np.concatenate(points)
    shade = np.concatenate(
        [brightness(room.floor_pattern, xyz[:floor]), brightness(room.wall_pattern, xyz[floor:])]
    )
    colour = np.where(np.arange(count)[:, None] < floor, np.array(room.floor), np.array(room.wall))
    return xyz, colour * shade[:, None]


def _split(count: int, weights: Floats) -> list[int]:
    """Whole numbers that add up to count, as the weights are to each other."""
    if not len(weights):
        return []
    ends = np.rint(np.cumsum(weights) / weights.sum() * count).astype(int)
    counts: list[int] = np.diff(ends, prepend=0).tolist()
    return counts


def _area(solid: Solid) -> float:
    x, y, z = solid.half
    if solid.kind == "cube":
        return 8 * (x * y + y * z + z * x)
    if solid.kind == "cylinder":
        return float(4 * np.pi * x * z + 2 * np.pi * x * y)
    return float(4 * np.pi * x * y)


def _on_surface(solid: Solid, count: int, draw: Draw) -> Floats:
    """[n, 3] in the body's own coordinates, even by area for cubes, nearly so for round bodies."""
    u = draw.uniforms(count, 3) * 2 - 1
    if solid.kind == "cube":
        x, y, z = solid.half
        faces = np.cumsum([y * z, z * x, x * y])
        axis = np.searchsorted(faces / faces[-1], draw.uniforms(count), side="right").clip(max=2)
        u[np.arange(count), axis] = np.where(draw.uniforms(count) < 0.5, -1.0, 1.0)
        return u
    if solid.kind == "cylinder":
        angle, lid = (
            np.pi * u[:, 0],
            draw.uniforms(count) < solid.half[0] / (solid.half[0] + 2 * solid.half[2]),
        )
        radius = np.where(lid, np.sqrt(np.abs(u[:, 1])), 1.0)
        height = np.where(lid, np.sign(u[:, 2]), u[:, 2])
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    normal = draw.normals(count, 3)
    found: Floats = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return found
