"""A module of plain PyTorch becomes an export source; what would be served wrong is refused before it is exported."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from contracts.samples import Split
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export import graphs
from export.errors import GraphError, ModuleError, SampleError
from export.proof import contract
from export.proof.runners import onnx_runner, predict
from export.source import first_spec
from export.source.pytorch import graph_from_module, module_runner
from export.source.torch_module import check, from_torch
from tests.conftest import Workspace
from tests.export.modules import (
    BATCH,
    Branches,
    Encoder,
    Ends,
    InOneGo,
    Recurrent,
    Steps,
    Voice,
    floats,
    save,
    tokens,
)

ANY = DynamicDim("batch", 1, 8, 32)
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, left, right):
        return (self.layer(left) * {factor} + self.layer(right)).squeeze(1)
"""


def spec_of(**outputs: tuple[int | DynamicDim, ...]) -> ModelSpec:
    made = tuple(TensorSpec(name, "float32", shape) for name, shape in outputs.items())
    return ModelSpec("toy", "toy", (TensorSpec("x", "float32", (ANY, 4)),), made, {}, task="values")


def exported(module: nn.Module, folder: Path, *files: dict[str, Any]) -> tuple[ModelSpec, Path]:
    """Its first spec and its graph, which gives what the module gives for every sample."""
    paths = [save(folder, f"s{number}", **arrays) for number, arrays in enumerate(files)]
    spec = first_spec.write(module.eval(), "toy:make", paths, folder, lambda line: None)
    example = {t.name: files[0][t.name] if spec.batched else files[0][t.name][0] for t in spec.inputs}
    path = graph_from_module(module, spec, folder / "toy.onnx", example)
    assert contract.graph_gate(graphs.load(path), spec).passed
    runs = module_runner(module, spec), onnx_runner(path, [t.name for t in spec.outputs])
    for arrays in files:
        split = Split.of({t.name: arrays[t.name] for t in spec.inputs})
        expected, found = (predict(run, split, spec.max_batch) for run in runs)
        for one, other in zip(expected, found, strict=True):
            assert all(np.allclose(one[name], other[name], atol=1e-5) for name in one)
    return spec, path


def test_a_dictionary_and_padding_are_exported_and_an_output_may_be_named_like_an_operator(tmp_path: Path) -> None:
    mask = np.ones((BATCH, 8), np.int64)
    mask[:, 6:] = 0
    files = [{"input_ids": tokens(BATCH, 8), "attention_mask": mask},
             {"input_ids": tokens(BATCH, 12), "attention_mask": np.ones((BATCH, 12), np.int64)}]  # fmt: skip
    _, path = exported(Encoder(), tmp_path, *files)
    model = onnx.load(path)
    assert "words/Gather" in {node.name for node in model.graph.node}, "named after its modules"
    assert "words.weight" in {initializer.name for initializer in model.graph.initializer}


def test_what_torch_export_freezes_is_exported_by_the_other_exporter(tmp_path: Path) -> None:
    exported(Recurrent(), tmp_path, {"x": floats(BATCH, 3, 4)}, {"x": floats(BATCH, 5, 4)})


def test_writing_in_place_keywords_and_an_input_handed_on(tmp_path: Path) -> None:
    exported(InOneGo(), tmp_path, {"scale": floats(BATCH, 3), "x": floats(BATCH, 4)})


class Unlikely(nn.Module):
    """Sure of a no where all is 0, as the example of an export is: onnxruntime's sigmoid gives 0 there."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x - 25)


def test_a_probability_next_to_nothing_may_be_nothing_in_the_graph(tmp_path: Path) -> None:
    assert 0 < Unlikely()(torch.zeros(1, 1)).item() < 1e-10
    exported(Unlikely(), tmp_path, {"x": floats(32, 1)})


def test_state_and_a_scalar_without_a_batch(tmp_path: Path) -> None:
    arrays = {"sound": floats(40, 1, 16), "state": floats(40, 2, 1, 8), "rate": np.full(40, 16000)}
    exported(Voice(), tmp_path, arrays)


def test_a_way_that_depends_on_values_is_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GraphError) as refused:
        exported(Branches(), tmp_path, {"x": floats(BATCH, 4)})
    told = str(refused.value)
    assert told.startswith(
        "PyTorch could not export toy to ONNX\nNote: torch.export: Could not guard on data-dependent"
    )
    assert "TorchScript: one way through the module was recorded, and there are others" in told
    assert "torch.where computes both branches" in told
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "toy.onnx").exists()


def test_a_loop_over_a_length_is_refused_as_baked_in(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"(?s)'x' has dims \[-1, 2, 4\].*baked in.*\nHint: .* loop over it"):
        exported(Steps(), tmp_path, {"x": floats(BATCH, 2, 4)}, {"x": floats(BATCH, 3, 4)})


class Counts(nn.Module):
    """It answers by how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    ("module", "shape", "told"),
    [
        (Ends(lambda y: y.softmax(0)), (ANY, 2), "the answer to a sample depends on what else is in its batch: y by"),
        (Ends(lambda y: y[:, :1].squeeze()), (ANY,), "of one sample alone y has shape [], of 4 [4]"),
        (Ends(nn.functional.dropout), (ANY, 2), "answers the same samples differently the second time: y by"),
        (Counts(), (ANY, 4), "answers the same samples differently the second time: y by"),
        (Ends(lambda y: y.double()), (ANY, 2), "gives y as float64 [4, 2]\nNote: the spec says float32"),
        (Ends(lambda y: y[:, :1]), (ANY, 2), "gives y as float32 [4, 1]\nNote: the spec says float32 [4, 2]"),
        (Ends(lambda y: (y, y)), (ANY, 2), "does not give the outputs of the spec: y\nNote: it gives output_0 [4, 2]"),
        (Ends(lambda y: y @ y), (ANY, 2), "the module fails on the samples: RuntimeError: mat1 and mat2"),
    ],
)
def test_what_would_be_served_wrong_is_refused(module: nn.Module, shape: tuple[Any, ...], told: str) -> None:
    with pytest.raises(ModuleError) as refused:
        check(module.eval(), spec_of(y=shape), Split.of({"x": floats(BATCH, 4)}))
    assert told in str(refused.value)


def test_what_is_served_right_is_not() -> None:
    check(Ends(lambda y: {"y": y, "more": None}).eval(), spec_of(y=(ANY, 2)), Split.of({"x": floats(BATCH, 4)}))


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module file in the working directory, with weights.pt and samples.npz beside."""
    name = f"brought_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(NET.format(factor=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"_orig_mod.layer.weight": torch.ones(1, 4), "_orig_mod.layer.bias": torch.zeros(1)}, "weights.pt")
    save(tmp_path, left=floats(50, 4), right=floats(50, 4), labels=floats(50))
    return name


def test_half_of_the_samples_calibrates_and_the_module_is_the_reference(brought: str, tmp_path: Path) -> None:
    said: list[str] = []
    source = from_torch(f"{brought}:Net", Path("weights.pt"), [Path("samples.npz")], None, 10, said.append)
    assert (len(source.calibration), len(source.search), len(source.held_out)) == (10, 25, 25)
    assert source.spec.model == brought and f"--spec {brought}.toml" in said[-1]
    [inputs] = [group.inputs for group in source.held_out.groups]
    answers = source.reference()(inputs)["output"]
    assert np.allclose(answers, inputs["left"].sum(1) + inputs["right"].sum(1), atol=1e-5)
    assert source.origin.file == f"{brought}:Net, weights.pt"
    assert source.origin.compared_with == f"the PyTorch module of {brought}:Net"
    source.write_graph(tmp_path / "fp32.onnx")
    assert contract.graph_gate(graphs.load(tmp_path / "fp32.onnx"), source.spec).passed


def test_other_weights_and_other_code_are_other_sources(brought: str, tmp_path: Path) -> None:
    """Or the cache would go on with answers that the module does not give any more."""
    digests = set()
    for factor, weight in ((1, 1.0), (1, 2.0), (2, 1.0)):
        name = f"{brought}_{factor}"
        Path(f"{name}.py").write_text(NET.format(factor=factor))
        torch.save({"layer.weight": torch.full((1, 4), weight), "layer.bias": torch.zeros(1)}, "weights.pt")
        Path(f"{name}.toml").unlink(missing_ok=True)
        digests.add(from_torch(f"{name}:Net", Path("weights.pt"), [Path("samples.npz")], None, 10).origin.sha256)
    assert len(digests) == 3


def test_too_few_samples_are_refused(brought: str, tmp_path: Path) -> None:
    save(tmp_path, left=floats(30, 4), right=floats(30, 4))
    with pytest.raises(SampleError, match="has 30 samples"):
        from_torch(f"{brought}:Net", Path("weights.pt"), [Path("samples.npz")], None, 10)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("fashion --torch model:make --inputs x.npz", "name a family, a graph with --onnx, or a module with --torch"),
        ("--onnx model.onnx --torch model:make --inputs x.npz --spec s.toml", "name a family, a graph with --onnx"),
        ("--torch model:make", "--torch goes with --inputs"),
        ("--onnx model.onnx --inputs x.npz", "--onnx goes with --spec and --inputs"),
        ("fashion --inputs x.npz", "--spec and --inputs are of a model brought with --onnx or --torch"),
        ("fashion --weights w.pt", "--weights are those of --torch"),
        ("--torch model:make --inputs x.npz --run-id 3", "--checkpoint, --from and --run-id each name a checkpoint"),
    ],
)
def test_what_does_not_go_together_is_refused(workspace: Workspace, arguments: str, told: str) -> None:
    done = workspace.run_here("export", *arguments.split())
    assert done.returncode == 2 and told in done.stderr
