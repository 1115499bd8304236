"""The built-in architectures: ResNet-18, ResNet-34 and MobileNetV1.

The ResNets bear torchvision's parameter names, so that its checkpoints load; `width` is the
channel count of the first stage (64 is the standard network).
"""

from collections.abc import Callable

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, figure 2)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + shortcut)


class ResNet(nn.Module):
    """A ResNet of basic blocks. [N x 3 x H x W] -> [N x d]."""

    def __init__(self, blocks: tuple[int, int, int, int], outputs: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, blocks[0], stride=1)
        self.layer2 = _stage(width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    rest = [BasicBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class MobileNetV1(nn.Module):
    """Depthwise separable convolutions (Howard et al. 2017, table 1). [N x 3 x H x W] -> [N x d].

    `width` is the channel count after the first pointwise convolution (64 is the standard).
    """

    # (channels as a multiple of `width`, stride) of each separable block
    BLOCKS = ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), *((8, 1),) * 5, (16, 2), (16, 1))

    def __init__(self, outputs: int, width: int) -> None:
        super().__init__()
        channels = max(width // 2, 1)
        layers: list[nn.Module] = _conv_bn(3, channels, 3, stride=2)
        for multiple, stride in self.BLOCKS:
            layers += _conv_bn(channels, channels, 3, stride, groups=channels)
            layers += _conv_bn(channels, multiple * width, 1)
            channels = multiple * width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(x)).flatten(1))


def _conv_bn(
    channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {  # name: (outputs d, width) -> network
    "resnet18": lambda outputs, width: ResNet((2, 2, 2, 2), outputs, width),
    "resnet34": lambda outputs, width: ResNet((3, 4, 6, 3), outputs, width),
    "mobilenet_v1": lambda outputs, width: MobileNetV1(outputs, width),
}
