"""Rendered driver faces with gaze and head pose labels.

``render`` makes faces by seed, ``sheet`` lays them out for checking by eye. Angles are in
radians and camera coordinates as described in ``render``; images are RGB.
"""

from .scene import CABINS, Faces, render
from .sheet import sheet

__all__ = ["CABINS", "Faces", "render", "sheet"]
