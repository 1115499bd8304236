"""From an RGB image in [0, 1] to the network's input."""

import torch
from torch import Tensor, nn

from guard.spec import InputSpec


class Preprocess(nn.Module):
    """Colour order, scaling to the input range, then (x - mean) / std; one affine map a channel.

    [N x 3 x H x W] RGB in [0, 1] -> [N x 3 x H x W] as the network expects it.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        low, high = spec.range
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.reverse = spec.color == "bgr"
        self.register_buffer("scale", ((high - low) / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((low - mean) / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        ordered = x.flip(1) if self.reverse else x
        return torch.addcmul(self.shift, ordered, self.scale)
