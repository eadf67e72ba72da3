"""Made-up models with configurations that fit them or nearly do, and requests for each; the same for the same seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from tests.deploy.tiny_models import ON_THE_CPU, TYPES, Request, values_of

BATCH = 4
_SETTINGS = (
    "optimization { graph { level: 1 } }",
    "optimization { graph { level: 3 } }",
    "optimization { eager_batching: true priority: PRIORITY_MIN cuda { graphs: true } }",
    "optimization { execution_accelerators { cpu_execution_accelerator [ { name: \"xnnpack\" } ] } }",
    "optimization { execution_accelerators { gpu_execution_accelerator [ { name: \"tensorrt\" } ] } }",
    "model_transaction_policy { decoupled: false }",
    "model_operations { }",
    'model_operations { op_library_filename: "/nowhere/libops.so" }',
    "dynamic_batching { }",
    "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 1000 }",
    "version_policy { all { } }",
    'default_model_filename: "model.onnx"',
    'default_model_filename: "other.onnx"',
)  # fmt: skip
_PARAMETERS = (
    *(("intra_op_thread_count", text) for text in ("0", "1", "many")),
    *(("execution_mode", text) for text in ("0", "1", "2")),
    *(("enable_mem_arena", text) for text in ("1", "off", "maybe")),
    ("memory.enable_memory_arena_shrinkage", "cpu:0"),
    ("session.use_device_allocator_for_initializers", "1"),
    ("gpu_mem_limit", "4294967200"),
    ("labels_url", "s3://labels"),
)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph: no dims of a scalar, -1 where they vary."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Case:
    """A model, and what it is asked."""

    name: str
    graph: str
    config: str
    requests: tuple[Request, ...]


def generated(seed: int, count: int) -> list[Case]:
    """Make so many of them."""
    random = Random(seed)
    return [_case(random, f"made_{seed}_{number}") for number in range(count)]


def _case(random: Random, name: str) -> Case:
    batches = random.random() < 0.6
    body, inputs, outputs = random.choice(_GRAPHS)(random, batches or random.random() < 0.5)
    tensors = [f"{TYPES[t.dtype]}{_written(t.dims)} {t.name}" for t in inputs]
    results = [f"{TYPES[t.dtype]}{_written(t.dims)} {t.name}" for t in outputs]
    given = [_configured(random, "input", tensor, batches) for tensor in inputs]
    lines = [line for line, _ in given] + [_configured(random, "output", tensor, batches)[0] for tensor in outputs]
    lines += random.sample(_SETTINGS, random.choice((0, 0, 1)))
    for key, text in random.sample(_PARAMETERS, random.choice((0, 0, 1))):
        lines.append(f'parameters {{ key: "{key}" value {{ string_value: "{text}" }} }}')
    config = "\n".join([ON_THE_CPU, f"max_batch_size: {BATCH if batches else 0}", *lines])
    asked = {tensor: dims for tensor, (_, dims) in zip(inputs, given, strict=True)}
    requests = tuple(_request(random, asked, batches) for _ in range(2))
    return Case(name, f"({', '.join(tensors)}) => ({', '.join(results)}) {body}", config, requests)


def _written(dims: Sequence[int]) -> str:
    return f"[{','.join(str(dim) if dim >= 0 else f'n{axis}' for axis, dim in enumerate(dims))}]" if dims else ""


def _configured(random: Random, kind: str, tensor: Tensor, batches: bool) -> tuple[str, list[int]]:
    """Write a tensor of config.pbtxt; return its dims, too."""
    dims = list(tensor.dims[batches:]) if tensor.dims else [1]
    more = ""
    if not dims:
        dims, more = [1], "reshape { shape: [ ] }"
    elif random.random() < 0.3:
        dims = _nearly(random, dims)
    dtype = random.choice(("FP32", "INT64")) if random.random() < 0.05 else tensor.dtype
    if kind == "input" and tensor.optional != (random.random() < 0.1):
        more += " optional: true"
    return f'{kind} [ {{ name: "{tensor.name}" data_type: TYPE_{dtype} dims: {dims} {more} }} ]', dims


def _nearly(random: Random, dims: Sequence[int]) -> list[int]:
    """Change one thing."""
    axis, changed = random.randrange(len(dims)), list(dims)
    way = random.choice(("varies", "fixed", "more", "less"))
    if way == "more":
        return [*changed, random.choice((1, -1))]
    if way == "less":
        return changed[1:] or [2]
    changed[axis] = -1 if way == "varies" else random.choice((1, 2, 3))
    return changed


def _request(random: Random, asked: dict[Tensor, list[int]], batches: bool) -> Request:
    rows, varying = random.randint(1, 2), random.randint(1, 3)
    request = {}
    for tensor, dims in asked.items():
        own = [varying if dim == -1 else dim for dim in dims]
        if random.random() < 0.1:
            own = _nearly(random, [abs(dim) for dim in own])
        shape = ([rows] if batches else []) + [abs(dim) for dim in own]
        values = values_of(tensor.dtype, int(np.prod(shape)), random.randrange(1000)).ravel()[: int(np.prod(shape))]
        if tensor.dtype == "STRING" and random.random() < 0.3:
            values[0] = b"\xff\xfe"
        if not tensor.dims:  # one value for all rows, whose others NVIDIA's backend overlooks
            values[:] = values[:1]
        request[tensor.name] = (tensor.dtype, values.reshape(shape))
    return request


def _identity(random: Random, batches: bool) -> tuple[str, list[Tensor], list[Tensor]]:
    dtype = random.choice(list(TYPES))
    dims = _dims(random, batches)
    return "{ y = Identity(x) }", [Tensor("x", dtype, dims)], [Tensor("y", dtype, dims)]


def _total(random: Random, batches: bool) -> tuple[str, list[Tensor], list[Tensor]]:
    x = Tensor("x", "FP32", _dims(random, batches))
    return "{ y = ReduceSum <keepdims = 0> (x) }", [x], [Tensor("y", "FP32", ())]


def _row_totals(random: Random, batches: bool) -> tuple[str, list[Tensor], list[Tensor]]:
    x = Tensor("x", "FP32", (-1, random.choice((-1, 3))))
    return (
        "<int64[1] last = {1}> { y = ReduceSum <keepdims = 0> (x, last) }",
        [x],
        [Tensor("y", "FP32", (-1,))],
    )


def _over_rows(random: Random, batches: bool) -> tuple[str, list[Tensor], list[Tensor]]:
    """An output whose batch is gone."""
    x = Tensor("x", "FP32", (-1, 3))
    return "<int64[1] first = {0}> { y = ReduceSum(x, first) }", [x], [Tensor("y", "FP32", (1, 3))]


def _scaled(random: Random, batches: bool) -> tuple[str, list[Tensor], list[Tensor]]:
    dims = _dims(random, batches)
    return "{ y = Mul(x, s) }", [Tensor("x", "FP32", dims), Tensor("s", "FP32", ())], [Tensor("y", "FP32", dims)]


def _shifted(random: Random, batches: bool) -> tuple[str, list[Tensor], list[Tensor]]:
    dims = (-1, 3) if batches else (3,)
    by = Tensor("by", "FP32", dims, optional=True)
    start = "<float[1,3] by = {7,7,7}>" if batches else "<float[3] by = {7,7,7}>"
    return f"{start} {{ y = Add(x, by) }}", [Tensor("x", "FP32", dims), by], [Tensor("y", "FP32", dims)]


def _looked_up(random: Random, batches: bool) -> tuple[str, list[Tensor], list[Tensor]]:
    """An index that may be out of range, which only a run finds out."""
    dims = _dims(random, batches)
    graph = "<float[4] table = {1,2,3,4}> { wide = Cast <to = 7> (x) y = Gather(table, wide) }"
    return graph, [Tensor("x", "INT8", dims)], [Tensor("y", "FP32", dims)]


def _dims(random: Random, batches: bool) -> tuple[int, ...]:
    first = (-1,) if batches and random.random() < 0.9 else (random.choice((1, 2, -1)),)
    return (*first, *(random.choice((-1, -1, 2, 3)) for _ in range(random.randint(0, 2))))


_GRAPHS = (_identity, _identity, _total, _row_totals, _over_rows, _scaled, _shifted, _looked_up)
