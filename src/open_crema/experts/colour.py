"""Colour coding of maps, so that encoders trained on pictures can see them.

The scales are fixed and never taken from the image at hand: the same colour means the same speed or
distance in every frame of every video, and a slow scene does not look like a fast one.
"""

import cv2
import numpy as np
import numpy.typing as npt

_UNKNOWN = (0, 0, 0)
_RGB_OFFSETS = np.array([0, 4, 2])  # where each channel's hue lies, in sixths of the wheel


def flow_to_rgb(flow: npt.NDArray[np.floating], max_speed: float = 1.0) -> npt.NDArray[np.uint8]:
    """Flow [..., h, w, 2] (x, y; image widths per second) as uint8 RGB [..., h, w, 3].

    Hue is the direction: right red (0 degrees), down yellow-green (90), left cyan (180), up violet
    (270). Saturation is the speed, full at `max_speed` and above; value is full. So rest is white.
    Vectors that are not finite are black.
    """
    known = np.isfinite(flow).all(axis=-1)
    x, y = np.moveaxis(np.where(known[..., None], flow, 0).astype(np.float32), -1, 0)
    sextant = np.degrees(np.arctan2(y, x))[..., None] / 60 + _RGB_OFFSETS
    hue = np.clip(np.abs(sextant % 6 - 3) - 1, 0, 1)  # full saturation and value
    saturation = np.clip(np.hypot(x, y) / max_speed, 0, 1)[..., None]
    return _paint((1 - saturation * (1 - hue)) * 255, known)


def depth_to_rgb(
    metres: npt.NDArray[np.floating], near: float = 0.2, far: float = 10.0
) -> npt.NDArray[np.uint8]:
    """Depth [..., h, w] in metres as uint8 RGB [..., h, w, 3] by the turbo colour table.

    The place in the table is logarithmic: log(far / d) / log(far / near), clipped, so a step of
    colour is the same RATIO of distances everywhere. `near` is dark red, `far` dark blue; 1.4 m,
    halfway for the defaults, is green. Unknown depth (not finite, or not above 0) is black, which
    the table does not hold.
    """
    known = np.isfinite(metres) & (metres > 0)
    distance = np.clip(np.where(known, metres, far), near, far).astype(np.float32)
    place = np.rint(np.log(far / distance) / np.log(far / near) * 255).astype(np.uint8)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    return _paint(table[:, 0, ::-1][place], known)  # OpenCV's tables are BGR


def _paint(
    colours: npt.NDArray[np.floating | np.uint8], known: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    return np.where(known[..., None], np.rint(colours), _UNKNOWN).astype(np.uint8)
