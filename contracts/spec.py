"""What a model promises: its tensors, its task, its labels, and how far a precision may move it.

A family writes its spec in Python (training/families/<family>/spec.py); a graph brought from elsewhere comes
with the same facts in a TOML file (contracts/files/spec_file.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from contracts.errors import SpecError
from contracts.names import RULE, is_model_name

if TYPE_CHECKING:  # with numpy, and `--help` names precisions alone
    from contracts.entities.declaration import Declaration
    from contracts.judging.card import Card
    from contracts.judging.metric import Metric

# Highest first, as variants are proven and chosen.
Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "fp8", "int8")
# What a spec limits unless it says more. The others are for GPUs alone: onnxruntime does not serve them on a CPU.
USUAL_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

TENSORRT_DTYPES = frozenset({"bool", "uint8", "int8", "int32", "int64", "float16", "float32"})
_BATCH_HINT = "a graph that takes no batches is served sample by sample: batch = false"

# What an answer is, what it means that two agree, and the metric that judges it unless the spec names another:
#   classification   the index of the largest value of [B, classes]; the same one; accuracy
#   ctc              the largest values of [B, steps, classes], repeats and blanks (class 0) removed; the same; accuracy
#   binary           whether the value of [B] or [B, 1] reaches the threshold; the same; auc
#   regression       the values of [B] or [B, k]; none further apart than `agree_within`; squared_error
#   embedding        the vector of [B, k]; no larger cosine distance than `agree_within`; recall_at_1
#   values           there are no answers: only the numeric tolerances count; none
Task = Literal["classification", "ctc", "binary", "regression", "embedding", "values"]
DISCRETE: tuple[Task, ...] = ("classification", "ctc", "binary")
DEFAULT_METRICS: Mapping[Task, str] = {
    "classification": "accuracy",
    "ctc": "accuracy",
    "binary": "auc",
    "regression": "squared_error",
    "embedding": "recall_at_1",
}
# Ranks that the answer output of a task may have, its batch included.
_RANKS: Mapping[Task, tuple[int, ...]] = {
    "classification": (2,),
    "ctc": (3,),
    "binary": (1, 2),
    "regression": (1, 2),
    "embedding": (2,),
}


@dataclass(frozen=True)
class DynamicDim:
    """A dimension that varies between requests; TensorRT tunes its kernels for `opt`."""

    name: str
    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.opt <= self.max or self.max < 1:
            raise SpecError(f"dimension {self.name!r} needs 0 <= min <= opt <= max, not {self}")

    def __str__(self) -> str:  # as a spec in a file has it
        return f'{{ name = "{self.name}", min = {self.min}, opt = {self.opt}, max = {self.max} }}'


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network, batch dimension first where the network has one."""

    name: str
    dtype: str  # numpy's name: "uint8", "float32"
    shape: tuple[int | DynamicDim, ...]
    columns: tuple[str, ...] = ()  # of a table's rows: what the last dimension holds

    def __post_init__(self) -> None:
        if self.columns and (not self.shape or self.shape[-1] != len(self.columns)):
            raise SpecError(f"{self.name!r} names {len(self.columns)} columns, and is {self.said}")

    @property
    def said(self) -> str:
        """Return the shape for people, as in [batch (1 to 64), 1, 28, 28]."""
        return f"[{', '.join(str(d) if isinstance(d, int) else f'{d.name} ({d.min} to {d.max})' for d in self.shape)}]"

    def shape_at(self, end: Literal["min", "opt", "max"]) -> tuple[int, ...]:
        """Return the shape, batch first, with every dynamic dimension at one end of its range or at its `opt`."""
        return tuple(d if isinstance(d, int) else getattr(d, end) for d in self.shape)


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from the reference's, over all elements of the held-out split; None: no limit."""

    largest: float | None = None  # absolute difference of any element
    mean: float | None = None  # absolute difference
    p99: float | None = None  # 99 % of the absolute differences are not above it
    relative: float | None = None  # RMS difference, as a share of the reference's RMS

    def __post_init__(self) -> None:
        given = [value for value in (self.largest, self.mean, self.p99, self.relative) if value is not None]
        if not given:
            raise SpecError("a tolerance limits nothing", note="it has largest, mean, p99 or relative")
        for value in given:
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise SpecError(f"a tolerance of {value!r} is no number from 0 on")


@dataclass(frozen=True)
class Limits:
    """How far a precision variant may be from its reference on the whole held-out split."""

    tolerance: Mapping[str, float | Tolerance]  # output -> how far it may be; a number limits the largest difference
    agreement: float | None = None  # share of samples with the same answer, at least
    # The loss of the metric, its upper 95 % bound, at most: percentage points of a share, else in the metric's unit.
    drop: float | None = None
    computed_share: float = 1.0  # of convolutions and matrix products, computed in this precision, at least
    # {further metric: how much of it may be lost}, as `drop` has it of the first one.
    also: Mapping[str, float] = field(default_factory=dict)

    def of(self, output: str) -> Tolerance:
        """Return the tolerance of an output."""
        found = self.tolerance[output]
        return found if isinstance(found, Tolerance) else Tolerance(largest=found)


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
    # {column: what its numbers stand for}, as <family>_preprocess/vocabularies.json has all but the first.
    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metric: "Metric | None" = None  # the task's default unless given
    also: "tuple[Metric, ...]" = ()  # further ones, which are shown, and held to where limits have them
    threshold: float = 0.5  # of the task binary: a value from here on means yes
    agree_within: float | None = None  # of regression and embedding: how far apart two answers that agree may be
    batched: bool = True  # False: Triton sends each request as it is, and every shape is whole
    tensorrt: bool = True  # False: it has what TensorRT does not take, and ONNX Runtime serves it, on a CPU alone
    entities: "Declaration | None" = None  # what callers of its ensemble know, and what is looked up for them
    card: "Card | None" = None  # what it is for and what not, in words

    def __post_init__(self) -> None:
        for name in (self.model, self.family):
            if not is_model_name(name):
                raise SpecError(f"a model cannot be called {name!r}", note=f"a name has {RULE}")
        if self.metric is None and self.task in DEFAULT_METRICS:
            object.__setattr__(self, "metric", _metric(DEFAULT_METRICS[self.task]))
        names = {tensor.name for tensor in self.outputs}
        if not self.inputs:
            raise SpecError(f"{self.model} has no inputs")
        if not names:
            raise SpecError(f"{self.model} has no outputs")
        if self.answer and self.answer not in names:
            raise SpecError(f"{self.model}: the answer {self.answer!r} is no output", note=", ".join(sorted(names)))
        if self.entities is not None and self.entities.model not in (self.model, self.family):
            raise SpecError(
                f"{self.model}: its entities are of {self.entities.model!r}, which it does not serve",
                note=f"callers ask {self.family}, the ensemble, or {self.model}, the network",
            )
        self._check_batch()
        self._check_answer()
        for precision, limits in self.limits.items():
            self._check_limits(precision, limits, names)

    def _check_batch(self) -> None:
        for name, value in (("batch", self.batched), ("tensorrt", self.tensorrt)):
            if not isinstance(value, bool):
                raise SpecError(f"{self.model}: {name} is true or false, not {value!r}")
        for tensor in self.inputs:
            if any(isinstance(d, DynamicDim) and d.min < 1 for d in tensor.shape):
                raise SpecError(f"{self.model}: a dimension of the input {tensor.name!r} starts below 1")
        if not self.batched:
            return
        for tensor in self.inputs:
            if not tensor.shape or tensor.shape[0] != self.batch:
                raise SpecError(
                    f"{self.model}: the first dimension of every input is the same dynamic batch",
                    note=f"{tensor.name!r} begins with {_said(tensor)}",
                    hint=_BATCH_HINT,
                )
        for tensor in self.outputs:
            if not tensor.shape or tensor.shape[0] != self.batch:
                raise SpecError(
                    f"{self.model}: the output {tensor.name!r} has no row for each sample of a batch: "
                    f"it begins with {_said(tensor)}, not with the batch, {_said(self.inputs[0])}",
                    hint=_BATCH_HINT,
                )
        if self.batch.min != 1:
            raise SpecError(f"{self.model}: a batch starts at 1, as Triton sends single requests too")

    def _check_answer(self) -> None:
        for name, value in (("threshold", self.threshold), ("agree_within", self.agree_within)):
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise SpecError(f"{self.model}: {name} is {value!r}, which is no number")
        [answer] = [tensor for tensor in self.outputs if tensor.name == self.answer_output]
        ranks = _RANKS.get(self.task, ())
        # Without a batch an answer is that of one sample: with a leading 1, or without it.
        allowed = ranks if self.batched else (*ranks, *(rank - 1 for rank in ranks))
        if ranks and len(answer.shape) not in allowed:
            wanted = " or ".join(map(str, ranks))
            raise SpecError(
                f"{self.model}: the answer of the task {self.task} has {wanted} dimensions, {answer.name} has not"
            )
        last = answer.shape[-1] if len(answer.shape) > (1 if self.batched else 0) else 1
        if self.task == "classification" and last == 1:
            raise SpecError(
                f"{self.model}: the answer {answer.name} has one class, so that every sample has the same answer",
                hint='a yes or no has task = "binary", with a threshold; a number has task = "regression"',
            )
        if self.task == "binary" and len(answer.shape) == 2 and last != 1:
            raise SpecError(
                f"{self.model}: the answer of a binary task is one value a sample, {answer.name} has {last}",
                hint='two values, one for each class, have task = "classification"',
            )
        classes = 2 if self.task == "binary" else last
        if self.task in DISCRETE and self.labels and isinstance(classes, int) and len(self.labels) != classes:
            raise SpecError(
                f"{self.model}: {len(self.labels)} labels, and the answer {answer.name} has {classes} classes",
                hint="labels name the classes in their order, in a ctc task the blank first; or leave them out",
            )
        if self.task in ("regression", "embedding") and isinstance(last, DynamicDim) and len(answer.shape) > 1:
            raise SpecError(
                f"{self.model}: the answer of the task {self.task} has a fixed number of values, {answer.name} has not",
                hint='a sequence of numbers has task = "values"',
            )

    def _check_limits(self, precision: Precision, limits: Limits, names: Collection[str]) -> None:
        for figure in (limits.agreement, limits.drop, limits.computed_share, *limits.also.values()):
            if isinstance(figure, bool) or not isinstance(figure, int | float | None):
                raise SpecError(f"{self.model}: limits.{precision} has something that is no number")
        if strange := sorted(limits.also.keys() - {metric.name for metric in self.also}):
            raise SpecError(f"{self.model}: limits.{precision} limits {strange[0]}, which is no further metric of it")
        if missing := names - limits.tolerance.keys():
            raise SpecError(f"{self.model}: limits.{precision} has no tolerance for {', '.join(sorted(missing))}")
        for name in names:
            try:
                limits.of(name)
            except SpecError as error:
                raise SpecError(f"{self.model}: limits.{precision}, {name}: {error}") from None
        if self.task in DISCRETE and limits.agreement is None:
            raise SpecError(f"{self.model}: limits.{precision} has no agreement")
        if self.task in ("regression", "embedding") and limits.agreement is not None and self.agree_within is None:
            raise SpecError(
                f"{self.model}: limits.{precision} has an agreement, and nothing says what it means for a {self.task}",
                hint="agree_within: how far apart two answers that agree may be",
            )

    @property
    def batch(self) -> DynamicDim:
        """The batch dimension, shared by every input and output.

        Raises:
            SpecError: there is no input, its first dimension is fixed, or the network takes no batches.
        """
        dim = self.inputs[0].shape[0] if self.batched and self.inputs and self.inputs[0].shape else None
        if not isinstance(dim, DynamicDim):
            raise SpecError(
                f"{self.model}: the first dimension of every input must be a dynamic batch", hint=_BATCH_HINT
            )
        return dim

    @property
    def metrics(self) -> "tuple[Metric, ...]":
        """All metrics, the one it is chosen by first."""
        return (*(() if self.metric is None else (self.metric,)), *self.also)

    @property
    def without_tensorrt(self) -> str | None:
        """Why TensorRT is given none of it: by the spec's own word, or for a type that it has not; None: it is."""
        if not self.tensorrt:
            return "the spec says tensorrt = false"
        strange = [t for t in (*self.inputs, *self.outputs) if t.dtype not in TENSORRT_DTYPES]
        kind = "text" if strange and strange[0].dtype == "object" else strange[0].dtype if strange else ""
        return f"TensorRT has no {kind}, as {strange[0].name} is" if strange else None

    @property
    def max_batch(self) -> int:
        """Triton's max_batch_size: the most samples of a batch, 0 where the network takes none."""
        return self.batch.max if self.batched else 0

    @property
    def answer_output(self) -> str:
        """The name of the output that the answer is read from."""
        return self.answer or self.outputs[0].name

    @property
    def usual_batch(self) -> int:
        """The batch size that the engine is tuned for; 1 where the network takes none."""
        return self.batch.opt if self.batched else 1

    @property
    def batch_sizes(self) -> list[int]:
        """The batch sizes that stand for all: one sample, what the engine is tuned for, and the most it takes."""
        return sorted({self.batch.min, self.batch.opt, self.batch.max}) if self.batched else [1]


def _metric(name: str) -> "Metric":
    from contracts.judging import metric

    return metric.named(name)


def _said(tensor: TensorSpec) -> str:
    if not tensor.shape:
        return "nothing, as it is a scalar"
    first = tensor.shape[0]
    return f"{first.name!r} ({first.min} to {first.max})" if isinstance(first, DynamicDim) else str(first)
