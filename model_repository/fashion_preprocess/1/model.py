"""Lets Triton's Python backend run step.py beside it. The same file in every step; imports nothing of this project.

One response a request: what is wrong with a request fails it, and no other of its batch. Understands in config.pbtxt:
  parameters  nice: what is added to the niceness of the thread that works

step.py has CALLED, what a client is told of it; the class Step, of a folder with config.pbtxt and of what stands in
that; and, where requests can fail otherwise than by a bug, Refused, by their own fault, and Failed, by another's.
"""

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import step
import triton_python_backend_utils as pb_utils

LOG_LINES_PER_S = 10


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make the step; what is raised here is why the model did not load."""
        config = json.loads(args["model_config"])
        try:
            self.step = step.Step(Path(args["model_repository"]), config)
            os.nice(int(config.get("parameters", {}).get("nice", {}).get("string_value", "0")))
        except ValueError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self.log = _Log()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request of the batch, in their order."""
        try:
            given = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
            answers = self.step.answer(given)
            return [self._response(request, answer) for request, answer in zip(requests, answers, strict=True)]
        except Exception as error:  # a bug of ours, which the other requests need not suffer from
            if len(requests) > 1:
                return [response for request in requests for response in self.execute([request])]
            return [self._response(requests[0], error)]

    def _response(self, request: Any, answer: Any) -> Any:
        if not isinstance(answer, Exception):
            return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in answer.items()])
        if isinstance(answer, getattr(step, "Refused", ())):
            self.log.write(pb_utils.Logger.log_info, request, f"refused: {_printable(answer, 400)}")
            return _failure(str(answer), pb_utils.TritonError.INVALID_ARG)
        if isinstance(answer, getattr(step, "Failed", ())):
            return _failure(str(answer), pb_utils.TritonError.INTERNAL)
        where = "".join(traceback.format_tb(answer.__traceback__))
        self.log.write(pb_utils.Logger.log_error, request, f"{type(answer).__name__}: {_printable(answer)}\n{where}")
        return _failure(f"{step.CALLED} failed: {type(answer).__name__}", pb_utils.TritonError.INTERNAL)


class _Log:
    """A log of only so many lines a second: no client fills the disk, or makes the others wait for it."""

    def __init__(self) -> None:
        self.second, self.lines, self.left_out = 0, 0, 0

    def write(self, log: Callable[[str], None], request: Any, line: str) -> None:
        """Write a line about a request with `log`, or count it among those that are left out."""
        if (second := int(time.monotonic())) != self.second:
            self.second, self.lines = second, 0
        if self.lines == LOG_LINES_PER_S:
            self.left_out += 1
            return
        self.lines += 1
        before = f" (after {self.left_out:,} failures that are not logged)" if self.left_out else ""
        self.left_out = 0
        log(f"[request id: {_printable(request.request_id()) or '<id_unknown>'}]{before} {line}")


def _printable(text: object, longest: int = 64) -> str:
    """Return the start of a client's text in ASCII and on one line: clients do not write log lines of their own."""
    return str(text)[:longest].encode("unicode_escape").decode()


def _failure(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
