"""An ONNX graph from a trained module, and the module itself as the reference of every variant.

The graph takes what the client's preprocessing emits and returns what the module returns. It is FP32; FP16 and INT8
are made from it (export/precision), as they are from a graph that was trained elsewhere.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contracts.samples import Batch
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export import graphs
from export.errors import GraphError
from export.proof import contract
from export.proof.runners import Runner
from export.source.base import fitted
from export.source.served_module import ServedModule, dtype_of, evaluating, without_fast_paths

# 19 is the first with per-axis float16 QuantizeLinear; onnxruntime 1.24 and TensorRT 11 both read 20.
_OPSET = 20
# A graph whose answers are further from the module's than this share of their RMS computes something else. What
# rounding may cost is the limits' to say.
_ANOTHER_FUNCTION = 0.01
_NOTHING = 1e-6  # a difference of this size: of a probability of 1e-9 onnxruntime makes 0
# While it is exported a tensor is called so: an output `embedding` would have the name of an operator's result.
_PLAIN = "__{}__"
# Scopes that are no module of theirs.
_SCOPES = re.compile("'(served|_empty_nn_module_stack_from_metadata_hook)'")

Exporter = Callable[[ServedModule, ModelSpec, tuple[Tensor, ...], Path], onnx.ModelProto]  # may use the path


def graph_from_module(module: nn.Module, spec: ModelSpec, path: Path, example: Batch | None = None) -> Path:
    """Write `module` as an ONNX graph to `path`, every DynamicDim of the spec dynamic.

    torch.export makes it. Where that fails, or makes a graph that is not the module at every size (recurrent layers may
    be frozen at the example's length, pytorch#191855), the older TorchScript exporter is tried. It records one way
    through the module: where that depends on values or sizes, it is not believed.

    Args:
        example: Real inputs, cut and repeated to the `opt` of every dimension; zeros unless given.

    Raises:
        ModuleError: the module does not take or give what the spec says.
        GraphError: PyTorch could not export it, or no graph of it gives what it gives.
    """
    served = ServedModule.of(module, spec).eval()
    inputs = tuple(_example(tensor, example) for tensor in spec.inputs)
    faults = []
    for name, export in _EXPORTERS.items():
        try:
            model = export(served, spec, inputs, path)
            onnx.save(graphs.pinned(graphs.normalise(_in_its_own_terms(model)), spec), path)
            _check(path, served, spec, inputs)
        except Exception as error:  # whatever the module's own code, torch.export or onnx may raise
            faults.append((name, error))
        else:
            return path
    path.unlink(missing_ok=True)
    raise _not_exported(spec, faults) from faults[0][1]


def module_runner(module: nn.Module, spec: ModelSpec) -> Runner:
    """Make a runner of `module` itself, in PyTorch: what every variant of it is compared with.

    Raises:
        ModuleError: `forward` cannot be called with the inputs of the spec.
    """
    served = ServedModule.of(module, spec).eval()

    def run(batch: Batch) -> Batch:
        with evaluating():
            outputs = served(*(_tensor(batch[tensor.name]) for tensor in spec.inputs))
        return {tensor.name: output.numpy() for tensor, output in zip(spec.outputs, outputs, strict=True)}

    return run


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values))  # a copy: a module may write into its inputs


def _example(tensor: TensorSpec, example: Batch | None) -> Tensor:
    # No dynamic dimension of 1: torch.export would treat it as the constant 1.
    shape = tuple(d if isinstance(d, int) else max(d.opt, 2) for d in tensor.shape)
    if example is None:
        return torch.zeros(shape, dtype=dtype_of(tensor.dtype))
    return _tensor(fitted(example[tensor.name], shape))


def _by_torch_export(served: ServedModule, spec: ModelSpec, inputs: tuple[Tensor, ...], path: Path) -> onnx.ModelProto:
    dims: dict[str, torch.export.Dim] = {}
    with _quiet(), without_fast_paths():
        program = torch.onnx.export(
            served,
            inputs,
            dynamo=True,
            dynamic_shapes=(tuple(_dynamic_dims(tensor, dims) for tensor in spec.inputs),),
            input_names=[_PLAIN.format(t.name) for t in spec.inputs],
            output_names=[_PLAIN.format(t.name) for t in spec.outputs],
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None  # dynamo=True and no file: always a program
    return program.model_proto


def _by_torchscript(served: ServedModule, spec: ModelSpec, inputs: tuple[Tensor, ...], path: Path) -> onnx.ModelProto:
    with _quiet(), without_fast_paths(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.onnx.export(
            served,
            inputs,
            path,
            dynamo=False,
            dynamic_axes={
                _PLAIN.format(t.name): {
                    axis: dim.name for axis, dim in enumerate(t.shape) if isinstance(dim, DynamicDim)
                }
                for t in (*spec.inputs, *spec.outputs)
            },
            input_names=[_PLAIN.format(t.name) for t in spec.inputs],
            output_names=[_PLAIN.format(t.name) for t in spec.outputs],
            opset_version=_OPSET,
        )
    warning = torch.jit.TracerWarning  # type: ignore[attr-defined]  # torch's stub does not export it
    # PyTorch's own layers branch on what no request changes, such as the rank of their inputs.
    if doubts := [one for one in told if issubclass(one.category, warning) and not _of_torch(one.filename)]:
        said, place = str(doubts[0].message).partition(" might")[0], f"{doubts[0].filename}, line {doubts[0].lineno}"
        raise GraphError(f"one way through the module was recorded, and there are others: {said}, {place}")
    return onnx.load(path)


def _of_torch(file: str) -> bool:
    return Path(file).is_relative_to(Path(torch.__file__).parent)


_EXPORTERS: Mapping[str, Exporter] = {"torch.export": _by_torch_export, "TorchScript": _by_torchscript}


def _dynamic_dims(tensor: TensorSpec, dims: dict[str, torch.export.Dim]) -> dict[int, torch.export.Dim]:
    """Return {axis: its dimension}; those of one name, in whatever input, are one."""
    found = {}
    for axis, dim in enumerate(tensor.shape):
        if isinstance(dim, DynamicDim):
            # One of a single size cannot be dynamic: the graph takes more, and the spec says what is sent.
            dims.setdefault(dim.name, torch.export.Dim(dim.name, min=dim.min, max=max(dim.max, 2)))
            found[axis] = dims[dim.name]
    return found


def _check(path: Path, served: ServedModule, spec: ModelSpec, inputs: tuple[Tensor, ...]) -> None:
    """Hold a graph to the spec, and run it and the module with every dynamic dimension at either end.

    Raises:
        GraphError: a dimension became a constant, or the two give different things.
    """
    if not (gate := contract.graph_gate(onnx.load(path, load_external_data=False), spec)).passed:
        raise GraphError(gate.detail)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is told by the error
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in spec.outputs]
    for end in ("min", "max"):
        batch = {
            tensor.name: fitted(values.numpy(), tensor.shape_at(end))
            for tensor, values in zip(spec.inputs, inputs, strict=True)
        }
        found = dict(zip(names, session.run(names, batch), strict=True))
        with evaluating():
            expected = served(*(_tensor(values) for values in batch.values()))
        for tensor, values in zip(spec.outputs, expected, strict=True):
            _compare(tensor.name, found[tensor.name], values.numpy(), f"with every dimension at its {end}")


def _compare(name: str, found: NDArray[Any], expected: NDArray[Any], where: str) -> None:
    if found.shape != expected.shape:
        raise GraphError(f"{name} of the graph has shape {list(found.shape)}, not {list(expected.shape)}, {where}")
    if not expected.size or not np.isfinite(expected).all():  # not finite: the pipeline says so of the reference
        return
    true = expected.astype(np.float64)
    scale = float(np.sqrt(np.square(true).mean())) or 1.0
    error = float(np.sqrt(np.square(found.astype(np.float64) - true).mean()))
    if not error <= max(_ANOTHER_FUNCTION * scale, _NOTHING):
        raise GraphError(f"{name} of the graph differs from the module's by {error / scale:.1%} of its RMS, {where}")


def _in_its_own_terms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give, in place, the tensors of the spec their names, and nodes and weights those that the module has for them."""
    for node in model.graph.node:
        for noted in node.metadata_props:
            if noted.key == "pkg.torch.onnx.name_scopes":
                noted.value = _SCOPES.sub("''", noted.value).replace("'served.", "'")
        node.name = node.name.replace("/served/", "/", 1)
    plain = [value.name for value in (*model.graph.input, *model.graph.output)]
    names = {name: name.removeprefix("__").removesuffix("__") for name in plain}
    weights = [initializer.name for initializer in model.graph.initializer]
    names |= {name: name.removeprefix("served.") for name in weights if name.startswith("served.")}
    taken = set(names.values())
    for node in model.graph.node:
        names |= {name: f"{name}.within" for name in node.output if name in taken and name not in names}
    _rename(model.graph, names)
    return model


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename the tensors of a graph and of the graphs within it, in place."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names)


def _not_exported(spec: ModelSpec, faults: Sequence[tuple[str, Exception]]) -> GraphError:
    notes = "; ".join(f"{name}: {_telling(error)}" for name, error in faults)
    said = " ".join(str(error) for _, error in faults)
    return GraphError(f"PyTorch could not export {spec.model} to ONNX", note=notes, hint=_hint(said))


# What PyTorch says -> what to do.
_HINTS = {
    "baked in": "the module fixes a dimension that the spec has dynamic, by a constant in a reshape or a Python int "
    "from a shape, or by a loop over it: take sizes from the tensor's shape where they are used, or make it a number "
    "in the spec",
    "Constraints violated": "the module needs more of a dimension than the spec says: mend its range or its name in "
    "the spec (dimensions that are always equal have the same name), or make it a number",
    "data-dependent": "the module branches on the values of a tensor: torch.where computes both branches, torch.cond "
    "keeps one",
    "dynamic control flow": "the module branches on the values of a tensor: torch.where computes both branches, "
    "torch.cond keeps one",
    "No ONNX function found": "an operator has no counterpart in ONNX: write it with others in the module, or export "
    "the graph yourself with a custom_translation_table and bring it with --onnx",
    "differs from": "the module does something that no exporter can follow, such as keeping state between calls",
}


def _hint(said: str) -> str:
    found = (hint for sign, hint in _HINTS.items() if sign in said)
    return next(found, "look for Python control flow on tensor values in the module's forward pass")


def _telling(error: Exception) -> str:
    """Return the first line of an error that says something of the module: PyTorch's begin with advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "## Exception summary" in lines:
        lines = lines[lines.index("## Exception summary") + 1 :]
    if lines and "Constraints violated" in lines[0]:
        lines = [line.removeprefix("- ") for line in lines[1:]] or lines
    return re.sub(r"^<class '.*?'>: ", "", lines[0]) if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' advice and PyTorch's own deprecations off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # "torchvision is not installed"; the source of every failed guard
        # torch.export prints the graph that it could not finish.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
