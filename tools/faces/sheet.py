"""Contact sheets for checking faces and labels by eye."""

import cv2
import numpy as np

from .pose import gaze_vector
from .scene import Faces


def sheet(faces: Faces, columns: int = 8, scale: int = 2, arrows: bool = True) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 RGB with all faces in rows.

    Args:
        faces: the faces to show.
        columns: faces in a row, at least 1.
        scale: whole factor, at least 1, by which each face is enlarged.
        arrows: draw where the gaze label (yellow) and the head label (blue) point.

    Raises:
        ValueError: columns or scale is below 1.
    """
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale must be at least 1, got {columns} and {scale}")
    count, side = len(faces.images), faces.images.shape[1] * scale
    rows = -(-count // columns)
    picture = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for i in range(count):
        tile = np.repeat(np.repeat(faces.images[i], scale, axis=0), scale, axis=1)
        if arrows:
            yaw, pitch, _ = faces.head[i]
            _arrow(tile, float(pitch), float(yaw), (60, 140, 255))
            _arrow(tile, float(faces.gaze[i, 0]), float(faces.gaze[i, 1]), (255, 230, 40))
        top, left = i // columns * side, i % columns * side
        picture[top : top + side, left : left + side] = tile
    return picture


def _arrow(tile: np.ndarray, pitch: float, yaw: float, colour: tuple[int, int, int]) -> None:
    side = tile.shape[0]
    start = np.array([side / 2, side / 2])
    end = start + gaze_vector(pitch, yaw)[:2] * side * 0.6
    from_, to = ((int(x), int(y)) for x, y in (start, end))
    cv2.arrowedLine(tile, from_, to, colour, max(1, side // 96), cv2.LINE_AA, tipLength=0.2)
