"""Anti-aliased painting on a supersampled canvas, in image units from -1 to 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

Colour = tuple[float, float, float]

_SHIFT = 4
_FIXED = 1 << _SHIFT


class Canvas:
    """A square RGB picture, or a window of one, that shapes are painted on."""

    def __init__(self, pixels: np.ndarray, side: int, corner: tuple[int, int] = (0, 0)) -> None:
        """Paint into ``pixels`` (uint8 RGB), a window at ``corner`` of a square picture."""
        self.pixels = pixels
        self.side = side
        self.corner = corner
        # Positions are fixed-point; the half pixel puts the image's -1 at the first pixel's edge.
        self._origin = ((side - 1) / 2 - np.array(corner)) * _FIXED + 0.5
        self._unit = side / 2 * _FIXED

    def fill(self, outline: np.ndarray, colour: Colour) -> None:
        """Fill the polygon (N, 2)."""
        cv2.fillPoly(self.pixels, [self._fixed(outline)], colour, cv2.LINE_AA, _SHIFT)

    def line(self, points: np.ndarray, colour: Colour, width: float, closed: bool = False) -> None:
        """Draw a line through points (N, 2); the width is in image units."""
        thick = max(1, round(width * self.side / 2))
        cv2.polylines(
            self.pixels, [self._fixed(points)], closed, colour, thick, cv2.LINE_AA, _SHIFT
        )

    def disc(self, centre: np.ndarray, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        x, y = (int(value) for value in self._fixed(centre[None])[0])
        size = max(1, round(radius * self.side / 2 * _FIXED))
        cv2.circle(self.pixels, (x, y), size, colour, -1, cv2.LINE_AA, _SHIFT)

    def tint(self, outline: np.ndarray, colour: Colour, share: float, soft: float = 0.0) -> None:
        """Mix a colour into a polygon, with edges as soft as ``soft`` image units."""
        with self.stencil(outline, share, soft) as layer:
            # OpenCV fills a window many times faster than NumPy spreads three values over it.
            cv2.rectangle(layer.pixels, (0, 0), layer.pixels.shape[1::-1], colour, cv2.FILLED)

    @contextmanager
    def stencil(
        self, outline: np.ndarray, share: float = 1.0, soft: float = 0.0
    ) -> Iterator["Canvas"]:
        """Yield a copy to paint on, of which only the part inside the outline is kept."""
        radius = round(soft * self.side / 4)
        fixed = self._fixed(outline)
        left, top, wide, high = cv2.boundingRect(fixed)
        x0, x1 = self._span(left, wide, 2 * radius, axis=1)
        y0, y1 = self._span(top, high, 2 * radius, axis=0)
        window = self.pixels[y0:y1, x0:x1]
        layer = Canvas(window.copy(), self.side, (x0 + self.corner[0], y0 + self.corner[1]))
        yield layer
        mask = layer._mask(outline, radius) * np.float32(share / 255)
        cv2.blendLinear(layer.pixels, window, mask, 1 - mask, dst=window)

    def _span(self, start: int, length: int, margin: int, axis: int) -> tuple[int, int]:
        """Return the pixels from first to end that a shape may touch: one at least."""
        last = self.pixels.shape[axis] - 1
        first = min(max(start // _FIXED - 1 - margin, 0), last)
        return first, min(max((start + length) // _FIXED + 2 + margin, first), last) + 1

    def _mask(self, outline: np.ndarray, radius: int) -> np.ndarray:
        mask: np.ndarray = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillPoly(mask, [self._fixed(outline)], (255,), cv2.LINE_AA, _SHIFT)
        if radius > 0:
            # Two box blurs are close to a Gaussian and cheaper.
            box = (2 * radius + 1, 2 * radius + 1)
            mask = cv2.blur(cv2.blur(mask, box), box)
        return mask

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        fixed: np.ndarray = points * self._unit + self._origin
        return fixed.astype(np.int32)


def hull(points: np.ndarray) -> np.ndarray:
    """Return the convex outline (M, 2) of image points (..., 2)."""
    flat = np.ascontiguousarray(points.reshape(-1, 2), np.float32)
    return np.asarray(cv2.convexHull(flat)[:, 0], np.float64)


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour darkened (factor below 1) or lightened."""
    red, green, blue = (min(255.0, max(0.0, part * factor)) for part in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return ``first`` with a share, 0 to 1, of ``second``."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue
