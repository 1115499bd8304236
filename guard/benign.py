"""The benign set D_be: images with labels, kept compact on the device."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class BenignSet:
    """N benign images with their labels, on one device.

    Images stay uint8 (a quarter of float32) and become floats a batch at a time.
    """

    images: Tensor  # (N, 3, H, W) uint8 RGB
    labels: Tensor  # (N, d) float32 in the model's units and order of outputs
    names: list[str] = field(default_factory=list)  # (N,) file names, or rows of an .npz
    persons: list[str] = field(default_factory=list)  # (N,) who is in the picture; empty: not known

    def __post_init__(self) -> None:
        if not self.names:
            self.names = [f"image {i}" for i in range(len(self.images))]
        assert len(self.images) == len(self.labels) == len(self.names)
        assert len(self.persons) in (0, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def x(self, index: Tensor | slice) -> Tensor:
        """Images as floats in [0, 1], [B x 3 x H x W]."""
        return self.images[index].to(torch.float32) / 255.0

    def batches(self, size: int = 256) -> Iterator[slice]:
        """Slices that cover the set in order."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def to(self, device: torch.device) -> "BenignSet":
        """The same set on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def part(self, index: Tensor) -> "BenignSet":
        """The images of `index` (K,) as a set of their own."""
        index = index.to(self.device)
        names, persons = (
            [told[i] for i in index.tolist()] if told else [] for told in (self.names, self.persons)
        )
        return BenignSet(self.images[index], self.labels[index], names, persons)
