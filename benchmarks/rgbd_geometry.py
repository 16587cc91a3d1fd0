"""How good flow, normals and points are on a real RGB-D folder of a static scene.

    python benchmarks/rgbd_geometry.py FOLDER [--rate 30] [--pairs 100] [--json]

Flow: end-point error of the DIS flow against the flow that depth and camera motion imply, in pixels
of the depth, for pictures that follow each other and for those 0.1 s apart; only where both have
depth, and the depth expected in the second is the one found there within 3 % (no occlusion). "zero"
is the error of saying that nothing moves.

Normals: angle to a plane fitted by total least squares to the points of a much larger window (17
pixels a side of 160), where that window has all its depth and lies on its plane within 0.4 % of the
distance. "differences" is the usual cross product of central differences.

Points: of 8 frames, the first of 80 evenly spaced ones. Each patch of one frame, placed by its
median depth, is projected into the others that see its place: the difference to the depth found
there (left out where something more than 10 %, at least 20 cm, nearer hides it). Then for voxels
seen from two frames or more: the distance, in pixels, from where the mean of the voxel's positions
projects to the patch that put a point there.

Everything is loaded at once: 1000 frames of 160 x 120 are 200 MB.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from open_crema.encoders.voxels import back_project, patch_depths
from open_crema.experts.flow import dis_flow
from open_crema.experts.normals import normals_from_depth
from open_crema.media import Clip, Frames, Rgbd, read_rgbd

GRID, VOXEL = (8, 8), 0.1


def figures(errors: np.ndarray) -> dict[str, float]:
    return {
        "median": round(float(np.median(errors)), 3),
        "mean": round(float(errors.mean()), 3),
        "90 %": round(float(np.percentile(errors, 90)), 3),
        "n": int(errors.size),
    }


def rays(scene: Rgbd) -> np.ndarray:
    height, width = scene.metres.shape[1:]
    v, u = np.mgrid[:height, :width]
    return np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(scene.intrinsics).T


def project(points: np.ndarray, scene: Rgbd, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [..., 2] and depth [...] of world points in a frame."""
    pose = scene.poses[frame]
    seen = (points - pose[:3, 3]) @ pose[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (seen / seen[..., 2:]) @ scene.intrinsics.T
    return pixels[..., :2], seen[..., 2]


def found_at(pixels: np.ndarray, expected: np.ndarray, scene: Rgbd, frame: int) -> np.ndarray:
    """The depth at these pixels, NaN outside the picture and behind the camera."""
    height, width = scene.metres.shape[1:]
    inside = (expected > 0) & np.isfinite(pixels).all(axis=-1)
    u, v = np.rint(np.where(inside[..., None], pixels, -1)).astype(int).T
    u, v = u.T, v.T
    inside &= (u >= 0) & (u < width) & (v >= 0) & (v < height)
    depth = scene.metres[frame][np.where(inside, v, 0), np.where(inside, u, 0)]
    return np.where(inside, depth, np.nan)


def flow(scene: Rgbd, gap: int, rate: float, pairs: int) -> dict[str, dict[str, float]]:
    height, width = scene.metres.shape[1:]
    v, u = np.mgrid[:height, :width]
    directions = rays(scene)
    errors, still = [], []
    for i in np.linspace(0, len(scene.metres) - 1 - gap, pairs).astype(int).tolist():
        world = directions * scene.metres[i][..., None] @ scene.poses[i][:3, :3].T
        pixels, expected = project(world + scene.poses[i][:3, 3], scene, i + gap)
        depth = found_at(pixels, expected, scene, i + gap)
        good = np.abs(depth / expected - 1) < 0.03
        first, second = (
            Frames(scene.colour[k : k + 1], scene.times[k : k + 1]) for k in (i, i + gap)
        )
        made = dis_flow(first, second, np.array([gap / rate]))[0] * width * gap / rate
        rows, columns = v * made.shape[0] // height, u * made.shape[1] // width
        truth = pixels - np.stack([u, v], axis=-1)
        errors.append(np.linalg.norm(made[rows, columns] - truth, axis=-1)[good])
        still.append(np.linalg.norm(truth, axis=-1)[good])
    return {"DIS": figures(np.concatenate(errors)), "zero": figures(np.concatenate(still))}


def plane_fits(scene: Rgbd, frame: int) -> np.ndarray:
    """Normals [H, W, 3] of large planar windows, NaN elsewhere."""
    height, width = scene.metres.shape[1:]
    r = round(max(height, width) / 20)
    points = rays(scene) * scene.metres[frame][..., None]
    windows = np.lib.stride_tricks.sliding_window_view(
        points, (2 * r + 1, 2 * r + 1), axis=(0, 1)
    ).reshape(height - 2 * r, width - 2 * r, 3, -1)
    whole = np.isfinite(windows).all(axis=(2, 3))
    chosen = windows[whole]
    chosen = chosen - chosen.mean(axis=-1, keepdims=True)
    spread, axes = np.linalg.eigh(chosen @ chosen.transpose(0, 2, 1) / chosen.shape[-1])
    centres = points[r : height - r, r : width - r][whole]
    planar = np.sqrt(np.maximum(spread[:, 0], 0)) < 0.004 * centres[:, 2]
    normals = axes[:, :, 0] * -np.sign((axes[:, :, 0] * centres).sum(axis=-1, keepdims=True))
    found = np.full((height, width, 3), np.nan)
    inner = found[r : height - r, r : width - r]
    inner[whole] = np.where(planar[:, None], normals, np.nan)
    return found


def normals(scene: Rgbd, frames: int) -> dict[str, dict[str, float]]:
    fitted, differences, known = [], [], []
    for i in np.linspace(0, len(scene.metres) - 1, frames).astype(int).tolist():
        truth = plane_fits(scene, i)
        made = normals_from_depth(scene.metres[i : i + 1], scene.intrinsics)[0]
        points = rays(scene) * scene.metres[i][..., None]
        cross = np.full_like(points, np.nan)
        cross[1:-1, 1:-1] = np.cross(
            points[2:, 1:-1] - points[:-2, 1:-1], points[1:-1, 2:] - points[1:-1, :-2]
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            cross /= np.linalg.norm(cross, axis=-1, keepdims=True)
        good = np.isfinite(truth[..., 0]) & np.isfinite(cross[..., 0]) & np.isfinite(made[..., 0])
        for errors, normals in ((fitted, made), (differences, cross)):
            cosine = (normals * truth).sum(axis=-1)[good]
            errors.append(np.degrees(np.arccos(cosine.clip(-1, 1))))
        known.append(np.isfinite(made[..., 0])[np.isfinite(scene.metres[i])].mean())
    share = round(float(np.mean(known)), 3)
    return {
        "ours": {**figures(np.concatenate(fitted)), "share of depth with a normal": share},
        "differences": figures(np.concatenate(differences)),
    }


def points(scene: Rgbd) -> dict[str, dict[str, float]]:
    height, width = scene.metres.shape[1:]
    depths = patch_depths(scene.metres, GRID)
    world = back_project(depths, scene.intrinsics, (width, height), scene.poses)
    frames = len(depths)
    residuals = []
    for i in range(frames):
        for j in range(frames):
            if i != j:
                pixels, expected = project(world[i], scene, j)
                depth = found_at(pixels, expected, scene, j)
                hidden = depth < expected - np.maximum(0.1 * expected, 0.2)
                residuals.append(np.abs(depth - expected)[np.isfinite(depth) & ~hidden])
    known = np.isfinite(depths)
    frame, row, column = np.nonzero(known)
    positions = world[known]
    cells = np.floor(positions / VOXEL).astype(int)
    _, voxel = np.unique(cells, axis=0, return_inverse=True)
    voxel = voxel.reshape(-1)
    counts = np.bincount(voxel)
    means = np.stack([np.bincount(voxel, positions[:, k]) / counts for k in range(3)], axis=1)
    views = np.bincount(np.unique(np.stack([voxel, frame], 1), axis=0)[:, 0])
    pixel_errors = []
    for n in np.flatnonzero(views[voxel] > 1).tolist():
        seen, _ = project(means[voxel[n]], scene, int(frame[n]))
        centre = (
            (column[n] + 0.5) * width / GRID[1] - 0.5,
            (row[n] + 0.5) * height / GRID[0] - 0.5,
        )
        pixel_errors.append(np.linalg.norm(seen - centre))
    return {
        "depth residual, m": figures(np.concatenate(residuals)),
        "pixel error in shared voxels": figures(np.array(pixel_errors)),
        "points": {"patches": len(positions), "voxels": len(counts), "shared": int(sum(views > 1))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    whole = read_rgbd(options.folder, Clip(10**9, rate=options.rate), posed=True)
    if whole.poses is None or whole.intrinsics is None:
        raise SystemExit(f"{options.folder}: needs poses and intrinsics")
    # The frames of a clip of a tenth of the folder: they see the same things.
    clip = read_rgbd(options.folder, Clip(80, rate=options.rate), posed=True)
    near = Rgbd(clip.colour[:8], clip.metres[:8], clip.intrinsics, clip.poses[:8], clip.times[:8])
    later = max(1, round(0.1 * options.rate))
    results = {
        "flow, pixels: next picture": flow(whole, 1, options.rate, options.pairs),
        "flow, pixels: 0.1 s": flow(whole, later, options.rate, options.pairs),
        "normals, degrees": normals(whole, 20),
        "points": points(near),
    }
    if options.json:
        print(json.dumps(results))
        return
    for name, rows in results.items():
        print(name)
        for row, values in rows.items():
            print(f"  {row}: {', '.join(f'{key} {value}' for key, value in values.items())}")


if __name__ == "__main__":
    main()
