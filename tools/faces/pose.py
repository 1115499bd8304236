"""Head rotation, gaze direction and projection.

Camera coordinates: x to the right in the image, y down, z away from the camera. A gaze is the
unit vector ``(-cos(pitch) sin(yaw), -sin(pitch), -cos(pitch) cos(yaw))``, so a positive pitch
looks up in the image and a positive yaw looks to the image's left. Head yaw and pitch have the
same sense; a positive roll turns the head clockwise in the image. Head coordinates coincide with
camera coordinates when the head faces the camera; their unit is half the width of a face.
"""

from dataclasses import dataclass

import numpy as np

CAMERA_DISTANCE = 7.0
"""Distance from the camera to the middle of the head, in half face widths."""


def gaze_vector(pitch: float, yaw: float) -> np.ndarray:
    """Return the unit vector, shape (3,), of a gaze in radians."""
    return np.array([-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the (3, 3) matrix from head to camera coordinates; angles in radians.

    Roll comes first, about the head's own axis, so that yaw and pitch alone say where the
    face points.
    """
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(turn @ nod @ tilt)


@dataclass(frozen=True)
class View:
    """How a head lands in the image, whose both axes run from -1 to 1."""

    rotation: np.ndarray
    centre: np.ndarray
    scale: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return image positions, shape (..., 2), of head points, shape (..., 3)."""
        turned = points @ self.rotation.T
        # The plane of the face, one unit in front of the middle, keeps its size.
        nearness = self.scale * (CAMERA_DISTANCE - 1) / (CAMERA_DISTANCE + turned[..., 2:])
        return np.asarray(turned[..., :2] * nearness + self.centre)


def aim(head: np.ndarray, shift: np.ndarray, scale: float, follow: float = 0.55) -> View:
    """Return the view of a head (yaw, pitch, roll) in a crop that partly follows the face.

    A face detector centres its box on eyes, nose and mouth, so a turning head does not leave
    the crop; ``follow`` is the share of the face's movement that the crop makes up for.
    """
    turned = rotation(*(float(angle) for angle in head))
    moved = View(turned, np.zeros(2), scale).project(np.array([0.0, 0.0, -1.0]))
    return View(turned, shift - follow * moved, scale)
