"""What a signed release has the server open lies in it: a file elsewhere could be swapped, and no signature covers it.

Triton joins what a configuration names with the model's folder, and looks at neither `..` nor a leading `/` there:
an environment of Python, a backend's library, a graph, labels and warm-up data from anywhere would be read, or run.
So would packages be that a model's requirements take from a folder.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from contracts import bundle, layout, model_config
from contracts.errors import ModelConfigError, SignatureError
from contracts.model_config import ModelConfig

_HERE = "$$TRITON_MODEL_DIRECTORY/"  # what the Python backend puts the model's folder for
_LOCK = "requirements.lock"
_REQUIREMENTS = ("requirements.txt", _LOCK)  # beside a configuration
_ENVIRONMENT = "EXECUTION_ENV_PATH"  # a parameter of the Python backend, relative to nothing that is the model's


def check(version: Path) -> None:
    """Check that no configuration and no requirement in the bundle of a version names a file that lies elsewhere.

    Raises:
        SignatureError: one does. What is no configuration is not served, whatever it names.
    """
    for folder in sorted((version / bundle.FOLDER).glob("*")):
        named = [(path, *each) for path in model_config.paths(folder) for each in _read(path)]
        named += [(folder / name, *each) for name in _REQUIREMENTS for each in _places(folder / name)]
        for path, field, name in named:
            if _leads_out(name):
                raise SignatureError(
                    f"{layout.shown(path)} has the server open {name}, which no signature covers",
                    note=f"{field} names a file outside of the model's folder",
                    hint="put it into that folder, and publish again: python -m export",
                )
        _check_wheels(folder / _LOCK)


def _read(path: Path) -> list[tuple[str, str]]:
    try:
        return [*_files(model_config.read(path))]
    except ModelConfigError:
        return []


def _files(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield (field, value) of all that Triton and its backends open by a name."""
    yield "default_model_filename", config.default_model_filename
    yield from (("cc_model_filenames", name) for name in config.cc_model_filenames.values())
    yield "backend", config.backend
    yield "runtime", config.runtime
    yield from (("op_library_filename", name) for name in config.model_operations.op_library_filename)
    yield from (("label_filename", output.label_filename) for output in config.output)
    for sample in config.model_warmup:
        yield from (("input_data_file", of.input_data_file) for of in sample.inputs.values())
    for state in config.sequence_batching.state:
        yield from (("data_file", initial.data_file) for initial in state.initial_state)
    for agent in config.model_repository_agents.agents:
        yield from (("model_repository_agents", name) for name in (agent.name, *agent.parameters.values()))
    execution = config.optimization.execution_accelerators
    for accelerator in (*execution.gpu_execution_accelerator, *execution.cpu_execution_accelerator):
        yield from ((f"accelerator {accelerator.name}: {key}", name) for key, name in accelerator.parameters.items())
    for key, value in config.parameters.items():
        if key == _ENVIRONMENT:
            yield key, value.string_value if value.string_value.startswith(_HERE) else f"/{value.string_value}"
        elif config.backend != "python":  # there they are for the model's own code, which is signed
            yield f"parameter {key}", value.string_value


def _places(requirements: Path) -> Iterator[tuple[str, str]]:
    """Yield (line, place) of what a file of requirements has pip look at on this machine."""
    for line in _lines(requirements):
        for word in re.split(r"[\s=@]+", line.partition(" #")[0]):
            place = word.removeprefix("-f")
            if not re.match(r"(\w+\+)?(https?|ssh)://", place):
                yield line, f"/{place}" if place.startswith(("~", "$", "file:")) else place


def _check_wheels(lock: Path) -> None:
    """Check that packages which a release brings have hashes: what is installed is known by what its lock says."""
    lines = _lines(lock)
    brings = any(re.match(r"(--find-links|-f)\b", line) for line in lines)
    for line in lines:
        if brings and not line.startswith("-") and "--hash=" not in line:
            raise SignatureError(
                f"{layout.shown(lock)} has the server install {line}, which no signature covers",
                note="a wheel of the same name and version that another release brought may be installed already",
                hint="write its hash behind it: --hash=sha256:…, as `pip hash` says it, and publish again",
            )


def _lines(requirements: Path) -> list[str]:
    if not requirements.is_file():
        return []
    text = requirements.read_text(errors="replace").replace("\0", "")  # of UTF-16, as Windows writes it
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.removeprefix(_HERE))
    return path.is_absolute() or ".." in path.parts or "://" in name
