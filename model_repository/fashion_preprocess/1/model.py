"""Encoded images to uint8 [B, 1, 28, 28]. Runs inside Triton; imports nothing of this project.

One response a request: what is wrong with a request fails it, and no other of its batch. Understands in config.pbtxt:
  parameters  max_encoded_bytes, max_pixels: limits of one image, see images.py
              nice: what is added to the niceness of the thread that decodes
"""

import json
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import images
import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

LOG_LINES_PER_S = 10


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the limits from config.pbtxt's parameters; what is raised here is why the model did not load."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        usual = images.Limits()
        self.limits = images.Limits(
            encoded_bytes=_number(parameters, "max_encoded_bytes", usual.encoded_bytes),
            pixels=_number(parameters, "max_pixels", usual.pixels),
        )
        os.nice(_number(parameters, "nice", 0))
        self.log = _Log()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request of the batch, in their order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            encoded = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().ravel()
            pixels = self._decode(encoded)
        except images.ImageError as error:
            self.log.write(pb_utils.Logger.log_info, request, f"refused: {error}")
            return _failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # a bug of ours, which the other requests need not suffer from
            where = "".join(traceback.format_tb(error.__traceback__))
            self.log.write(pb_utils.Logger.log_error, request, f"{type(error).__name__}: {_printable(error)}\n{where}")
            return _failure(f"the preprocessor failed: {type(error).__name__}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", pixels)])

    def _decode(self, encoded: NDArray[np.object_]) -> NDArray[np.uint8]:
        pixels = []
        for index, image in enumerate(encoded):
            try:
                pixels.append(images.decode(image, self.limits))
            except images.ImageError as error:
                if len(encoded) == 1:
                    raise
                raise images.ImageError(f"image {index} of {len(encoded)}, from 0: {error}") from error
        return np.stack(pixels)


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


def _printable(text: object) -> str:
    """Return the start of a client's text in ASCII and on one line: clients do not write log lines of their own."""
    return str(text)[:64].encode("unicode_escape").decode()


def _failure(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _number(parameters: dict[str, dict[str, str]], name: str, usual: int) -> int:
    text = parameters[name]["string_value"] if name in parameters else str(usual)
    if not text.isdecimal():
        raise pb_utils.TritonModelException(f"{name} must be a whole number, not {text!r}")
    return int(text)
