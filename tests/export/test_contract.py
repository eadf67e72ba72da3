"""A configuration, a graph or labels that disagree with the spec fail the gate with their name, before any work."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import ModelProto, TensorProto
from tritonclient.grpc import model_config_pb2

from contracts.engines.plans import cc_model_filenames
from contracts.errors import ModelConfigError
from contracts.samples import Split
from contracts.spec import DynamicDim, Limits, ModelSpec, Precision, TensorSpec
from export import graphs, prove
from export.context import ExportContext
from export.proof import contract
from export.proof.contract import CONFIGS
from export.release import configs
from export.source.base import ExportSource
from tests.conftest import Workspace
from training import families

SPEC = families.spec("fashion")

# (a pattern that both configurations have, what it becomes, what the gate says)
FAULTS = {
    "name": ('^name: "fashion_classifier"', 'name: "fashion"', "its name is 'fashion', not 'fashion_classifier'"),
    "output dtype": ('"probabilities" data_type: TYPE_FP32', '"probabilities" data_type: TYPE_FP16',
                     "output 'probabilities' is float16, not float32"),
    "output name": ('name: "logits"', 'name: "scores"', "output 'scores' is not in the spec"),
    "input dtype": ('"pixels" data_type: TYPE_UINT8', '"pixels" data_type: TYPE_FP32',
                    "input 'pixels' is float32, not uint8"),
    "dims": (r"dims: \[ 10 \]", "dims: [ 11 ]", "output 'logits' has dims [-1, 11], not [-1, 10]"),
    "batch": ("max_batch_size: 64", "max_batch_size: 65", "max_batch_size is 65, the engines take 1 to 64"),
    "no batching": ("max_batch_size: 64", "max_batch_size: 0", "max_batch_size is 0"),
    "preferred batch": (r"\[ 16, 64 \]", "[ 16, 128 ]", "preferred_batch_size 128 is more than max_batch_size 64"),
    "file": ('default_model_filename: "model', 'default_model_filename: "network',
             "default_model_filename is 'network."),
    "warmup input": ('key: "pixels"', 'key: "images"', "warmup 'one': 'images' is no input, or is left away"),
    "warmup batch": ('name: "full"\n    batch_size: 64', 'name: "full"\n    batch_size: 128',
                     "warmup 'full' has a batch of 128"),
}  # fmt: skip


def test_the_repositorys_own_configurations_and_labels_are_what_the_spec_says(workspace: Workspace) -> None:
    gates = contract.config_gates(workspace.model, SPEC)
    assert [gate.name.removeprefix("contract: ") for gate in gates] == [*CONFIGS, "fashion_postprocess/labels.txt"]
    assert all(gate.passed for gate in gates), gates


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_a_configuration_that_disagrees_fails_its_own_gate_and_no_other(
    workspace: Workspace, config: str, fault: str
) -> None:
    pattern, becomes, told = FAULTS[fault]
    path = workspace.model / config
    text, count = re.subn(pattern, becomes, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)
    [refused] = [gate for gate in contract.config_gates(workspace.model, SPEC) if not gate.passed]
    assert refused.name == f"contract: {config}"
    assert told in refused.detail


def test_planted_swapped_labels_fail_their_gate(workspace: Workspace) -> None:
    path = workspace.repository / "fashion_postprocess" / "labels.txt"
    first, second, *others = path.read_text().splitlines()
    path.write_text("\n".join([second, first, *others]))
    [refused] = [gate for gate in contract.config_gates(workspace.model, SPEC) if not gate.passed]
    assert refused.name == "contract: fashion_postprocess/labels.txt"
    assert refused.detail == f"class 0 is {second!r}, not {first!r}; class 1 is {first!r}, not {second!r}"


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        (b"max_batch_size: many", "is no model configuration"),
        (b"\xff\xfe", "is no model configuration"),
    ],
)
def test_a_configuration_that_is_none_is_an_error(
    workspace: Workspace, config: str, content: bytes | None, told: str
) -> None:
    path = workspace.model / config
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ModelConfigError, match=f"{re.escape(config)} {told}"):
        contract.config_gates(workspace.model, SPEC)


@pytest.mark.timeout(60, func_only=True)
def test_planted_a_wrong_output_dtype_is_refused_in_seconds_before_any_graph_is_made(
    workspace: Workspace, checkpoint: Path
) -> None:
    """Triton would not notice it, and leak GPU memory."""
    path = workspace.model / "config.pbtxt"
    path.write_text(path.read_text().replace("TYPE_FP32", "TYPE_FP16"))
    done = workspace.run("export", "fashion", "--checkpoint", checkpoint, "--repository", workspace.repository)
    assert done.returncode == 1
    assert "error: the configuration of fashion_classifier is not what the spec says; nothing" in done.stderr
    assert "contract: config.pbtxt 2 (limit: at most 0): output 'logits' is float16, not float32" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(workspace.root.rglob("*.onnx"))
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}


def bake_the_batch_in(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 16


def rename_an_output(model: ModelProto) -> None:
    [node] = [node for node in model.graph.node if "logits" in node.output]
    node.output[0] = model.graph.output[0].name = "scores"


def give_out_half(model: ModelProto) -> None:
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT16


def take_floats(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def leave_an_output_away(model: ModelProto) -> None:
    del model.graph.output[1]


def test_a_graph_from_the_checkpoint_is_what_the_spec_says(graphs_of_fashion: dict[Precision, Path]) -> None:
    for path in graphs_of_fashion.values():
        assert contract.graph_gate(graphs.load(path), SPEC).passed


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (bake_the_batch_in, r"input 'pixels' has dims \[16, 1, 28, 28\], not \[-1, 1, 28, 28\], it is baked in"),
        (rename_an_output, "output 'scores' is not in the spec, which has logits, probabilities; output 'logits' is m"),
        (give_out_half, "output 'probabilities' is float16, not float32"),
        (take_floats, "input 'pixels' is float32, not uint8"),
        (leave_an_output_away, "output 'probabilities' is missing"),
    ],
)
def test_planted_a_graph_with_other_inputs_or_outputs_fails_its_gate(
    graphs_of_fashion: dict[Precision, Path], plant: Callable[[ModelProto], None], told: str
) -> None:
    model = graphs.load(graphs_of_fashion["fp32"])
    plant(model)
    gate = contract.graph_gate(model, SPEC)
    assert not gate.passed and re.match(told, gate.detail), gate.detail


def test_planted_a_graph_with_the_batch_baked_in_fails_the_contract_alone_and_is_not_compiled(
    graphs_of_fashion: dict[Precision, Path],
    fashion: ExportSource,
    tmp_path: Path,
    context_of: Callable[..., ExportContext],
) -> None:
    model = graphs.load(graphs_of_fashion["fp32"])
    bake_the_batch_in(model)
    onnx.save(model, tmp_path / "fp32.onnx")
    variant = prove.prove(context_of(fashion), "fp32", tmp_path / "fp32.onnx").variant
    assert [gate.name for gate in variant.gates if not gate.passed] == ["contract: the graph"]
    assert variant.engine is None and variant.score is None


BATCH = DynamicDim("batch", 1, 8, 32)
BROUGHT = ModelSpec(
    family="reader",
    model="reader",
    inputs=(
        TensorSpec("tokens", "int32", (BATCH, DynamicDim("width", 4, 16, 64))),
        TensorSpec("scale", "float32", (BATCH, 3)),
    ),
    outputs=(TensorSpec("score", "float32", (BATCH,)), TensorSpec("mask", "bool", (BATCH, 2))),
    limits={"fp32": Limits({"score": 1e-3, "mask": 0})},
    task="values",
)


def test_configurations_are_written_for_a_graph_that_has_none(tmp_path: Path) -> None:
    assert configs.write_configs(tmp_path, BROUGHT) == [tmp_path / name for name in CONFIGS]
    assert all(gate.passed for gate in contract.config_gates(tmp_path, BROUGHT))
    gpu, cpu = (text_format.Parse((tmp_path / name).read_text(), model_config_pb2.ModelConfig()) for name in CONFIGS)
    assert (gpu.platform, cpu.backend) == ("tensorrt_plan", "onnxruntime")
    assert (gpu.default_model_filename, cpu.default_model_filename) == ("model.plan", "model.onnx")
    assert gpu.cc_model_filenames == cc_model_filenames()
    for config in (gpu, cpu):
        tokens, scale = (config.model_warmup[0].inputs[name] for name in ("tokens", "scale"))
        assert (tokens.zero_data, list(tokens.dims)) == (True, [16]), "random tokens are in no vocabulary"
        assert (scale.random_data, list(scale.dims)) == (True, [3])


def test_a_configuration_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    mine = '# mine\nname: "reader"'
    (tmp_path / "config.pbtxt").write_text(mine)
    assert configs.write_configs(tmp_path, BROUGHT) == [tmp_path / "configs/cpu.pbtxt"]
    assert (tmp_path / "config.pbtxt").read_text() == mine


PLAIN = ModelSpec(
    family="reader",
    model="reader",
    inputs=(TensorSpec("sound", "float32", (DynamicDim("samples", 200, 400, 800),)), TensorSpec("rate", "int64", ())),
    outputs=(TensorSpec("level", "float32", ()), TensorSpec("found", "int64", (DynamicDim("rows", 0, 1, 9), 2))),
    limits={"fp32": Limits({"level": 1e-3, "found": 0})},
    task="values",
    batched=False,
)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("spec", "written", "becomes", "told"),
    [
        (BROUGHT, "dims: [ 1 ] reshape { shape: [ ] }", "dims: [ ]",
         "output 'score' has no dims: dims: [ 1 ] reshape { shape: [ ] }"),
        (BROUGHT, "dims: [ 1 ] reshape { shape: [ ] }", "dims: [ 1 ]", "'score' has dims [-1, 1], not [-1]"),
        (BROUGHT, "dims: [ 1 ] reshape { shape: [ ] }", "dims: [ 2 ] reshape { shape: [ ] }",
         "output 'score' has dims [2], and other elements in its reshape []"),
        (BROUGHT, 'key: "tokens" value { data_type: TYPE_INT32 dims: [16]',
         'key: "tokens" value { data_type: TYPE_INT32 dims: [65]',
         "warmup 'one': 'tokens' is [65], outside of [4] to [64]"),
        (BROUGHT, 'key: "tokens" value { data_type: TYPE_INT32 dims: [16]',
         'key: "tokens" value { data_type: TYPE_INT32 dims: [16, 1]',
         "warmup 'one': 'tokens' is [16, 1], outside of [4] to [64]"),
        (BROUGHT, 'key: "tokens" value { data_type: TYPE_INT32 dims: [16]',
         'key: "tokens" value { data_type: TYPE_INT64 dims: [16]', "warmup 'one': 'tokens' is int64, not int32"),
        (BROUGHT, " zero_data: true", ' input_data_file: "ids"', "warmup 'one': 'tokens': there is no warmup/ids"),
        (BROUGHT, " zero_data: true", "", "'tokens' has neither random_data nor zero_data nor an input_data_file"),
        (BROUGHT, "batch_size: 1\n", "batch_size: 0\n", "warmup 'one' has a batch of 0"),
        (PLAIN, "max_batch_size: 0", "max_batch_size: 8", "max_batch_size is 8, not 0: the network takes no batches"),
        (PLAIN, "TYPE_INT64 dims: [ 1 ]", "TYPE_INT64 dims: [ 2 ]", "input 'rate' has dims [2], not []"),
        (PLAIN, "TYPE_FP32 dims: [ 1 ]", "TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] }",
         "output 'level' has an empty reshape, which there is with batches alone: dims: [ 1 ]"),
        (PLAIN, "dims: [-1, 2]", "dims: [4, 2]", "output 'found' has dims [4, 2], not [-1, 2], it is baked in"),
        (PLAIN, "batch_size: 1\n", "batch_size: 2\n", "warmup 'one' has a batch of 2"),
        (PLAIN, "TYPE_FP32 dims: [400]", "TYPE_FP32 dims: [100]",
         "warmup 'one': 'sound' is [100], outside of [200] to [800]"),
    ],
)  # fmt: skip
def test_planted_what_no_server_would_load_or_warm_up_fails_the_gate(
    tmp_path: Path, config: str, spec: ModelSpec, written: str, becomes: str, told: str
) -> None:
    """Found here before any work is done; Triton finds it when the version is published, and does not start."""
    configs.write_configs(tmp_path, spec)
    path = tmp_path / config
    assert written in path.read_text()
    path.write_text(path.read_text().replace(written, becomes, 1))
    [refused] = [gate for gate in contract.config_gates(tmp_path, spec) if not gate.passed]
    assert refused.name == f"contract: {config}" and told in refused.detail


GRAPH = """optimization {{ cuda {{ graphs: true graph_spec {{
  batch_size: {0} input {{ key: "{1}" value {{ dim: {2} }} }}
  graph_lower_bound {{ batch_size: {3} input {{ key: "tokens" value {{ dim: [ 8 ] }} }} }} }} }} }}"""


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        ((8, "tokens", "[ 16 ]", 2), None),
        ((8, "tokens", "[ 65 ]", 2), "CUDA graph of batch 8: 'tokens' is [65], outside of [4] to [64]"),
        ((8, "tokens", "[ 8, 16 ]", 2), "CUDA graph of batch 8: 'tokens' is [8, 16], outside of [4] to [64]"),
        ((8, "token", "[ 16 ]", 2), "CUDA graph of batch 8: 'token' is no input"),
        ((999, "tokens", "[ 16 ]", 2), "CUDA graph of batch 999: max_batch_size is"),
        ((8, "tokens", "[ 16 ]", 9), "its lower bound has a batch of 9"),
    ],
)
def test_the_shapes_of_cuda_graphs_are_within_the_range_that_is_compiled(
    tmp_path: Path, graph: tuple[object, ...], told: str | None
) -> None:
    configs.write_configs(tmp_path, BROUGHT)
    path = tmp_path / CONFIGS[0]
    text = path.read_text().replace("optimization { cuda { graphs: true } }", GRAPH.format(*graph))
    assert "graph_spec" in text
    path.write_text(text)
    refused = [gate for gate in contract.config_gates(tmp_path, BROUGHT) if not gate.passed]
    assert [told in gate.detail for gate in refused if told] == [True] * bool(told)


def test_a_warm_up_from_a_file_has_as_many_bytes_as_its_sample(tmp_path: Path) -> None:
    x = np.zeros((40, 400), np.float32)
    configs.write_configs(tmp_path, PLAIN, Split.of({"sound": x, "rate": np.zeros(40, np.int64)}))
    assert all(gate.passed for gate in contract.config_gates(tmp_path, PLAIN))
    (tmp_path / "warmup" / "sound").write_bytes(bytes(8))
    refused = [gate.detail for gate in contract.config_gates(tmp_path, PLAIN) if not gate.passed]
    assert refused == ["warmup 'one': 'sound': warmup/sound has 8 bytes, not 1600"] * 2


def test_a_graph_without_a_batch_is_held_to_the_whole_shapes() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> reader (float[samples] sound, int64 rate)
    => (float level, int64[rows, 2] found) <int64[1] half = {-1}> {
      scaled = Cast <to = 1> (rate)
      loud = Mul(sound, scaled)
      level = ReduceMean <keepdims = 0> (loud)
      places = NonZero(loud)
      at = Transpose(places)
      found = Concat <axis = 1> (at, at)
    }"""
    graph = onnx.parser.parse_model(text)
    assert contract.graph_gate(graph, PLAIN).passed
    inputs, outputs = graphs.io_tensors(graph)
    assert contract.engine_gate((inputs, outputs), PLAIN).passed
    claimed = contract.engine_gate(({**inputs, "rate": ("int64", (1,))}, outputs), PLAIN)
    assert claimed.detail == "input 'rate' has dims [1], not []"
