"""The serve gate: a release is proven by a real Triton that loads exactly it, and nothing beside it.

The server works on a private copy and listens on a Unix socket, where nobody else can reach it. It answers the golden
requests alone, in full batches, in odd mixtures and all at once, with the same answers each time; it refuses what is
outside of the proven range; it unloads the release again. An ensemble that one process runs is asked as the ensemble,
too, and answers alike: so what is proven here is what a GPU serves. The first thing that goes wrong ends it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contracts import model_config
from contracts.bundle import Bundle
from contracts.model_config import ModelConfig
from deploy.devices import driver
from deploy.errors import ModelError
from deploy.layers import layer
from deploy.neighbours import identity
from deploy.proving import isolated, questions, scratch
from deploy.proving.isolated import Isolated
from deploy.proving.questions import Examination
from deploy.served import assemble, inside
from deploy.served.assemble import Taken
from deploy.triton import arguments, checks
from deploy.triton.environment import Triton
from deploy.triton.settings import Settings

_CPU = "cpu"
_AS_ENSEMBLES = model_config.as_ensembles(_CPU)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str  # "in full batches"
    device: str  # whose configuration: "cpu", "cpu-ensemble", "gpu"
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
        SettingsError: this process may open too few files for one.
    """
    checks.check_open_files()
    started, done, version = time.monotonic(), list[Check](), ""
    unasked: tuple[str, ...] = ()
    with scratch.private() as place:
        taken, first = assemble.take(release, place / "release"), None
        for config_name in _configurations(taken, triton):
            served, shaped = place / f"{config_name or 'gpu'}", inside.shaped(taken, config_name)
            assemble.place(shaped, served, config_name)
            layer.ensure(served, say)
            layer.check_found(served, triton)
            with _server(triton, place, served, release, timeout_s) as server:
                version = server.version()
                examination = Examination.of(shaped, served, server.infer, native=triton.native)
                unasked = examination.unasked
                other = first if config_name == _AS_ENSEMBLES else None
                done += _checks(server, examination, config_name or "gpu", other)
                first = first or examination
            if done[-1].fault:
                break
    return Verdict(release.network, release.version, version, tuple(done), unasked, time.monotonic() - started)


def _checks(
    server: Isolated, examination: Examination, device: str, other: Examination | None = None
) -> Iterator[Check]:
    """Yield a check after the other, up to the first that fails.

    Args:
        other: The same release with its ensembles in one process each; what those have answered is asked again, and
            shall be answered alike.
    """
    in_order = _in_order(examination.configs)
    asked = dict(questions.ALL)
    if other is not None:
        examination.requests = [
            request for request in examination.requests if questions.runs_steps(other, request.model)
        ]
        asked["as in one process"] = partial(questions.alike, other)

    def load(_: Examination) -> int:
        for model in in_order:  # one by one: what does not load or hangs is known by name
            server.load(model)
        return len(in_order)

    def unload(_: Examination) -> int:
        server.unload(in_order[::-1])
        return len(in_order)

    for name, check in {"loads": load, **asked, "unloads": unload}.items():
        try:
            yield Check(name, device, check(examination))
        except ModelError as error:
            yield Check(name, device, 0, str(error))
            return


@contextmanager
def _server(triton: Triton, place: Path, served: Path, release: Bundle, timeout_s: float) -> Iterator[Isolated]:
    """Start the server, started by root as somebody without privileges."""
    with scratch.socket_folder(served) as folder:
        user = None
        if os.geteuid() == 0:
            scratch.let_in(identity.chosen(None), readable=place, writable=folder)
            user = checks.user_to_become(Settings(repository=served), triton, place, lambda _: None)
        origin = release.directory.parent.parent
        with isolated.server(triton, folder / "models", origin, folder, timeout_s, user) as server:
            yield server


def _configurations(release: Taken, triton: Triton) -> Iterator[str | None]:
    """Yield the configurations that can be served here: the CPU's, and the GPU's (None) where it has one that fits.

    Where the CPU's has an ensemble run in one process, it is served as the ensemble, too, which is what a GPU has.
    """
    one_process = any(model_config.is_in_process(folder, _CPU) for folder in release.models.values())
    if not (triton.native and one_process):  # which has no such backend
        yield _CPU
    if one_process:
        yield _AS_ENSEMBLES
    if arguments.config_name(triton, Settings()) is None and _fits_gpu(release):
        yield None


def _fits_gpu(release: Taken) -> bool:
    """Tell whether there is a file for this machine's GPU: the plans of a release are of one architecture each."""
    config = model_config.read(model_config.chosen(release.models[release.network], None))
    capability = _compute_capability()
    default = config.default_model_filename or ("model.plan" if questions.is_tensorrt(config) else "model.onnx")
    return Path(release.directory, config.cc_model_filenames.get(capability, default)).exists()


def _compute_capability() -> str:
    found = driver.ask()
    gpus = driver.visible(found.gpus) if found is not None else []
    return gpus[0].capability if gpus else ""


def _in_order(configs: Mapping[str, ModelConfig]) -> list[str]:
    """Return the models' names, ensembles behind all else: to load one loads its steps."""
    return sorted(configs, key=lambda name: bool(model_config.steps(configs[name])))
