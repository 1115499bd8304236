"""Cabins: what stands behind the driver, and how each cabin's camera sees."""

from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Canvas, Colour, mix, shade


@dataclass(frozen=True)
class Cabin:
    """Look of one cabin; angles in radians, lengths in image units."""

    name: str
    number: int
    zoom: float
    drop: float
    light_from: float
    light_strength: tuple[float, float]
    warmth: float
    exposure: float
    infrared: float
    noise: float
    window_right: bool
    seat: tuple[Colour, ...]
    trim: Colour


SEDAN = Cabin(
    "sedan", 0, 0.79, 0.02, 0.3, (0.1, 0.5), 0.03, 1.0, 0.2, 4.0, True,
    ((52, 50, 54), (120, 96, 70), (80, 84, 92), (34, 34, 38)), (172, 166, 154),
)  # fmt: skip
TRUCK = Cabin(
    "truck", 1, 0.74, -0.04, 2.8, (0.25, 0.75), -0.05, 0.85, 0.4, 7.5, False,
    ((44, 62, 96), (92, 40, 44), (70, 72, 70), (96, 104, 112)), (104, 108, 116),
)  # fmt: skip

ALL = {cabin.name: cabin for cabin in (SEDAN, TRUCK)}

_SIDE = 64
"""The backdrop is drawn this small and enlarged: it lies out of focus."""


def backdrop(cabin: Cabin, side: int, shift: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the cabin behind the driver, (side, side, 3) uint8 RGB."""
    canvas = Canvas(np.full((_SIDE, _SIDE, 3), shade(cabin.trim, 0.7), np.uint8), _SIDE)
    day = rng.uniform(0.1, 1.0)
    if cabin.name == "truck":
        _truck(canvas, cabin, shift, day, rng)
    else:
        _sedan(canvas, cabin, shift, day, rng)
    soft = cv2.blur(canvas.pixels, (3, 3))
    return np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR))


def _sedan(
    canvas: Canvas, cabin: Cabin, shift: np.ndarray, day: float, rng: np.random.Generator
) -> None:
    """Paint a side window on the right, a rear window, and a seat with a headrest on posts."""
    seat = cabin.seat[int(rng.integers(len(cabin.seat)))]
    _outside(canvas, _box(0.42, -0.85, 1.1, 0.35), day, rng)
    _outside(canvas, _box(-0.75, -0.8, -0.1, -0.2), day, rng)
    canvas.fill(_box(-1.1, -1.1, 1.1, -0.82), cabin.trim)
    pillar = np.array([[0.3, -1.1], [0.48, -1.1], [0.62, 1.1], [0.36, 1.1]])
    canvas.fill(pillar, shade(cabin.trim, 0.55))
    x = shift[0] + rng.normal(0, 0.08)
    canvas.fill(_box(x - 0.95, 0.55, x + 0.95, 1.2), seat)
    for post in (-0.3, 0.3):
        canvas.fill(_box(x + post - 0.03, 0.2, x + post + 0.03, 0.6), (150, 150, 150))
    canvas.fill(_rounded(x, -0.25, 0.8, 0.6), shade(seat, 0.9))
    canvas.line(_rounded(x, -0.25, 0.8, 0.6), shade(seat, 0.6), 0.05, True)


def _truck(
    canvas: Canvas, cabin: Cabin, shift: np.ndarray, day: float, rng: np.random.Generator
) -> None:
    """Paint a high window on the left, a bunk curtain with folds, and one tall seat back."""
    seat = cabin.seat[int(rng.integers(len(cabin.seat)))]
    curtain = shade(cabin.seat[int(rng.integers(len(cabin.seat)))], 1.25)
    canvas.fill(_box(-0.2, -1.1, 1.1, 1.1), curtain)
    for fold in np.arange(-0.2, 1.1, 0.17):
        canvas.line(np.array([[fold, -1.1], [fold + 0.05, 1.1]]), shade(curtain, 0.7), 0.05)
    _outside(canvas, _box(-1.1, -1.1, -0.42, 0.6), day, rng)
    canvas.fill(_box(-0.45, -1.1, -0.3, 1.1), shade(cabin.trim, 0.6))
    x = shift[0] + rng.normal(0, 0.1)
    right = np.array([[0.62, -0.7], [0.78, 0.2], [1.0, 1.2]])
    back = np.concatenate([right, right[::-1] * (-1, 1)])
    canvas.fill(back + np.array([x, 0]), seat)
    canvas.fill(back * (0.5, 1) + np.array([x, 0.1]), shade(seat, 1.3))


def _outside(canvas: Canvas, frame: np.ndarray, day: float, rng: np.random.Generator) -> None:
    """Paint what a window shows: sky above ground, with blurred shapes going by."""
    sky = mix((16, 20, 34), (214, 226, 240), day)
    ground = mix((10, 12, 14), (96, 110, 84), day)
    with canvas.stencil(frame) as layer:
        layer.fill(frame, sky)
        (left, top), (right, bottom) = frame.min(axis=0), frame.max(axis=0)
        horizon = top + (bottom - top) * rng.uniform(0.35, 0.8)
        layer.fill(_box(left, horizon, right, bottom), ground)
        for _ in range(3):
            spot = np.array([rng.uniform(left, right), horizon + rng.normal(0, 0.1)])
            glow = mix((255, 214, 140), (70, 96, 66), day)
            layer.disc(spot, rng.uniform(0.04, 0.16), glow)


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _rounded(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 24)
    bend = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.asarray(np.sign(bend) * np.abs(bend) ** 0.6 * (half_width, half_height) + (x, y))
