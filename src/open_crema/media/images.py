"""Still images: pictures as RGB, depth maps as 16-bit greyscale."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from open_crema.errors import MediaError
from open_crema.media.source import Limits

# Formats by name: Pillow would otherwise also try those that start other programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


def read_picture(path: Path, limits: Limits) -> npt.NDArray[np.uint8]:
    """One image as uint8 [H, W, 3] RGB, upright (EXIF orientation applied), alpha dropped.

    Raises MediaError: damaged, too large, or more than 8 bits of grey (a depth map).
    """
    with _opened(path, limits) as image:
        if image.mode in _DEEP_MODES:
            raise MediaError(
                f"{path}: a greyscale image of more than 8 bits looks like a depth map, not a "
                f"picture: give it as the depth sense, as 16-bit PNG in millimetres; raw counts of "
                f"another sensor have no unit: save its values as floats in .npy or .npz (thermal: "
                f"degrees Celsius)"
            )
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def is_deep(path: Path, limits: Limits) -> bool:
    """Whether an image holds more than 8 bits of grey. Raises MediaError as `read_picture`."""
    with _opened(path, limits) as image:
        return image.mode in _DEEP_MODES


def read_depth_image(path: Path, limits: Limits) -> npt.NDArray[np.uint16]:
    """One 16-bit greyscale PNG as uint16 [H, W]. Raises MediaError for anything else."""
    with _opened(path, limits) as image:
        if image.mode not in _DEEP_MODES:
            raise MediaError(
                f"{path}: not a depth map in metric units: expected a 16-bit greyscale PNG, found "
                f"mode {image.mode}. Depth that was drawn as a picture is read as a picture"
            )
        return np.asarray(image).astype(np.uint16)


Scalar = TypeVar("Scalar", bound=np.generic)


def stack(paths: Iterable[Path], images: Iterable[npt.NDArray[Scalar]]) -> npt.NDArray[Scalar]:
    """Images of one folder as one array [S, ...]; MediaError names the first of another size."""
    found: list[npt.NDArray[Scalar]] = []
    for path, image in zip(paths, images, strict=True):
        if found and image.shape != found[0].shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (image.shape, found[0].shape)]
            raise MediaError(
                f"{path}: this image is {sizes[0]} pixels, the ones before it {sizes[1]}: all "
                f"images of a folder must have one size"
            )
        found.append(image)
    return np.stack(found)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            limits.check_pixels(path, *image.size)
            yield image
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path}: too large: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(
            f"{path}: the image is damaged or not an image ({reason}): export or copy it again"
        ) from None
