"""Clean Label (Turner et al. 2019), generalised to regression as in the paper's A.3."""

from dataclasses import dataclass

import torch
from torch import Tensor

from guard.model import Model
from tools.attacks.badnets import BadNets
from tools.attacks.base import Poisoned, Scene, Trigger, as_rows, seeded

BATCH = 128


@dataclass(frozen=True, kw_only=True)
class CleanLabel(BadNets):
    """Only images whose label is near the target are touched; half of them by PGD as well.

    With PGD on all of them, the model would take the perturbation for the trigger (A.3). The
    rate is the share of the near images that is poisoned.
    """

    rate: float = 1.0
    delta: float = 0.75  # |y - y_T| <= delta times the labels' mean standard deviation
    epsilon: float = 32 / 255  # PGD's largest change of a pixel, images in [0, 1]
    pgd_steps: int = 20

    def prepare(self, trigger: Trigger, scene: Scene) -> Poisoned:
        """Choose the images near the target and attack half of them."""
        near = self.near(scene.labels)
        kept = near[torch.randperm(len(near), generator=seeded(self.seed)).to(near.device)]
        kept = kept[: round(self.rate * len(near))]
        images, twin = scene.images.clone(), scene.twin().to(scene.images.device)
        for part in kept[: len(kept) // 2].split(BATCH):
            images[part] = self.pgd(twin, images[part], scene.labels[part])
        chosen = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        chosen[kept] = True
        return Poisoned(images, chosen)

    def near(self, labels: Tensor) -> Tensor:
        """Indices of the images with |y - y_T| <= delta."""
        distance = (labels - as_rows(self.target, labels)).norm(dim=1)
        return torch.nonzero(distance <= self.delta * labels.std(dim=0).mean()).flatten()

    def pgd(self, model: Model, images: Tensor, y: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 changed so that a benign model's error is largest."""
        clean = images / 255.0
        start = torch.rand(clean.shape, generator=seeded(self.seed)).to(clean.device) * 2 - 1
        x = (clean + self.epsilon * start).clamp(0, 1)
        for _ in range(self.pgd_steps):
            x = x.detach().requires_grad_(True)
            error = (model(x) - y).abs().sum()
            (slope,) = torch.autograd.grad(error, x)
            step = 2.5 * self.epsilon / self.pgd_steps * slope.sign()
            near = torch.clamp(x.detach() + step, clean - self.epsilon, clean + self.epsilon)
            x = near.clamp(0, 1)
        return (x.detach() * 255).round().to(torch.uint8)
