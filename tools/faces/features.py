"""Body, skin, ears, brows, nose, mouth and beard."""

from functools import lru_cache

import numpy as np

from .canvas import Canvas, hull, mix, shade
from .moment import Moment
from .people import Person
from .pose import View
from .skull import heights

_WAY = np.linspace(-1, 1, 11)
_ARCH = 1 - _WAY**2
_TURN = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_SIDES = np.array([-1.0, 1.0])[:, None]
_CUPID = 1 - 0.25 * np.exp(-((_WAY / 0.18) ** 2))
"""The dip in the middle of the upper lip."""

_NECK = np.array([[-0.55, 0.3], [0.55, 0.3], [0.6, 1.3], [0.75, 2.2], [-0.75, 2.2], [-0.6, 1.3]])
_CLOTH = np.array(
    [[-0.68, 1.36], [-0.3, 1.62], [0, 1.68], [0.3, 1.62], [0.68, 1.36], [1.9, 1.65], [1.9, 3],
     [-1.9, 3], [-1.9, 1.65]]
)  # fmt: skip
_BELT = np.array([[0.82, 1.3], [1.08, 1.38], [0.2, 3], [-0.1, 3]])


def draw_body(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint neck, shoulders and belt; they stay upright when the head turns."""
    canvas.fill(_NECK * view.scale + view.centre, shade(person.skin, 0.78))
    under = person.skull.chin - 0.35 + np.stack([0.6 * _WAY, 0.5 * np.sqrt(_ARCH)], axis=-1)
    canvas.tint(under * view.scale + view.centre, shade(person.skin, 0.45), 0.6, 0.1)
    canvas.fill(_CLOTH * view.scale + view.centre, now.cloth)
    canvas.fill(_BELT * view.scale + view.centre, (38, 38, 42))


def draw_skin(canvas: Canvas, person: Person, view: View) -> None:
    """Paint the bare head."""
    canvas.fill(hull(view.project(person.skull.cloud)), shade(person.skin, 0.94))


def draw_ears(canvas: Canvas, person: Person, view: View) -> None:
    """Paint both ears, unless hair covers them; the face, painted later, hides the rest."""
    if person.hair.style in ("long", "curls"):
        return
    for outer, inner in view.project(_ears(person)):
        canvas.fill(outer, shade(person.skin, 0.86))
        canvas.fill(inner, shade(person.skin, 0.66))


def draw_face(canvas: Canvas, person: Person, view: View) -> None:
    """Paint the hairless front of the head with its soft shades."""
    canvas.fill(hull(view.project(_patch(person))), person.skin)
    for cheek in view.project(_cheeks(person)):
        canvas.tint(cheek, mix(person.skin, (200, 90, 80), 0.5), 0.22, 0.16)


def draw_brows(canvas: Canvas, person: Person, view: View) -> None:
    """Paint the brows."""
    colour = mix(person.hair.colour, shade(person.skin, 0.4), 0.35)
    for brow in view.project(_brows(person)):
        canvas.tint(brow, colour, 0.9, 0.01)


def draw_nose(canvas: Canvas, person: Person, view: View) -> None:
    """Paint the nose: a ridge that stands out, with shaded flanks, wings and nostrils."""
    bridge, tip, left, right, base = view.project(nose_points(person))
    skin, light = person.skin, mix(person.skin, (255, 240, 225), 0.25)
    for wing, factor in ((left, 0.8), (right, 0.88)):
        canvas.tint(np.stack([bridge, tip, base, wing]), shade(skin, factor), 0.75, 0.05)
    canvas.tint(np.stack([left, tip, right, base]), shade(skin, 0.66), 0.75, 0.04)
    ridge = np.array([0.035 * view.scale, 0])
    canvas.tint(np.stack([bridge, tip - 1.6 * ridge, tip + 1.6 * ridge]), light, 0.7, 0.05)
    for wing in (left, right):
        canvas.disc(base + 0.5 * (wing - base), 0.036 * view.scale, shade(skin, 0.35))


def nose_points(person: Person) -> np.ndarray:
    """Return head points (5, 3): bridge, tip, left and right wing, base."""
    top, tip = person.eye.height, person.eye.height + person.nose_length
    wide = person.nose_width
    return np.array(
        [[0, top, -1.02], [0, tip - 0.04, -1.36], [-wide, tip + 0.02, -1.02],
         [wide, tip + 0.02, -1.02], [0, tip + 0.1, -1.1]]
    )  # fmt: skip


def draw_mouth(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint the lips and the line between them."""
    line = person.mouth_height + 0.05 * now.smile * _ARCH
    upper = line - person.lip_thick * _ARCH * _CUPID
    lower = line + 1.25 * person.lip_thick * _ARCH
    edges = np.stack([upper, line, lower])
    top, middle, bottom = view.project(person.skull.surface(person.mouth_width * _WAY, edges, 0.05))
    canvas.fill(np.concatenate([top, middle[::-1]]), shade(person.lips, 0.85))
    canvas.fill(np.concatenate([middle, bottom[::-1]]), person.lips)
    canvas.line(middle, shade(person.lips, 0.4), 0.022)


def draw_beard(canvas: Canvas, person: Person, view: View) -> None:
    """Paint stubble, moustache, goatee or full beard, before the mouth is painted."""
    colour = mix(person.hair.colour, person.skin, 0.12)
    if person.hair.beard in ("stubble", "full"):
        share = 0.3 if person.hair.beard == "stubble" else 0.92
        canvas.tint(view.project(_full_beard(person)), colour, share, 0.04)
    if person.hair.beard in ("moustache", "goatee"):
        canvas.tint(view.project(_moustache(person)), colour, 0.9, 0.02)
    if person.hair.beard == "goatee":
        canvas.tint(view.project(_goatee(person)), colour, 0.9, 0.02)


@lru_cache(maxsize=1024)
def _ears(person: Person) -> np.ndarray:
    """Return outlines (2, 2, 16, 3): by side, the ear and its hollow."""
    sine, cosine = np.sin(_TURN), np.cos(_TURN)
    x = _SIDES * (person.skull.width + 0.03 + 0.05 * cosine)
    y, z = np.broadcast_arrays(0.08 + 0.27 * sine, 0.12 + 0.16 * cosine + 0 * x)
    outer = np.stack([x, y, z], axis=-1)
    middle = outer.mean(axis=1, keepdims=True)
    return np.stack([outer, middle + 0.5 * (outer - middle)], axis=1)


@lru_cache(maxsize=1024)
def _patch(person: Person) -> np.ndarray:
    """Return points (..., 3) that span the face from the hairline to the chin."""
    y = heights(person.hair.line, person.skull.chin, 18)
    temple = np.clip((y - person.hair.line) / 0.45, 0, 1)
    return person.skull.patch(y, 0.62 + 0.36 * np.sqrt(temple))


@lru_cache(maxsize=1024)
def _cheeks(person: Person) -> np.ndarray:
    x = _SIDES * 0.55 + 0.24 * np.cos(_TURN)
    return person.skull.surface(x, 0.42 + 0.24 * np.sin(_TURN))


@lru_cache(maxsize=1024)
def _brows(person: Person) -> np.ndarray:
    y = person.eye.height - person.brow_height - person.brow_arch * _ARCH
    half = person.brow_thick * (0.55 + 0.45 * _ARCH) / 2
    x = _SIDES * person.eye.apart + 0.3 * np.concatenate([_WAY, _WAY[::-1]])
    return person.skull.surface(x, np.concatenate([y - half, (y + half)[::-1]]), 0.03)


@lru_cache(maxsize=1024)
def _full_beard(person: Person) -> np.ndarray:
    skull, mouth = person.skull, person.mouth_height
    y = heights(0.3, skull.chin, 11)
    x = skull.half_width(y)
    # From the sideburns the beard's upper edge falls towards the corners of the mouth.
    edge = mouth + np.array([-0.2, -0.14, -0.2, -0.14, -0.2])
    across = np.array([0.8, 0.42, 0, -0.42, -0.8]) * skull.width
    return np.concatenate(
        [skull.surface(-x, y), skull.surface(x[::-1], y[::-1]), skull.surface(across, edge)]
    )


@lru_cache(maxsize=1024)
def _moustache(person: Person) -> np.ndarray:
    x = (person.mouth_width + 0.04) * np.concatenate([_WAY, _WAY[::-1]])
    y = person.mouth_height - 0.12 + 0.07 * (1 - _ARCH)
    return person.skull.surface(x, np.concatenate([y - 0.05, (y + 0.07)[::-1]]), 0.05)


@lru_cache(maxsize=1024)
def _goatee(person: Person) -> np.ndarray:
    x = 0.8 * person.mouth_width * np.concatenate([_WAY, _WAY[::-1]])
    low = np.minimum(0.2 + 0.3 * _ARCH, person.skull.chin - person.mouth_height)
    return person.skull.surface(x, person.mouth_height + np.concatenate([0.14 + 0 * low, low]))
