"""Networks with the heads and blocks that published gaze and head-pose models use."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 16


def backbone() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, 2, 1),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Bins(nn.Module):
    """Angles as expectations over the softmax of bins, a dense layer each."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = backbone()
        self.pitch, self.yaw = nn.Linear(WIDTH, 30), nn.Linear(WIDTH, 30)
        self.register_buffer("places", torch.linspace(-1, 1, 30))

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        chances = [functional.softmax(head(features), 1) for head in (self.pitch, self.yaw)]
        return torch.stack([(chance * self.places).sum(1) for chance in chances], 1)


class Direction(nn.Module):
    """A unit vector, turned into pitch and yaw."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = backbone(), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, y, z = functional.normalize(self.head(self.features(x)), dim=1).unbind(1)
        return torch.stack([torch.asin(-y), torch.atan2(-x, -z)], 1)


class Rotation(nn.Module):
    """Two axes of a rotation matrix, made square to each other, turned into Euler angles."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = backbone(), nn.Linear(WIDTH, 6)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.head(self.features(x)).split(3, 1)
        a = functional.normalize(first, dim=1)
        c = functional.normalize(torch.linalg.cross(a, second), dim=1)
        b = torch.linalg.cross(c, a)
        flat = (a[:, 0] ** 2 + a[:, 1] ** 2).sqrt()
        yaw, pitch = torch.atan2(-a[:, 2], flat), torch.atan2(b[:, 2], c[:, 2])
        return torch.stack([yaw, pitch, torch.atan2(a[:, 1], a[:, 0])], 1)


class Widened(nn.Module):
    """Layer norm over channels, a dense layer for each pixel, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, WIDTH, 2, 2), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=4)
        self.norm, self.up = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32)
        self.down, self.head = nn.Linear(32, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        inner = self.norm(self.mix(x).permute(0, 2, 3, 1))
        x = x + self.down(functional.gelu(self.up(inner))).permute(0, 3, 1, 2)
        y: Tensor = self.head(x.mean((2, 3)))
        return y


class Attended(nn.Module):
    """Patches and a token of the class, which attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.block = nn.TransformerEncoderLayer(
            WIDTH, 2, 24, batch_first=True, norm_first=True, activation="gelu"
        )
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        token = self.token.expand(patches.shape[0], -1, -1)
        y: Tensor = self.head(self.block(torch.cat([token, patches], 1))[:, 0])
        return y


class Shifted(nn.Module):
    """Windows of patches that attend within themselves, the picture shifted between them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, 2, 2), nn.LayerNorm(WIDTH)
        self.places = nn.Parameter(torch.randn(16, 16))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).permute(0, 2, 3, 1)).roll((-2, -2), (1, 2))
        n, h, w, c = x.shape
        x = x.view(n, h // 4, 4, w // 4, 4, c).transpose(2, 3).reshape(-1, 16, c)
        x = torch.softmax(torch.einsum("nic,njc->nij", x, x) / c**0.5 + self.places, -1) @ x
        x = x.view(n, h // 4, w // 4, 4, 4, c).transpose(2, 3).reshape(n, h, w, c)
        y: Tensor = self.head(x.roll((2, 2), (1, 2)).mean((1, 2)))
        return y


class Shuffled(nn.Module):
    """Half of the channels convolved on their own, then the channels of both halves mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, WIDTH, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = self.stem(x).chunk(2, 1)
        x = torch.cat([kept, functional.relu(self.mix(changed))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y: Tensor = self.head(x.mean((2, 3)))
        return y


class Hourglass(nn.Module):
    """Maps made smaller and larger again, normed in groups, their maxima read."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, WIDTH, 4, 2, 1)
        self.norm, self.up = nn.GroupNorm(4, WIDTH), nn.ConvTranspose2d(WIDTH, 8, 4, 2, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.up(functional.silu(self.norm(self.down(x)))).amax((2, 3)))
        return y


class Activated(nn.Module):
    """Less common activations, a block of pixels out of channels, the mean over fields."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, WIDTH, 3, 1, 1), nn.Conv2d(WIDTH, WIDTH, 3, 2, 1)
        self.head = nn.Linear(WIDTH // 4 * 9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.celu(self.mix(functional.selu(functional.mish(self.stem(x)))), 0.5)
        x = functional.adaptive_avg_pool2d(functional.pixel_shuffle(x, 2), 3)
        y: Tensor = self.head(functional.log_softmax(x.flatten(1), 1))
        return y


class Rooted(nn.Module):
    """Patches that attend to each other and are normed by their mean square."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, 4, 4), nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))[:, None]
        y: Tensor = self.head(functional.scaled_dot_product_attention(x, x, x).mean((1, 2)))
        return y


HEADS: dict[str, Callable[[], nn.Module]] = {
    "bins": Bins,
    "direction": Direction,
    "rotation": Rotation,
    "widened": Widened,
    "attended": Attended,
    "shifted": Shifted,
    "shuffled": Shuffled,
    "hourglass": Hourglass,
}

# What the new exporter alone writes, and in which opset.
NEWER: dict[tuple[str, int], Callable[[], nn.Module]] = {
    ("activated", 18): Activated,
    ("hourglass", 21): Hourglass,
    ("rooted", 23): Rooted,
}
