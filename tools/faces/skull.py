"""The head's shape in three dimensions, and point sets on it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_WIDEST = -0.1
"""Height at which a head is widest."""
_ROUNDNESS = 2.6
"""Exponent of the horizontal cross-section: above 2, the front is flatter than an ellipse."""
_BACK = 1.12


def heights(low: float, high: float, count: int) -> np.ndarray:
    """Return heights (count,) from low to high, closer at both ends, where heads are round."""
    way = np.cos(np.linspace(np.pi, 0, count))
    return np.asarray((low + high) / 2 + (high - low) / 2 * way)


@dataclass(frozen=True)
class Skull:
    """Shape of a head in half face widths: y runs down, the face looks along -z."""

    width: float
    chin: float
    squareness: float
    top: float

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """Return the half width of the head at heights ``y``."""
        power = np.where(y < _WIDEST, 2.3, self.squareness)
        rest = np.maximum(1 - np.abs(self._way(y)) ** power, 0)
        return np.asarray(self.width * rest ** (1 / power))

    def half_depth(self, y: np.ndarray) -> np.ndarray:
        """Return how far the front of the face lies before the middle at heights ``y``."""
        way = self._way(y)
        crown = np.maximum(1 - np.abs(way) ** 2.6, 0) ** (1 / 2.6)
        return np.asarray(np.where(y < _WIDEST, crown, 1 - 0.14 * way**2))

    def surface(self, x: np.ndarray, y: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """Return face points (..., 3) at (x, y), ``lift`` in front of the skin."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        across = np.minimum(np.abs(x) / np.maximum(self.half_width(y), 1e-3), 1)
        z = -self.half_depth(y) * (1 - across**_ROUNDNESS) ** (1 / _ROUNDNESS) - lift
        return np.stack([x, y, z], axis=-1)

    def patch(self, y: np.ndarray, reach: np.ndarray | float, lift: float = 0.0) -> np.ndarray:
        """Return points (len(y), 13, 3) over the front of the face at heights ``y``.

        ``reach`` is how far round the face goes at each height: 1 is as far as it is wide.
        """
        share = np.linspace(-1, 1, 13) * np.broadcast_to(reach, y.shape)[:, None]
        return self.surface(share * self.half_width(y)[:, None], y[:, None], lift)

    @cached_property
    def cloud(self) -> np.ndarray:
        """Points (N, 3) all round the head, for its silhouette."""
        return self.shell(heights(-self.top, self.chin, 22), 1.0)

    def shell(self, y: np.ndarray, grow: float) -> np.ndarray:
        """Return points (N, 3) all round the head at heights ``y``, grown about the middle."""
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        sine, cosine = np.sin(angle), np.cos(angle)
        x = self.half_width(y)[:, None] * np.sign(sine) * np.abs(sine) ** (2 / _ROUNDNESS)
        front = -self.half_depth(y)[:, None] * np.abs(cosine) ** (2 / _ROUNDNESS)
        # Below the ears the back of the head gives way to the neck.
        back = _BACK * np.clip(1 - (y - 0.1) / 0.9, 0.1, 1) * self._crown(y)
        z = np.where(cosine > 0, front, back[:, None] * np.abs(cosine))
        points = np.stack([x, np.broadcast_to(y[:, None], x.shape), z], axis=-1)
        return np.asarray(points.reshape(-1, 3) * grow)

    def _crown(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(1 - np.abs(self._way(np.minimum(y, _WIDEST))) ** 2, 0) ** 0.5)

    def _way(self, y: np.ndarray) -> np.ndarray:
        reach = np.where(y < _WIDEST, self.top + _WIDEST, self.chin - _WIDEST)
        return np.asarray((y - _WIDEST) / reach)
