"""The configurations that a brought graph is given are warm for every batch that its first requests can bring."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export.proof import contract
from export.proof.contract import CONFIGS
from export.release import configs


def spec(opt: int, most: int) -> ModelSpec:
    batch, length = DynamicDim("batch", 1, opt, most), DynamicDim("length", 8, 16, 128)
    return ModelSpec(
        family="brought",
        model="brought",
        inputs=(TensorSpec("ids", "int64", (batch, length)), TensorSpec("scale", "float32", (batch, 3))),
        outputs=(TensorSpec("y", "float32", (batch, 4)),),
        limits={"fp32": Limits({"y": 1e-3}, agreement=1.0)},
    )


def parsed(path: Path) -> Any:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize(
    ("opt", "most", "warm"),
    [
        (16, 64, [("one", 1), ("preferred", 16), ("full", 64)]),
        (1, 8, [("one", 1), ("full", 8)]),
        (8, 8, [("one", 1), ("preferred", 8)]),
        (1, 1, [("one", 1)]),
    ],
)
def test_it_warms_up_one_sample_the_preferred_and_the_full_batch(
    tmp_path: Path, file: str, opt: int, most: int, warm: list[tuple[str, int]]
) -> None:
    configs.write_configs(tmp_path / "brought", spec(opt, most))
    config = parsed(tmp_path / "brought" / file)
    assert [(warmup.name, warmup.batch_size) for warmup in config.model_warmup] == warm
    for warmup in config.model_warmup:
        assert list(warmup.inputs["ids"].dims) == [16] and warmup.inputs["ids"].zero_data
        assert list(warmup.inputs["scale"].dims) == [3] and warmup.inputs["scale"].random_data


def test_what_is_written_is_what_the_gates_ask_for(tmp_path: Path) -> None:
    configs.write_configs(tmp_path / "brought", spec(4, 32))
    gates = contract.config_gates(tmp_path / "brought", spec(4, 32))
    assert len(gates) == len(CONFIGS) and all(gate.passed for gate in gates), gates


def test_it_goes_again_with_an_export_that_fails_and_takes_nothing_else_along(tmp_path: Path) -> None:
    directory = tmp_path / "brought"
    with pytest.raises(RuntimeError), configs.written(directory, spec(4, 32)):
        assert (directory / CONFIGS[0]).is_file()
        raise RuntimeError
    assert not directory.exists()

    directory.mkdir()
    mine = directory / CONFIGS[0]
    mine.write_text("# mine")
    with pytest.raises(RuntimeError), configs.written(directory, dataclasses.replace(spec(4, 32))):
        raise RuntimeError
    assert [path.name for path in directory.iterdir()] == [CONFIGS[0]] and mine.read_text() == "# mine"
