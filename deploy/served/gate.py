"""The serve gate: a release is proven by a real Triton that loads exactly it, and nothing beside it.

The server works on a private copy and listens on a Unix socket, where nobody else can reach it. It answers the golden
requests alone, in full batches, in odd mixtures and all at once, with the same answers each time; it refuses what is
outside of the proven range; it unloads the release again. The first thing that goes wrong ends it.
"""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from contracts import golden, manifest, model_config
from contracts.bundle import Bundle
from contracts.golden import GoldenRequest
from contracts.model_config import ModelConfig
from contracts.samples import Batch
from deploy.errors import ModelError
from deploy.layers import layer
from deploy.served import assemble, isolated, mixtures, outside, scratch
from deploy.served.assemble import Taken
from deploy.served.isolated import Isolated
from deploy.served.mixtures import Asked
from deploy.triton import arguments, checks
from deploy.triton.environment import Triton
from deploy.triton.settings import Settings

_AT_ONCE = 8  # requests
_TENSORRT = {"tensorrt", "tensorrt_plan"}  # its backend, its platform


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str  # "in full batches"
    device: str  # whose configuration: "cpu", "gpu"
    count: int  # of models or requests
    fault: str = ""  # what went wrong


@dataclass(frozen=True)
class Verdict:
    """What became of a release in the serve gate."""

    model: str
    version: int
    triton: str  # "2.51.0"
    checks: tuple[Check, ...]
    unasked: tuple[str, ...]  # what clients call and there are no golden requests for: it loaded, no more is known
    seconds: float

    @property
    def failed(self) -> Check | None:
        """The check that failed, which is the last one; None if none did."""
        return next((check for check in self.checks if check.fault), None)


def prove(release: Bundle, triton: Triton, say: Callable[[str], None], timeout_s: float = 120) -> Verdict:
    """Let a server of its own load a release and answer its golden requests, in each configuration that can be here.

    Args:
        say: Is told what takes long.
        timeout_s: For a model to load, and for an answer.

    Raises:
        FolderError, ManifestError, ModelConfigError: the release is not whole, or not what was published.
        RequirementsError: a model's own packages could not be locked or installed.
        StartError: no server starts here, whatever it has to serve.
    """
    started, done, version = time.monotonic(), list[Check](), ""
    with scratch.private() as place:
        taken = assemble.take(release, place / "release")
        requests = golden.read(taken.directory)
        for config_name in _configurations(taken, triton):
            served = place / f"{config_name or 'gpu'}"
            assemble.place(taken, served, config_name)
            layer.ensure(served, say)
            layer.check_found(served, triton)
            configs = {name: model_config.read(served / name / model_config.FILE_NAME) for name in taken.models}
            with _server(triton, place, served, release, timeout_s) as server:
                version = server.version()
                session = _Session(server, taken, configs, requests, native=triton.native)
                done += _checks(session, config_name or "gpu")
            if done[-1].fault:
                break
    called = [name for name in taken.models if name == taken.network or model_config.steps(configs[name])]
    asked = {request.model for request in requests}
    unasked = tuple(name for name in called if name not in asked)
    return Verdict(release.network, release.version, version, tuple(done), unasked, time.monotonic() - started)


@dataclass
class _Session:
    """A release on its server, and what it has answered."""

    server: Isolated
    release: Taken
    configs: Mapping[str, ModelConfig]  # {model: its configuration}
    requests: Sequence[GoldenRequest]
    native: bool  # whether the server has the native backends
    answered: dict[str, list[Asked]] = field(default_factory=dict)  # {model: what it was asked, and answered alone}

    def answer(self, model: str, inputs: Batch, company: str = "") -> Batch:
        """Have the release answer.

        Raises:
            ModelError: it refuses, or another version answers.
        """
        answer = self.server.infer(model, inputs)
        if isinstance(answer, str):
            raise ModelError(f"{model} refuses a golden request{company}", note=answer)
        if answer.version != str(self.release.version):
            raise ModelError(f"version {answer.version} of {model} answers, not {self.release.version}")
        return answer.outputs


def _checks(session: _Session, device: str) -> Iterator[Check]:
    """Yield a check after the other, up to the first that fails."""
    for name, check in _CHECKS.items():
        try:
            yield Check(name, device, check(session))
        except ModelError as error:
            yield Check(name, device, 0, str(error))
            return


def _load(session: _Session) -> int:
    """Load the models one by one, ensembles last: what does not load or hangs is known by name."""
    for model in _in_order(session.configs):
        session.server.load(model)
    return len(session.configs)


def _ask_alone(session: _Session) -> int:
    for model in Counter(request.model for request in session.requests):
        requests = [request for request in session.requests if request.model == model]
        answers = [session.answer(model, request.inputs) for request in requests]
        for request, answer in zip(requests, answers, strict=True):
            if told := request.fault(answer):
                raise ModelError(f"{model}: {told}")
        session.answered[model] = mixtures.asked(requests, answers)
    return len(session.requests)


def _ask_in_full_batches(session: _Session) -> int:
    return _ask_in_company(session, mixtures.full)


def _ask_in_odd_mixtures(session: _Session) -> int:
    return _ask_in_company(session, mixtures.odd)


def _ask_in_company(session: _Session, batches: Callable[[Sequence[Asked], int], Iterator[list[Asked]]]) -> int:
    count = 0
    for model, asked in session.answered.items():
        size = session.configs[model].max_batch_size
        for rows in batches(asked, size) if size > 1 else ():
            answer = session.answer(model, mixtures.joined(rows), f" in a batch of {len(rows)}")
            if told := mixtures.fault(rows, answer):
                raise ModelError(f"{model}, in a batch of {len(rows)}: {told}")
            count += 1
    return count


def _ask_all_at_once(session: _Session) -> int:
    """Send the requests over several connections at a time, which is when Triton puts them into batches itself."""
    everything = [(model, asked) for model, several in session.answered.items() for asked in several]

    def ask(one: tuple[str, Asked]) -> None:
        model, asked = one
        if told := asked.fault(session.answer(model, asked.request.inputs, " beside others")):
            raise ModelError(f"{model}, beside other requests: {told}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return len(list(pool.map(ask, everything)))


def _ask_what_is_out_of_range(session: _Session) -> int:
    """Send the network what it has to refuse, and then a golden request: it shall be as it was."""
    model = session.release.network
    if not (known := session.answered.get(model)):
        return 0
    inputs, size = known[0].request.inputs, session.configs[model].max_batch_size
    sent = [outside.too_many_rows(inputs, size)] if size else []
    if _heeds_range(session.configs[model], native=session.native):
        sent += outside.of_other_shapes(inputs, _proven_range(session.release), batched=size > 0)
    for bad in sent:
        if not isinstance(session.server.infer(model, bad), str):
            shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in bad.items())
            raise ModelError(f"{model} answers a request outside of the range that was proven: {shapes}")
    if told := known[0].fault(session.answer(model, inputs, " after one that was refused")):
        raise ModelError(f"{model}, after a request that was refused: {told}")
    return len(sent)


def _unload(session: _Session) -> int:
    session.server.unload(_in_order(session.configs)[::-1])
    return len(session.configs)


IN_COMPANY = {
    "in full batches": _ask_in_full_batches,
    "in odd mixtures": _ask_in_odd_mixtures,
    "all at once": _ask_all_at_once,
}
_CHECKS: Mapping[str, Callable[[_Session], int]] = {
    "loads": _load,
    "alone": _ask_alone,
    **IN_COMPANY,
    "out of range": _ask_what_is_out_of_range,
    "unloads": _unload,
}


@contextmanager
def _server(triton: Triton, place: Path, served: Path, release: Bundle, timeout_s: float) -> Iterator[Isolated]:
    """Start the server, started by root as somebody without privileges where that can read what it needs."""
    with scratch.socket_folder(served) as folder:
        user = None
        if os.geteuid() == 0:
            scratch.let_in(checks.UNPRIVILEGED, readable=place, writable=folder)
            user = checks.user_to_become(Settings(repository=served), triton, lambda _: None)
        origin = release.directory.parent.parent
        with isolated.server(triton, folder / "models", origin, folder, timeout_s, user) as server:
            yield server


def _configurations(release: Taken, triton: Triton) -> Iterator[str | None]:
    """Yield the configurations that can be served here: the CPU's, and the GPU's (None) where it has one that fits."""
    yield "cpu"
    if arguments.config_name(triton, Settings()) is None and _fits_gpu(release):
        yield None


def _fits_gpu(release: Taken) -> bool:
    """Tell whether there is a file for this machine's GPU: the plans of a release are of one architecture each."""
    config = model_config.read(model_config.chosen(release.models[release.network], None))
    capability = _compute_capability()
    default = config.default_model_filename or ("model.plan" if _is_tensorrt(config) else "model.onnx")
    return Path(release.directory, config.cc_model_filenames.get(capability, default)).exists()


def _compute_capability() -> str:
    if (tool := shutil.which("nvidia-smi")) is None:
        return ""
    command = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0].strip()


def _heeds_range(config: ModelConfig, *, native: bool) -> bool:
    """Tell whether its backend refuses shapes that were not proven: all but the native one of ONNX Runtime do."""
    return not native or _is_tensorrt(config)


def _is_tensorrt(config: ModelConfig) -> bool:
    return not _TENSORRT.isdisjoint({config.backend, config.platform})


def _proven_range(release: Taken) -> outside.Range:
    published = (release.directory / manifest.FILE_NAME).is_file()
    return manifest.read(release.directory).proven_range if published else {}


def _in_order(configs: Mapping[str, ModelConfig]) -> list[str]:
    """Return the models' names, ensembles behind all else: to load one loads its steps."""
    return sorted(configs, key=lambda name: bool(model_config.steps(configs[name])))
