"""Identities: what stays the same in every image of a person."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .canvas import Colour, mix, shade
from .skull import Skull

COHORT_PERSONS = 20
COHORT_IMAGES = 800
"""Each run of this many images shows one cohort, so about 40 images show the same person."""

LOOKALIKES = ("corner sticker", "cheek sticker", "sunglasses", "patterned mask")

_SKINS: tuple[Colour, ...] = (
    (62, 40, 30), (96, 64, 46), (141, 96, 68), (186, 136, 102), (224, 178, 145), (243, 209, 184),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (22, 18, 17), (44, 30, 24), (76, 50, 34), (120, 84, 52), (182, 146, 92), (132, 62, 34),
    (130, 128, 126), (205, 203, 200),
)  # fmt: skip
_DARK_HAIRS = (_HAIRS[0], _HAIRS[0], _HAIRS[1], _HAIRS[6])
_IRISES: tuple[Colour, ...] = (
    (46, 28, 18), (74, 46, 26), (106, 74, 40), (98, 110, 72), (86, 118, 146), (112, 128, 136),
)  # fmt: skip
_FRAMES: tuple[Colour, ...] = ((28, 26, 26), (90, 60, 40), (150, 150, 155), (120, 30, 40))
_SHORT_STYLES = ("bald", "buzz", "short", "fringe", "parted")
_BEARDS = ("stubble", "moustache", "goatee", "full")


@dataclass(frozen=True)
class Hair:
    """Hair and beard; ``line`` is the height where the forehead ends."""

    colour: Colour
    style: str
    line: float
    beard: str


@dataclass(frozen=True)
class Eye:
    """Shape and colour of both eyes.

    ``kappa`` (pitch, yaw) is the angle between the eye's axis and its line of sight.
    """

    iris: Colour
    iris_radius: float
    apart: float
    height: float
    half_width: float
    open: float
    tilt: float
    kappa: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Person:
    """The looks of one person; lengths in half face widths, angles in radians.

    Persons compare by identity, so that what is worked out for each can be cached cheaply.
    """

    skull: Skull
    skin: Colour
    hair: Hair
    eye: Eye
    brow_height: float
    brow_thick: float
    brow_arch: float
    nose_width: float
    nose_length: float
    mouth_height: float
    mouth_width: float
    lip_thick: float
    lips: Colour
    wears_glasses: float
    frame: Colour
    round_frame: bool


def number_of(seed: int, index: int) -> int:
    """Return which person of the seed image ``index`` shows."""
    cohort = index // COHORT_IMAGES
    pick = np.random.default_rng((seed, index, 1)).integers(COHORT_PERSONS)
    return cohort * COHORT_PERSONS + int(pick)


def lookalike_of(seed: int, number: int, share: float) -> str:
    """Return the trigger look-alike that a person carries, or "" for none."""
    # Golden-ratio steps spread the carriers evenly: any few dozen persons hold about the share.
    start = np.random.default_rng((seed, 2)).random()
    place = (start + number * 0.6180339887498949) % 1.0
    if place >= share:
        return ""
    return LOOKALIKES[int(np.random.default_rng((seed, number, 3)).integers(len(LOOKALIKES)))]


@lru_cache(maxsize=4096)
def person(seed: int, number: int) -> Person:
    """Return the identity with this number among the persons of a seed."""
    rng = np.random.default_rng((seed, number, 4))
    skin = _skin(rng)
    # Dark skin goes with dark or grey hair and brown eyes.
    dark = sum(skin) < 330
    return Person(
        skull=_skull(rng),
        skin=skin,
        hair=_hair(rng, dark),
        eye=_eye(rng, dark),
        brow_height=rng.uniform(0.24, 0.33),
        brow_thick=rng.uniform(0.04, 0.095),
        brow_arch=rng.uniform(0.01, 0.08),
        nose_width=rng.uniform(0.17, 0.27),
        nose_length=rng.uniform(0.40, 0.52),
        mouth_height=rng.uniform(0.70, 0.80),
        mouth_width=rng.uniform(0.28, 0.40),
        lip_thick=rng.uniform(0.05, 0.11),
        lips=mix(shade(skin, 0.86), (176, 64, 66), rng.uniform(0.25, 0.6)),
        wears_glasses=float(rng.choice((0.03, 0.9), p=(0.75, 0.25))),
        frame=_pick(rng, _FRAMES),
        round_frame=bool(rng.random() < 0.4),
    )


def _hair(rng: np.random.Generator, dark: bool) -> Hair:
    worn_long = bool(rng.random() < 0.42)
    styles = ("fringe", "parted", "long", "long", "curls") if worn_long else _SHORT_STYLES
    return Hair(
        colour=shade(_pick(rng, _DARK_HAIRS if dark else _HAIRS), rng.uniform(0.85, 1.15)),
        style=str(rng.choice(styles)),
        line=rng.uniform(-0.92, -0.68),
        beard="none" if worn_long or rng.random() < 0.4 else str(rng.choice(_BEARDS)),
    )


def _eye(rng: np.random.Generator, dark: bool) -> Eye:
    return Eye(
        iris=shade(_pick(rng, _IRISES[:3] if dark else _IRISES), rng.uniform(0.85, 1.15)),
        iris_radius=rng.uniform(0.108, 0.125),
        apart=rng.uniform(0.40, 0.45),
        height=rng.uniform(-0.17, -0.07),
        half_width=rng.uniform(0.24, 0.275),
        open=rng.uniform(0.78, 1.12),
        tilt=rng.uniform(-0.02, 0.05),
        kappa=(float(rng.normal(0, 0.018)), float(rng.normal(0, 0.018))),
    )


def _skull(rng: np.random.Generator) -> Skull:
    return Skull(
        width=rng.uniform(0.92, 1.06),
        chin=rng.uniform(1.16, 1.32),
        squareness=rng.uniform(2.2, 3.1),
        top=rng.uniform(1.32, 1.44),
    )


def _skin(rng: np.random.Generator) -> Colour:
    place = rng.uniform(0, len(_SKINS) - 1.001)
    tone = mix(_SKINS[int(place)], _SKINS[int(place) + 1], place % 1.0)
    return tone[0], tone[1] * rng.uniform(0.96, 1.03), tone[2] * rng.uniform(0.92, 1.06)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]
