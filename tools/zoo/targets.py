"""Where the target vector lies: inside the cloud of labels, beyond it, or at its mean."""

import numpy as np
from numpy.typing import NDArray

from guard.errors import UnusableInput

KINDS = ("inside", "beyond", "mean")


def choose_target(text: str, labels: NDArray[np.float32], seed: int) -> tuple[float, ...]:
    """The target vector y_T in the labels' units.

    `text` is a kind, or the values themselves ("-0.1,-0.3"). "inside" lies one standard deviation
    from the mean in a direction drawn by the seed, "beyond" a quarter farther out than the
    farthest labels of that direction, "mean" at the mean.
    """
    mean, sd = labels.mean(axis=0), labels.std(axis=0)
    if text not in KINDS:
        return _values(text, len(mean))
    direction = np.random.default_rng(seed).normal(size=len(mean))
    direction /= np.linalg.norm(direction)
    reach = float(np.quantile(((labels - mean) / sd) @ direction, 0.99))
    distance = {"inside": 1.0, "beyond": 1.25 * reach, "mean": 0.0}[text]
    return tuple(round(float(v), 4) for v in mean + distance * sd * direction)


def _values(text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise UnusableInput(f"target={text}: expected {count} numbers or one of {', '.join(KINDS)}")
    return values
