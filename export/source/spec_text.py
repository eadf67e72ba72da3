"""The text of a first spec: TOML with a word beside every line that only its owner can know."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.judging import paired
from contracts.spec import TENSORRT_DTYPES, USUAL_PRECISIONS, DynamicDim, Precision, Task, TensorSpec

# As shares of the largest value that the module gave: a first guess, wide enough for a sound conversion and too narrow
# for a wrong one. `relative` is the RMS difference as a share of the RMS.
_LARGEST: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2, "int8": 2.5e-1}
_RELATIVE: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1e-1}
_AGREEMENT: Mapping[Precision, float] = {"fp32": 0.999, "fp16": 0.99, "int8": 0.97}
_DROP_POINTS: Mapping[Precision, float] = {"fp32": 0.5, "fp16": 1.0, "int8": 2.0}
_DROP_SHARE: Mapping[Precision, float] = {"fp32": 0.01, "fp16": 0.02, "int8": 0.1}  # of the module's own squared error
_WORDS: Mapping[Precision, str] = {
    "fp32": "the same arithmetic in another runtime",
    "fp16": "half of the bits",
    "int8": "a quarter of the bits; refused alone where it does not hold them",
}


@dataclass(frozen=True)
class Judged:
    """What the samples' labels say of the task."""

    task: Task
    answer: str = ""
    threshold: float | None = None  # of a binary task
    error: float | None = None  # the module's own squared error, of a regression


@dataclass(frozen=True)
class Draft:
    """Everything that a first spec says."""

    model: str
    origin: str  # "price:make_model and samples.npz"
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    batched: bool
    by_name: bool  # `forward` knows the names of the inputs
    scales: Mapping[str, float]  # {output: the largest absolute value that the module gave}
    judged: Judged
    labelled: bool
    held_out: int  # samples that a loss is shown on: of yes and no the rarer


def text(draft: Draft) -> str:
    """Return the spec as TOML."""
    parts = [
        f"# What {draft.model} promises. A first spec, from {draft.origin}: look at every line with CHECK.\n"
        "# docs/how-to/bring-your-own-graph.md has every entry there is.\n"
        f"model = {_quoted(draft.model)}  # its name in the model repository",
        _task(draft),
        *(_tensor("inputs", tensor, _input_words(draft)) for tensor in draft.inputs),
        *(_tensor("outputs", tensor, "") for tensor in draft.outputs),
        "# How far a precision may be from the module itself, on the samples that are held out. CHECK them all: these\n"
        "# are shares of what the module gave for the samples, and nobody knows but you what a difference costs.",
        *(_limits(draft, precision) for precision in USUAL_PRECISIONS),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _task(draft: Draft) -> str:
    judged = draft.judged
    lines = [f"task = {_quoted(judged.task)}  # {_task_words(draft)}"]
    if judged.answer:
        lines.append(f"answer = {_quoted(judged.answer)}  # the output that the answer is read from")
    if judged.threshold is not None:
        lines.append(f"threshold = {judged.threshold}  # CHECK: from here on it is a yes")
    if judged.task == "regression":
        lines.append(
            "# agree_within = 0.1  # how far apart two answers may be and still be the same to whoever uses them;\n"
            "#                       the limits below may then have an agreement = 0.99"
        )
    if not draft.batched:
        lines.append("batch = false  # it takes one sample at a time, and is served so")
    if strange := _not_for_tensorrt(draft):
        lines.append(f"tensorrt = false  # {strange}: ONNX Runtime serves it, on a CPU")
    return "\n".join(lines)


def _not_for_tensorrt(draft: Draft) -> str:
    """Say what TensorRT does not take; "" where there is nothing."""
    for tensor in (*draft.inputs, *draft.outputs):
        if tensor.dtype not in TENSORRT_DTYPES:
            return f"TensorRT has no {tensor.dtype}, as {tensor.name} is"
        if not tensor.shape:
            return f"TensorRT's backend has no scalars, as {tensor.name} is one"
        if any(isinstance(d, DynamicDim) and d.min == 0 for d in tensor.shape):
            return f"how many rows {tensor.name} has depends on values"
    return ""


def _task_words(draft: Draft) -> str:
    if draft.judged.task == "values" and draft.labelled:
        return "CHECK: the labels fit more than one task, or none; until you name it only the numbers are compared"
    if draft.judged.task == "values":
        return (
            "CHECK: without labels only the numbers are compared; or classification, ctc, binary, regression, embedding"
        )
    return "CHECK: guessed from the labels; or classification, ctc, binary, regression, embedding, values"


def _input_words(draft: Draft) -> str:
    return "" if draft.by_name or len(draft.inputs) == 1 else "  # CHECK: forward gets its inputs in this order"


def _tensor(kind: str, tensor: TensorSpec, words: str) -> str:
    dims = [_dim(d) for d in tensor.shape]
    shape = f"[{', '.join(dims)}]"
    if any(isinstance(d, DynamicDim) for d in tensor.shape) and len(shape) > 60:
        shape = "[\n" + "".join(f"  {dim},{_dim_words(d)}\n" for dim, d in zip(dims, tensor.shape, strict=True)) + "]"
    elif kind == "inputs" and any(isinstance(d, DynamicDim) for d in tensor.shape):
        shape += "  # CHECK: the range of what varies; it is fastest at opt"
    return f"[[{kind}]]\nname = {_quoted(tensor.name)}{words}\ndtype = {_quoted(tensor.dtype)}\nshape = {shape}"


def _dim(dim: int | DynamicDim) -> str:
    if isinstance(dim, int):
        return str(dim)
    return f"{{ name = {_quoted(dim.name)}, min = {dim.min}, opt = {dim.opt}, max = {dim.max} }}"


def _dim_words(dim: int | DynamicDim) -> str:
    if isinstance(dim, int):
        return ""
    if dim.name == "batch":
        return "  # CHECK: the most samples that are computed at once"
    return "  # CHECK: as seen in the samples; it is fastest at opt"


def _points(metric: str, held_out: int, precision: Precision) -> str:
    """Limit what a share may lose to what so many samples can show at all."""
    points, least = _DROP_POINTS[precision], math.ceil(1000 * paired.tango_bound(0, 0, held_out)) / 10
    if least <= points / 2:
        return f"drop = {points}  # percentage points of {metric} that may be lost, at most"
    few = f"{held_out} held-out samples{' of the rarer class' if metric == 'AUC' else ''} cannot show less than {least}"
    return f"drop = {points + least:.1f}  # CHECK: percentage points of {metric} that may be lost; {few}: bring more"


def _limits(draft: Draft, precision: Precision) -> str:
    tolerances = [f"{_key(t.name)} = {_tolerance(t, draft.scales[t.name], precision)}" for t in draft.outputs]
    lines = [f"[limits.{precision}] # {_WORDS[precision]}"]
    judged = draft.judged
    if judged.task in ("classification", "binary"):
        lines.append(f"agreement = {_AGREEMENT[precision]}  # share of the samples with the same answer, at least")
    if judged.task == "classification":
        lines.append(_points("accuracy", draft.held_out, precision))
    if judged.task == "binary":
        lines.append(_points("AUC", draft.held_out, precision))
    if judged.error:
        drop = _rounded(judged.error * _DROP_SHARE[precision])
        lines.append(f"drop = {drop}  # what the squared error may grow by; the module's own is {judged.error:.4g}")
    if precision == "int8":
        lines.append("computed_share = 0.5  # of convolutions and matrix products that must really run in 8 bits")
    return "\n".join([*lines, f"[limits.{precision}.tolerance]", *tolerances])


def _tolerance(tensor: TensorSpec, scale: float, precision: Precision) -> str:
    if not tensor.dtype.startswith("float"):  # an index or a flag: some may flip
        return f"{{ mean = {_rounded(max(scale, 1.0) * _RELATIVE[precision])} }}"
    largest = _rounded((scale or 1.0) * _LARGEST[precision])
    return f"{{ largest = {largest}, relative = {_RELATIVE[precision]} }}"


def _rounded(value: float) -> str:
    """Return a number with two digits, rounded up, as TOML takes it."""
    if value <= 0 or not math.isfinite(value):
        return "1e-6"
    digits = 1 - math.floor(math.log10(value))
    up = math.ceil(value * 10**digits) / 10**digits if digits < 300 else value
    return repr(float(f"{up:.2g}"))


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _quoted(name)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
