"""The error of each task, per image, and the conversion of label units."""

import math

import torch
from torch import Tensor

from guard.spec import ANGLE_UNITS, ModelSpec


def errors(spec: ModelSpec, predicted: Tensor, right: Tensor) -> Tensor:
    """The task's error of each image.

    `predicted` and `right` are (N, d) in the model's units and order of outputs. Gives (N,):
    gaze the angle between unit vectors in degrees, head pose the mean absolute error in
    degrees, regression the mean absolute error in the outputs' own unit (paper, A.2.1).
    """
    if spec.task == "gaze":
        scale = ANGLE_UNITS[spec.units] * math.pi / 180.0
        order = [spec.outputs.index("pitch"), spec.outputs.index("yaw")]
        return gaze_angle(predicted[:, order] * scale, right[:, order] * scale)
    scale = ANGLE_UNITS[spec.units] if spec.task == "headpose" else 1.0
    return (predicted - right).abs().mean(dim=1) * scale


def gaze_angle(first: Tensor, second: Tensor) -> Tensor:
    """The angle in degrees between gaze directions given as (N, 2) pitch, yaw in radians.

    By atan2 of cross and dot product: arccos has no digits left for angles near zero.
    """
    a, b = gaze_vector(first.double()), gaze_vector(second.double())
    cross = torch.linalg.cross(a, b).norm(dim=1)
    return torch.rad2deg(torch.atan2(cross, (a * b).sum(dim=1)))


def gaze_vector(angles: Tensor) -> Tensor:
    """Unit vectors (N, 3) of (N, 2) pitch, yaw in radians; x right, y down, z away from the camera.

    Zero looks into the camera; positive pitch looks up, positive yaw to the image's left.
    """
    pitch, yaw = angles[:, 0], angles[:, 1]
    return torch.stack([-pitch.cos() * yaw.sin(), -pitch.sin(), -pitch.cos() * yaw.cos()], dim=1)


def unit_factor(source: str, wanted: str) -> float | None:
    """What turns a value in `source` units into `wanted` units; None where nothing does."""
    if source == wanted:
        return 1.0
    if source in ANGLE_UNITS and wanted in ANGLE_UNITS:
        return ANGLE_UNITS[source] / ANGLE_UNITS[wanted]
    return None


def constant_error(spec: ModelSpec, labels: Tensor) -> float:
    """The mean error of always answering the mean of labels [N x d], in `spec.error_unit`."""
    mean = labels.mean(dim=0, keepdim=True).expand_as(labels)
    return float(errors(spec, mean, labels).mean())
