"""A multilayer perceptron over numbers and embedded categories (Guo and Berkhahn 2016, arXiv:1604.06737)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.families import Evaluated
from training.families.flights.data import Flights
from training.families.flights.models.scaling import Scaling
from training.families.flights.spec import SPEC

_SIZES = [len(names) for names in SPEC.vocabularies.values()]  # what is unknown included
_NUMBERS = len(SPEC.inputs[1].columns)


class Module(pl.LightningModule):
    """The network and how it learns: AdamW on the cross-entropy, with a one-cycle schedule.

    Args:
        widths: Of the hidden layers.
        embedding: Numbers that stand for a category.
        dropout: Share of the hidden values that are left out of a step.
        lr: The schedule's highest learning rate.
        weight_decay: L2 penalty.
    """

    def __init__(
        self,
        widths: Sequence[int] = (128, 64),
        embedding: int = 8,
        dropout: float = 0.1,
        lr: float = 3e-3,
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = _Network(widths, embedding, dropout)

    def served(self) -> nn.Module:
        """Return what is exported: categories and numbers to probability, float32 [B, 1]."""
        return _Served(self.network)

    def on_fit_start(self) -> None:
        """Take mean and deviation of the numbers from the training split; they are part of the network."""
        split = self.trainer.datamodule.split("train")  # type: ignore[attr-defined]  # set by the trainer
        scaling = Scaling.of(np.concatenate([group.inputs["numbers"] for group in split.groups]))
        self.network.mean.copy_(torch.from_numpy(scaling.mean))
        self.network.deviation.copy_(torch.from_numpy(scaling.deviation))

    def training_step(self, batch: Flights, batch_idx: int) -> Tensor:
        """Return the cross-entropy."""
        categories, numbers, late = batch
        loss = F.binary_cross_entropy_with_logits(self.network(categories, numbers)[:, 0], late.float())
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Flights, batch_idx: int) -> Evaluated:
        """Return what the metric is computed from."""
        return self._evaluate(batch)

    def test_step(self, batch: Flights, batch_idx: int) -> Evaluated:
        """Return what the metric is computed from."""
        return self._evaluate(batch)

    def configure_optimizers(self) -> Any:
        """Return AdamW with a one-cycle schedule over all steps of the run (Smith and Topin 2017, arXiv:1708.07120)."""
        lr = self.hparams["lr"]
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=self.hparams["weight_decay"])
        steps = max(5, int(self.trainer.estimated_stepping_batches))  # of fewer it divides by zero
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _evaluate(self, batch: Flights) -> Evaluated:
        categories, numbers, late = batch
        return {"outputs": {"probability": self.network(categories, numbers).sigmoid()}, "targets": late}


class _Served(nn.Module):
    """The network with the probability behind it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        probability: Tensor = self.network(categories, numbers).sigmoid()
        return probability


class _Network(nn.Module):
    mean: Tensor  # [numbers]
    deviation: Tensor  # [numbers]
    sizes: Tensor  # [categories]

    def __init__(self, widths: Sequence[int], embedding: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(_NUMBERS))
        self.register_buffer("deviation", torch.ones(_NUMBERS))
        self.register_buffer("sizes", torch.tensor(_SIZES, dtype=torch.int32), persistent=False)
        self.embeddings = nn.ModuleList(nn.Embedding(size, embedding) for size in _SIZES)
        layers: list[nn.Module] = []
        inputs = 2 * _NUMBERS + embedding * len(_SIZES)
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        """Turn categories int32 [B, 3] and numbers [B, 23] into logits [B, 1].

        A number that is missing is its mean, and said to be; a category that there is not is an unknown one: asked for
        all the same, it would fail the batch, with the requests of others in it.
        """
        known = (categories >= 0) & (categories < self.sizes)
        place = torch.where(known, categories, 0)
        embedded = [layer(place[:, column]) for column, layer in enumerate(self.embeddings)]
        given = torch.isfinite(numbers)
        scaled = torch.where(given, (numbers - self.mean) / self.deviation, 0.0)
        logits: Tensor = self.layers(torch.cat([*embedded, scaled, (~given).float()], dim=1))
        return logits
