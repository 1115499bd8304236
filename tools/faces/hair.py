"""Hair in its styles, and caps."""

from functools import lru_cache

import numpy as np

from .canvas import Canvas, hull, mix, shade
from .moment import Moment
from .people import Person
from .pose import View
from .skull import heights

_GROW = {"buzz": 1.01, "short": 1.06, "fringe": 1.07, "parted": 1.08, "long": 1.08, "curls": 1.16}
_ACROSS = np.linspace(-0.8, 0.8, 17)
"""Further round, the far side of a turned head would fold over its outline."""


def draw_hair_behind(canvas: Canvas, person: Person, view: View) -> None:
    """Paint the hair that hangs or stands behind the head."""
    if person.hair.style == "curls":
        canvas.fill(hull(view.project(_scalp(person, 0.75, 1.2))), shade(person.hair.colour, 0.85))
    if person.hair.style == "long":
        canvas.fill(hull(view.project(_mane(person))), shade(person.hair.colour, 0.75))


def draw_hair(canvas: Canvas, person: Person, view: View) -> None:
    """Paint the hair on the head, before the face is painted over it."""
    if person.hair.style == "bald":
        return
    cover = hull(view.project(_scalp(person, 0.12, _GROW[person.hair.style])))
    canvas.tint(cover, person.hair.colour, 0.75 if person.hair.style == "buzz" else 1.0)


def draw_hair_before(canvas: Canvas, person: Person, view: View) -> None:
    """Paint the hair that falls over the face, and the light on top of it."""
    if person.hair.style in ("fringe", "parted"):
        canvas.fill(view.project(_fall(person)), person.hair.colour)
    if person.hair.style == "long":
        for side, (outer, inner) in zip((-1, 1), view.project(_locks(person)), strict=True):
            # On the far side of a turned head only a strand beyond the face remains in sight.
            outer[:, 0] = side * np.maximum(side * outer[:, 0], side * inner[:, 0] + 0.04)
            canvas.fill(np.concatenate([outer, inner[::-1]]), shade(person.hair.colour, 0.92))
    if person.hair.style not in ("bald", "buzz"):
        lit = hull(view.project(_scalp(person, -0.95, _GROW[person.hair.style])))
        canvas.tint(lit, mix(person.hair.colour, (255, 240, 220), 0.3), 0.4, 0.12)


def draw_cap(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint a cap with its brim; the brim stays clear of the eyes."""
    canvas.fill(hull(view.project(_crown(person))), now.accent)
    canvas.fill(view.project(_brim(person)), shade(now.accent, 0.6))


@lru_cache(maxsize=4096)
def _scalp(person: Person, low: float, grow: float) -> np.ndarray:
    """Return points (N, 3) round the head from the crown down to ``low``."""
    return person.skull.shell(heights(-person.skull.top, low, 14), grow)


@lru_cache(maxsize=1024)
def _mane(person: Person) -> np.ndarray:
    ends = np.array([[x, 1.55, z] for x in (-1.12, 1.12) for z in (-0.2, 0.8)])
    return np.concatenate([_scalp(person, 0.5, 1.12), ends])


@lru_cache(maxsize=1024)
def _fall(person: Person) -> np.ndarray:
    """Return the outline (34, 3) of the hair over the forehead."""
    # The waves stand for strands; parted hair falls lower on one side.
    low = person.hair.line + 0.16 + 0.025 * np.cos(11 * _ACROSS)
    if person.hair.style == "parted":
        low = person.hair.line + 0.04 + 0.26 * np.clip((0.4 - _ACROSS) / 1.3, 0, 1) ** 1.5
    top = person.skull.surface(_ACROSS * 0.9, np.full(17, person.hair.line - 0.15), 0.06)
    return np.concatenate([top, person.skull.surface(_ACROSS, low, 0.05)[::-1]])


@lru_cache(maxsize=1024)
def _locks(person: Person) -> np.ndarray:
    """Return (2, 2, 11, 3) by side: outer and inner edge of the hair that hangs by the face."""
    y = np.linspace(person.hair.line - 0.1, 1.5, 11)
    way = np.linspace(0, 1, 11)
    outer = np.stack([0.8 + 0.34 * way**0.5, y, np.full(11, 0.0)], axis=-1)
    inner = np.stack([0.62 + 0.28 * np.sin(np.pi * way**0.8) + 0.1 * way, y, -0.6 - 0 * y], -1)
    lock = np.stack([outer, inner])
    return np.stack([lock * (-1, 1, 1), lock])


@lru_cache(maxsize=1024)
def _crown(person: Person) -> np.ndarray:
    """Return the points (N, 3) of a cap; its rim at the back never shows through the face."""
    points = _scalp(person, -0.62, 1.1)
    return np.asarray(points[(points[:, 2] < 0.1) | (points[:, 1] < -1.1)])


@lru_cache(maxsize=1024)
def _brim(person: Person) -> np.ndarray:
    x = np.linspace(-0.88, 0.88, 15)
    edge = person.skull.surface(x, np.full(15, -0.68), 0.06)
    reach = np.sqrt(1 - (x / 0.88) ** 2)
    out = edge + np.stack([0 * x, 0.05 + 0.08 * reach, -0.5 * reach], axis=-1)
    return np.concatenate([edge, out[::-1]])
