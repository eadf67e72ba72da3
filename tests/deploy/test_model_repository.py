"""The configurations agree with the spec and with each other: on a GPU as on a CPU."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts import layout
from contracts.spec import TensorSpec
from training import families

TRITON_TYPE = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
CONFIGS = sorted(layout.MODEL_REPOSITORY.glob("*/config.pbtxt")) + sorted(layout.MODEL_REPOSITORY.glob("*/configs/*"))


def parsed(path) -> model_config_pb2.ModelConfig:  # type: ignore[no-untyped-def]
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(layout.MODEL_REPOSITORY)))
def test_every_config_is_valid_and_named_after_its_folder(path) -> None:  # type: ignore[no-untyped-def]
    folder = path.parent if path.name == "config.pbtxt" else path.parent.parent
    assert parsed(path).name == folder.name


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("file", ["config.pbtxt", "configs/cpu.pbtxt"])
def test_the_network_is_configured_as_its_spec_says(family: str, file: str) -> None:
    spec = families.load(family).spec
    config = parsed(layout.MODEL_REPOSITORY / spec.model / file)
    type_name = model_config_pb2.DataType.Name

    def described(tensors) -> list[tuple[str, str, list[int]]]:  # type: ignore[no-untyped-def]
        return [(t.name, type_name(t.data_type), list(t.dims)) for t in tensors]

    def expected(tensors: tuple[TensorSpec, ...]) -> list[tuple[str, str, list[object]]]:
        return [(t.name, TRITON_TYPE[t.dtype], list(t.shape[1:])) for t in tensors]

    assert described(config.input) == expected(spec.inputs)
    assert described(config.output) == expected(spec.outputs)
    assert config.max_batch_size == spec.batch.max
    assert list(config.dynamic_batching.preferred_batch_size) == [spec.batch.opt, spec.batch.max]
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert config.version_policy.latest.num_versions == (2 if "cpu" in file else 1)
    assert {warmup.batch_size for warmup in config.model_warmup} >= {spec.batch.min, spec.batch.max}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_labels_are_those_of_the_spec_in_its_order(family: str) -> None:
    labels = (layout.MODEL_REPOSITORY / f"{family}_postprocess" / "labels.txt").read_text().splitlines()
    assert tuple(labels) == families.load(family).spec.labels
