"""Light on the head, and what lens and sensor make of the scene."""

import cv2
import numpy as np

from .moment import Exposure
from .pose import View

_GRID = 24
"""Light varies slowly, so it is worked out on this coarse grid and enlarged."""

_AXIS = (np.arange(_GRID) + 0.5) * 2 / _GRID - 1
_INFRARED = np.array([0.55, 0.3, 0.15], np.float32)
"""Near-infrared shows skin and hair lighter than sight does: red counts most."""


def expose(
    canvas: np.ndarray, size: int, shot: Exposure, view: View, rng: np.random.Generator
) -> np.ndarray:
    """Return the finished image (size, size, 3) uint8 RGB of a painted canvas."""
    moved = _motion(canvas, shot.blur)
    small: np.ndarray = cv2.resize(moved, (size, size), interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32)
    light = cv2.resize(_light(shot, view), (size, size), interpolation=cv2.INTER_LINEAR)
    warm = 0.0 if shot.infrared else shot.warmth
    small *= cv2.merge([light * np.float32(1 + tone) for tone in (warm, 0.0, -warm)])
    if shot.infrared:
        small = cv2.merge([45 + 0.75 * (small @ _INFRARED)] * 3)
    # Film-like shoulder: highlights lose contrast instead of burning out.
    small -= 0.6 * np.maximum(small - 195, 0)
    grain = rng.standard_normal((size, size, 1 if shot.infrared else 3), np.float32)
    small += shot.noise * (cv2.merge([grain] * 3) if shot.infrared else grain)
    return np.asarray((small + 0.5).clip(0, 255), np.uint8)


def _light(shot: Exposure, view: View) -> np.ndarray:
    """Return the light's strength over the image, (grid, grid) float32 about 1."""
    across = (_AXIS[None, :] - view.centre[0]) / (1.1 * view.scale)
    down = (_AXIS[:, None] - view.centre[1]) / (1.45 * view.scale)
    radius = np.sqrt(across**2 + down**2)
    toward = (across * np.cos(shot.light_from) - 0.35 * down) / np.maximum(radius, 1)
    front = np.sqrt(np.maximum(1 - radius**2, 0.1))
    shadow = 1 + shot.light_strength * toward
    return np.asarray(shot.gain * shadow * (0.78 + 0.26 * front), np.float32)


def _motion(canvas: np.ndarray, blur: np.ndarray) -> np.ndarray:
    if not blur.any():
        return canvas
    step = blur * canvas.shape[0] / 2
    reach = int(np.ceil(np.abs(step).max() / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for share in np.linspace(-0.5, 0.5, 4 * reach + 1):
        x, y = np.rint(share * step).astype(int) + reach
        kernel[y, x] += 1
    return np.asarray(cv2.filter2D(canvas, -1, kernel / kernel.sum()))
