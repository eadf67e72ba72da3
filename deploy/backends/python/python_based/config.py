"""A model's configuration as Triton hands it over, and what is understood of it.

What is not understood is refused: a setting without an effect is found later and by somebody else.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from python_based.errors import ModelError

# Scheduling of a kind that a backend has to take part in: one that does says so.
SEQUENCES, RAGGED = ("sequence_batching",), ("allow_ragged_batch", "batch_input", "batch_output")
# Triton fills these in whether or not config.pbtxt has them. Pinned memory is about transfers that Triton makes
# itself; a Python-based backend gets its tensors in shared memory, and the TensorRT one pins its own. Eager batching
# is the work of Triton's batcher alone.
_DEFAULT_OPTIMIZATION = {"priority": "PRIORITY_DEFAULT", "gather_kernel_buffer_threshold": 0}
_NOT_THE_BACKENDS = ("input_pinned_memory", "output_pinned_memory", "eager_batching")
# What may make the native backends faster and changes no answer.
HINTS = ("cuda", "gather_kernel_buffer_threshold", "priority")
_NOTES = ("family",)  # parameters that say something to people and to `deploy`


@dataclass(frozen=True)
class Tensor:
    """An input or an output of config.pbtxt."""

    name: str
    dtype: str  # "FP32", "STRING", …
    dims: tuple[int, ...]  # as the model's file has them, the batch among them; -1 where they may vary
    optional: bool = False
    ragged: bool = False  # requests of one batch may differ in its shape: the file takes all their elements in a row


@dataclass(frozen=True)
class State:
    """What a sequence carries from one request to the next."""

    input: str
    output: str
    dtype: str


@dataclass(frozen=True)
class BatchInput:
    """Inputs that are made of the shapes of a batch's requests."""

    kind: str  # "BATCH_ELEMENT_COUNT", …
    targets: tuple[str, ...]
    dtype: str  # "FP32" or "INT32"
    source: str  # the input whose shapes it tells


@dataclass(frozen=True)
class ModelConfig:
    """What a backend has to know of config.pbtxt, and where it runs."""

    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    directory: Path  # of the version
    default_file: str
    cc_files: Mapping[str, str]  # by compute capability, "9.0"
    parameters: Mapping[str, str]
    optimization: Mapping[str, Any]  # what config.pbtxt asks for beyond the defaults
    libraries: tuple[str, ...]  # of custom operators
    profiles: frozenset[tuple[str, ...]]  # that the instance groups name
    kind: str  # "CPU", "GPU" or "MODEL"
    device: int
    controls: tuple[Tensor, ...]  # inputs that Triton's sequence batcher makes
    states: tuple[State, ...]
    sequences: int  # that an instance may have under way
    batch_inputs: tuple[BatchInput, ...]
    scattered: Mapping[str, str]  # {output: the input whose shape each request's part of it has}
    warm_ups: Sequence[Mapping[str, Any]]  # as config.pbtxt has them

    @classmethod
    def of(cls, args: Mapping[str, str], understood: Collection[str] = ()) -> Self:
        """Read what `initialize` is given.

        Args:
            understood: Features that not every backend has, and the caller does.

        Raises:
            ModelError: it asks for what this backend does not do.
        """
        config = json.loads(args["model_config"])
        refuse("config.pbtxt", _asked(config), understood)
        sequences = config.get("sequence_batching", {})
        refuse("sequence_batching", ["iterative_sequence"] if sequences.get("iterative_sequence") else [], ())
        batch = (-1,) if config["max_batch_size"] > 0 else ()
        return cls(
            max_batch_size=config["max_batch_size"],
            inputs=tuple(_tensor(each, batch) for each in config["input"]),
            outputs=tuple(_tensor(each, batch) for each in config["output"]),
            directory=Path(args["model_repository"], args["model_version"]),
            default_file=config.get("default_model_filename", ""),
            cc_files=config.get("cc_model_filenames", {}),
            parameters={
                name: each["string_value"] for name, each in config.get("parameters", {}).items() if name not in _NOTES
            },
            optimization={
                name: value
                for name, value in config.get("optimization", {}).items()
                if name not in _NOT_THE_BACKENDS and _DEFAULT_OPTIMIZATION.get(name) != value
            },
            libraries=tuple(config.get("model_operations", {}).get("op_library_filename", ())),
            profiles=frozenset(tuple(group.get("profile", ())) for group in config.get("instance_group", ())),
            kind=args["model_instance_kind"],
            device=int(args["model_instance_device_id"]),
            controls=tuple(_control(each, batch) for each in sequences.get("control_input", ())),
            states=tuple(
                State(each["input_name"], each["output_name"], _dtype(each)) for each in sequences.get("state", ())
            ),
            sequences=sequences.get("oldest", {}).get("max_candidate_sequences") or max(1, config["max_batch_size"]),
            batch_inputs=tuple(_batch_input(each) for each in config.get("batch_input", ())),
            scattered={each["target_name"][0]: each["source_input"][0] for each in config.get("batch_output", ())},
            warm_ups=config.get("model_warmup", ()),
        )

    @property
    def hints(self) -> list[str]:
        """What `optimization` has that is left to the native backend."""
        return sorted(self.optimization.keys() & set(HINTS))

    @property
    def made_inputs(self) -> dict[str, str]:
        """Inputs that the file takes and no request has, but for the sequence batcher's: {name: its type}."""
        made = {target: each.dtype for each in self.batch_inputs for target in each.targets}
        return made | {state.input: state.dtype for state in self.states}


def refuse(what: str, found: Collection[str], understood: Collection[str]) -> None:
    """Raise a ModelError if anything of `found` is not among what is `understood`."""
    if others := sorted(set(found) - set(understood)):
        known = f"; it knows {', '.join(sorted(understood))}" if understood else ""
        raise ModelError(f"{what} has {', '.join(others)}, which this backend does not support{known}")


def _tensor(config: Mapping[str, Any], batch: tuple[int, ...]) -> Tensor:
    refuse(
        f"config.pbtxt: {config['name']!r}",
        [name for name in ("is_shape_tensor", "is_non_linear_format_io") if config.get(name)],
        (),
    )
    return Tensor(
        name=config["name"],
        dtype=_dtype(config),
        dims=(*batch, *config.get("reshape", {}).get("shape", config["dims"])),
        optional=config.get("optional", False),
        ragged=config.get("allow_ragged_batch", False),
    )


def _control(config: Mapping[str, Any], batch: tuple[int, ...]) -> Tensor:
    """Read a control of the sequence batcher; its type is that of the values it has for false and true, or named."""
    control = config["control"][0]
    types = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}
    dtype = next((types[name] for name in types if control.get(name)), None) or _dtype(control)
    return Tensor(config["name"], dtype, (*batch, 1))


def _batch_input(config: Mapping[str, Any]) -> BatchInput:
    return BatchInput(config["kind"], tuple(config["target_name"]), _dtype(config), config["source_input"][0])


def _dtype(config: Mapping[str, Any]) -> str:
    return str(config["data_type"]).removeprefix("TYPE_")


def _asked(config: Mapping[str, Any]) -> list[str]:
    """Name the features of a configuration that not every backend has."""
    asked = [name for name in ("batch_input", "batch_output", "sequence_batching") if config.get(name)]
    if any(each.get("allow_ragged_batch") for each in config["input"]):
        asked.append("allow_ragged_batch")
    if config.get("model_operations", {}).get("op_library_filename"):
        asked.append("model_operations")
    if config.get("model_transaction_policy", {}).get("decoupled"):
        asked.append("model_transaction_policy { decoupled }")
    return asked
