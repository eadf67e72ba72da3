"""What `--auto-complete-config` adds to a configuration without inputs or outputs, by the native backend's rules."""

import json
from typing import Any

from python_based.config import ModelConfig
from python_based.errors import ModelError
from python_based.fit import FileTensors

from ort_session import graph

_MAX_BATCH_SIZE = 4  # Triton's default-max-batch-size


def complete(config: dict[str, Any], directory: str) -> None:
    """Add what the graph says to a configuration, in place; one that has inputs and outputs stays as it is.

    Args:
        config: As Triton has it, in JSON.
        directory: Of the version.

    Raises:
        ModelError: the graph cannot be loaded, or has no batch where max_batch_size is not 0.
    """
    if (config["input"] or config.get("batch_input")) and config["output"]:
        return
    repository, _, version = directory.rpartition("/")
    kinds = {group.get("kind", "KIND_CPU") for group in config.get("instance_group", ())}
    where = {"model_repository": repository, "model_version": version, "model_instance_device_id": "0"}
    kind = "GPU" if "KIND_GPU" in kinds else "CPU"
    bare = {"model_config": _bare(config), "model_instance_kind": kind, **where}
    session = graph.load(ModelConfig.of(bare))
    inputs, outputs = graph.tensors(session.get_inputs()), graph.tensors(session.get_outputs())
    _complete_batching(config, [*inputs.values(), *outputs.values()])
    batches = config["max_batch_size"] > 0
    if not (config["input"] or config.get("batch_input")):
        config["input"] = _tensors(inputs, batches)
    if not config["output"]:
        config["output"] = _tensors(outputs, batches)


def _bare(config: dict[str, Any]) -> str:
    """Return what of a configuration says how the graph is loaded."""
    keys = ("default_model_filename", "parameters", "optimization", "model_operations", "max_batch_size")
    return json.dumps({"input": [], "output": [], **{key: config[key] for key in keys if key in config}})


def _complete_batching(config: dict[str, Any], found: list[Any]) -> None:
    if not all(dims and dims[0] == -1 for _, dims in found):
        if config["max_batch_size"]:
            raise ModelError("max_batch_size is not 0, and the graph has an input or output without a batch")
        return
    config["max_batch_size"] = config["max_batch_size"] or _MAX_BATCH_SIZE
    if config["max_batch_size"] > 1 and not {"sequence_batching", "dynamic_batching"} & config.keys():
        config["dynamic_batching"] = {}


def _tensors(found: FileTensors, batches: bool) -> list[dict[str, Any]]:
    tensors = []
    for name, (dtype, dims) in found.items():
        if "(" in dtype:
            raise ModelError(f"{name!r} is {dtype}, which Triton has no type for")
        own = list(dims or ())[batches:]
        tensor: dict[str, Any] = {"name": name, "data_type": f"TYPE_{dtype}", "dims": own or [1]}
        if batches and not own:
            tensor["reshape"] = {"shape": []}
        tensors.append(tensor)
    return tensors
