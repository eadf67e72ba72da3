"""The export publishes what it has proven, and nothing else; it does nothing twice; it can be made again."""

import dataclasses
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.http
from onnx import TensorProto, helper, numpy_helper

from cli.progress import Progress
from contracts import bundle, layout, manifest
from contracts.manifest import Manifest, Variant
from contracts.spec import Limits, Precision
from export import pipeline, prove
from export.cache import Cache
from export.context import ExportContext
from export.errors import RefusedError
from export.graphs.file import WEIGHTS
from export.proof import timing
from export.source.base import ExportSource
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.export.conftest import REQUEST
from tests.tracked import MODEL_REPOSITORY, tracked
from tests.workspace import FAMILY, MODEL, POSTPROCESS, PREPROCESS
from training import families


def test_the_manifest_is_the_whole_story(release: Path, checkpoint: Path) -> None:
    published = manifest.verify(release)
    assert (published.family, published.model, published.version) == ("fashion", "fashion_classifier", 1)
    assert published.command.startswith("python -m export fashion --checkpoint ")
    assert published.source.sha256 == manifest.sha256(checkpoint)
    assert published.source.git_commit and published.source.mlflow_run_id
    assert published.test_samples == 10_000
    assert [gate.name for gate in published.gates] == [
        "contract: config.pbtxt",
        "contract: configs/cpu.pbtxt",
        "contract: fashion_postprocess/labels.txt",
    ]
    assert [v.precision for v in published.variants] == ["fp32", "fp16", "int8"]
    for variant in published.variants:
        names = {gate.name for gate in variant.gates}
        assert names >= {"contract: the graph", "largest difference of logits", "inf or nan", "agreement"}
        if variant.passed:
            assert variant.engine and variant.engine.size_bytes > 0
            assert set(variant.timings["model.onnx"].median_ms) == {"1", "16", "64"}
    assert published.variants[2].recipe and published.trials and published.sensitivity
    assert published.tools["nvidia-modelopt"] and published.tools["torch"].startswith("2.")
    own = {file.path for file in published.files if not file.path.startswith(bundle.FOLDER)}
    assert own == {"golden.npz", "model.onnx", "report.html", "report.md", "MODEL_CARD.md"}


def test_a_release_has_what_git_has_of_its_models_byte_for_byte(release: Path, shared: Workspace) -> None:
    published = manifest.verify(release)
    assert published.models == (MODEL, FAMILY, PREPROCESS, POSTPROCESS)
    held = bundle.at(release)
    assert held.sealed and held.models == {name: release / bundle.FOLDER / name for name in published.models}
    git = {path.relative_to(MODEL_REPOSITORY) for path in tracked("model_repository")}
    git = {path for path in git if path.parts[0] in published.models}
    sealed = {path for path in (release / bundle.FOLDER).rglob("*") if path.is_file()}
    assert git == {path.relative_to(release / bundle.FOLDER) for path in sealed}
    for path in git:
        assert (release / bundle.FOLDER / path).read_bytes() == (shared.repository / path).read_bytes()


def test_git_sees_nothing_that_an_export_publishes(release: Path) -> None:
    published = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    assert {"model.onnx", "manifest.json", "MODEL_CARD.md", "report.html"} <= published
    published |= {WEIGHTS, "model.plan", "model.sm90.plan", "model.sig", "tables/weather.npz"}
    paths = sorted(f"model_repository/{MODEL}/7/{name}" for name in published)
    command = ["git", "check-ignore", "--no-index", *paths]
    ignored = subprocess.run(command, cwd=layout.ROOT, capture_output=True, text=True, check=False).stdout
    assert sorted(ignored.splitlines()) == paths


def test_the_published_graph_is_the_chosen_variant_and_as_accurate_as_it_says(release: Path) -> None:
    import onnxruntime as ort

    chosen = manifest.verify(release).variant_for("model.onnx")
    assert manifest.sha256(release / "model.onnx") == chosen.sha256
    [test] = families.load("fashion").data().split("test").groups
    images, labels = test.inputs["pixels"], test.targets
    session = ort.InferenceSession(release / "model.onnx", providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(["logits"], {"pixels": part})[0] for part in np.array_split(images, 100)])
    assert float((logits.argmax(1) == labels).mean()) == pytest.approx(chosen.score, abs=1e-4)


def test_a_second_export_is_the_next_version_and_leaves_the_first_alone(
    shared: Workspace, released: Workspace, checkpoint: Path
) -> None:
    """In the session's workspace, whose cache has every step."""
    before = manifest.verify(released.model / "1")
    out = shared.must(
        "export", "fashion", "--checkpoint", checkpoint, "--repository", released.repository,
        "--precision", "fp16", "fp32", "--json", "--no-register",
    )  # fmt: skip
    assert json.loads(out)["version"] == 2
    assert [v.precision for v in manifest.verify(released.model / "2").variants] == ["fp32", "fp16"]
    assert manifest.verify(released.model / "1") == before
    assert (before.served, manifest.read(released.model / "2").served) == ("2.51.0", None), (
        "one was made with --no-serve"
    )
    assert "not yet served" in (released.model / "2" / "report.md").read_text()


@pytest.fixture
def export(fashion: ExportSource, workspace: Workspace, kept_steps: Path, few_rounds: None) -> Callable[..., Manifest]:
    """Export the small source with FP32 and INT8 and other limits, in the test's own workspace."""

    def run(force: bool = False, source: ExportSource = fashion, **limits: Limits) -> Manifest:
        spec = dataclasses.replace(source.spec, limits={**source.spec.limits, **limits})  # type: ignore[dict-item]
        cache = Cache(kept_steps, {}, force=force)
        source = dataclasses.replace(source, spec=spec)
        return pipeline.run(source, REQUEST, model_directory=workspace.model, cache=cache, progress=Progress())

    return run


IMPOSSIBLE = Limits({"logits": 0.0, "probabilities": 0.0}, agreement=1.01)


def test_a_refused_variant_is_recorded_and_not_chosen(export: Callable[..., Manifest]) -> None:
    fp32, int8 = (published := export(int8=IMPOSSIBLE)).variants
    assert fp32.passed and not int8.passed
    assert int8.engine is None and not int8.timings, "no time is spent on what is refused"
    assert [choice.precision for choice in published.choices] == ["fp32"]


def test_if_every_variant_is_refused_nothing_is_published(
    export: Callable[..., Manifest], workspace: Workspace
) -> None:
    with pytest.raises(RefusedError, match="nothing was published") as error:
        export(fp32=IMPOSSIBLE, int8=IMPOSSIBLE)
    assert "agreement 1 (limit: at least 1.01)" in str(error.value)
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}


def test_planted_swapped_labels_fail_agreement_and_the_task_metric(
    fashion: ExportSource,
    graphs_of_fashion: dict[Precision, Path],
    tmp_path: Path,
    context_of: Callable[..., ExportContext],
) -> None:
    """A graph that gives out "Sandal" where the checkpoint says "Sneaker", and the other way round."""
    model = onnx.load(graphs_of_fashion["fp32"])
    swapped = [*range(5), 7, 6, 5, 8, 9]
    for tensor in model.graph.initializer:
        if tensor.name in ("network.6.weight", "network.6.bias"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[swapped], tensor.name))
    onnx.save(model, tmp_path / "fp32.onnx")
    proven = prove.prove(context_of(fashion), "fp32", tmp_path / "fp32.onnx")
    refused = {gate.name for gate in proven.variant.gates if not gate.passed}
    assert {"agreement", "accuracy drop, points (95 % upper bound)"} <= refused


def test_two_exports_of_one_checkpoint_give_the_same_graphs_byte_for_byte(
    export: Callable[..., Manifest], fashion: ExportSource, workspace: Workspace
) -> None:
    first, second = export(), export(force=True)
    assert [v.sha256 for v in first.variants] == [v.sha256 for v in second.variants]
    graphs = [(workspace.model / str(version) / "model.onnx").read_bytes() for version in (1, 2)]
    if first.choices[0].precision == second.choices[0].precision:  # by their speed, which is the machine's
        assert graphs[0] == graphs[1]


def made_at(steps: Path) -> dict[str, float]:
    return {place.name: (place / "inputs.json").stat().st_mtime for place in steps.iterdir()}


def test_only_what_has_changed_is_done_again(
    export: Callable[..., Manifest], fashion: ExportSource, kept_steps: Path
) -> None:
    export()
    before = made_at(kept_steps)
    loose = Limits({"logits": 9.0, "probabilities": 1.0}, agreement=0.5, computed_share=0.5)
    assert export(fp32=loose).variants[0].gates[1].limit == 9.0, "limits are held against what was measured before"
    assert made_at(kept_steps) == before
    fewer = fashion.calibration.first(64)
    export(source=dataclasses.replace(fashion, calibration=fewer))
    after = made_at(kept_steps)
    assert {name: after[name] for name in before} == before
    new = {name.partition("-")[0] for name in after.keys() - before.keys()}
    # The engine as well, unless FP16 rounds away what its graph differs in.
    assert new - {"engine"} == {"quantized", "int8", "proof", "rounded"}
    export(force=True)
    assert all(made_at(kept_steps)[name] > made for name, made in before.items())


def test_what_tensorrt_says_of_its_layers_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """It looks like markup to the library that draws the progress."""
    said = "REFUSED: no kernel for {ForeignNode[/model.0/Conv.../model.1/Add]} [node]"
    with Progress().step("fp32 engine") as done:
        done(said)
    Progress().say(said)
    assert capsys.readouterr().err.count(said) == 2


def test_an_interrupted_export_goes_on_where_it_was(workspace: Workspace, checkpoint: Path) -> None:
    command = [
        "export", "fashion", "--checkpoint", checkpoint, "--repository", workspace.repository,
        "--precision", "fp32", "fp16", "--no-register",
    ]  # fmt: skip
    process = subprocess.Popen(
        workspace.command(*command),
        cwd=layout.ROOT,
        env=workspace.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    made = workspace.root / "artifacts" / "export" / "fashion"
    wait_for(lambda: any(made.glob("fp16-*")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert not list(made.glob(".*")), "no unfinished step is left"
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}
    done = workspace.run(*command)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1:3] for line in done.stderr.splitlines() if "cached" in line][:2] == [
        ["reference", "cached"],
        ["fp32", "graph"],
    ]


def timed(precision: str) -> Variant:
    return Variant(precision, 0.9, (), 1, "")  # type: ignore[arg-type]


def samples(ms: dict[str, list[float]]) -> timing.Samples:
    """Turns of one call each at batch 16."""
    return {name: {16: [[one] for one in turns]} for name, turns in ms.items()}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"fp32": [2.0] * 20, "fp16": [1.0] * 20, "int8": [0.5] * 20}, "int8"),
        ({"fp32": [1.0] * 20, "fp16": [2.0] * 20, "int8": [3.0] * 20}, "fp32"),
        ({"fp32": [1.0] * 20, "fp16": [0.93] * 20, "int8": [1.5] * 20}, "fp32"),  # 7 %: not worth a lower precision
        ({"fp32": [2.0] * 20, "fp16": [1.0] * 20, "int8": [0.99] * 20}, "fp16"),
        ({"fp32": [1.0] * 20, "fp16": [0.8] * 12 + [1.2] * 8}, "fp32"),  # faster by the median, but not beyond doubt
        ({"fp32": [1.0] * 20, "fp16": [0.8] * 17 + [1.2] * 3}, "fp16"),
        ({"fp32": [1.0] * 10 + [9.0] * 10, "fp16": [0.8] * 10 + [7.2] * 10}, "fp16"),  # paired: the machine slowed down
    ],
)
def test_a_lower_precision_is_chosen_if_it_is_faster_beyond_doubt(times: dict[str, list[float]], chosen: str) -> None:
    choice, variants = timing.choose_fastest("model.onnx", [timed(p) for p in times], samples(times), batch=16)
    assert choice.precision == chosen
    assert all(precision in choice.reason for precision in times), "the reason names the ratios"
    gates = [variant.timings["model.onnx"].worth_it for variant in variants]
    assert gates[0] is None and all(gate is not None for gate in gates[1:])
    assert gates[1] is not None and gates[1].passed is (chosen != "fp32")


BROUGHT = """
model = "doubler"
task = "values"
[[inputs]]
name = "x"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 8, max = 16 }, 4]
[[outputs]]
name = "y"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 8, max = 16 }, 4]
[limits.fp32]
tolerance = { y = 1e-6 }
[limits.fp16]
tolerance = { y = 0.01 }
"""


@pytest.mark.heavy
def test_a_graph_trained_elsewhere_is_published_with_configurations_that_triton_takes(workspace: Workspace) -> None:
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    weights = numpy_helper.from_array(2 * np.eye(4, dtype=np.float32), "w")
    body = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "doubler", io[:1], io[1:], [weights])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, workspace.root / "doubler.onnx")
    (workspace.root / "spec.toml").write_text(BROUGHT)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(workspace.root / "samples.npz", x=x)
    brought = [
        "export", "--onnx", workspace.root / "doubler.onnx", "--spec", workspace.root / "spec.toml",
        "--inputs", workspace.root / "samples.npz", "--repository", workspace.repository, "--no-register",
    ]  # fmt: skip
    assert "Published doubler version 1" in workspace.must(*brought)
    release = manifest.verify(workspace.repository / "doubler" / "1")
    assert [variant.precision for variant in release.variants] == ["fp32", "fp16"], "those that the spec has limits for"
    assert release.reference_score is None and all(variant.passed for variant in release.variants)
    done = workspace.run(*brought, "--precision", "int8")
    assert done.returncode == 1 and "error: the spec of doubler has no limits for int8" in done.stderr

    impossible = BROUGHT.replace("doubler", "other")
    impossible = impossible.replace("[limits.fp32]", "[limits.fp32]\ncomputed_share = 2")
    impossible = impossible.replace("[limits.fp16]", "[limits.fp16]\ncomputed_share = 2")
    (workspace.root / "spec.toml").write_text(impossible)
    done = workspace.run(*brought)
    assert done.returncode == 1 and "no variant of other passed its gates" in done.stderr
    assert not (workspace.repository / "other").exists(), "a configuration without a version stops every server"

    for other in workspace.repository.glob("fashion*"):  # serve it alone
        shutil.rmtree(other)
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *port_options(free_ports()))
    try:
        address = json.loads(workspace.must("deploy", "status", "--json"))["http"]
        with tritonclient.http.InferenceServerClient(address) as client:
            tensor = tritonclient.http.InferInput("x", [3, 4], "FP32")
            tensor.set_data_from_numpy(x[:3])
            assert client.infer("doubler", [tensor]).as_numpy("y") == pytest.approx(2 * x[:3], rel=1e-3)
    finally:
        workspace.down()


def test_a_full_disk_in_the_middle_of_an_export_publishes_nothing(workspace: Workspace, checkpoint: Path) -> None:
    """The kernel refuses files over 200 kB, as a full disk would."""
    program = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
    program += "runpy.run_module('export', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-c", program, "fashion", "--checkpoint", checkpoint, "--repository", workspace.repository],
        cwd=layout.ROOT, env=workspace.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}


def test_a_repository_without_the_model_is_refused_before_any_work(workspace: Workspace, checkpoint: Path) -> None:
    done = workspace.run("export", "fashion", "--checkpoint", checkpoint, "--repository", workspace.root)
    assert done.returncode == 1
    assert "has no fashion_classifier/config.pbtxt" in done.stderr


def test_target_tensorrt_without_a_gpu_says_what_is_missing(workspace: Workspace, checkpoint: Path) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed here")
    done = workspace.run(
        "export", "fashion", "--checkpoint", checkpoint, "--repository", workspace.repository,
        "--target", "tensorrt", "--precision", "fp32",
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: tensorrt is not installed" in done.stderr
    assert "pip install --no-deps --require-hashes -r deploy/server-gpu.lock" in done.stderr
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}
