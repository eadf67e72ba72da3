"""A model's configuration as Triton hands it over, and what is understood of it.

What is not understood is refused: a setting without an effect is found later and by somebody else.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from python_based.errors import ModelError

# Scheduling of a kind that the backend would have to take part in.
_NOT_HERE = ("batch_input", "batch_output", "sequence_batching")
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
    optional: bool


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
    profiles: frozenset[tuple[str, ...]]  # that the instance groups name
    kind: str  # "CPU", "GPU" or "MODEL"
    device: int

    @classmethod
    def of(cls, args: Mapping[str, str]) -> Self:
        """Read what `initialize` is given.

        Raises:
            ModelError: it asks for what no Python-based backend of ours does.
        """
        config = json.loads(args["model_config"])
        refuse("config.pbtxt", _not_here(config), ())
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
            profiles=frozenset(tuple(group.get("profile", ())) for group in config.get("instance_group", ())),
            kind=args["model_instance_kind"],
            device=int(args["model_instance_device_id"]),
        )

    @property
    def hints(self) -> list[str]:
        """What `optimization` has that is left to the native backend."""
        return sorted(self.optimization.keys() & set(HINTS))


def refuse(what: str, found: Collection[str], understood: Collection[str]) -> None:
    """Raise a ModelError if anything of `found` is not among what is `understood`."""
    if others := sorted(set(found) - set(understood)):
        known = f"; it knows {', '.join(sorted(understood))}" if understood else ""
        raise ModelError(f"{what} has {', '.join(others)}, which this backend does not support{known}")


def _tensor(config: Mapping[str, Any], batch: tuple[int, ...]) -> Tensor:
    refuse(
        f"config.pbtxt: {config['name']!r}",
        [name for name in ("allow_ragged_batch", "is_shape_tensor", "is_non_linear_format_io") if config.get(name)],
        (),
    )
    return Tensor(
        name=config["name"],
        dtype=config["data_type"].removeprefix("TYPE_"),
        dims=(*batch, *config.get("reshape", {}).get("shape", config["dims"])),
        optional=config.get("optional", False),
    )


def _not_here(config: Mapping[str, Any]) -> list[str]:
    asked = [name for name in _NOT_HERE if config.get(name)]
    if config.get("model_operations", {}).get("op_library_filename"):
        asked.append("model_operations")
    if config.get("model_transaction_policy", {}).get("decoupled"):
        asked.append("model_transaction_policy { decoupled }")
    return asked
