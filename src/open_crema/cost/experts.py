"""Operations of the experts: what makes a sense out of another's media, where no file gives it.

Ours are no networks, and nothing can be run under a counter: they are counted by formulas,
approximately, and stand beside the total of what is. An operation is an addition, a subtraction, a
multiplication, a division or a root of two real numbers; comparisons, roundings, signs and indexes
are none. Two make a multiply-accumulate. Decoding, resizing a picture to the expert's size and
colouring its map are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from open_crema import modality
from open_crema.experts.flow import LONG_SIDE, method
from open_crema.experts.normals import radius_of

_SOR = 5  # inner iterations of OpenCV's refinement, which DIS leaves as they are
_THEIRS = {"flow": "Unimatch", "depth": "ZoeDepth-NK", "normal": "NLL-AngMF"}  # the paper's


@dataclass(frozen=True)
class Expert:
    """macs: multiply-accumulates of a sample, 0 where nothing is computed, None where they are not
    known. said: what was counted, or why nothing was. paper: the network that the paper makes the
    sense with, of which nothing is counted."""

    macs: int | None
    said: str
    paper: str | None = None


def expert(sense: str, frames: int) -> Expert:
    """Of one sample's frames of a sense; of pictures of ``LONG_SIDE`` squared, the largest that our
    experts compute on."""
    target = modality.get(sense).expert
    theirs = _THEIRS.get(sense)
    if target is None or target in _READ:
        return Expert(0, "none: files are read or decoded", theirs)
    if not isinstance(target, str) or target not in _COUNTED:
        return Expert(None, "not counted: the expert of another package")
    of_picture, said = _COUNTED[target]
    return Expert(frames * of_picture(), said, theirs)


def dis_operations(
    width: int, height: int, *, finest: int, patch: int, stride: int, descents: int, refined: int
) -> int:
    """Multiply-accumulates of dense inverse search (Kroeger et al. 2016) on two grey pictures, as
    OpenCV runs it: at most, as if no patch's descent stopped early.

    finest: the last scale, in halvings. patch, stride: pixels. descents: steps of each patch.
    refined: fixed-point iterations of the variational refinement.

    The scales are those from finest to the coarsest, by OpenCV's rule: the one nearest to a long
    side of 4 patches, of which the short side still holds a patch. On a scale of n pixels with
    G patches, each of p^2 pixels, there are

    - 8 n (at the finest 2 * 4^finest n) for the means that make both pictures small, 8 n for two
      Sobel gradients, 16 n and 10 for each row and patch beside another for the running sums of
      gradients and of their products;
    - for each of the G p^2 pixels of patches: 8 for the bilinear difference of the pictures and 3
      for its sum and its square, in each of 3 candidates (its own, two neighbours') in 2 sweeps;
      4 more for the two products with gradients in each of ``descents`` steps, half of them a
      sweep; and once 24 for its share in the dense flow (two places 2, fractions 4, weights 4,
      mean 7, difference 1, confidence 1, sums 5), whose sums are divided with 2 n;
    - 28 n for what the refinement starts with (17 to warp, 4 for mean and difference of the
      pictures, 7 derivatives), and in each of its iterations 85 n for the data term (26 colour, 59
      gradient), 38 n for smoothness (14 a weight, 8 weighted differences, 16 to add them), 2 n for
      the flow, and 28 n in each of 5 sweeps of successive over-relaxation;
    - 16 n for two components of the flow from the scale before (bilinear 7, doubled 1), and 16 for
      each pixel of the result.

    What is done once for a patch and step, some 30 operations, is left out. Against a plain search
    whose every operation was counted it is 1.5 to 3 % too much on small pictures.
    """
    long, short = max(width, height), min(width, height)
    coarsest = min(int(math.log2(long / (4 * patch)) + 0.5), int(math.log2(short // patch)))
    done = 16 * width * height
    for scale in range(finest, coarsest + 1):
        w, h = width >> scale, height >> scale
        n = w * h
        across, down = 1 + (w - patch) // stride, 1 + (h - patch) // stride
        covered = across * down * patch**2
        done += (2 * 4**finest if scale == finest else 8) * n
        done += (8 + 16) * n + 10 * h * across
        done += covered * (2 * 3 * 11 + descents // 2 * 2 * 15 + 24) + 2 * n
        if refined:
            done += n * (28 + refined * (85 + 38 + 2 + _SOR * 28))
        if scale < coarsest:
            done += 16 * n
    return done // 2


def normals_operations(width: int, height: int) -> int:
    """Multiply-accumulates of :func:`open_crema.experts.normals.normals_from_depth` on one map.

    Of each pixel 1 for its inverse depth; for each of the (2 r + 1)^2 neighbours of its window 5
    for the difference, how far it may be, and their sums, 6 more for the moments along x where x
    is not 0, 6 along y, 2 where neither is; and 60 for the plane: 15 for five moments about the
    mean, 3 for the determinant, 4 for each slope, 6 for the depth here, 4 for the offset, 15 for
    the product with the intrinsics, 9 to make it of length 1.
    """
    r = radius_of(height, width)
    side = 2 * r + 1
    window = 5 * side**2 + 2 * 6 * 2 * r * side + 2 * (2 * r) ** 2
    return width * height * (1 + window + 60) // 2


@cache
def _flow() -> int:
    dis = method()
    return dis_operations(
        LONG_SIDE,
        LONG_SIDE,
        finest=dis.getFinestScale(),
        patch=dis.getPatchSize(),
        stride=dis.getPatchStride(),
        descents=dis.getGradientDescentIterations(),
        refined=dis.getVariationalRefinementIterations(),
    )


def _normals() -> int:
    return normals_operations(LONG_SIDE, LONG_SIDE)


_SENSES, _RGBD = "open_crema.experts.senses", "open_crema.experts.rgbd"
_READ = (
    f"{_SENSES}:read_pictures",
    f"{_SENSES}:sound_of_video",
    f"{_RGBD}:depth_of_rgbd",
    f"{_RGBD}:points_of_rgbd",
)
_SIZE = f"maps of {LONG_SIDE} x {LONG_SIDE}; where files give it, none"
_COUNTED: dict[str, tuple[Callable[[], int], str]] = {
    f"{_SENSES}:flow_of_video": (_flow, f"about, and at most, by OpenCV's DIS, {_SIZE}"),
    f"{_RGBD}:normals_of_depth": (_normals, f"about, of metric depth, {_SIZE}"),
}
