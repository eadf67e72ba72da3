"""A model's configuration as Triton hands it over: what is understood of it, and whether it fits the model's file.

What is not understood is refused: a setting without an effect is found later and by somebody else.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from python_based.errors import ModelError

# Scheduling of a kind that the backend would have to take part in.
_NOT_HERE = ("batch_input", "batch_output", "sequence_batching", "model_operations", "model_transaction_policy")
# Triton fills these in whether or not config.pbtxt has them. Pinned memory is about transfers that Triton makes
# itself; a Python-based backend gets its tensors in shared memory, and the TensorRT one pins its own.
_DEFAULT_OPTIMIZATION = {"priority": "PRIORITY_DEFAULT", "gather_kernel_buffer_threshold": 0, "eager_batching": False}
_PINNED = ("input_pinned_memory", "output_pinned_memory")

# Tensors of a model's file by name: their dtype and dims, -1 where one may vary, None where even the rank is unknown.
FileTensors = Mapping[str, tuple[str, Sequence[int] | None]]


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
        refuse("config.pbtxt", [name for name in _NOT_HERE if config.get(name)], ())
        batch = (-1,) if config["max_batch_size"] > 0 else ()
        return cls(
            max_batch_size=config["max_batch_size"],
            inputs=tuple(_tensor(each, batch) for each in config["input"]),
            outputs=tuple(_tensor(each, batch) for each in config["output"]),
            directory=Path(args["model_repository"], args["model_version"]),
            default_file=config.get("default_model_filename", ""),
            cc_files=config.get("cc_model_filenames", {}),
            parameters={name: each["string_value"] for name, each in config.get("parameters", {}).items()},
            optimization={
                name: value
                for name, value in config.get("optimization", {}).items()
                if name not in _PINNED and _DEFAULT_OPTIMIZATION.get(name) != value
            },
            profiles=frozenset(tuple(group.get("profile", ())) for group in config.get("instance_group", ())),
            kind=args["model_instance_kind"],
            device=int(args["model_instance_device_id"]),
        )

    def require_fit(self, file: str, inputs: FileTensors, outputs: FileTensors, optional: Collection[str] = ()) -> None:
        """Compare names, dtypes and dimensions with those of the model's file.

        Args:
            optional: The inputs that the file can do without.

        Raises:
            ModelError: they differ, with every difference.
        """
        faults = [f"input {name!r} is missing" for name in inputs if name not in {t.name for t in self.inputs}]
        for kind, tensors, found in (("input", self.inputs, inputs), ("output", self.outputs, outputs)):
            for tensor in tensors:
                faults += [f"{kind} {tensor.name!r} {fault}" for fault in _faults(tensor, found)]
        needed = [tensor.name for tensor in self.inputs if tensor.optional and tensor.name not in optional]
        faults += [f"input {name!r} is not optional" for name in needed]
        if self.max_batch_size > 0:
            fixed = [name for name, (_, dims) in inputs.items() if dims and dims[0] != -1]
            faults += [f"max_batch_size is not 0, but the batch of input {name!r} is fixed" for name in fixed]
        if faults:
            raise ModelError(f"config.pbtxt does not fit {file}: {'; '.join(faults)}")


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


def _faults(tensor: Tensor, found: FileTensors) -> list[str]:
    if tensor.name not in found:
        return [f"is not in it, which has {', '.join(map(repr, sorted(found)))}"]
    dtype, dims = found[tensor.name]
    faults = [] if dtype == tensor.dtype else [f"is {tensor.dtype}, not {dtype}"]
    if dims is not None and not _agree(dims, tensor.dims):
        faults.append(f"has dims {list(tensor.dims)}, not {list(dims)}")
    return faults


def _agree(some: Sequence[int], others: Sequence[int]) -> bool:
    return len(some) == len(others) and all(a == b or -1 in (a, b) for a, b in zip(some, others, strict=True))
