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

from python_based import bfloat16, ragged, warm_up
from python_based.config import ModelConfig, Tensor
from python_based.errors import ModelError, RequestError
from python_based.sequences import States

Feed = Mapping[str, NDArray[Any]]  # a request's inputs by name, [rows, …]; BF16 as its bits, STRING as bytes objects
# Runs the feeds as one batch; the wanted outputs, in that order. They may be overwritten by the next run.
Run = Callable[[Sequence[Feed], Sequence[str]], Sequence[NDArray[Any]]]


class Batcher:
    """What answers the requests that Triton hands to `execute`."""

    def __init__(self, config: ModelConfig, run: Run) -> None:
        self._batches = config.max_batch_size > 0
        self._bfloat16 = {tensor.name for tensor in config.inputs if tensor.dtype == "BF16"}
        self._bfloat16 |= {state.input for state in config.states if state.dtype == "BF16"}
        self._outputs = config.outputs
        self._dims = {tensor.name: tensor.dims for tensor in config.outputs}
        self._scattered = config.scattered
        self._states = States(config)
        self._run = run
        self._warned = False

    def rehearse(self, config: ModelConfig) -> None:
        """Run the warm-up that Triton is about to run, as far as it does not depend on Triton.

        Raises:
            ModelError: it would fail.
        """
        names = list(self._dims)
        for sample, feed in warm_up.samples(config):
            try:
                self._parts(dict(zip(names, self._run([feed], names), strict=True)), [feed])
            except Exception as error:
                raise ModelError(f"model_warmup: {sample!r} would fail: {error}") from error

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
        names = [tensor.name for tensor in wanted]
        names += self._states.outputs.keys() - {*names}
        feeds = [self._feed(request) for request in requests]
        # None is asked of what fills an idle slot of a batch of sequences, alone where that failed.
        results = dict(zip(names, self._run(feeds, names), strict=True)) if names else {}
        if keep:  # another run is to come before Triton reads them
            results = {name: result.copy() for name, result in results.items()}
        parts = self._parts(results, feeds)
        responses = [_response(wanted, part) for part in parts]
        for request, part in zip(requests, parts, strict=True):
            self._states.keep(request, part)
        return responses

    def _parts(self, results: dict[str, NDArray[Any]], feeds: Sequence[Feed]) -> list[dict[str, NDArray[Any]]]:
        """Give each request its part of the outputs, {name: its rows}."""
        if not self._batches:  # one request
            # Triton has no scalars: they get the dims of config.pbtxt, as with the native backend.
            return [{n: r if r.ndim else r.reshape(self._dims.get(n, ())) for n, r in results.items()}]
        counts = [len(next(iter(feed.values()))) for feed in feeds]
        parts: list[dict[str, NDArray[Any]]] = [{} for _ in feeds]
        for name, result in results.items():
            if source := self._scattered.get(name):
                shapes = [feed[source].shape for feed in feeds]
                for part, own in zip(parts, ragged.scattered(result, shapes, self._dims[name]), strict=True):
                    part[name] = own
                continue
            if not result.ndim:  # a scalar, which has the dims of config.pbtxt here as well, and so one row
                result = result.reshape(self._dims[name][1:])
            if result.shape[:1] != (sum(counts),):
                raise ModelError(f"{name!r} is {list(result.shape)}, not a row for each of {sum(counts)}")
            start = 0
            for part, count in zip(parts, counts, strict=True):  # views: np.split takes five times as long
                part[name] = result[start : start + count]
                start += count
        return parts

    def _feed(self, request: Any) -> Feed:
        feed: dict[str, NDArray[Any]] = {}
        for given in request.inputs():
            name = given.name()
            feed[name] = bfloat16.bits_of(given) if name in self._bfloat16 else given.as_numpy()
        return {**feed, **self._states.of(request)}


def _response(outputs: Sequence[Tensor], results: Mapping[str, NDArray[Any]]) -> Any:
    tensors = []
    for output in outputs:
        make = bfloat16.tensor_of if output.dtype == "BF16" else pb_utils.Tensor
        tensors.append(make(output.name, results[output.name]))
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
