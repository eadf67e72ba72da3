"""Requests of one dynamic batch: run together, answered each by its own rows, failing each by itself.

Triton hands a backend the requests that it batched; they are of equal shapes (but for the rows of each) and name
the same inputs. Where running them together fails they are halved until those that fail are alone: a
batch of n with one bad request costs about 2·log2(n) more runs, and the others get their answers.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from python_based import bfloat16
from python_based.config import ModelConfig, Tensor
from python_based.errors import ModelError, RequestError

Feed = Mapping[str, NDArray[Any]]  # a request's inputs by name, [rows, …]; BF16 as its bits, STRING as bytes objects
# Runs the feeds as one batch; the wanted outputs, in that order. They may be overwritten by the next run.
Run = Callable[[Sequence[Feed], Sequence[str]], Sequence[NDArray[Any]]]


class Batcher:
    """What answers the requests that Triton hands to `execute`."""

    def __init__(self, config: ModelConfig, run: Run) -> None:
        self._batches = config.max_batch_size > 0
        self._inputs = {tensor.name: tensor for tensor in config.inputs}
        self._outputs = config.outputs
        self._run = run
        self._warned = False

    def respond(self, requests: list[Any], *, again: bool = False) -> list[Any]:
        """Answer each request, in their order. Raises nothing.

        Args:
            again: They were part of a larger batch that failed.
        """
        try:
            return self._answers(requests, keep=again)
        except Exception as error:
            if len(requests) == 1:
                return [_failure(error)]
            reason = error
        half = len(requests) // 2
        responses = self.respond(requests[:half], again=True) + self.respond(requests[half:], again=True)
        if not (self._warned or again or any(response.has_error() for response in responses)):
            self._warned = True
            pb_utils.Logger.log_warn(f"no request of a batch fails alone, {len(requests)} fail together: {reason}")
        return responses

    def _answers(self, requests: list[Any], *, keep: bool) -> list[Any]:
        asked = {name for request in requests for name in request.requested_output_names()}
        wanted = [tensor for tensor in self._outputs if tensor.name in asked]
        feeds = [self._feed(request) for request in requests]
        results = self._run(feeds, [tensor.name for tensor in wanted])
        if keep:  # another run is to come before Triton reads them
            results = [result.copy() for result in results]
        if not self._batches:  # one request
            # Triton has no scalars: they get the dims of config.pbtxt, as with the native backend.
            shaped = [r if r.ndim else r.reshape(tensor.dims) for tensor, r in zip(wanted, results, strict=True)]
            return [_response(wanted, shaped)]
        counts = [len(next(iter(feed.values()))) for feed in feeds]
        for tensor, result in zip(wanted, results, strict=True):
            if result.shape[:1] != (sum(counts),):
                raise ModelError(f"{tensor.name!r} is {list(result.shape)}, not a row for each of {sum(counts)}")
        responses, start = [], 0
        for count in counts:  # views: np.split takes five times as long
            responses.append(_response(wanted, [result[start : start + count] for result in results]))
            start += count
        return responses

    def _feed(self, request: Any) -> Feed:
        feed = {}
        for given in request.inputs():
            name = given.name()
            feed[name] = bfloat16.bits_of(given) if self._inputs[name].dtype == "BF16" else given.as_numpy()
        return feed


def _response(outputs: Sequence[Tensor], results: Sequence[NDArray[Any]]) -> Any:
    tensors = [
        bfloat16.tensor_of(output.name, result) if output.dtype == "BF16" else pb_utils.Tensor(output.name, result)
        for output, result in zip(outputs, results, strict=True)
    ]
    return pb_utils.InferenceResponse(tensors)


def _failure(error: Exception) -> Any:
    code, message = pb_utils.TritonError.INTERNAL, str(error)
    if isinstance(error, RequestError):
        code = pb_utils.TritonError.INVALID_ARG
    elif isinstance(error, ModelError):
        pb_utils.Logger.log_error(message)
    else:
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
        message = f"the backend failed: {type(error).__name__}; the server's log says where"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
