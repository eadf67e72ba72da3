"""An nn.Module as it is served: it takes the spec's inputs and gives the spec's outputs, as tensors in their order.

What people write takes its inputs by order or by name and returns a tensor, a tuple, a dict, a dataclass or a
ModelOutput, nested or with Nones in it. A graph has none of that.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from contracts.samples import Batch
from contracts.spec import ModelSpec
from export.errors import ModuleError

Named = list[tuple[str, Tensor]]  # what a module gave, in its order


class ServedModule(nn.Module):
    """A module between the inputs and the outputs of a graph.

    Args:
        module: Its `forward` takes tensors by the names of `inputs`, if its signature has them, else in their order.
        outputs: The names that the graph will have; of a dict or a dataclass those entries, else all in their order.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.served = module
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.by_name = takes_by_name(module, inputs)

    @staticmethod
    def of(module: nn.Module, spec: ModelSpec) -> "ServedModule":
        """Make one between the tensors of `spec`."""
        return ServedModule(module, [t.name for t in spec.inputs], [t.name for t in spec.outputs])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of their names.

        Raises:
            ModuleError: the module gives something else.
        """
        found = _chosen(self.named(*inputs), self.outputs)
        # A tensor that is given twice, or is an input handed through, would get one name in the graph.
        seen: list[Tensor] = list(inputs)
        for at, tensor in enumerate(found):
            if any(tensor is other for other in seen):
                found[at] = tensor.clone()
            seen.append(tensor)
        return tuple(found)

    def named(self, *inputs: Tensor) -> Named:
        """Call the module; return all tensors that it gives, with the names that it has for them.

        Raises:
            ModuleError: it gives none.
        """
        by_name = dict(zip(self.inputs, inputs, strict=True)) if self.by_name else {}
        result = self.served(**by_name) if by_name else self.served(*inputs)
        if not (found := named_tensors(result)):
            raise ModuleError(
                f"{type(self.served).__name__}.forward returns no tensor, but a {type(result).__name__}",
                hint="a module that returns tensors, a tuple or a dict of them can be served: wrap it in one",
            )
        return found


def takes_by_name(module: nn.Module, names: Sequence[str]) -> bool:
    """Tell whether `forward` is called with these inputs by name; else by their order.

    Raises:
        ModuleError: it can be called with them in neither way.
    """
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # a scripted module has none
        return False
    parameters = signature.parameters.values()
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if set(names) <= known and _binds(signature, (), names):
        return True
    if _binds(signature, names, ()):
        return False
    if keywords and _binds(signature, (), names):
        return True
    raise ModuleError(
        f"{type(module).__name__}.forward cannot be called with {', '.join(names)}",
        note=f"it takes {signature}",
        hint="name the inputs as its parameters, or wrap it: a module whose forward takes the tensors one by one",
    )


def named_tensors(result: Any) -> Named:
    """List the tensors in what a module returned; Nones, caches, losses as numbers and the like are left out.

    What has no name is called `output`, or `output_0` and so on by its place.
    """
    found = _tensors(result, None)
    only = len(found) == 1
    return [(name or ("output" if only else f"output_{at}"), tensor) for at, (name, tensor) in enumerate(found)]


def _tensors(result: Any, name: str | None) -> list[tuple[str | None, Tensor]]:
    if isinstance(result, Tensor):
        return [(name, result)]
    entries: list[tuple[str | None, Any]] = []
    if isinstance(result, Mapping):
        entries = [(str(key), value) for key, value in result.items()]
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        entries = [(f.name, getattr(result, f.name)) for f in dataclasses.fields(result)]
    elif isinstance(result, tuple) and hasattr(result, "_fields"):  # a namedtuple
        entries = list(zip(result._fields, result, strict=True))
    elif isinstance(result, tuple | list):
        entries = [(None if name is None else str(at), value) for at, value in enumerate(result)]
    return [found for key, value in entries for found in _tensors(value, key if name is None else f"{name}_{key}")]


def _chosen(found: Named, wanted: Sequence[str]) -> list[Tensor]:
    """Pick the wanted outputs by their names, or take all in their order where the module has no names for them.

    Raises:
        ModuleError: neither fits.
    """
    by_name = dict(found)
    if set(wanted) <= by_name.keys():
        return [by_name[name] for name in wanted]
    # The order of names that differ says nothing, unless there is one of each.
    if len(found) == len(wanted) and (len(wanted) == 1 or all(name.startswith("output_") for name in by_name)):
        return [tensor for _, tensor in found]
    given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in found)
    raise ModuleError(
        f"the module does not give the outputs of the spec: {', '.join(wanted)}", note=f"it gives {given}"
    )


def _binds(signature: inspect.Signature, by_order: Sequence[str], by_name: Sequence[str]) -> bool:
    try:
        signature.bind(*by_order, **dict.fromkeys(by_name))
    except TypeError:
        return False
    return True


def dtype_of(name: str) -> torch.dtype:
    """Return PyTorch's dtype of numpy's name.

    Raises:
        ModuleError: it has none.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ModuleError(f"PyTorch has no tensors of {name}")
    return found


def shapes_of(arrays: Batch) -> str:
    """Return the names, dtypes and shapes of arrays in one line."""
    return ", ".join(f"{name} {values.dtype} {list(values.shape)}" for name, values in arrays.items())


@contextmanager
def evaluating() -> Iterator[None]:
    """Compute without gradients and fast paths.

    Not in inference_mode: what the module keeps from one call to the next could then not be exported.
    """
    with torch.no_grad(), without_fast_paths():
        yield


@contextmanager
def without_fast_paths() -> Iterator[None]:
    """Have transformers compute as they were trained: by operators that exporters know, and padding too.

    In evaluation mode PyTorch takes one operator for a whole layer, which nothing exports (pytorch#143107), and zeros
    what is padded.
    """
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
