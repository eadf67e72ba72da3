"""What a signed release has the server open lies in it: a file elsewhere could be swapped, and no signature covers it.

Triton joins what a configuration names with the model's folder, and looks at neither `..` nor a leading `/` there:
an environment of Python, a backend's library, a graph, labels and warm-up data from anywhere would be read, or run.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from contracts import bundle, layout, model_config
from contracts.errors import ModelConfigError, SignatureError
from contracts.model_config import ModelConfig

_HERE = "$$TRITON_MODEL_DIRECTORY/"  # what the Python backend puts the model's folder for
_ENVIRONMENT = "EXECUTION_ENV_PATH"  # a parameter of the Python backend, relative to nothing that is the model's


def check(version: Path) -> None:
    """Check that no configuration in the bundle of a version names a file that lies elsewhere.

    Raises:
        SignatureError: one does. What is no configuration is not served, whatever it names.
    """
    for folder in sorted((version / bundle.FOLDER).glob("*")):
        for path in model_config.paths(folder):
            for field, name in _read(path):
                if _leads_out(name):
                    raise SignatureError(
                        f"{layout.shown(path)} has the server open {name}, which no signature covers",
                        note=f"{field} names a file outside of the model's folder",
                        hint="put it into that folder, and publish again: python -m export",
                    )


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


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.removeprefix(_HERE))
    return path.is_absolute() or ".." in path.parts or "://" in name
