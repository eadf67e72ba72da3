"""A server with models that multiply, whose versions come, go and are told apart by their answers."""

import json
from pathlib import Path

import numpy as np
import tritonclient.http as triton

from contracts import repository
from deploy.triton.control import Control
from deploy.triton.state import Process, Running
from deploy.versions import reloading
from deploy.versions.change import VersionChange
from tests.conftest import Workspace
from tests.deploy.conftest import write_model

# Multiplies by its factor.
CODE = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", one * {factor})]) for one in inputs]
"""
BROKEN = "raise ValueError('no weights')"
ENSEMBLE = """
name: "{name}"
platform: "ensemble"
max_batch_size: {max_batch_size}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }} ]
ensemble_scheduling {{ step [ {{
  model_name: "{step}" model_version: -1
  input_map {{ key: "IN" value: "IN" }} output_map {{ key: "OUT" value: "OUT" }}
}} ] }}
"""


class Site:
    """A server, and the models that the tests put into its repository."""

    def __init__(self, workspace: Workspace, server: Running) -> None:
        self.workspace, self.server, self.root = workspace, server, workspace.repository
        self.said: list[str] = []

    def model(self, name: str, versions: int = 1) -> Path:
        """A model that multiplies by its version, served."""
        write_model(self.root, name, code(1), max_batch_size=4, more="version_policy { latest { num_versions: 2 } }")
        for version in range(2, versions + 1):
            publish(self.root / name, code(version))
        self.reload(name)
        return self.root / name

    def ensemble(self, name: str, step: str, max_batch_size: int = 4) -> None:
        (self.root / name / "1").mkdir(parents=True, exist_ok=True)
        config = ENSEMBLE.format(name=name, step=step, max_batch_size=max_batch_size)
        (self.root / name / "config.pbtxt").write_text(config)

    def reload(self, *models: str) -> list[VersionChange]:
        return reloading.reload(self.server, models, self.said.append)

    def answer(self, model: str, version: str = "") -> float:
        """To 1.0: the version that gave it."""
        with triton.InferenceServerClient(self.server.http) as client:
            tensor = triton.InferInput("IN", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 1), dtype=np.float32))
            return float(client.infer(model, [tensor], model_version=version).as_numpy("OUT")[0, 0])

    def healthy(self) -> bool:
        with Control(self.server) as control:
            return control.ready()


def code(factor: float, initialize: str = "pass") -> str:
    return CODE.format(factor=factor, initialize=initialize)


def gated(folder: Path) -> str:
    """Multiplies by 2. Its load says that it has begun, and goes on once it may."""
    wait = f'while not Path("{folder}/open").exists(): time.sleep(0.01)'
    return code(2, f'Path("{folder}/begun").touch()\n        {wait}')


def publish(model: Path, source: str) -> None:
    with repository.new_version(model) as staged:
        (staged.directory / "model.py").write_text(source)


def on_disk(model: Path) -> tuple[list[int], list[int]]:
    return repository.versions(model), repository.parked(model)


def running(workspace: Workspace) -> Running:
    found = json.loads((workspace.root / "artifacts" / "server" / "server.json").read_text())
    triton, supervisor = (Process(**found.pop(name)) for name in ("triton", "supervisor"))
    return Running(triton=triton, supervisor=supervisor, **found)
