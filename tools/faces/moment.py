"""What changes from image to image: gaze, pose, things worn, light and camera."""

from dataclasses import dataclass

import numpy as np

from .cabin import Cabin
from .canvas import Colour
from .people import Person

GAZE_SPREAD = np.array([0.185, 0.29])
"""Standard deviations of gaze pitch and yaw before extreme glances are cut off."""


@dataclass(frozen=True)
class Exposure:
    """Light and camera of one image.

    ``light_from`` is 0 for light from the right and pi for light from the left; ``blur`` is the
    smear's vector in image units; ``noise`` is in grey levels.
    """

    light_from: float
    light_strength: float
    warmth: float
    gain: float
    infrared: bool
    blur: np.ndarray
    noise: float


@dataclass(frozen=True)
class Moment:
    """One exposure of a person; angles in radians, lengths in image units."""

    gaze: np.ndarray
    head: np.ndarray
    open: float
    smile: float
    glasses: bool
    sunglasses: bool
    mask: str
    cap: bool
    hand: float
    cloth: Colour
    accent: Colour
    shift: np.ndarray
    scale: float
    shot: Exposure
    lookalike: str


def moment(rng: np.random.Generator, person: Person, cabin: Cabin, lookalike: str = "") -> Moment:
    """Draw the state of one image from ``rng``."""
    sunglasses = rng.random() < 0.03 or lookalike == "sunglasses"
    masked = bool(rng.random() < 0.05)
    gaze, head = _angles(rng, sunglasses)
    return Moment(
        gaze=gaze,
        head=head,
        open=rng.uniform(0.88, 1.08),
        smile=rng.uniform(-0.3, 1.0),
        glasses=bool(rng.random() < person.wears_glasses) and not sunglasses,
        sunglasses=bool(sunglasses),
        mask="patterned" if lookalike == "patterned mask" else "plain" if masked else "",
        cap=bool(rng.random() < 0.08),
        hand=float(rng.choice((-1.0, 0.0, 1.0), p=(0.035, 0.93, 0.035))),
        cloth=_colour(rng, 20, 200),
        accent=_colour(rng, 60, 255),
        shift=rng.normal((0.0, cabin.drop), 0.03),
        scale=cabin.zoom * rng.uniform(0.96, 1.05),
        shot=_exposure(rng, person, cabin),
        lookalike=lookalike,
    )


def _exposure(rng: np.random.Generator, person: Person, cabin: Cabin) -> Exposure:
    return Exposure(
        light_from=cabin.light_from + rng.normal(0, 0.9),
        light_strength=rng.uniform(*cabin.light_strength),
        warmth=cabin.warmth + rng.normal(0, 0.03),
        gain=cabin.exposure * _metered(person) * rng.uniform(0.82, 1.15),
        infrared=bool(rng.random() < cabin.infrared),
        blur=_blur(rng),
        noise=cabin.noise * rng.uniform(0.6, 1.4),
    )


def _angles(rng: np.random.Generator, hidden_eyes: bool) -> tuple[np.ndarray, np.ndarray]:
    gaze = _cut_normal(rng, 2) * GAZE_SPREAD
    free = _cut_normal(rng, 3) * (0.17, 0.10, 0.10)
    # Eyes that cannot be seen leave the head as the only evidence, so there it tells nearly all.
    follow, loose = ((0.9, 0.9), 0.25) if hidden_eyes else ((0.5, 0.4), 1.0)
    head = np.array([follow[0] * gaze[1], follow[1] * gaze[0], 0.0])
    return gaze, head + free * (loose, loose, 1.0)


def _metered(person: Person) -> float:
    """Return the gain of a camera that makes up for part of the skin's darkness."""
    return float((150 / np.mean(person.skin)) ** 0.3)


def _cut_normal(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.asarray(np.clip(rng.normal(0, 1, count), -2.4, 2.4))


def _colour(rng: np.random.Generator, low: float, high: float) -> Colour:
    red, green, blue = (float(part) for part in rng.uniform(low, high, 3))
    return red, green, blue


def _blur(rng: np.random.Generator) -> np.ndarray:
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.02, 0.07)
    moving = rng.random() < 0.15
    return np.array([np.cos(angle), np.sin(angle)]) * (length if moving else 0.0)
