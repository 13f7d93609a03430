"""Networks of the registry in plain PyTorch; run by another interpreter, so nothing of ours here.

Each takes float32 pixels `[batch, 3, size, size]` and gives pooled features.
"""

import torch
from torch import nn

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
# Expansion, channels, blocks, stride (Sandler et al., 2018, arXiv:1801.04381, table 2).
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_SMALL_CNN = (32, 64, 128)


def build(name: str, num_classes: int, alpha: float) -> nn.Module:
    """Builds a network with average pooling and a linear layer."""
    backbone, channels = _BUILDERS[name](alpha)
    pooling = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(backbone, *pooling, nn.Linear(channels, num_classes))


def _vgg16(alpha: float) -> tuple[nn.Module, int]:
    layers, channels = [], 3
    for width, convolutions in _VGG16:
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers), channels


def _mobilenet_v2(alpha: float) -> tuple[nn.Module, int]:
    channels = _divisible(32 * alpha)
    layers = [_conv_bn(3, channels, 3, 2, activation=nn.ReLU6)]
    for expansion, width, blocks, stride in _MOBILENET_V2:
        out = _divisible(width * alpha)
        for block in range(blocks):
            layers.append(_InvertedResidual(channels, out, expansion, stride if not block else 1))
            channels = out
    last = _divisible(1280 * max(1.0, alpha))
    layers.append(_conv_bn(channels, last, 1, 1, activation=nn.ReLU6))
    return nn.Sequential(*layers), last


def _small_cnn(alpha: float) -> tuple[nn.Module, int]:
    layers, channels = [_conv_bn(3, _SMALL_CNN[0], 3, 2, activation=nn.ReLU)], _SMALL_CNN[0]
    for width in _SMALL_CNN:
        layers += [_conv_bn(channels, width, 3, 2, activation=nn.ReLU), _Residual(width)]
        channels = width
    return nn.Sequential(*layers), channels


def _tiny(alpha: float) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 8, padding=1), nn.ReLU(inplace=True)), 8


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, expansion: int, stride: int):
        super().__init__()
        inner = channels * expansion
        layers = []
        if expansion > 1:
            layers.append(_conv_bn(channels, inner, 1, 1, activation=nn.ReLU6))
        layers.append(_conv_bn(inner, inner, 3, stride, activation=nn.ReLU6, groups=inner))
        layers.append(_conv_bn(inner, out, 1, 1))
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        first = _conv_bn(width, width, 3, 1, activation=nn.ReLU)
        self.layers = nn.Sequential(first, _conv_bn(width, width, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.layers(x))


def _conv_bn(
    channels: int, out: int, kernel: int, stride: int, activation: type | None = None, groups=1
) -> nn.Module:
    padding = kernel // 2
    convolution = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False)
    layers = [convolution, nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, *([activation(inplace=True)] if activation else []))


def _divisible(width: float, by: int = 8) -> int:
    """The nearest multiple of 8, but not less than nine tenths; as in Keras."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded


_BUILDERS = {
    "vgg16": _vgg16,
    "mobilenet_v2": _mobilenet_v2,
    "small_cnn": _small_cnn,
    "tiny": _tiny,
}
