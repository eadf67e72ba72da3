"""Texts to tokens, int32 [B, L]. Runs inside Triton; imports nothing of this project.

L is the longest text of the dynamic batch: so its requests have one shape, and the network gets them as one batch, too.
One response a request: what is wrong with a request fails it, and no other of its batch. Understands in config.pbtxt:
  parameters  max_tokens, max_text_bytes: limits of one text, see texts.py
"""

import json
import traceback
from pathlib import Path
from typing import Any

import texts
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer beside config.pbtxt; what is raised here is why the model did not load."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        usual = texts.Limits()
        limits = texts.Limits(
            tokens=_number(parameters, "max_tokens", usual.tokens),
            text_bytes=_number(parameters, "max_text_bytes", usual.text_bytes),
        )
        self.texts = texts.Texts(Path(args["model_repository"], "tokenizer.json"), limits)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request of the batch, in their order."""
        read = [self._read(request) for request in requests]
        width = max((len(tokens) for found in read if isinstance(found, list) for tokens in found), default=0)
        return [_answer(found, width) if isinstance(found, list) else found for found in read]

    def _read(self, request: Any) -> Any:
        """Return the tokens of each text of a request, or the response that says what is wrong with it."""
        try:
            return self._tokens(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().ravel())
        except texts.TextError as error:
            return _failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # a bug of ours, which the other requests need not suffer from
            pb_utils.Logger.log_error(traceback.format_exc())
            return _failure(f"the preprocessor failed: {type(error).__name__}", pb_utils.TritonError.INTERNAL)

    def _tokens(self, given: Any) -> list[list[int]]:
        found = []
        for index, raw in enumerate(given):
            try:
                found.append(self.texts.tokens(raw))
            except texts.TextError as error:
                if len(given) == 1:
                    raise
                raise texts.TextError(f"text {index} of {len(given)}, from 0: {error}") from error
        return found


def _answer(tokens: list[list[int]], width: int) -> Any:
    ids, mask = texts.padded(tokens, width)
    return pb_utils.InferenceResponse([pb_utils.Tensor("input_ids", ids), pb_utils.Tensor("attention_mask", mask)])


def _failure(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _number(parameters: dict[str, dict[str, str]], name: str, usual: int) -> int:
    text = parameters[name]["string_value"] if name in parameters else str(usual)
    if not text.isdecimal():
        raise pb_utils.TritonModelException(f"{name} must be a whole number, not {text!r}")
    return int(text)
