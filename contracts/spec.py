"""What a model promises: its tensors, its labels, and how far a precision may move it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class DynamicDim:
    """A dimension that varies between requests; TensorRT tunes its kernels for `opt`."""

    name: str
    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network, batch dimension first."""

    name: str
    dtype: str  # numpy's name: "uint8", "float32"
    shape: tuple[int | DynamicDim, ...]

    def shape_at(self, end: Literal["min", "opt", "max"]) -> tuple[int, ...]:
        """The shape with every dynamic dimension at one end of its range."""
        return tuple(d if isinstance(d, int) else getattr(d, end) for d in self.shape)


@dataclass(frozen=True)
class Limits:
    """How far a precision variant may be from the checkpoint on the whole test split."""

    accuracy_drop_points: float  # percentage points, at most
    agreement: float  # share of images with the same top-1 answer, at least
    logit_difference: float  # largest absolute difference of any logit, at most


@dataclass(frozen=True)
class ModelSpec:
    """A network as the export stage proves it and Triton serves it."""

    family: str
    model: str  # its name in the model repository
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    limits: Mapping[Precision, Limits]

    @property
    def batch(self) -> DynamicDim:
        """The batch dimension, shared by every input."""
        dim = self.inputs[0].shape[0]
        if not isinstance(dim, DynamicDim):
            raise TypeError(f"{self.model}: the first dimension of {self.inputs[0].name} must be a DynamicDim")
        return dim
