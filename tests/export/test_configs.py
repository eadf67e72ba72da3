"""The configurations that a brought graph is given: warm for its first requests, safe under too many, of any shape."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.errors import ModelConfigError
from contracts.samples import Group, Split
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


BATCH = DynamicDim("batch", 1, 4, 8)
# A detector of speech: its state goes in and comes out, its rate is a number.
SPEECH = ModelSpec(
    family="speech",
    model="speech",
    inputs=(
        TensorSpec("sound", "float32", (1, DynamicDim("samples", 256, 512, 1024))),
        TensorSpec("state", "float32", (2, 1, 128)),
        TensorSpec("rate", "int64", ()),
    ),
    outputs=(
        TensorSpec("speech", "float32", (1, 1)),
        TensorSpec("state_out", "float32", (2, 1, 128)),
        TensorSpec("loudness", "float32", ()),
        TensorSpec("segments", "int64", (DynamicDim("found", 0, 4, 64), 2)),
    ),
    limits={"fp32": Limits(dict.fromkeys(("speech", "state_out", "loudness", "segments"), 1e-3))},
    task="values",
    batched=False,
)
# A number a sample in, and a number a sample out.
PRICE = ModelSpec(
    family="price",
    model="price",
    inputs=(TensorSpec("area", "float32", (BATCH,)), TensorSpec("street", "object", (BATCH, 1))),
    outputs=(TensorSpec("price", "float32", (BATCH,)),),
    limits={"fp32": Limits({"price": 1e-3})},
    task="regression",
)


def tensors(described: Any) -> dict[str, tuple[str, list[int], list[int] | None]]:
    """Of inputs or outputs by name: type, dims, and the reshape if there is one."""
    return {
        t.name: (
            model_config_pb2.DataType.Name(t.data_type),
            list(t.dims),
            list(t.reshape.shape) if t.HasField("reshape") else None,
        )
        for t in described
    }


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


@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize("brought", [spec(4, 32), SPEECH, PRICE], ids=lambda s: s.model)
def test_what_is_too_much_is_refused_and_no_instance_sleeps_meanwhile(
    tmp_path: Path, file: str, brought: ModelSpec
) -> None:
    """By the same rules as the families' (tests/deploy/test_model_repository.py)."""
    configs.write_configs(tmp_path / "brought", brought)
    config = parsed(tmp_path / "brought" / file)
    batching, policy = config.dynamic_batching, config.dynamic_batching.default_queue_policy
    assert policy.timeout_action == policy.REJECT and policy.allow_timeout_override
    assert policy.max_queue_size == 64 and policy.default_timeout_microseconds == 1_000_000
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    assert batching.max_queue_delay_microseconds == 0
    assert [group.count >= 3 for group in config.instance_group] == [True]


@pytest.mark.parametrize(
    ("cores", "instances", "threads"), [(1, 3, 1), (2, 3, 1), (4, 4, 1), (8, 8, 1), (16, 8, 2), (96, 8, 12)]
)
def test_instances_and_threads_make_use_of_the_cores_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, instances: int, threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    configs.write_configs(tmp_path / "brought", spec(4, 32))
    gpu, cpu = (parsed(tmp_path / "brought" / file) for file in CONFIGS)
    [group] = cpu.instance_group
    assert (group.kind, group.count) == (group.KIND_CPU, instances)
    assert cpu.parameters["intra_op_thread_count"].string_value == str(threads)
    assert [group.kind for group in gpu.instance_group] == [group.KIND_GPU] and not gpu.parameters


@pytest.mark.parametrize(("opt", "most", "preferred"), [(16, 64, [16, 64]), (1, 8, [8]), (8, 8, [8]), (1, 1, [1])])
def test_no_preferred_size_keeps_what_waits_from_being_batched(
    tmp_path: Path, opt: int, most: int, preferred: list[int]
) -> None:
    """Without a delay Triton takes a preferred size before a larger one that is not: of 5 that wait, 1."""
    configs.write_configs(tmp_path / "brought", spec(opt, most))
    config = parsed(tmp_path / "brought" / CONFIGS[0])
    assert list(config.dynamic_batching.preferred_batch_size) == preferred


@pytest.mark.parametrize("file", CONFIGS)
def test_without_a_batch_shapes_are_whole_and_a_scalar_is_a_1(tmp_path: Path, file: str) -> None:
    configs.write_configs(tmp_path / "speech", SPEECH)
    assert all(gate.passed for gate in contract.config_gates(tmp_path / "speech", SPEECH))
    config = parsed(tmp_path / "speech" / file)
    assert config.max_batch_size == 0 and not config.dynamic_batching.preferred_batch_size
    assert tensors(config.input) == {
        "sound": ("TYPE_FP32", [1, -1], None),
        "state": ("TYPE_FP32", [2, 1, 128], None),
        "rate": ("TYPE_INT64", [1], None),
    }
    assert tensors(config.output) == {
        "speech": ("TYPE_FP32", [1, 1], None),
        "state_out": ("TYPE_FP32", [2, 1, 128], None),
        "loudness": ("TYPE_FP32", [1], None),
        "segments": ("TYPE_INT64", [-1, 2], None),
    }
    [warmup] = config.model_warmup
    assert warmup.batch_size == 1, "Triton skips those of batch size 0"
    assert {name: list(each.dims) for name, each in warmup.inputs.items()} == {
        "sound": [1, 512], "state": [2, 1, 128], "rate": [1]
    }  # fmt: skip


@pytest.mark.parametrize("file", CONFIGS)
def test_a_number_a_sample_is_reshaped_and_text_is_a_string(tmp_path: Path, file: str) -> None:
    configs.write_configs(tmp_path / "price", PRICE)
    assert all(gate.passed for gate in contract.config_gates(tmp_path / "price", PRICE))
    config = parsed(tmp_path / "price" / file)
    assert tensors(config.input) == {"area": ("TYPE_FP32", [1], []), "street": ("TYPE_STRING", [1], None)}
    assert tensors(config.output) == {"price": ("TYPE_FP32", [1], [])}
    assert [list(warmup.inputs["area"].dims) for warmup in config.model_warmup] == [[1], [1], [1]]


def test_what_tensorrt_does_not_take_is_served_by_onnxruntime_on_a_gpu_as_well(tmp_path: Path) -> None:
    doubles = dataclasses.replace(PRICE, inputs=(TensorSpec("area", "float64", (BATCH, 1)),))
    for brought, platform in ((spec(4, 32), "tensorrt_plan"), (SPEECH, ""), (PRICE, ""), (doubles, "")):
        folder = tmp_path / platform / brought.model / brought.inputs[0].dtype
        configs.write_configs(folder, brought)
        config = parsed(folder / CONFIGS[0])
        assert config.platform == platform
        assert config.optimization.cuda.graphs is bool(platform), "plans are launched as they were timed"
        if not platform:
            assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
            assert not config.cc_model_filenames


def test_a_type_that_triton_has_not_is_refused_by_name(tmp_path: Path) -> None:
    strange = dataclasses.replace(PRICE, inputs=(TensorSpec("wave", "complex64", (BATCH, 3)),))
    with pytest.raises(ModelConfigError, match="'wave' is complex64, a type that Triton does not serve"):
        configs.write_configs(tmp_path / "price", strange)
    assert not (tmp_path / "price").exists()


def sounds(*lengths: int) -> Split:
    """Two sounds of each length."""
    ones = np.ones((2, 2, 1, 128), np.float32)
    return Split(
        tuple(
            Group({"sound": np.full((2, 1, n), n, np.float32), "state": ones, "rate": np.array([16000, 8000])})
            for n in lengths
        )
    )


@pytest.mark.parametrize("file", CONFIGS)
def test_a_warm_up_is_a_real_sample_of_about_the_usual_shape(tmp_path: Path, file: str) -> None:
    """On a rate of 0 and noise a graph may fail, and with a warm-up that fails Triton 2.51 ends."""
    made = configs.write_configs(tmp_path / "speech", SPEECH, sounds(300, 500, 900))
    assert [path.relative_to(tmp_path / "speech").as_posix() for path in made] == [
        *CONFIGS, "warmup/sound", "warmup/state", "warmup/rate"
    ]  # fmt: skip
    assert all(gate.passed for gate in contract.config_gates(tmp_path / "speech", SPEECH))
    [warmup] = parsed(tmp_path / "speech" / file).model_warmup
    given = {name: (list(each.dims), each.input_data_file) for name, each in warmup.inputs.items()}
    assert given == {"sound": ([1, 500], "sound"), "state": ([2, 1, 128], "state"), "rate": ([1], "rate")}
    stored = tmp_path / "speech" / "warmup"
    assert np.frombuffer((stored / "sound").read_bytes(), np.float32).tolist() == [500.0] * 500
    assert np.frombuffer((stored / "rate").read_bytes(), np.int64).tolist() == [16000]


def test_a_warm_up_of_strings_has_their_lengths_and_odd_names_no_folders(tmp_path: Path) -> None:
    odd = dataclasses.replace(
        PRICE, inputs=(TensorSpec("area", "float32", (BATCH,)), TensorSpec('../str"eet:0', "object", (BATCH, 1)))
    )
    streets = np.array([["Größe".encode()], [b"b"]], object)
    made = configs.write_configs(
        tmp_path / "p", odd, Split.of({"area": np.ones(2, np.float32), '../str"eet:0': streets})
    )
    assert (tmp_path / "p" / "warmup" / "input-1").read_bytes() == b"\x07\x00\x00\x00" + "Größe".encode()
    assert all(path.is_relative_to(tmp_path / "p") and ".." not in path.parts for path in made)
    assert all(gate.passed for gate in contract.config_gates(tmp_path / "p", odd))


def test_warm_ups_go_again_with_an_export_that_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), configs.written(tmp_path / "speech", SPEECH, sounds(300)):
        raise RuntimeError
    assert not (tmp_path / "speech").exists()
