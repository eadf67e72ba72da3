"""What `python -m export new-steps MODEL` does: write steps around a network that load and answer as they are."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contracts import golden, layout
from contracts.names import RULE, is_model_name
from export.errors import StepFileError
from export.scaffold import folders, network, render
from export.scaffold.network import Network, Tensor
from export.scaffold.step_file import Role

_EXAMPLE = "example.json"  # a row for the template as it is, in the preprocess's folder
_MOST_VALUES = 100_000  # of an example


def new_steps(options: argparse.Namespace) -> int:
    """Write pre- and post-processing for a network and the ensemble of all three; return the exit code.

    Raises:
        ModelConfigError: there is no such network.
        StepFileError: it has steps already; or, with --configs, none.
    """
    root, model = options.repository, options.model
    if not is_model_name(model):
        raise StepFileError(f"a model cannot be called {model!r}", note=f"a name has {RULE}")
    net = network.read(root / model)
    if options.configs:
        return _write_configs(root, net)
    if there := folders.existing(root, model):
        raise StepFileError(
            f"{', '.join(layout.shown(path) for path in there)} is there already, and nothing was written",
            hint=f"after a change of INPUTS or OUTPUTS: python -m export new-steps {model} --configs",
        )
    roles = [role for role in render.ROLES if role == "preprocess" or not options.no_postprocess]
    steps = render.templates(net, options.takes, roles)
    with folders.written(root, net, steps):
        pass
    _tell(root, net, options.takes, roles)
    return 0


def _write_configs(root: Path, net: Network) -> int:
    steps = folders.read_steps(root, net.model)
    callers = [root / render.step_name(net.model, role) / render.VERSION / render.STEP for role in steps]
    for path, content in render.configs(net, steps).items():
        if path.endswith(render.CPU_CONFIG) and not all(caller.is_file() for caller in callers):
            continue  # of steps from before one process could run them
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        print(f"Wrote {layout.shown(root / path)}")
    print("Next: python -m deploy up --detach   (or, with a server up: python -m deploy reload)")
    return 0


def _tell(root: Path, net: Network, takes: str, roles: Sequence[Role]) -> None:
    pipeline = render.pipeline_name(net.model)
    first = render.step_name(net.model, "preprocess")
    for name in (*(render.step_name(net.model, role) for role in roles), pipeline):
        print(f"Wrote {layout.shown(root / name)}")
    print("It answers as it is. Then edit:")
    gives = ", ".join(each.name for each in net.inputs)
    print(f"  {layout.shown(root / first / '1' / 'preprocess.py')}   from what a client sends to {gives}")
    if "postprocess" in roles:
        given = ", ".join(each.name for each in net.outputs)
        place = root / render.step_name(net.model, "postprocess") / "1" / "postprocess.py"
        print(f"  {layout.shown(place)}   from {given} to what a client wants")
    print(f"  {layout.shown(root / first / render.REQUIREMENTS)}   what it imports beside numpy and Pillow")
    row = _row(root, net) if takes == "bytes" else None
    call = ""
    if row is not None:
        example = root / first / _EXAMPLE
        example.write_text(json.dumps(row) + "\n")
        call = f", then: python -m clients infer {pipeline} --input raw=@{layout.shown(example)}"
    elsewhere = f" --repository {layout.shown(root)}" if root.resolve() != layout.model_repository() else ""
    print(f"Next: python -m deploy up --detach{elsewhere}{call}")


def _row(root: Path, net: Network) -> dict[str, Any] | None:
    """Return a row that the network takes: of a real request where there is one, else of zeros."""
    for request in golden.find(root, net.model):
        values = {name: array[0] if net.max_batch_size else array for name, array in request.inputs.items()}
        break
    else:
        if {each.name for each in net.inputs} - net.shapes.keys():
            return None  # what size the rest has is not known
        values = {each.name: _zeros(each, net.shapes[each.name]) for each in net.inputs}
    if sum(array.size for array in values.values()) > _MOST_VALUES:
        return None
    return {name: _plain(array) for name, array in values.items()}


def _zeros(tensor: Tensor, shape: tuple[int, ...]) -> Any:
    return np.full(shape, b"", np.object_) if tensor.dtype == "string" else np.zeros(shape, tensor.dtype)


def _plain(array: Any) -> Any:
    """Return an array as JSON has it."""
    if array.dtype == np.object_:
        array = np.array([text.decode() for text in array.ravel()], np.object_).reshape(array.shape)
    return array.tolist()
