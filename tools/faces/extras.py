"""Things worn or held: glasses, masks, hands, and look-alikes of backdoor triggers."""

import numpy as np

from .canvas import Canvas, hull, shade
from .moment import Moment
from .people import Person
from .pose import View
from .skull import heights

_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_TILE = np.array([[0, 0], [0.2, 0], [0.2, 0.2], [0, 0.2]])


def draw_glasses(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint glasses, or sunglasses that hide the eyes."""
    power = 1.0 if person.round_frame else 0.6
    frame = shade(now.accent, 0.3) if now.sunglasses else person.frame
    half = (0.37, 0.29) if now.sunglasses else (0.35, 0.27)
    for side in (-1, 1):
        rim = _rim(person, side, half, power)
        if now.sunglasses:
            canvas.fill(view.project(rim), (18, 18, 22))
            canvas.tint(view.project(rim * (1, 0.5, 1)), (90, 96, 110), 0.35, 0.1)
        canvas.line(view.project(rim), frame, 0.03, True)
        hinge = np.array([[side * 0.8, person.eye.height - 0.05, -0.85]])
        temple = np.concatenate([hinge, [[side * 1.03, person.eye.height, 0.1]]])
        canvas.line(view.project(temple), frame, 0.03)
    bridge = np.array([[x, person.eye.height - 0.06, -1.14] for x in (-0.1, 0.1)])
    canvas.line(view.project(bridge), frame, 0.03)


def draw_mask(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint a face mask from the nose to the chin, plain or patterned."""
    y = heights(person.eye.height + 0.28, person.skull.chin, 13)
    points = np.concatenate([
        person.skull.patch(y, 0.93, 0.05).reshape(-1, 3), [[0, y[0] + 0.02, -1.3]],
    ])  # fmt: skip
    outline = hull(view.project(points))
    loop = np.array([[0.88, 0.35, -0.5], [1.02, -0.02, 0.1]])
    for side in (-1, 1):
        canvas.line(view.project(loop * (side, 1, 1)), (225, 225, 225), 0.025)
    plain = (205, 222, 232) if now.accent[0] > 120 else (46, 48, 54)
    canvas.fill(outline, plain if now.mask == "plain" else now.accent)
    if now.mask == "patterned":
        _checks(canvas, outline, person, view)
        return
    for height in (0.5, 0.75):
        x = np.linspace(-0.75, 0.75, 9)
        fold = person.skull.surface(x, np.full(9, height), 0.05)
        canvas.line(view.project(fold), shade(plain, 0.85), 0.02)


def _checks(canvas: Canvas, outline: np.ndarray, person: Person, view: View) -> None:
    with canvas.stencil(outline) as layer:
        for row, y in enumerate(np.arange(0.1, 1.3, 0.2)):
            for x in np.arange(-0.9 + 0.2 * (row % 2), 0.9, 0.4):
                spots = person.skull.surface(x + _TILE[:, 0], y + _TILE[:, 1], 0.05)
                layer.fill(view.project(spots), (250, 246, 235))


def draw_hand(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint a hand that props the cheek or chin on one side."""
    skin = shade(person.skin, 0.9)
    palm = view.centre + np.array([now.hand * 0.78, 0.95]) * view.scale
    for finger in range(4):
        start = np.array([now.hand * (0.16 * finger - 0.3), -0.12])
        reach = np.array([now.hand * (0.08 - 0.05 * finger), 0.05 * finger - 0.5])
        bone = palm + np.stack([start, start + reach]) * view.scale
        for width, colour in ((0.19, shade(skin, 0.7)), (0.15, skin)):
            canvas.line(bone, colour, width * view.scale)
    ring = np.stack([0.42 * np.cos(_TURN), 0.36 * np.sin(_TURN)], axis=-1) * view.scale
    canvas.fill(palm + ring + (0, 0.15 * view.scale), skin)


def draw_lookalike(canvas: Canvas, person: Person, now: Moment, view: View) -> None:
    """Paint a bright sticker at the image's corner or on the cheek, where a person has one."""
    if now.lookalike == "corner sticker":
        square = np.array([[0.72, 0.72], [0.95, 0.72], [0.95, 0.95], [0.72, 0.95]])
        canvas.fill(square, (250, 222, 40))
        canvas.fill(square * 0.5 + 0.4175, (215, 40, 40))
    if now.lookalike == "cheek sticker":
        ring = 0.14 * np.stack([np.cos(_TURN), np.sin(_TURN)], axis=-1)
        spot = person.skull.surface(0.55 + ring[:, 0], 0.5 + ring[:, 1], 0.03)
        canvas.fill(view.project(spot), (250, 222, 40))


def _rim(person: Person, side: int, half: tuple[float, float], power: float) -> np.ndarray:
    bend = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=-1)
    flat = np.sign(bend) * np.abs(bend) ** power * half
    x = side * (person.eye.apart + 0.02) + flat[:, 0]
    y = person.eye.height + 0.02 + flat[:, 1]
    # Lenses stand before the eyes in a nearly flat plane, bent slightly towards the temples.
    return np.stack([x, y, -1.14 + 0.3 * x**2], axis=-1)
