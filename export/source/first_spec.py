"""A first spec of a PyTorch module, from its signature, the samples, and what it gives for them.

It is a start, written as TOML with a word on every line that only its owner can know.
"""

import inspect
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from contracts import layout
from contracts.errors import SpecError
from contracts.files import spec_file
from contracts.judging import paired
from contracts.names import MODEL_NAME
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export.errors import ModuleError, SampleError
from export.source.base import fitted
from export.source.factory import said, where
from export.source.samples import files_of, load_arrays
from export.source.served_module import Named, ServedModule, evaluating, shapes_of
from export.source.spec_text import Draft, Judged, text

BATCH = DynamicDim("batch", 1, 8, 32)
_ASKED = 256  # samples of a file, for the scale of the outputs and the task

Arrays = dict[str, NDArray[Any]]
Sizes = Mapping[str, int]  # {dimension: its size}


@dataclass(frozen=True)
class _Seen:
    """What is known of a module before it has a spec."""

    served: ServedModule
    groups: Sequence[Arrays]  # the inputs of each file, [N, …]
    inputs: tuple[TensorSpec, ...]
    batched: bool

    def ask(self, arrays: Arrays) -> Named:
        """Return what the module gives for a batch, or without batches for one sample.

        Raises:
            ModuleError: its own code does not take them.
        """
        try:
            with evaluating():
                return self.served.named(*(torch.from_numpy(np.array(arrays[t.name])) for t in self.inputs))
        except Exception as error:  # their code
            raise ModuleError(
                f"the module fails at other sizes than those of a file: {said(error)}",
                note="; ".join(filter(None, (shapes_of(arrays), where(error)))),
                hint="sizes that belong together need a spec of your own: dimensions of the same name are equal",
            ) from error

    def at(self, sizes: Sizes) -> Named:
        """Return what it gives for real inputs that are cut and repeated to these sizes."""
        arrays = {}
        for tensor in self.inputs:
            shape = tuple(d if isinstance(d, int) else sizes[d.name] for d in tensor.shape)
            values = self.groups[0][tensor.name]
            arrays[tensor.name] = fitted(values if self.batched else np.asarray(values[0]), shape)
        return self.ask(arrays)


def write(
    module: nn.Module, factory: str, samples: Sequence[Path], directory: Path, say: Callable[[str], None]
) -> ModelSpec:
    """Write the first spec of a module into `directory`, as MODEL.toml, and show it.

    Raises:
        SpecError: the file is there already, or no spec can be made.
        ModuleError: the module does not take the samples, or gives what no graph can give.
        SampleError: the samples are no .npz, or differ in their arrays.
    """
    name = _model_name(factory, module)
    path = directory / f"{name}.toml"
    if path.exists():
        raise SpecError(
            f"{layout.shown(path)} is there already",
            hint=f"export with it: --spec {layout.shown(path)}; or move it away, and a first spec is written anew",
        )
    written = text(_draft(module, name, factory, samples))
    path.write_text(written, encoding="utf-8")
    try:
        found = spec_file.read(path)
    except SpecError:
        path.unlink()
        raise
    say(f"Wrote a first spec, {layout.shown(path)}:\n")
    say(written)
    say(f"Look at every line with CHECK, and export with it from now on: --spec {layout.shown(path)}\n")
    return found


def _draft(module: nn.Module, name: str, factory: str, samples: Sequence[Path]) -> Draft:
    paths = files_of(samples)
    files = [load_arrays(path) for path in paths]
    inputs = _input_names(module, files, paths)
    groups = [{key: arrays[key] for key in inputs} for arrays in files]
    served = ServedModule(module, inputs, ())
    batched = _takes_batches(served, groups[0])
    seen = _Seen(served, groups, _input_specs(groups, batched, apart=True), batched)
    try:
        outputs = _outputs(seen)
    except ModuleError:  # two axes of one input that were always equal may have to be, as those of an adjacency
        seen = _Seen(served, groups, _input_specs(groups, batched, apart=False), batched)
        outputs = _outputs(seen)
    answers = [_answers(seen, outputs, group) for group in groups]
    labels = [arrays["labels"][:_ASKED] for arrays in files if "labels" in arrays and "labels" not in inputs]
    judged = _judged(outputs, answers, labels) if batched and len(labels) == len(groups) else Judged("values")
    scales = {
        t.name: max(float(np.abs(a[t.name].astype(np.float64)).max(initial=0.0)) for a in answers) for t in outputs
    }
    return Draft(
        model=name,
        origin=f"{factory} and {', '.join(path.name for path in paths)}",
        inputs=seen.inputs,
        outputs=outputs,
        batched=batched,
        by_name=served.by_name,
        scales=scales,
        judged=judged,
        labelled=bool(labels),
        held_out=_held_out(files, seen.groups, judged),
    )


def _held_out(files: Sequence[Arrays], groups: Sequence[Arrays], judged: Judged) -> int:
    """Count the samples that a loss will be shown on: the second half of each file; of yes and no the rarer."""
    if judged.task == "binary":
        held = np.concatenate([arrays["labels"][len(arrays["labels"]) // 2 :].ravel() for arrays in files]) > 0
        return paired.rarer(held)
    return sum(len(next(iter(group.values()))) - len(next(iter(group.values()))) // 2 for group in groups)


def _model_name(factory: str, module: nn.Module) -> str:
    """Return the name of the Python module that the callable is in, or where that says nothing, of the class."""
    name = factory.partition(":")[0].rpartition(".")[2]
    if name in {"model", "models", "net", "network", "module", "main", "__main__"}:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(module).__name__).lower()
    return name if MODEL_NAME.fullmatch(name) else "model"


def _input_names(module: nn.Module, files: Sequence[Arrays], paths: Sequence[Path]) -> list[str]:
    """Return the arrays that are inputs, in the order of `forward` where its parameters have their names.

    Raises:
        SampleError: the files differ in their arrays, their dtypes or their ranks.
    """
    kinds = [{key: (values.dtype, values.ndim) for key, values in arrays.items()} for arrays in files]
    if odd := [path for path, kind in zip(paths, kinds, strict=True) if kind != kinds[0]]:
        raise SampleError(f"{odd[0]} does not hold what {paths[0]} holds", note="names, dtypes and ranks are the same")
    parameters = inspect.signature(module.forward).parameters if not isinstance(module, torch.jit.ScriptModule) else {}
    needed = {name for name, p in parameters.items() if p.default is p.empty}
    names = [key for key in files[0] if not key.startswith("expected.") and (key != "labels" or key in needed)]
    if not names:
        raise SampleError(f"{paths[0]} holds no inputs", note=", ".join(files[0]) or "nothing")
    if scalars := [key for key in names if files[0][key].ndim == 0]:
        raise SampleError(
            f"{scalars[0]} in {paths[0]} is one number", note="an array has a first axis of samples, [N, …]"
        )
    return [name for name in parameters if name in names] if set(names) <= parameters.keys() else names


def _takes_batches(served: ServedModule, arrays: Arrays) -> bool:
    """Tell whether the module answers a batch with a row for each sample; else it is asked sample by sample.

    Raises:
        ModuleError: it takes the samples in neither way.
    """

    def shapes(count: int | None) -> list[tuple[int, ...]]:
        tensors = [torch.from_numpy(np.array(v[0] if count is None else v[:count])) for v in arrays.values()]
        with evaluating():
            return [tuple(tensor.shape) for _, tensor in served.named(*tensors)]

    try:
        two, three = shapes(2), shapes(3)
        if all(a[:1] == (2,) and b[:1] == (3,) for a, b in zip(two, three, strict=True)):
            return True
        reason = f"of two samples it gives {', '.join(str(list(shape)) for shape in two)}"
    except Exception as error:  # their code, and whatever PyTorch says of the shapes
        reason = said(error)
        line = where(error)
    else:
        line = None
    try:
        shapes(None)
    except Exception as error:
        raise ModuleError(
            f"the module does not take the samples: {reason}",
            note="; ".join(filter(None, (shapes_of(arrays), line))),
            hint="an array has a first axis of samples, and then the shape of one",
        ) from error
    return False


def _input_specs(groups: Sequence[Arrays], batched: bool, *, apart: bool) -> tuple[TensorSpec, ...]:
    """Take what differs between the files for dynamic; axes of different inputs that always agree are one dimension.

    Args:
        apart: Axes of the same input never are, as height and width of images that happen to be square.
    """
    counts = [len(next(iter(group.values()))) for group in groups]
    known: dict[tuple[int, ...], list[DynamicDim]] = {}
    found = []
    for name in groups[0]:
        shape: list[int | DynamicDim] = [BATCH] if batched else []
        for axis in range(1, groups[0][name].ndim):
            sizes = tuple(group[name].shape[axis] for group in groups)
            if len(set(sizes)) == 1:
                shape.append(sizes[0])
                continue
            alike = known.setdefault(sizes, [])
            free = [dim for dim in alike if dim not in shape or not apart]
            if not free:
                typical = statistics.median_low([s for s, n in zip(sizes, counts, strict=True) for _ in range(n)])
                taken = {dim.name for dims in known.values() for dim in dims}
                free = [
                    DynamicDim(_unused(_axis_name(groups[0][name].ndim, axis), taken), min(sizes), typical, max(sizes))
                ]
                alike += free
            shape.append(free[0])
        found.append(TensorSpec(name, str(groups[0][name].dtype), tuple(shape)))
    return tuple(found)


def _axis_name(rank: int, axis: int) -> str:
    return {2: "height", 3: "width"}.get(axis, "length") if rank == 4 else "length"


def _unused(name: str, taken: set[str]) -> str:
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, 100))) if n not in taken)


def _outputs(seen: _Seen) -> tuple[TensorSpec, ...]:
    """Describe what the module gives, by asking it at several sizes of every dynamic dimension.

    Raises:
        ModuleError: it gives what no graph can give, or other outputs at other sizes.
    """
    dims = {d.name: d for tensor in seen.inputs for d in tensor.shape if isinstance(d, DynamicDim)}
    # A batch is not asked for at its ends: 2, 3 and 5 tell it from what is constant as well.
    ends = {n: (3, 2, 5) if d is BATCH else (d.min, d.opt, d.max) for n, d in dims.items()}
    base = {name: opt for name, (_, opt, _) in ends.items()}
    typical = seen.at(base)
    moved = {name: [seen.at({**base, name: size}) for size in (low, high)] for name, (low, _, high) in ends.items()}
    whole = [seen.at({name: sizes[end] for name, sizes in ends.items()}) for end in (0, 1, 2)]
    rows = [seen.ask({k: v[at] for k, v in seen.groups[0].items()}) for at in range(8)] if not seen.batched else []
    found = []
    for at, (name, tensor) in enumerate(typical):
        others = [answer[at][1] for answers in moved.values() for answer in answers if len(answer) == len(typical)]
        if len(others) != 2 * len(moved) or any(other.ndim != tensor.ndim for other in others):
            raise ModuleError(f"the module gives other outputs, or of other ranks, for other sizes: {name}")
        shape: list[int | DynamicDim] = []
        for axis in range(tensor.ndim):
            follows = [
                n for n, answers in moved.items() if {a[at][1].shape[axis] for a in answers} != {tensor.shape[axis]}
            ]
            if len(follows) == 1 and all(
                answer[at][1].shape[axis] == size
                for answer, size in zip(moved[follows[0]], ends[follows[0]][::2], strict=True)
            ):
                shape.append(dims[follows[0]])
            elif follows:
                low, opt, high = sorted(answer[at][1].shape[axis] for answer in whole)
                shape.append(DynamicDim(f"{name}_{'_'.join(follows)}", low, opt, high))
            elif len(sizes := {answer[at][1].shape[axis] for answer in rows}) > 1:
                shape.append(DynamicDim(f"{name}_rows", 0, statistics.median_low(sizes), max(sizes)))
            else:
                shape.append(tensor.shape[axis])
        found.append(TensorSpec(name, _dtype(name, tensor.dtype), tuple(shape)))
    return tuple(found)


def _dtype(name: str, dtype: torch.dtype) -> str:
    if dtype.is_complex:
        raise ModuleError(f"the module gives {name} as complex numbers", hint="torch.view_as_real(…) gives two of each")
    if dtype == torch.bfloat16:
        raise ModuleError(
            f"the module gives {name} as bfloat16, which numpy has not", hint="give it as float32: .float()"
        )
    return str(dtype).removeprefix("torch.")


def _answers(seen: _Seen, outputs: Sequence[TensorSpec], group: Arrays) -> Arrays:
    """Return what the module gives for the first samples of a file: {output: [n, …]}, without batches [1, …]."""
    count = min(_ASKED, len(next(iter(group.values()))))
    starts = range(0, count, BATCH.max) if seen.batched else range(1)
    parts = [
        seen.ask(
            {
                name: values[s : min(s + BATCH.max, count)] if seen.batched else values[s]
                for name, values in group.items()
            }
        )
        for s in starts
    ]
    return {
        tensor.name: np.concatenate([part[at][1].numpy() for part in parts])
        if seen.batched
        else parts[0][at][1].numpy()
        for at, tensor in enumerate(outputs)
    }


def _judged(outputs: Sequence[TensorSpec], answers: Sequence[Arrays], labels: Sequence[NDArray[Any]]) -> Judged:
    """Guess the task from the labels, where they leave one possibility; else it is "values"."""
    if any(part.dtype.kind not in "biuf" for part in labels):
        return Judged("values")
    flat = np.concatenate([part.reshape(-1) for part in labels])
    flags = bool(np.isin(flat, (0, 1)).all())
    for tensor in outputs:
        if not tensor.dtype.startswith("float"):
            continue
        values = [part[tensor.name] for part in answers]
        if _is_classification(tensor, labels, flat):
            return Judged("classification", tensor.name)
        if len(tensor.shape) > 2 or any(v.size != y.size for v, y in zip(values, labels, strict=True)):
            continue
        every = np.concatenate([part.reshape(-1) for part in values]).astype(np.float64)
        if flags and (len(tensor.shape) == 1 or tensor.shape[1] == 1):
            inside = bool((every >= 0).all() and (every <= 1).all())
            return Judged("binary", tensor.name, threshold=0.5 if inside else 0.0)
        error = float(np.square(every - flat.astype(np.float64)).mean())
        return Judged("regression", tensor.name, error=error)
    return Judged("values")


def _is_classification(tensor: TensorSpec, labels: Sequence[NDArray[Any]], flat: NDArray[Any]) -> bool:
    if len(tensor.shape) != 2 or not isinstance(classes := tensor.shape[1], int) or classes < 2:
        return False
    return flat.dtype.kind in "iu" and labels[0].ndim == 1 and flat.min() >= 0 and flat.max() < classes
