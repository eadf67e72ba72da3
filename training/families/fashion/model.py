"""A small residual network for 28×28 grey images (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import schedules
from training.families import Evaluated

# Of the 60,000 original training images, scaled to 0…1.
_MEAN, _STD = 0.2860, 0.3530


class Module(pl.LightningModule):
    """The classifier and how it learns: SGD with Nesterov momentum on a one-cycle schedule.

    Args:
        widths: Channels of each stage; every stage after the first halves the resolution.
        blocks: Residual blocks of each stage.
        lr: The schedule's highest learning rate.
        weight_decay: L2 penalty.
        label_smoothing: Share of the target spread over the other classes.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 1, 1),
        lr: float = 0.1,
        weight_decay: float = 5e-4,
        label_smoothing: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = _network(widths, blocks, classes=10)

    def served(self) -> nn.Module:
        """Return what is exported: pixels, uint8 [B, 1, 28, 28], to logits and probabilities, float32 [B, 10]."""
        return _Served(self.network)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn uint8 [B, 1, 28, 28] into logits, float32 [B, 10]."""
        logits: Tensor = self.network(_normalised(pixels))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy, with smoothed labels, of pixels [B, 1, 28, 28] and labels [B]."""
        pixels, labels = batch
        loss = F.cross_entropy(self(pixels), labels, label_smoothing=self.hparams["label_smoothing"])
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Evaluated:
        """Log the loss; return what the metric is computed from."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Evaluated:
        """Log the loss; return what the metric is computed from."""
        return self._evaluate(batch, "test")

    def configure_optimizers(self) -> Any:
        """Return SGD with a one-cycle schedule over all steps of the run (Smith and Topin 2017, arXiv:1708.07120)."""
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=self.hparams["lr"],
            momentum=0.9,
            nesterov=True,
            weight_decay=self.hparams["weight_decay"],
        )
        steps = schedules.steps(self.trainer)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.hparams["lr"], total_steps=steps, pct_start=0.25
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> Evaluated:
        pixels, labels = batch
        logits = self(pixels)
        self.log(f"{split}_loss", F.cross_entropy(logits, labels), sync_dist=True)
        return {"outputs": {"logits": logits}, "targets": labels}


class _Served(nn.Module):
    """The network with all around it that must not differ in serving: the pixels' scale, and probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network  # its name is that of the graph's nodes: "network.2.first.0/Conv"

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.network(_normalised(pixels))
        return logits, logits.softmax(dim=1)


class _Block(nn.Module):
    """A residual block: two 3×3 convolutions and a shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, kernel=3, stride=stride)
        self.second = _convolution(channels_out, channels_out, kernel=3)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else _convolution(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Turn [B, channels_in, H, W] into [B, channels_out, H / stride, W / stride]."""
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class _GlobalAverage(nn.Module):
    """Global average pooling, [B, C, H, W] to [B, C]: one ReduceMean in ONNX, not a dozen nodes to pool and flatten."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _normalised(pixels: Tensor) -> Tensor:
    """Scale uint8 [B, 1, 28, 28] to float32 of zero mean and unit variance."""
    return (pixels.float() / 255 - _MEAN) / _STD


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def _network(widths: Sequence[int], blocks: Sequence[int], classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [_convolution(1, widths[0], kernel=3), nn.ReLU()]
    channels = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            layers.append(_Block(channels, width, stride=2 if stage > 0 and block == 0 else 1))
            channels = width
    layers += [_GlobalAverage(), nn.Linear(channels, classes)]
    network = nn.Sequential(*layers)
    # Channels-last convolutions are faster on CPUs and on tensor cores.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub forgot it
    return network
