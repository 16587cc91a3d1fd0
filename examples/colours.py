"""Draws docs/colours.png: the colours of flow, depth, normals and temperature, with legends.

    python examples/colours.py [OUT.png]

The maps are made here: a room with a ball, seen by a camera that moves to the right.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from open_crema.experts.colour import depth_to_rgb, flow_to_rgb, normal_to_rgb, thermal_to_rgb

WIDTH, HEIGHT, FOCAL = 320, 240, 250.0
BALL, RADIUS = np.array([-0.5, 0.35, 2.2]), 0.45


def room() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth [H, W] metres, normals [H, W, 3], and whether the ball is there [H, W]."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL, np.ones(u.shape)], -1)
    planes = [((0, 0, -1), 4.0), ((-1, 0, 0), 1.7), ((1, 0, 0), 2.5), ((0, -1, 0), 0.9)]
    depth, normals = np.full(u.shape, np.inf), np.zeros((*u.shape, 3))
    for normal, distance in planes:
        facing = rays @ np.array(normal, float)
        z = np.where(facing < 0, distance / np.where(facing < 0, -facing, 1), np.inf)
        nearer = z < depth
        depth, normals[nearer] = np.where(nearer, z, depth), normal
    a, b = (rays**2).sum(-1), rays @ BALL
    root = b**2 - a * (BALL @ BALL - RADIUS**2)
    z = (b - np.sqrt(np.maximum(root, 0))) / a
    ball = (root > 0) & (z < depth)
    depth = np.where(ball, z, depth)
    normals[ball] = ((rays * z[..., None] - BALL) / RADIUS)[ball]
    depth[:24] = np.nan  # a strip that the sensor did not see
    normals[:24] = np.nan
    return depth, normals, ball


def flow_of(depth: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """The camera goes right at 0.3 m/s; the ball falls at 1 m/s. In picture widths a second."""
    flow = np.zeros((HEIGHT, WIDTH, 2))
    flow[..., 0] = -0.3 * FOCAL / depth / WIDTH
    flow[ball, 1] = FOCAL / depth[ball] / WIDTH
    return flow


def main(out: Path) -> None:
    depth, normals, ball = room()
    celsius = np.where(ball, 36.0, 16 + 8 * np.linspace(1, 0, HEIGHT)[:, None])
    celsius[60:110, 225:275] = 70.0  # a radiator
    celsius[60:100, 130:190] = 2.0  # a window
    celsius[:24] = np.nan
    pictures = {
        "flow": flow_to_rgb(flow_of(depth, ball)),
        "depth": depth_to_rgb(depth),
        "normals": normal_to_rgb(normals),
        "temperature": thermal_to_rgb(celsius),
    }
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), height_ratios=[3, 2])
    for axis, (name, picture) in zip(axes[0], pictures.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(name)
        axis.set_axis_off()
    flow_legend(axes[1, 0])
    bar(
        axes[1, 1], depth_to_rgb, np.geomspace(0.2, 10, 400), [0.2, 0.5, 1, 2, 5, 10], "m", log=True
    )
    normal_legend(axes[1, 2])
    bar(axes[1, 3], thermal_to_rgb, np.linspace(-20, 120, 400), [-20, 15, 30, 45, 80, 120], "°C")
    figure.text(
        0.5,
        0.01,
        "The scales are fixed: a colour always means the same. Black: unknown.",
        ha="center",
    )
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(out, dpi=80)
    print(out)


def flow_legend(axis) -> None:
    """Direction around, speed outwards on the scale of the saturation."""
    y, x = np.mgrid[-1:1:301j, -1:1:301j]
    r, slow, fast = np.hypot(x, y), 0.02, 2.0
    speed = slow * np.expm1(r * np.log1p(fast / slow))
    flow = np.stack([x, y], -1) / np.maximum(r, 1e-9)[..., None] * speed[..., None]
    picture = flow_to_rgb(flow)
    picture[r > 1] = 255
    axis.imshow(picture, extent=(-1, 1, 1, -1))
    for mark in (0.02, 0.1, 0.5, 2.0):
        radius = np.log1p(mark / slow) / np.log1p(fast / slow)
        axis.add_patch(plt.Circle((0, 0), radius, fill=False, lw=0.6, color="0.3"))
        axis.annotate(f"{mark:g}", (0, radius), ha="center", va="center", fontsize=7)
    axis.set_title("widths a second", fontsize=9)
    axis.set_axis_off()


def normal_legend(axis) -> None:
    """A ball seen from the front."""
    y, x = np.mgrid[-1:1:301j, -1:1:301j]
    inside = x**2 + y**2 <= 1
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    picture = normal_to_rgb(np.stack([x, y, -z], -1))
    picture[~inside] = 255
    axis.imshow(picture, extent=(-1, 1, 1, -1))
    for text, at in {"up": (0, -0.8), "right": (0.75, 0), "at you": (0, 0)}.items():
        axis.annotate(text, at, ha="center", va="center", fontsize=8)
    axis.set_title("a surface that faces ...", fontsize=9)
    axis.set_axis_off()


def bar(axis, colour, values, marks, unit: str, *, log: bool = False) -> None:
    picture = np.broadcast_to(colour(values[None]), (40, len(values), 3))
    axis.pcolormesh(values, np.arange(40), picture, shading="nearest")
    if log:
        axis.set_xscale("log")
    axis.set_xticks(marks, [f"{mark:g}" for mark in marks], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_yticks([])
    axis.set_box_aspect(0.25)
    axis.set_xlabel(unit)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs/colours.png")
