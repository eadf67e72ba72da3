"""The export publishes what it has proven, and nothing else."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from contracts import layout, manifest
from contracts.manifest import Variant
from contracts.spec import Limits
from export import pipeline, precision
from export.errors import RefusedError
from export.progress import Progress
from tests.conftest import Workspace
from training import checkpoints, families


def test_the_manifest_is_the_whole_story(release: Path, checkpoint: Path) -> None:
    published = manifest.verify(release)
    assert (published.family, published.model, published.version) == ("fashion", "fashion_classifier", 1)
    assert published.source.checkpoint_sha256 == manifest.sha256(checkpoint)
    assert published.source.git_commit and published.source.mlflow_run_id
    assert published.test_images == 10_000
    assert [v.precision for v in published.variants] == ["fp32", "fp16", "int8"]
    for variant in published.variants:
        assert {g.name for g in variant.gates} >= {"accuracy drop, points", "top-1 agreement"}
        if variant.passed:
            assert variant.engine and variant.engine.size_bytes > 0
            assert set(variant.latency_ms["model.onnx"]) == {"1", "16"}
    assert published.tools["torch"].startswith("2.")


def test_the_published_graph_is_the_chosen_variant_and_as_accurate_as_it_says(release: Path) -> None:
    chosen = manifest.verify(release).served("model.onnx")
    assert manifest.sha256(release / "model.onnx") == chosen.sha256
    images, labels = families.load("fashion").data().split("test")
    session = ort.InferenceSession(release / "model.onnx", providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(["logits"], {"pixels": part})[0] for part in np.array_split(images, 100)])
    assert float((logits.argmax(1) == labels).mean()) == pytest.approx(chosen.accuracy, abs=1e-4)


def test_a_second_export_is_the_next_version_and_leaves_the_first_alone(released: Workspace, checkpoint: Path) -> None:
    before = manifest.verify(released.model / "1")
    out = released.must(
        "export", "fashion", "--checkpoint", checkpoint, "--repository", released.repository,
        "--precision", "fp16", "--json",
    )  # fmt: skip
    assert json.loads(out)["version"] == 2
    assert [v.precision for v in manifest.verify(released.model / "2").variants] == ["fp16"]
    assert manifest.verify(released.model / "1") == before


def export_with_limits(workspace: Workspace, checkpoint: Path, limits: dict[str, Limits]) -> manifest.Manifest:
    family = families.load("fashion")
    family = dataclasses.replace(family, spec=dataclasses.replace(family.spec, limits={**family.spec.limits, **limits}))  # type: ignore[dict-item]
    return pipeline.run(
        family,
        checkpoints.read(checkpoint, family),
        precisions=["fp32", "int8"],
        target="cpu",
        calibration_images=64,
        model_directory=workspace.model,
        work=workspace.root / "work",
        progress=Progress(),
    )


IMPOSSIBLE = Limits(accuracy_drop_points=-100, agreement=1.0, logit_difference=0.0)


def test_a_refused_variant_is_recorded_and_not_chosen(workspace: Workspace, checkpoint: Path) -> None:
    published = export_with_limits(workspace, checkpoint, {"int8": IMPOSSIBLE})
    fp32, int8 = published.variants
    assert fp32.passed and not int8.passed
    assert int8.engine is None and not int8.latency_ms, "no time is spent on what is refused"
    assert [choice.precision for choice in published.choices] == ["fp32"]
    assert (workspace.root / "work" / "int8.onnx").exists(), "it stays for a look"


def test_if_every_variant_is_refused_nothing_is_published(workspace: Workspace, checkpoint: Path) -> None:
    with pytest.raises(RefusedError, match="nothing was published") as error:
        export_with_limits(workspace, checkpoint, {"fp32": IMPOSSIBLE, "int8": IMPOSSIBLE})
    assert "fp32: accuracy drop, points" in str(error.value)
    assert "limit: at most -100" in str(error.value)
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}


def timed(precision: str, ms: float) -> Variant:
    return Variant(precision, 0.9, (), 1, "", latency_ms={"model.onnx": {"16": ms}})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"fp32": 2.0, "fp16": 1.0, "int8": 0.5}, "int8"),
        ({"fp32": 1.0, "fp16": 2.0, "int8": 3.0}, "fp32"),
        ({"fp32": 1.0, "fp16": 0.93, "int8": 1.5}, "fp32"),  # 7 % is noise, not worth a lower precision
        ({"fp32": 2.0, "fp16": 1.0, "int8": 0.99}, "fp16"),
    ],
)
def test_the_fastest_is_chosen_unless_a_more_precise_one_is_as_fast(times: dict[str, float], chosen: str) -> None:
    choice = pipeline.choose("model.onnx", [timed(p, ms) for p, ms in times.items()], batch=16)
    assert choice.precision == chosen
    assert all(precision in choice.reason for precision in times), "the reason names the ratios"


def test_what_tensorrt_refuses_is_not_published_and_the_others_are(
    workspace: Workspace, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantize_asymmetrically(fp32: Path, int8: Path, input_name: str, calibration: np.ndarray) -> Path:
        precision_quantize(fp32, int8, input_name, calibration)
        model = onnx.load(int8)
        for initializer in model.graph.initializer:
            if initializer.name.endswith("_zero_point") and not initializer.dims:
                initializer.CopyFrom(onnx.helper.make_tensor(initializer.name, onnx.TensorProto.INT8, [], [1]))
        onnx.save(model, int8)
        return int8

    precision_quantize = precision.quantize
    monkeypatch.setattr(precision, "quantize", quantize_asymmetrically)
    published = export_with_limits(workspace, checkpoint, {"int8": Limits(100, 0.0, 1e9)})
    fp32, int8 = published.variants
    assert fp32.passed
    assert [gate.name for gate in int8.gates if not gate.passed] == ["compiled by TensorRT"]


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
    assert "pip install '.[gpu]'" in done.stderr
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}
