"""The configurations agree with the spec and with each other: on a GPU as on a CPU."""

import io
import itertools
import struct
from pathlib import Path

import pytest
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from contracts.entities import records
from contracts.spec import DynamicDim, TensorSpec
from tests.tracked import MODEL_REPOSITORY, tracked_models
from training import families

TRITON_TYPE = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}
CONFIGS = [*tracked_models("*/config.pbtxt"), *tracked_models("*/configs/*")]

every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(MODEL_REPOSITORY)))
every_family = pytest.mark.parametrize("family", families.FAMILIES)


def parsed(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def folder(path: Path) -> Path:
    return path.parent if path.name == "config.pbtxt" else path.parent.parent


def batch_sizes(config: model_config_pb2.ModelConfig) -> set[int]:
    """Those that the configuration names."""
    return {1, *config.dynamic_batching.preferred_batch_size, config.max_batch_size}


@every_config
def test_every_config_is_valid_and_named_after_its_folder(path: Path) -> None:
    assert parsed(path).name == folder(path).name


@every_family
@pytest.mark.parametrize("file", ["config.pbtxt", "configs/cpu.pbtxt"])
def test_the_network_is_configured_as_its_spec_says(family: str, file: str) -> None:
    spec = families.spec(family)
    config = parsed(MODEL_REPOSITORY / spec.model / file)
    type_name = model_config_pb2.DataType.Name

    def described(tensors) -> list[tuple[str, str, list[int]]]:  # type: ignore[no-untyped-def]
        return [(t.name, type_name(t.data_type), list(t.dims)) for t in tensors]

    def expected(tensors: tuple[TensorSpec, ...]) -> list[tuple[str, str, list[object]]]:
        dims = [[-1 if isinstance(d, DynamicDim) else d for d in t.shape[1:]] for t in tensors]
        return [(t.name, TRITON_TYPE[t.dtype], own) for t, own in zip(tensors, dims, strict=True)]

    assert described(config.input) == expected(spec.inputs)
    assert described(config.output) == expected(spec.outputs)
    assert config.max_batch_size == spec.batch.max
    assert list(config.dynamic_batching.preferred_batch_size) == [spec.batch.opt, spec.batch.max]
    on_a_cpu = "cpu" in file or spec.without_tensorrt is not None
    assert config.version_policy.latest.num_versions == (2 if on_a_cpu else 1)


@pytest.mark.parametrize(
    "family", [family for family in families.FAMILIES if (MODEL_REPOSITORY / f"{family}_postprocess").is_dir()]
)
def test_the_labels_are_those_of_the_spec_in_its_order(family: str) -> None:
    labels = (MODEL_REPOSITORY / f"{family}_postprocess" / "labels.txt").read_text().splitlines()
    assert tuple(labels) == families.spec(family).labels


@every_config
def test_every_batch_size_that_a_config_names_is_warmed_up_with_inputs_like_the_real_ones(path: Path) -> None:
    config = parsed(path)
    if config.platform == "ensemble":
        return  # its steps are
    assert {warmup.batch_size for warmup in config.model_warmup} == batch_sizes(config)
    kind = model_config_pb2.DataType.Name
    either = records.taken({each.name: (kind(each.data_type), each.dims, each.optional) for each in config.input})
    inputs = [each for each in config.input if not (either and each.name == records.NAME)]
    for warmup in config.model_warmup:
        assert {name: each.data_type for name, each in warmup.inputs.items()} == {
            each.name: each.data_type for each in inputs
        }
        for each in inputs:  # a length that varies is one of those
            sizes = zip(warmup.inputs[each.name].dims, each.dims, strict=True)
            assert all(size == dim or (dim == -1 and size > 0) for size, dim in sizes)


@every_family
def test_decoding_is_warmed_up_with_what_it_decodes_and_not_with_its_error(family: str) -> None:
    model = MODEL_REPOSITORY / f"{family}_preprocess"
    for warmup in parsed(model / "config.pbtxt").model_warmup:
        for name, given in warmup.inputs.items():
            if given.data_type != model_config_pb2.TYPE_STRING:
                continue
            element = (model / "warmup" / given.input_data_file).read_bytes()
            (length,) = struct.unpack_from("<I", element)
            assert length == len(element) - 4
            if name == "image":
                Image.open(io.BytesIO(element[4:])).verify()
            else:
                assert element[4:].decode().strip()


@every_config
def test_a_queue_policy_comes_without_a_delay_and_with_instances_that_wake_each_other(path: Path) -> None:
    """With one, Triton loses count of idle instances; without the other, it sleeps while they are idle."""
    config = parsed(path)
    batching = config.dynamic_batching
    if batching.priority_levels or batching.HasField("default_queue_policy"):
        assert batching.max_queue_delay_microseconds == 0
        assert all(group.count >= 3 for group in config.instance_group)


@every_family
def test_an_ensemble_refuses_at_its_door_and_nothing_waits_for_too_long_behind_it(family: str) -> None:
    ensemble = parsed(MODEL_REPOSITORY / family / "config.pbtxt")
    steps = [MODEL_REPOSITORY / step.model_name for step in ensemble.ensemble_scheduling.step]
    door, *behind = [[parsed(path).dynamic_batching for path in CONFIGS if folder(path) == step] for step in steps]
    for batching in door:
        policy = batching.default_queue_policy
        assert policy.timeout_action == policy.REJECT
        assert policy.max_queue_size > 0 and policy.default_timeout_microseconds > 0
        assert policy.allow_timeout_override
        assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    for batching in itertools.chain(*behind):
        assert batching.default_queue_policy.default_timeout_microseconds == 0


@every_family
def test_every_batch_size_runs_as_a_cuda_graph_of_the_network_as_it_is(family: str) -> None:
    spec = families.spec(family)
    config = parsed(MODEL_REPOSITORY / spec.model / "config.pbtxt")
    cuda = config.optimization.cuda
    if spec.without_tensorrt is not None:
        assert not cuda.graphs and all(group.kind == group.KIND_CPU for group in config.instance_group)
        return
    if any(isinstance(dim, DynamicDim) for tensor in spec.inputs for dim in tensor.shape[1:]):
        assert not cuda.graphs, "each is captured in one shape, and every batch has another"
        return
    dims = {each.name: list(each.dims) for each in config.input}
    graphs = sorted(cuda.graph_spec, key=lambda graph: int(graph.batch_size))
    assert cuda.graphs
    assert {graph.batch_size for graph in graphs} == batch_sizes(config)
    covered = 0
    for graph in graphs:
        lower = graph.graph_lower_bound if graph.HasField("graph_lower_bound") else graph
        assert lower.batch_size == covered + 1
        covered = graph.batch_size
        for bound in (graph, lower):
            assert {name: list(shape.dim) for name, shape in bound.input.items()} == dims
    assert all(group.kind == group.KIND_GPU and not group.gpus for group in config.instance_group)  # on every GPU
