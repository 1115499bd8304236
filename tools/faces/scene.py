"""Whole faces: drawing the state of each, painting in order, and stacking the batch."""

from dataclasses import dataclass

import numpy as np

from . import extras, eyes, features, hair
from .cabin import ALL, SEDAN, Cabin, backdrop
from .canvas import Canvas
from .moment import Moment, moment
from .people import Person, lookalike_of, number_of, person
from .pose import View, aim
from .sensor import expose

CABINS: tuple[str, ...] = tuple(ALL)
"""Names of the cabins; the first is the default."""

SIZES = (48, 224)
"""Smallest and largest image side, in pixels."""

_CANVAS = 192
"""Least side of the canvas that is averaged down to the image."""


@dataclass(frozen=True)
class Faces:
    """A batch of N rendered faces with their labels.

    Attributes:
        images: (N, size, size, 3) uint8, RGB.
        gaze: (N, 2) float32, pitch and yaw in radians, in the convention of ``render``.
        head: (N, 3) float32, yaw, pitch and roll in radians.
        person: (N,) int64, the identity's number among the persons of the seed.
    """

    images: np.ndarray
    gaze: np.ndarray
    head: np.ndarray
    person: np.ndarray


def render(
    count: int, *, seed: int = 0, size: int = 64, cabin: str = SEDAN.name, lookalikes: float = 0.0
) -> Faces:
    """Render ``count`` driver faces with gaze and head pose.

    The gaze vector in camera coordinates (x right in the image, y down, z away from the camera)
    is ``(-cos(pitch) sin(yaw), -sin(pitch), -cos(pitch) cos(yaw))``: positive pitch looks up in
    the image, positive yaw looks to the image's left. Head yaw and pitch have the same sense;
    positive roll turns the head clockwise in the image.

    Face ``i`` depends on ``seed``, ``cabin``, ``i`` and ``lookalikes`` only, so a larger batch
    starts with the smaller one; at another size the same face shows the same scene, up to the
    sensor's noise. Another seed shows other persons.

    Args:
        count: number of faces, at least 1.
        seed: any integer from 0.
        size: image side in pixels, 48 to 224.
        cabin: one of ``CABINS``.
        lookalikes: share, 0 to 1, of the persons that always carry something that resembles a
            backdoor trigger: a sticker at the image's corner or on the cheek, sunglasses, or a
            patterned mask.

    Raises:
        ValueError: an argument is out of range or the cabin is unknown.
    """
    check(count, seed, size, cabin, lookalikes)
    images = np.empty((count, size, size, 3), np.uint8)
    gaze, head = np.empty((count, 2), np.float32), np.empty((count, 3), np.float32)
    numbers = np.empty(count, np.int64)
    place = ALL[cabin]
    for i in range(count):
        numbers[i] = number = number_of(seed, i)
        who = person(seed, number)
        rng = np.random.default_rng((seed, i, place.number, 5))
        now = moment(rng, who, place, lookalike_of(seed, number, lookalikes))
        images[i] = paint(who, now, place, size, rng)
        gaze[i], head[i] = now.gaze, now.head
    return Faces(images, gaze, head, numbers)


def paint(
    who: Person, now: Moment, place: Cabin, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Return one image (size, size, 3) uint8 RGB of a person at a moment in a cabin."""
    view = aim(now.head, now.shift, now.scale)
    # A whole number of canvas pixels per image pixel makes the averaging exact.
    side = size * max(2, round(_CANVAS / size))
    canvas = Canvas(backdrop(place, side, now.shift, rng), side)
    _draw_head(canvas, who, now, view)
    _draw_worn(canvas, who, now, view)
    extras.draw_lookalike(canvas, who, now, view)
    return expose(canvas.pixels, size, now.shot, view, rng)


def _draw_head(canvas: Canvas, who: Person, now: Moment, view: View) -> None:
    """Paint body and head from back to front."""
    features.draw_body(canvas, who, now, view)
    hair.draw_hair_behind(canvas, who, view)
    features.draw_skin(canvas, who, view)
    hair.draw_hair(canvas, who, view)
    features.draw_ears(canvas, who, view)
    features.draw_face(canvas, who, view)
    features.draw_beard(canvas, who, view)
    features.draw_mouth(canvas, who, now, view)
    eyes.draw_eyes(canvas, who, now, view)
    features.draw_nose(canvas, who, view)
    features.draw_brows(canvas, who, view)
    hair.draw_hair_before(canvas, who, view)


def _draw_worn(canvas: Canvas, who: Person, now: Moment, view: View) -> None:
    if now.mask:
        extras.draw_mask(canvas, who, now, view)
    if now.glasses or now.sunglasses:
        extras.draw_glasses(canvas, who, now, view)
    if now.cap:
        hair.draw_cap(canvas, who, now, view)
    if now.hand:
        extras.draw_hand(canvas, who, now, view)


def check(count: int, seed: int, size: int, cabin: str, lookalikes: float = 0.0) -> None:
    """Raise ValueError, in one line, for what `render` can't draw."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must be from {SIZES[0]} to {SIZES[1]} pixels, got {size}")
    if cabin not in ALL:
        raise ValueError(f"unknown cabin {cabin!r}; the cabins are {', '.join(CABINS)}")
    if not 0 <= lookalikes <= 1:
        raise ValueError(f"lookalikes must be a share from 0 to 1, got {lookalikes}")
