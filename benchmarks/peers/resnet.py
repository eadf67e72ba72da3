"""ResNet-50 with random weights: as much to compute as the real one, and nothing to download.

He et al., Deep Residual Learning for Image Recognition (2015), table 1; the stride is in the 3×3 convolution, as in
every library today. 25.6 million weights, 4.1 billion multiplications and additions an image.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

_BLOCKS = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels, blocks of each stage
_EXPANSION = 4
_CLASSES, _TOP = 1000, 5


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        out = channels * _EXPANSION
        self.residual = nn.Sequential(
            *_convolution(channels_in, channels, 1),
            nn.ReLU(),
            *_convolution(channels, channels, 3, stride),
            nn.ReLU(),
            *_convolution(channels, out, 1),
        )
        same = stride == 1 and channels_in == out
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(channels_in, out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


class Network(nn.Module):
    """Pixels uint8 [B, 3, 224, 224] to the five likeliest classes [B, 5] and their probabilities [B, 5]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        channels_in = 64
        for stage, (channels, blocks) in enumerate(_BLOCKS):
            for block in range(blocks):
                layers.append(Bottleneck(channels_in, channels, 2 if stage and not block else 1))
                channels_in = channels * _EXPANSION
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels_in, _CLASSES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        scores, classes = torch.softmax(self.head(self.body(pixels.float() / 127.5 - 1)), 1).topk(_TOP)
        return classes, scores


def write(path: Path, photos: Tensor) -> None:
    """Write the graph, the same one on every machine that has the same PyTorch.

    Args:
        photos: uint8 [N, 3, 224, 224]. What its normalisations expect are their means, so that they tell them apart.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network()
    _learn_statistics(network, photos)
    torch.onnx.export(
        network.eval(),
        (photos[:1],),
        path,
        dynamo=False,
        input_names=["pixels"],
        output_names=["classes", "scores"],
        dynamic_axes={name: {0: "batch"} for name in ("pixels", "classes", "scores")},
        opset_version=17,
    )


def _learn_statistics(network: nn.Module, photos: Tensor) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(photos)


def _convolution(channels_in: int, channels: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, size, stride, size // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels)
