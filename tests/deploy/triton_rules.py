"""What Triton 26.07 refuses of a configuration when it loads a model: its core's rules, and its TensorRT backend's.

On a machine without a GPU no server loads a GPU's configuration. These are the rules of both for what our
configurations have: inputs and outputs, batching, ensembles, instances, warm-up and CUDA graphs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

Config = Any  # pb.ModelConfig
_GROUP, _ACTION = pb.ModelInstanceGroup, pb.ModelQueuePolicy


def faults(config: Config, others: Mapping[str, Config] | None = None) -> list[str]:
    """Say what Triton would refuse.

    Args:
        others: The models of the repository by name; with them an ensemble is held to its steps.
    """
    found = [*_of_tensors(config), *_of_batching(config), *_of_instances(config), *_of_warmup(config)]
    found += _of_graphs(config)
    if not (config.name and (config.backend or config.platform)):
        found.append("it has no name, or neither a backend nor a platform")
    if config.platform == "ensemble" or config.HasField("ensemble_scheduling"):
        found += _of_ensemble(config, others or {})
    return found


def _of_tensors(config: Config) -> Iterator[str]:
    for tensor in (*config.input, *config.output):
        dims, shape = list(tensor.dims), list(tensor.reshape.shape)
        if not tensor.name or tensor.data_type == pb.TYPE_INVALID:
            yield f"{tensor.name!r} lacks a name or a type"
        if not dims or any(dim == 0 or dim < -1 for dim in dims):
            yield f"{tensor.name!r} has dims {dims}"
        if tensor.HasField("reshape"):
            if not shape and not config.max_batch_size:
                yield f"{tensor.name!r} has an empty reshape without batches"
            if -1 not in (*dims, *shape) and math.prod(dims) != math.prod(shape):
                yield f"{tensor.name!r} has other elements in its reshape"
    names = [tensor.name for tensor in (*config.input, *config.output)]
    if len(set(names)) < len(names):
        yield "two tensors have one name"


def _of_batching(config: Config) -> Iterator[str]:
    if not config.HasField("dynamic_batching"):
        return
    batching = config.dynamic_batching
    for size in batching.preferred_batch_size:
        if not 0 < size <= config.max_batch_size:
            yield f"preferred_batch_size {size} is not in 1 to {config.max_batch_size}"
    levels = batching.priority_levels
    if levels:
        if not 1 <= batching.default_priority_level <= levels:
            yield f"default_priority_level {batching.default_priority_level} is not in 1 to {levels}"
        for level in batching.priority_queue_policy:
            if not 1 <= level <= levels:
                yield f"there is a queue policy for priority {level} of {levels}"
    if batching.preserve_ordering:
        if levels > 1:
            yield "preserve_ordering goes with one priority alone"
        for policy in (batching.default_queue_policy, *batching.priority_queue_policy.values()):
            if policy.default_timeout_microseconds and policy.timeout_action == _ACTION.DELAY:
                yield "preserve_ordering and timeout_action DELAY"


def _of_instances(config: Config) -> Iterator[str]:
    for group in config.instance_group:
        if group.kind in (_GROUP.KIND_CPU, _GROUP.KIND_MODEL) and group.gpus:
            yield "an instance group names GPUs and is on none"
        if group.profile and config.platform != "tensorrt_plan":
            yield "an instance group has an optimization profile, which is TensorRT's"
        if not all(profile.isdecimal() for profile in group.profile):
            yield f"there is no optimization profile {list(group.profile)}"
        if config.platform == "tensorrt_plan" and group.kind not in (_GROUP.KIND_GPU, _GROUP.KIND_AUTO):
            yield "TensorRT's instances are on a GPU"


def _of_warmup(config: Config) -> Iterator[str]:
    inputs = {tensor.name: tensor for tensor in config.input}
    needed = {tensor.name for tensor in config.input if not tensor.optional}
    for warmup in config.model_warmup:
        if warmup.batch_size > max(config.max_batch_size, 1):
            yield f"warm-up {warmup.name!r} has a batch of {warmup.batch_size}"
        if not needed <= warmup.inputs.keys() <= inputs.keys():
            yield f"warm-up {warmup.name!r} has the inputs {sorted(warmup.inputs)}"
            continue
        for name, given in warmup.inputs.items():
            if given.data_type != inputs[name].data_type:
                yield f"warm-up {warmup.name!r} has another type for {name!r}"
            if any(dim < 0 for dim in given.dims) or not _matches(list(inputs[name].dims), list(given.dims)):
                yield f"warm-up {warmup.name!r} has dims {list(given.dims)} for {name!r}"
            if given.WhichOneof("input_data_type") is None:
                yield f"warm-up {warmup.name!r} has no data for {name!r}"


def _of_graphs(config: Config) -> Iterator[str]:
    """The TensorRT backend's rules for `optimization { cuda { graph_spec } }`."""
    cuda, inputs = config.optimization.cuda, {tensor.name: tensor for tensor in config.input}
    if cuda.graph_spec and not cuda.graphs:
        yield "graph_spec without graphs: true"
    for spec in cuda.graph_spec:
        bounded = spec.HasField("graph_lower_bound")
        lowest = spec.graph_lower_bound if bounded else spec
        for size in (spec.batch_size, lowest.batch_size):
            if not (1 <= size <= config.max_batch_size if config.max_batch_size else size == 0):
                yield f"a graph has batch size {size}, of 1 to {config.max_batch_size}"
        if lowest.batch_size > spec.batch_size:
            yield f"a graph's lower bound {lowest.batch_size} is above its batch size {spec.batch_size}"
        if bounded and not spec.input:
            yield "a graph has a lower bound and no shapes: it counts only with them"
        for name, shape in spec.input.items():
            dims, low = list(shape.dim), list(lowest.input[name].dim) if name in lowest.input else None
            if name not in inputs or not _matches(list(inputs[name].dims), dims):
                yield f"a graph has {dims} for {name!r}"
            if low is None or len(low) != len(dims) or not all(0 <= a <= b for a, b in zip(low, dims, strict=True)):
                yield f"a graph's lower bound is {low} for {name!r}"


def _of_ensemble(config: Config, others: Mapping[str, Config]) -> Iterator[str]:
    if config.platform != "ensemble" or not config.ensemble_scheduling.step:
        yield "an ensemble has that platform, and steps"
    for field in ("instance_group", "model_warmup"):
        if getattr(config, field):
            yield f"an ensemble has no {field}"
    if config.HasField("optimization"):
        yield "an ensemble has no optimization"
    steps = config.ensemble_scheduling.step
    made = [tensor for step in steps for tensor in step.output_map.values()]
    used = {tensor for step in steps for tensor in step.input_map.values()}
    given, wanted = {tensor.name for tensor in config.input}, {tensor.name for tensor in config.output}
    if len({*made, *given}) < len(made) + len(given):
        yield "two steps write one tensor, or one writes an input"
    for name in sorted(given - used):
        yield f"the input {name!r} is not used"
    for name in sorted(set(made) - used - wanted):
        yield f"{name!r} is made and not used"
    for name in sorted((used | wanted) - given - _reachable(steps, given)):
        yield f"{name!r} is not made"
    for step in steps:
        if (model := others.get(step.model_name)) is not None:
            yield from _of_step(config, step, model)
        elif others:
            yield f"there is no model {step.model_name!r}"


def _of_step(config: Config, step: Any, model: Config) -> Iterator[str]:
    if config.max_batch_size > model.max_batch_size:
        yield f"its batches of {config.max_batch_size} are more than {model.name}'s {model.max_batch_size}"
    names = {"input": {t.name for t in model.input}, "output": {t.name for t in model.output}}
    needed = {tensor.name for tensor in model.input if not tensor.optional}
    if not needed <= step.input_map.keys() <= names["input"]:
        yield f"{model.name} is given {sorted(step.input_map)}"
    if not step.output_map.keys() <= names["output"]:
        yield f"{model.name} does not make {sorted(step.output_map)}"


def _reachable(steps: Sequence[Any], given: set[str]) -> set[str]:
    """Return what is made of what is given; not what waits for itself."""
    ready, before = set(given), -1
    while before < len(ready):
        before = len(ready)
        for step in steps:
            if set(step.input_map.values()) <= ready:
                ready |= set(step.output_map.values())
    return ready


def _matches(dims: Sequence[int], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(wanted in (-1, size) for wanted, size in zip(dims, shape, strict=True))
