"""What a release is asked before it serves: its golden requests, and what it has to refuse.

Alone, in full batches, in odd mixtures and all at once it must give the same answers; what is outside of the proven
range it must refuse. Whoever has a server with the release in it asks: the serve gate one of its own, `up` and a switch
the one that is about to serve.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from contracts import golden, manifest, model_config
from contracts.golden import GoldenRequest
from contracts.model_config import ModelConfig
from contracts.samples import Batch
from deploy.errors import ModelError, NoAnswerError, WrongAnswerError
from deploy.proving import mixtures, outside, rest
from deploy.proving.mixtures import Asked
from deploy.proving.rest import Answer, Refusal
from deploy.served.assemble import Taken

_AT_ONCE = 8  # requests
_BUSY_S, _AGAIN_S = 10.0, 0.05  # how long a full queue is waited for, and between two tries
_TENSORRT = {"tensorrt", "tensorrt_plan"}  # its backend, its platform

Ask = Callable[[str, Batch], Answer | Refusal]  # sends a request to a model; raises ModelError if the server is lost


@dataclass
class Examination:
    """A release on a server, and what it has answered.

    Attributes:
        release: As it lies in the server's repository.
        configs: {model: its configuration there}.
        requests: The golden requests of its models.
        ask: Sends one of its models a request.
        native: Whether the server has the native backends.
        answered: {model: what it was asked, and answered alone}.
    """

    release: Taken
    configs: Mapping[str, ModelConfig]
    requests: Sequence[GoldenRequest]
    ask: Ask
    native: bool
    answered: dict[str, list[Asked]] = field(default_factory=dict)

    @classmethod
    def of(cls, release: Taken, served: Path, ask: Ask, *, native: bool, suffix: str = "") -> "Examination":
        """Prepare to ask a release that was placed in the repository `served`, under names with that suffix.

        Raises:
            ManifestError: its golden requests are damaged.
            ModelConfigError: a configuration is missing or is none.
        """
        paths = {name: served / f"{name}{suffix}" / model_config.FILE_NAME for name in release.models}
        requests = [request for request in golden.read(release.directory) if request.model in release.models]
        return cls(
            release,
            {name: model_config.read(path) for name, path in paths.items()},
            requests,
            lambda model, inputs: ask(f"{model}{suffix}", inputs),
            native,
        )

    @property
    def unasked(self) -> tuple[str, ...]:
        """The models that clients call and for which there are no golden requests."""
        called = [n for n in self.release.models if n == self.release.network or is_called(self.configs[n])]
        asked = {request.model for request in self.requests}
        return tuple(name for name in called if name not in asked)

    def named(self, model: str) -> str:
        """Return how a model of the release is called in messages."""
        return f"{model} version {self.release.version}"

    def answer(self, model: str, inputs: Batch, company: str = "") -> Batch:
        """Have the release answer; a full queue is waited for.

        Raises:
            ModelError: it refuses, or another version answers.
        """
        until = time.monotonic() + _BUSY_S
        while isinstance(answer := self.ask(model, inputs), Refusal):
            if not answer.busy or time.monotonic() > until:
                raise ModelError(f"{self.named(model)} refuses a golden request{company}", note=answer.reason)
            time.sleep(_AGAIN_S)
        if answer.version != str(self.release.version):
            raise ModelError(f"version {answer.version} of {model} answers, not {self.release.version}")
        return answer.outputs


def is_called(config: ModelConfig) -> bool:
    """Tell whether clients call a model, although it is no network: an ensemble, also in one process."""
    return bool(model_config.steps(config)) or config.backend == model_config.IN_PROCESS


def at(address: Path | str, timeout_s: float) -> Ask:
    """Return what sends a request to the server that listens on `address`, a socket's path or "host:port".

    Args:
        timeout_s: For an answer.
    """

    def ask(model: str, inputs: Batch) -> Answer | Refusal:
        try:
            return rest.infer(address, model, inputs, timeout_s)
        except TimeoutError as error:
            raise NoAnswerError(f"{model} does not answer a golden request within {timeout_s:g} s") from error
        except (OSError, HTTPException) as error:
            raise ModelError(f"the server went away while {model} was asked a golden request") from error

    return ask


def smallest(examination: Examination) -> int:
    """Ask each model its smallest golden request; return how many were asked.

    Raises:
        ModelError: one is refused.
        WrongAnswerError: an answer is not the reference's.
    """
    first: dict[str, GoldenRequest] = {}
    for request in sorted(examination.requests, key=lambda request: request.size_bytes):
        first.setdefault(request.model, request)
    for request in first.values():
        _check(examination, request, examination.answer(request.model, request.inputs))
    return len(first)


def alone(examination: Examination) -> int:
    """Ask every golden request by itself; return how many there are.

    Raises:
        ModelError, WrongAnswerError: as `smallest`.
    """
    for model in Counter(request.model for request in examination.requests):
        requests = [request for request in examination.requests if request.model == model]
        answers = [examination.answer(model, request.inputs) for request in requests]
        for request, answer in zip(requests, answers, strict=True):
            _check(examination, request, answer)
        examination.answered[model] = mixtures.asked(requests, answers)
    return len(examination.requests)


def in_full_batches(examination: Examination) -> int:
    """Ask what was asked alone in batches as large as they may be; return how many.

    Raises:
        ModelError, WrongAnswerError: as `smallest`, or an answer is another one than alone.
    """
    return _in_company(examination, mixtures.full)


def in_odd_mixtures(examination: Examination) -> int:
    """Ask what was asked alone in batches of 3, 5 and 7 rows; return how many.

    Raises:
        ModelError, WrongAnswerError: as `in_full_batches`.
    """
    return _in_company(examination, mixtures.odd)


def all_at_once(examination: Examination) -> int:
    """Ask over several connections at a time, which is when Triton makes batches itself; return how many requests.

    Raises:
        ModelError, WrongAnswerError: as `in_full_batches`.
    """
    everything = [(model, asked) for model, several in examination.answered.items() for asked in several]

    def ask(one: tuple[str, Asked]) -> None:
        model, asked = one
        if told := asked.fault(examination.answer(model, asked.request.inputs, " beside others")):
            raise WrongAnswerError(f"{examination.named(model)}, beside other requests, gives {told}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return len(list(pool.map(ask, everything)))


def out_of_range(examination: Examination) -> int:
    """Ask the network what it has to refuse, and then a golden request: it shall be as it was. Return how many.

    Raises:
        ModelError: it answers, or another answer than before.
    """
    model = examination.release.network
    if not (known := examination.answered.get(model)):
        return 0
    inputs, config = known[0].request.inputs, examination.configs[model]
    sent = [outside.too_many_rows(inputs, config.max_batch_size)] if config.max_batch_size else []
    if _heeds_range(config, native=examination.native):
        proven = _proven_range(examination.release)
        sent += outside.of_other_shapes(inputs, proven, batched=config.max_batch_size > 0)
    for bad in sent:
        if not isinstance(examination.ask(model, bad), Refusal):
            shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in bad.items())
            raise ModelError(
                f"{examination.named(model)} answers a request outside of the range that was proven: {shapes}"
            )
    if told := known[0].fault(examination.answer(model, inputs, " after one that was refused")):
        raise WrongAnswerError(f"{examination.named(model)}, after a request that was refused, gives {told}")
    return len(sent)


def runs_steps(examination: Examination, model: str) -> bool:
    """Tell whether a model of the release runs the steps of its ensemble in one process."""
    return model in examination.configs and bool(examination.configs[model].backend == model_config.IN_PROCESS)


def alike(one: Examination, other: Examination) -> int:
    """Hold what the other was asked alone against what the one, another shape of it, answered; return how many.

    Raises:
        WrongAnswerError: they differ.
    """
    count = 0
    for model, several in other.answered.items():
        for before, after in zip(one.answered.get(model, ()), several, strict=True):
            if told := before.alone.fault(after.alone.answers):
                raise WrongAnswerError(f"{other.named(model)}, as an ensemble, gives {told}, from one process's answer")
            count += 1
    return count


IN_COMPANY: Mapping[str, Callable[[Examination], int]] = {
    "in full batches": in_full_batches,
    "in odd mixtures": in_odd_mixtures,
    "all at once": all_at_once,
}
ALL: Mapping[str, Callable[[Examination], int]] = {"alone": alone, **IN_COMPANY, "out of range": out_of_range}


def _in_company(examination: Examination, batches: Callable[[Sequence[Asked], int], Iterator[list[Asked]]]) -> int:
    count = 0
    for model, asked in examination.answered.items():
        size = examination.configs[model].max_batch_size
        for rows in batches(asked, size) if size > 1 else ():
            answer = examination.answer(model, mixtures.joined(rows), f" in a batch of {len(rows)}")
            if told := mixtures.fault(rows, answer):
                raise WrongAnswerError(f"{examination.named(model)}, in a batch of {len(rows)}, gives {told}")
            count += 1
    return count


def _check(examination: Examination, request: GoldenRequest, answer: Batch) -> None:
    if told := request.fault(answer):
        raise WrongAnswerError(f"{examination.named(request.model)} gives {told}")


def _heeds_range(config: ModelConfig, *, native: bool) -> bool:
    """Tell whether its backend refuses shapes that were not proven: all but the native one of ONNX Runtime do."""
    return not native or is_tensorrt(config)


def is_tensorrt(config: ModelConfig) -> bool:
    """Tell whether a model is served by TensorRT."""
    return not _TENSORRT.isdisjoint({config.backend, config.platform})


def _proven_range(release: Taken) -> outside.Range:
    published = (release.directory / manifest.FILE_NAME).is_file()
    return manifest.read(release.directory).proven_range if published else {}
