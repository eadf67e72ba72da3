"""An ensemble as its reference would answer it: the real Python steps, around the reference in place of the network.

The steps run in a process of their own, on a stand-in for the module that Triton's Python backend gives them. That is
the same code that serves, so an answer here is right for the whole way, from bytes to labels.
"""

import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from contracts import model_config, repository
from contracts.entities import records
from contracts.errors import ModelConfigError
from contracts.samples import Batch
from export.errors import StepError
from export.proof.runners import Runner

_PATIENCE_S = 60
_WORKER = Path(__file__).with_name("python_step.py")


class Ensemble:
    """An ensemble over a network, with the reference in its place."""

    def __init__(self, root: Path, name: str, network: str, reference: Runner) -> None:
        self._root, self._network, self._reference = root, network, reference
        self._config = model_config.read(root / name / "config.pbtxt")

    def run(self, inputs: Batch) -> dict[str, Any]:
        """Answer `inputs`, {input: [n, …]}, as the reference would.

        Raises:
            StepError: a step does not run here, or refuses one of them.
            ModelConfigError: a step has no configuration.
        """
        tensors: dict[str, Any] = dict(inputs)
        left_out = {tensor.name for tensor in self._config.input} - tensors.keys()  # those are optional
        waiting = list(self._config.ensemble_scheduling.step)
        while waiting:
            step = next((s for s in waiting if {*s.input_map.values()} <= tensors.keys() | left_out), None)
            if step is None:
                raise StepError(f"{self._config.name}: a step waits for a tensor that none gives")
            waiting.remove(step)
            given = {own: tensors[shared] for own, shared in step.input_map.items() if shared in tensors}
            answer = self._answer(step.model_name, given, list(step.output_map))
            tensors |= {shared: answer[own] for own, shared in step.output_map.items()}
        return {output.name: tensors[output.name] for output in self._config.output}

    def _answer(self, model: str, inputs: Batch, wanted: list[str]) -> Mapping[str, Any]:
        if model == self._network:
            return self._reference(inputs)
        return run_step(self._root / model, inputs, wanted)


def above(model_directory: Path) -> list[str]:
    """Return the names of the ensembles that have the model as a step; what is no configuration is no ensemble."""
    found = []
    for path in sorted(model_directory.parent.glob("*/config.pbtxt")):
        with suppress(ModelConfigError):  # of some other model: a server will say so
            steps = model_config.read(path).ensemble_scheduling.step
            found += [path.parent.name] * any(step.model_name == model_directory.name for step in steps)
    return found


def takes(root: Path, name: str, inputs: Batch) -> bool:
    """Tell whether the ensemble's inputs are called like these; `records` are another way to say the same."""
    names = {tensor.name for tensor in model_config.read(root / name / model_config.FILE_NAME).input}
    return (names - {records.NAME} if takes_records(root, name) else names) == set(inputs)


def takes_records(root: Path, name: str) -> bool:
    """Tell whether the ensemble takes records, too (contracts.entities.records)."""
    from tritonclient.grpc import model_config_pb2

    config = model_config.read(root / name / model_config.FILE_NAME)
    kind = model_config_pb2.DataType.Name
    return records.taken({t.name: (kind(t.data_type), t.dims, t.optional) for t in config.input})


def run_step(directory: Path, inputs: Batch, wanted: list[str]) -> dict[str, Any]:
    """Let the newest version of a model of the Python backend answer a request.

    Raises:
        StepError: it does not start here, or refuses the request.
    """
    from google.protobuf import json_format

    config = model_config.read(directory / "config.pbtxt")
    versions = repository.versions(directory)
    if config.backend != "python" or not versions:
        found = config.backend or config.platform
        raise StepError(f"{directory.name} is no Python step, its backend is {found!r}")
    asked = {
        "directory": str(directory),
        "version": versions[-1],
        "config": json_format.MessageToJson(config, preserving_proto_field_name=True),
        "inputs": dict(inputs),
        "wanted": wanted,
    }
    try:
        done = subprocess.run(
            [sys.executable, str(_WORKER)],
            input=pickle.dumps(asked),
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"{directory.name} does not answer within {_PATIENCE_S} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise StepError(f"{directory.name} does not run here: {lines[-1] if lines else 'it ended without a word'}")
    answer: dict[str, Any] = pickle.loads(done.stdout)  # noqa: S301  # what our own worker has just written
    return answer
