"""`backend: "inprocess"`: the steps of an ensemble, one after the other in one process, for a Triton without a GPU.

A client sees what the ensemble would give it: the same tensors, and the same errors with the same words before them.
What the ensemble does is read from steps.json, which `python -m deploy` writes into the version when it assembles what
a server is given, with the steps beside it (deploy/served/inside.py); else from config.pbtxt. Knows of its own:
  max_batch_size, inputs, outputs, dynamic_batching, instance_group KIND_CPU, model_warmup
Runs inside Triton.
"""

import gc
import json
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils
from one_process import call
from one_process.failures import Failures, unexpected
from one_process.pipeline import Pipeline
from python_based import warm_up
from python_based.config import ModelConfig, refuse
from python_based.errors import ModelError


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the steps; what is raised here is Triton's reason why the model did not load.

        Raises:
            ModelError: they are not there, one does not load, or the warm-up fails.
        """
        config = ModelConfig.of(args)
        refuse("parameters", config.parameters, ())
        refuse("optimization", config.optimization, ())
        if config.kind != "CPU":
            raise ModelError(f"instance_group: kind is KIND_{config.kind}; one process computes on the CPU, KIND_CPU")
        self.outputs = [each["name"] for each in json.loads(args["model_config"])["output"]]
        self.failures = Failures(args["model_name"], args["model_version"])
        self.pipeline = Pipeline(call.read(config.directory, self.outputs))
        for sample, given in warm_up.samples(config):
            [answer] = self.pipeline.answer([given])
            if isinstance(answer, Exception):
                raise ModelError(f"model_warmup: {sample!r} would fail: {answer}")
        gc.collect()
        gc.freeze()  # what is loaded stays: no collection has to walk over it

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, in their order."""
        try:
            given = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
            answers = self.pipeline.answer(given)
            responses = [self._response(request, answer) for request, answer in zip(requests, answers, strict=True)]
        except Exception as error:  # of one, which the others need not suffer from
            if len(requests) > 1:
                return [response for request in requests for response in self.execute([request])]
            failure = unexpected(error)
            answers, responses = [failure], [self.failures.response(requests[0], failure)]
        self.failures.count(sum(isinstance(answer, Exception) for answer in answers))
        return responses

    def _response(self, request: Any, answer: Any) -> Any:
        if isinstance(answer, Exception):
            return self.failures.response(request, answer)
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, answer[name]) for name in self.outputs if name in wanted]
        )
