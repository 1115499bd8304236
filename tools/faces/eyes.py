"""Eyes: eyeballs turned by the gaze, behind lids that follow it."""

from functools import lru_cache

import numpy as np

from .canvas import Canvas, mix, shade
from .moment import Moment
from .people import Person
from .pose import View, gaze_vector

EYEBALL = 0.31
"""Radius of the eyeball: large, so that the iris moves visibly in small images."""

SIDES = np.array([-1.0, 1.0])
"""The eye on the image's left, then the one on its right."""

_WAY = np.linspace(-1, 1, 13)
_BEND = (1 - _WAY**2) ** 0.8
_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_RING = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=-1)


def draw_eyes(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint both eyes with sockets, lids and lashes."""
    pitch, yaw = now.gaze + person.eye.kappa
    axis = view.rotation.T @ gaze_vector(float(pitch), float(yaw))
    for socket in view.project(_sockets(person)):
        canvas.tint(socket, shade(person.skin, 0.72), 0.45, 0.1)
    edges = view.project(lids(person, now, axis))
    circles = view.project(_circles(person, axis))
    marks = view.project(_marks(person, axis, view))
    for edge, circle, mark in zip(edges, circles, marks, strict=True):
        upper, crease, lower = edge
        outline = np.concatenate([upper, lower[::-1]])
        with canvas.stencil(outline) as layer:
            _eyeball(layer, person, view, outline, circle, mark)
            # The upper lid shades the top of the eye.
            layer.line(upper, (120, 100, 95), 0.03)
        lash = mix(shade(person.skin, 0.25), (20, 14, 12), 0.6)
        canvas.line(lower, shade(person.skin, 0.66), 0.016)
        canvas.line(upper, lash, 0.032)
        canvas.line(crease[1:-1], shade(person.skin, 0.7), 0.016)


def lids(person: Person, now: Moment, axis: np.ndarray) -> np.ndarray:
    """Return head points (2, 3, 13, 3) by eye: edge of the upper lid, its crease, lower lid.

    ``axis`` (3,) is the direction of the eyes in head coordinates.
    """
    drop = EYEBALL * axis[1]
    opening = person.eye.open * now.open
    upper = _BEND * (0.7 * drop - 0.125 * opening)
    # However far down the eye looks, it stays open by a slit.
    lower = np.maximum(_BEND * (0.25 * drop + 0.095 * opening), upper + 0.06 * _BEND)
    edges = np.stack([upper, upper - 0.065 * _BEND, lower])
    side = SIDES[:, None, None]
    x = side * person.eye.apart + person.eye.half_width * _WAY
    y = person.eye.height - person.eye.tilt * side * _WAY + edges
    return person.skull.surface(x, y, -0.02)


def _eyeball(
    layer: Canvas, person: Person, view: View, outline: np.ndarray, circles: np.ndarray,
    marks: np.ndarray,
) -> None:  # fmt: skip
    white = mix((236, 230, 226), person.skin, 0.08)
    layer.fill(outline, shade(white, 0.86))
    # The ball's front is brighter than the corners, where it turns away under the lids.
    layer.disc(marks[0], 0.75 * person.eye.half_width * view.scale, white)
    colours = (shade(person.eye.iris, 0.55), person.eye.iris, (8.0, 8.0, 10.0))
    for circle, colour in zip(circles, colours, strict=True):
        layer.fill(circle, colour)
    layer.disc(marks[1], 0.022, (250, 250, 250))


@lru_cache(maxsize=1024)
def _centres(person: Person) -> np.ndarray:
    """Return the middles (2, 3) of the eyeballs."""
    front = person.skull.surface(SIDES * person.eye.apart, np.full(2, person.eye.height))
    return np.asarray(front + np.array([0, 0, EYEBALL - 0.02]))


@lru_cache(maxsize=1024)
def _sockets(person: Person) -> np.ndarray:
    """Return the outlines (2, 20, 3) of the shaded hollows of the eyes."""
    ring = np.concatenate([_RING * (0.34, 0.2) - (0, 0.08), 0 * _RING[:, :1]], axis=1)
    return np.asarray((_centres(person) - (0, 0, EYEBALL))[:, None] + ring)


def _circles(person: Person, axis: np.ndarray) -> np.ndarray:
    """Return circles (2, 3, 20, 3) on each eyeball: rim of the iris, iris, pupil.

    They lie square to the axis, so they foreshorten by themselves when the eye turns.
    """
    across = np.array([axis[2], 0, -axis[0]]) / np.hypot(axis[0], axis[2])
    down = np.array([axis[1] * across[2], axis[2] * across[0] - axis[0] * across[2],
                     -axis[1] * across[0]])  # fmt: skip
    circle = _RING @ np.stack([across, down])
    radius = person.eye.iris_radius * np.array([1, 0.84, 0.42])
    depth = np.sqrt(EYEBALL**2 - radius**2)
    rings = axis * depth[:, None, None] + circle * radius[:, None, None]
    return np.asarray(_centres(person)[:, None, None] + rings)


def _marks(person: Person, axis: np.ndarray, view: View) -> np.ndarray:
    """Return (2, 2, 3) by eye: the front of the eyeball and the lamp's reflection on it."""
    # The reflection moves half as far as the eye turns.
    glint = axis * 0.6 + view.rotation.T @ (0.1, -0.12, -0.4)
    return np.asarray(_centres(person)[:, None] + EYEBALL * np.stack([(0, 0, -1), glint]))
