"""Modules of plain PyTorch, as people write them, and samples of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BATCH = 40
RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def tokens(*shape: int) -> NDArray[np.int64]:
    return RANDOM.integers(0, 50, shape)


def save(folder: Path, name: str = "samples", **arrays: NDArray[Any]) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    return path


class Net(nn.Module):
    """Two layers and a normalisation: parameters, buffers, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(x))
        return result


class Ends(nn.Module):
    """A layer, and what the test does with its values [B, 2]."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)  # weights that happen to keep all values between 0 and 1 make probabilities of them
        self.layer, self.end = nn.Linear(4, 2), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.layer(x))


class Encoder(nn.Module):
    """A transformer over tokens with padding; a dictionary out, an entry of it named like an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor | None]:
        seen = self.layers(self.words(input_ids), src_key_padding_mask=attention_mask == 0).mean(1)
        return {"logits": self.head(seen), "embedding": seen, "past": None}


class Recurrent(nn.Module):
    """What torch.export freezes at the example's length (PyTorch 2.13; pytorch#191855)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)[0]
        return result


class Voice(nn.Module):
    """A detector of voice: no batch, its state in and out, and a rate that is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(16, 8), nn.Linear(8, 1)

    def forward(self, sound: Tensor, state: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        hidden, cell = self.cell(sound * (16000 / rate).float(), (state[0], state[1]))
        return torch.sigmoid(self.head(hidden)), torch.stack([hidden, cell])


class Messages(nn.Module):
    """A layer of a graph network: both sizes of the adjacency are the number of nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        return torch.relu(adjacency @ self.layer(nodes)).mean(1)


class InOneGo(nn.Module):
    """What upsets exporters: keywords alone, Nones, nested outputs, one twice, an input handed on, writing in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, *, x: Tensor, scale: Tensor, **options: Any) -> Any:
        x -= x.mean(1, keepdim=True)
        y = self.layer(x) * scale
        y[:, 0] = 0
        return y, None, {"best": y.argmax(1), "more": (y, scale)}, 0.5


class Branches(nn.Module):
    """Another way through it for negative sums."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y if x.sum() > 0 else 2 * y


class Steps(nn.Module):
    """A loop in Python over the length."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(x.shape[0], 8)
        for at in range(x.shape[1]):
            hidden = self.cell(x[:, at], hidden)
        return hidden
