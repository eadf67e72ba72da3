"""`backend: "onnxruntime"` for a Triton that only has its Python backend, such as the pip-installed one.

Serves the same model directory and config.pbtxt as Triton's native backend. Runs inside Triton; imports
nothing of this project. Understands of the native backend's settings:
  default_model_filename
  parameters  intra_op_thread_count, inter_op_thread_count
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.batches = config["max_batch_size"] > 0
        self.inputs = [i["name"] for i in config["input"]]
        self.outputs = [o["name"] for o in config["output"]]
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file)
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path} does not exist")
        try:
            self.session = ort.InferenceSession(path, _options(config), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise pb_utils.TritonModelException(f"onnxruntime cannot load {path}: {error}") from error
        _check("input", self.inputs, {i.name for i in self.session.get_inputs()})
        _check("output", self.outputs, {o.name for o in self.session.get_outputs()})

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests as one batch and hand each its rows."""
        feeds = [{n: pb_utils.get_input_tensor_by_name(r, n).as_numpy() for n in self.inputs} for r in requests]
        if not self.batches:
            return [self._response(self.session.run(self.outputs, feed)) for feed in feeds]
        joined = feeds[0] if len(feeds) == 1 else {n: np.concatenate([f[n] for f in feeds]) for n in self.inputs}
        results = self.session.run(self.outputs, joined)
        ends = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])
        rows = zip(*(np.split(result, ends[:-1]) for result in results), strict=True)
        return [self._response(own) for own in rows]

    def _response(self, results: Sequence[Any]) -> Any:
        tensors = [pb_utils.Tensor(name, result) for name, result in zip(self.outputs, results, strict=True)]
        return pb_utils.InferenceResponse(tensors)


def _options(config: dict[str, Any]) -> ort.SessionOptions:
    parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    return options


def _check(what: str, configured: list[str], found: set[str]) -> None:
    if not found.issuperset(configured):
        raise pb_utils.TritonModelException(f"config.pbtxt names {what}s {configured}, the graph has {sorted(found)}")
