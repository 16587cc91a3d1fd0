"""Colour coding of maps, so that encoders trained on pictures can see them.

The scales are fixed and never taken from the image at hand: the same colour means the same speed,
distance, direction or temperature in every frame of every video, and a slow scene does not look
like a fast one. docs/colours.png shows them.
"""

import cv2
import numpy as np
import numpy.typing as npt

_UNKNOWN = (0, 0, 0)
_CELSIUS = (-20, 15, 45, 120)
_PLACES = (0.10, 0.25, 0.85, 1.0)
_RGB_OFFSETS = np.array([0, 4, 2])  # where each channel's hue lies, in sixths of the wheel


def flow_to_rgb(
    flow: npt.NDArray[np.floating], slow: float = 0.02, fast: float = 2.0
) -> npt.NDArray[np.uint8]:
    """Flow [..., h, w, 2] (x, y; image widths per second) as uint8 RGB [..., h, w, 3].

    Hue is the direction: right red (0 degrees), down yellow-green (90), left cyan (180), up violet
    (270). Saturation is the speed, log(1 + speed / slow) / log(1 + fast / slow), clipped; value is
    full. So rest is white, `slow` is 15 % (just seen), 0.1 is 39 %, 0.5 is 71 %, `fast` and above
    are full. Vectors that are not finite are black.
    """
    known = np.isfinite(flow).all(axis=-1)
    x, y = np.moveaxis(np.where(known[..., None], flow, 0).astype(np.float32), -1, 0)
    sextant = np.degrees(np.arctan2(y, x))[..., None] / 60 + _RGB_OFFSETS
    hue = np.clip(np.abs(sextant % 6 - 3) - 1, 0, 1)  # full saturation and value
    saturation = np.clip(np.log1p(np.hypot(x, y) / slow) / np.log1p(fast / slow), 0, 1)[..., None]
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
    return _paint(_table(cv2.COLORMAP_TURBO)[place], known)


def normal_to_rgb(normals: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Normals [..., 3] in the camera's coordinates (x right, y down, z forward) as uint8 RGB.

    Red is x to the right, green y UP, blue z TOWARDS the camera, each from -1 (0) to 1 (255), as
    normal maps are drawn everywhere: a wall in front is light blue, a floor is green, and what
    faces right is red. Vectors are scaled to length 1; those that are not finite, or zero, are
    black.
    """
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    known = np.isfinite(length[..., 0]) & (length[..., 0] > 0)
    unit = np.where(known[..., None], normals, 0) / np.where(known[..., None], length, 1)
    return _paint((unit * (1, -1, -1) + 1) / 2 * 255, known)


def thermal_to_rgb(celsius: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Temperatures [...] in degrees Celsius as uint8 RGB [..., 3] by the inferno colour table.

    The place in the table is linear between -20 degrees (10 %), 15 (25 %), 45 (85 %) and 120
    (100 %), clipped: rooms and people, between 15 and 45, have 5 steps of colour a degree, colder
    and hotter things about one. What is not finite is black, which this part of the table does not
    hold.
    """
    known = np.isfinite(celsius)
    place = np.interp(np.where(known, celsius, 0), _CELSIUS, _PLACES)
    return _paint(_table(cv2.COLORMAP_INFERNO)[np.rint(place * 255).astype(np.uint8)], known)


def _table(name: int) -> npt.NDArray[np.uint8]:
    """A colour table of OpenCV as RGB [256, 3]."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], name)
    return np.asarray(table[:, 0, ::-1], dtype=np.uint8)  # they are BGR


def _paint(
    colours: npt.NDArray[np.floating | np.uint8], known: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    return np.where(known[..., None], np.rint(colours), _UNKNOWN).astype(np.uint8)
