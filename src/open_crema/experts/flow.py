"""Optical flow between two frames of one video (the flow expert)."""

import cv2
import numpy as np
import numpy.typing as npt

from open_crema.media import Frames

LONG_SIDE = 256  # pixels; flow is coded as a small picture, so finer vectors would be lost
_SHORTEST_SIDE = 32  # below it DIS has no patches to match and returns junk


def dis_flow(
    first: Frames, second: Frames, gaps: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Dense flow by OpenCV's DIS (Kroeger et al. 2016, medium preset).

    Args: S pairs of frames and the seconds between them, as from `read_frame_pairs`.
    Returns: float32 [S, h, w, 2], (x, y) velocity in image WIDTHS per second, so that neither
        resolution nor frame rate changes it; x to the right, y down; the longer of h and w is at
        most LONG_SIDE.
    Raises ValueError when the shapes disagree or a gap is not above 0.
    """
    shape = first.images.shape
    if second.images.shape != shape or gaps.shape != shape[:1]:
        raise ValueError(
            f"pairs disagree: first {shape}, second {second.images.shape}, gaps {gaps.shape}"
        )
    if not (gaps > 0).all():
        raise ValueError(f"gaps must be above 0 seconds, got {gaps.tolist()}")
    height, width = shape[1:3]
    scale = min(1.0, LONG_SIDE / max(height, width))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    dis = method()
    flow = np.empty((shape[0], h, w, 2), np.float32)
    for i, (before, after) in enumerate(zip(first.images, second.images, strict=True)):
        flow[i] = dis.calc(_grey(before, w, h), _grey(after, w, h), None)[:h, :w]
    widths_per_pixel = np.array([1 / w, height / width / h], np.float32)
    return flow * widths_per_pixel / gaps.astype(np.float32)[:, None, None, None]


def method() -> cv2.DISOpticalFlow:
    """OpenCV's DIS with the parameters that are used here."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def _grey(image: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """The image in grey at this size; its edges are repeated up to the size that DIS needs."""
    grey = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (width, height), interpolation=cv2.INTER_AREA
    )
    right, below = max(0, _SHORTEST_SIDE - width), max(0, _SHORTEST_SIDE - height)
    padded = cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(padded, dtype=np.uint8)
