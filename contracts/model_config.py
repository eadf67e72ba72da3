"""Triton's model configurations: config.pbtxt, and the others of a model that `--model-config-name` chooses."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from contracts import layout
from contracts.errors import ModelConfigError

FILE_NAME = "config.pbtxt"
OTHERS = "configs"  # the folder of the others, such as configs/cpu.pbtxt
IN_PROCESS = "inprocess"  # the backend of an ensemble whose steps one process runs
_AS_ENSEMBLE = "-ensemble"  # behind the name of a configuration: the same, but for those

ModelConfig = Any  # tritonclient.grpc.model_config_pb2.ModelConfig: to import it costs 0.3 s


def read(path: Path) -> ModelConfig:
    """Read a configuration.

    Raises:
        ModelConfigError: it is missing, or is none.
    """
    try:
        return parse(path.read_bytes(), layout.shown(path))
    except FileNotFoundError:
        raise ModelConfigError(
            f"{layout.shown(path)} does not exist", hint="every model needs one for the GPU and one for the CPU"
        ) from None
    except OSError as error:
        raise ModelConfigError(f"{layout.shown(path)} cannot be read", note=str(error)) from error


def parse(content: bytes, name: str) -> ModelConfig:
    """Read the content of one.

    Args:
        name: What an error calls it.

    Raises:
        ModelConfigError: it is none.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(content.decode(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        where = f"line {error.GetLine()}, column {error.GetColumn()}" if error.GetLine() else ""
        said = str(error).partition(" : ")[2] or str(error)  # behind the same in its own way
        raise ModelConfigError(f"{name} is no model configuration", note=f"{where}: {said}".lstrip(": ")) from error
    except UnicodeDecodeError as error:
        raise ModelConfigError(f"{name} is no model configuration", note=str(error)) from error


def as_ensembles(config_name: str) -> str:
    """Return the name by which configurations are chosen like `config_name`, and no ensemble runs in one process."""
    return f"{config_name}{_AS_ENSEMBLE}"


def plain(config_name: str | None) -> str | None:
    """Return the name that Triton knows: what `as_ensembles` was given."""
    return config_name and config_name.removesuffix(_AS_ENSEMBLE)


def chosen(folder: Path, config_name: str | None) -> Path:
    """Return the configuration of the model in `folder` that Triton takes for `--model-config-name`."""
    other = folder / OTHERS / f"{plain(config_name)}.pbtxt"
    if config_name is None or not other.is_file():
        return folder / FILE_NAME
    if _is_in_process(other) and (config_name != plain(config_name) or _caches(folder / FILE_NAME)):
        return folder / FILE_NAME
    return other


def is_in_process(folder: Path, config_name: str | None) -> bool:
    """Tell whether the model in `folder` is an ensemble whose steps one process runs in that configuration.

    Not one that caches its answers: of a model that is no ensemble Triton 2.51 keeps failures, too, as empty answers.
    """
    return _is_in_process(chosen(folder, config_name))


def paths(folder: Path) -> Iterator[Path]:
    """Yield every configuration that the model in `folder` has, config.pbtxt first."""
    if (folder / FILE_NAME).is_file():
        yield folder / FILE_NAME
    yield from sorted((folder / OTHERS).glob("*.pbtxt"))


def steps(config: ModelConfig) -> tuple[str, ...]:
    """Return the models that an ensemble is made of, in its order; none of a model that is no ensemble."""
    return tuple(step.model_name for step in config.ensemble_scheduling.step)


def _is_in_process(path: Path) -> bool:
    with suppress(ModelConfigError, OSError):  # whoever needs it is told
        return IN_PROCESS.encode() in path.read_bytes() and bool(read(path).backend == IN_PROCESS)
    return False


def _caches(path: Path) -> bool:
    with suppress(ModelConfigError):
        return bool(read(path).response_cache.enable)
    return False
