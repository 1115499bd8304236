"""A labelled data set in memory, and its split."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.spec import OUTPUT_NAMES


@dataclass(frozen=True)
class Labelled:
    """Images with labels, rendered or decoded once and kept as bytes."""

    images: NDArray[np.uint8]  # (N, H, W, 3) RGB
    labels: NDArray[np.float32]  # (N, d) in `units`
    task: str  # "gaze" or "headpose"
    units: str  # "rad" or "deg"
    person: NDArray[np.int64] | None  # (N,), None where persons are not known

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the label's columns, in order."""
        return OUTPUT_NAMES[self.task]

    @property
    def columns(self) -> list[str]:
        """Names of the labels with the unit, as in the contract's DATA."""
        return [f"{name}_{self.units}" for name in self.outputs]

    def part(self, index: NDArray[np.int64]) -> "Labelled":
        """The images of `index` as a set of their own."""
        person = None if self.person is None else self.person[index]
        return Labelled(self.images[index], self.labels[index], self.task, self.units, person)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Parts:
    """The paper's split: 80 % training, 10 % benign set of the defender, 10 % test."""

    train: Labelled
    benign: Labelled
    test: Labelled


def split(data: Labelled, seed: int) -> Parts:
    """Split 80 / 10 / 10 by seed, whole persons at a time where the data has persons."""
    random = np.random.default_rng(seed)
    train, benign, test = _cut(_units(data), len(data), random)
    return Parts(data.part(train), data.part(benign), data.part(test))


def _units(data: Labelled) -> list[NDArray[np.int64]]:
    """Groups of images that stay together: one person each, or single images."""
    if data.person is None:
        return list(np.arange(len(data)).reshape(-1, 1))
    return [np.flatnonzero(data.person == person) for person in np.unique(data.person)]


def _cut(
    groups: list[NDArray[np.int64]], count: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Benign and test parts of a tenth each (at least one group), the training part first."""
    shuffled = [groups[i] for i in random.permutation(len(groups))]
    sizes = np.cumsum([len(group) for group in shuffled])
    first = int(np.searchsorted(sizes, count / 10)) + 1
    second = max(int(np.searchsorted(sizes, count / 5)) + 1, first + 1)
    for groups_of_part in (shuffled[second:], shuffled[:first], shuffled[first:second]):
        yield np.concatenate(groups_of_part) if groups_of_part else np.empty(0, np.int64)
