"""Scenes of planes and spheres with exact depth, normals and colour, and RGB-D folders of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

INTRINSICS = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])  # of 64 x 48 pixels
SIZE = (64, 48)


@dataclass(frozen=True)
class Plane:
    """Points p with normal . p = offset, in the world."""

    normal: tuple[float, float, float]
    offset: float

    def hit(self, origin, rays):
        unit = np.array(self.normal) / np.linalg.norm(self.normal)
        with np.errstate(divide="ignore", invalid="ignore"):
            along = (self.offset / np.linalg.norm(self.normal) - unit @ origin) / (rays @ unit)
        along = np.where(along > 1e-6, along, np.inf)
        return along, np.broadcast_to(unit, rays.shape)


@dataclass(frozen=True)
class Sphere:
    centre: tuple[float, float, float]
    radius: float

    def hit(self, origin, rays):
        offset = origin - np.array(self.centre)
        a, b = (rays**2).sum(-1), (rays @ offset)
        root = b**2 - a * (offset @ offset - self.radius**2)
        along = np.where(root >= 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        along = np.where(along > 1e-6, along, np.inf)
        at = np.where(np.isfinite(along), along, 0)[..., None] * rays + offset
        return along, at / self.radius


def pose(position=(0.0, 0.0, 0.0), yaw=0.0, pitch=0.0):
    """Camera to world; yaw to the right and pitch upwards, in degrees."""
    y, p = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    made = np.eye(4)
    made[:3, :3], made[:3, 3] = about_y @ about_x, position
    return made


def render(scene: Sequence[Plane | Sphere], camera, intrinsics=INTRINSICS, size=SIZE):
    """Depth along the axis [H, W] (NaN: nothing there), camera normals [H, W, 3] that face the
    camera, and colour [H, W, 3]: a smooth function of the place in the world, the same from
    everywhere."""
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(intrinsics).T
    turned = rays @ camera[:3, :3].T
    depth = np.full(u.shape, np.inf)
    normals = np.full((*u.shape, 3), np.nan)
    for thing in scene:
        along, normal = thing.hit(camera[:3, 3], turned)
        nearer = along < depth
        depth = np.where(nearer, along, depth)
        normals = np.where(nearer[..., None], normal @ camera[:3, :3], normals)
    normals = normals * -np.sign((normals * rays).sum(-1, keepdims=True))
    known = np.isfinite(depth)
    world = turned * np.where(known, depth, 0)[..., None] + camera[:3, 3]
    colour = 127.5 + 60 * np.sin(3 * world) + 60 * np.sin(8.1 * world[..., [1, 2, 0]])
    colour = np.where(known[..., None], np.clip(colour, 0, 255), 0).astype(np.uint8)
    return np.where(known, depth, np.nan), normals, colour


def write_rgbd(
    path: Path,
    scene: Sequence[Plane | Sphere],
    cameras,
    *,
    intrinsics=INTRINSICS,
    size=SIZE,
    folders: bool = False,
    stacked: bool = False,
    posed: bool = True,
    name: str = "intrinsics.txt",
    colour_scale: int = 1,
):
    """A folder in the flat layout, or in sub-folders; depth rounded to millimetres. Returns its
    path. colour_scale: colour pictures are this many times larger than the depth."""
    path.mkdir(parents=True)
    if folders:
        for part in ("color", "depth", *(["pose"] if posed and not stacked else [])):
            (path / part).mkdir()
    for number, camera in enumerate(cameras):
        depth, _, colour = render(scene, camera, intrinsics, size)
        millimetres = np.where(np.isfinite(depth), np.rint(depth * 1000), 0).astype(np.uint16)
        flat = path / f"frame-{number:06d}"
        files = {
            "color": path / f"color/{number}.png" if folders else f"{flat}.color.png",
            "depth": path / f"depth/{number}.png" if folders else f"{flat}.depth.png",
            "pose": path / f"pose/{number}.txt" if folders else f"{flat}.pose.txt",
        }
        picture = Image.fromarray(colour)
        picture.resize((size[0] * colour_scale, size[1] * colour_scale)).save(files["color"])
        Image.fromarray(millimetres).save(files["depth"])
        if posed and not stacked:
            np.savetxt(files["pose"], camera)
    if posed and stacked:
        np.save(path / "poses.npy", np.stack(list(cameras)))
    np.savetxt(path / name, intrinsics)
    return path


ROOM = (
    Plane((0, 0, 1), 3.0),  # the back wall
    Plane((1, 0, 0), 1.5),  # the right one
    Plane((0, 1, 0), 1.0),  # the floor
    Sphere((-0.4, 0.2, 2.0), 0.4),
)
WALK = tuple(pose((0.05 * i, 0.0, 0.02 * i), yaw=2.0 * i) for i in range(6))
