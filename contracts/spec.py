"""What a model promises: its tensors, its task, its labels, and how far a precision may move it.

A family writes its spec in Python (training/families/<family>/spec.py); a graph brought from elsewhere comes
with the same facts in a TOML file, read by `from_toml`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from contracts.errors import SpecError
from contracts.names import RULE, is_model_name

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

# What an answer is, and so what agreement and accuracy mean:
#   classification   the index of the largest value of the answer output [B, classes]
#   ctc              the sequence of its largest values [B, steps, classes], repeats and blanks (class 0) removed
#   values           there are no discrete answers: only the numeric tolerances count
Task = Literal["classification", "ctc", "values"]


@dataclass(frozen=True)
class DynamicDim:
    """A dimension that varies between requests; TensorRT tunes its kernels for `opt`."""

    name: str
    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise SpecError(f"dimension {self.name!r} needs 1 <= min <= opt <= max, not {self}")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network, batch dimension first."""

    name: str
    dtype: str  # numpy's name: "uint8", "float32"
    shape: tuple[int | DynamicDim, ...]

    def shape_at(self, end: Literal["min", "opt", "max"]) -> tuple[int, ...]:
        """Return the shape, batch first, with every dynamic dimension at one end of its range or at its `opt`."""
        return tuple(d if isinstance(d, int) else getattr(d, end) for d in self.shape)


@dataclass(frozen=True)
class Limits:
    """How far a precision variant may be from its reference on the whole held-out split."""

    tolerance: Mapping[str, float]  # output name -> largest absolute difference of any element, at most
    agreement: float | None = None  # share of samples with the same answer, at least
    accuracy_drop_points: float | None = None  # percentage points; the drop's upper 95 % bound, at most
    computed_share: float = 1.0  # of convolutions and matrix products, computed in this precision, at least


@dataclass(frozen=True)
class ModelSpec:
    """A network as the export stage proves it and Triton serves it."""

    family: str
    model: str  # its name in the model repository
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: Mapping[Precision, Limits]
    task: Task = "classification"
    answer: str = ""  # the output the answer is read from; the first one unless named
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.model, self.family):
            if not is_model_name(name):
                raise SpecError(f"a model cannot be called {name!r}", note=f"a name has {RULE}")
        for tensor in self.inputs:
            if not tensor.shape or tensor.shape[0] != self.batch:
                raise SpecError(f"{self.model}: the first dimension of every input is the same dynamic batch")
        if self.batch.min != 1:
            raise SpecError(f"{self.model}: a batch starts at 1, as Triton sends single requests too")
        names = {tensor.name for tensor in self.outputs}
        if not names:
            raise SpecError(f"{self.model} has no outputs")
        if self.answer and self.answer not in names:
            raise SpecError(f"{self.model}: the answer {self.answer!r} is no output", note=", ".join(sorted(names)))
        rank = {"classification": 2, "ctc": 3}.get(self.task)
        [answer] = [tensor for tensor in self.outputs if tensor.name == self.answer_output]
        if rank is not None and len(answer.shape) != rank:
            raise SpecError(f"{self.model}: the answer of a {self.task} has {rank} dimensions, {answer.name} has not")
        for precision, limits in self.limits.items():
            figures = [*limits.tolerance.values(), limits.agreement, limits.accuracy_drop_points, limits.computed_share]
            if not all(figure is None or isinstance(figure, int | float) for figure in figures):
                raise SpecError(f"{self.model}: limits.{precision} has something that is no number")
            if missing := names - limits.tolerance.keys():
                raise SpecError(f"{self.model}: limits.{precision} has no tolerance for {', '.join(sorted(missing))}")
            if self.task != "values" and limits.agreement is None:
                raise SpecError(f"{self.model}: limits.{precision} has no agreement")

    @property
    def batch(self) -> DynamicDim:
        """The batch dimension, shared by every input.

        Raises:
            SpecError: there is no input, or its first dimension is fixed.
        """
        dim = self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else None
        if not isinstance(dim, DynamicDim):
            raise SpecError(f"{self.model}: the first dimension of every input must be a dynamic batch")
        return dim

    @property
    def answer_output(self) -> str:
        """The name of the output that the answer is read from."""
        return self.answer or self.outputs[0].name


def from_toml(path: Path) -> ModelSpec:
    """Read the spec of a graph that was trained elsewhere; docs/how-to/bring-your-own-graph.md has an example.

    Raises:
        SpecError: the file is missing, is not TOML, or lacks something.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SpecError(f"{path} is not a TOML file: {error}") from error
    try:
        unknown = raw.keys() - {"model", "task", "answer", "labels", "inputs", "outputs", "limits"}
        if unknown:
            raise SpecError(f"{path} has entries that no spec has: {', '.join(sorted(unknown))}")
        if (task := raw.get("task", "classification")) not in get_args(Task):
            raise SpecError(f"{path}: there is no task {task!r}", note=f"tasks: {', '.join(get_args(Task))}")
        if strange := raw["limits"].keys() - set(PRECISIONS):
            raise SpecError(f"{path}: there is no precision {', '.join(sorted(strange))}")
        return ModelSpec(
            family=raw["model"],
            model=raw["model"],
            inputs=tuple(_tensor(t) for t in raw["inputs"]),
            outputs=tuple(_tensor(t) for t in raw["outputs"]),
            limits={precision: Limits(**limits) for precision, limits in raw["limits"].items()},
            task=task,
            answer=raw.get("answer", ""),
            labels=tuple(raw.get("labels", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SpecError(
            f"{path} is not a complete spec: {error}",
            hint="docs/how-to/bring-your-own-graph.md shows one with every entry",
        ) from error


def _tensor(raw: dict[str, Any]) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else DynamicDim(**d) for d in raw["shape"])
    return TensorSpec(raw["name"], raw["dtype"], shape)
