"""`--target tensorrt` from end to end, TensorRT-RTX in the place of TensorRT: what is built, chosen and carried."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.progress import Progress
from contracts import manifest
from contracts.engines.plans import SERVER_TENSORRT, cc_model_filenames, version_of
from contracts.manifest import Choice, Compatibility, Engine, Manifest
from contracts.spec import Limits
from export import pipeline
from export.cache import Cache
from export.errors import EngineError, RefusedError
from export.proof.engine import BuildOptions
from export.proof.plan_runner import GRAPH
from export.source.base import ExportSource
from tests.conftest import Workspace
from tests.export.conftest import REQUEST
from tests.export.standing_in import MILLISECONDS, Gpu, stand_in

IMPOSSIBLE = Limits({"logits": 0.0, "probabilities": 0.0}, agreement=1.01)
AMPERE_AND_NEWER = {file for cc, file in cc_model_filenames().items() if float(cc) >= 8} | {"model.plan"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return stand_in(monkeypatch)


@pytest.fixture
def export(fashion: ExportSource, workspace: Workspace, kept_steps: Path, few_rounds: None) -> Callable[..., Manifest]:
    """Export the small source with FP32 and INT8; None: without plans."""

    def run(level: Compatibility | None = "same_compute_capability", **limits: Limits) -> Manifest:
        spec = dataclasses.replace(fashion.spec, limits={**fashion.spec.limits, **limits})  # type: ignore[dict-item]
        engines = BuildOptions() if level is None else BuildOptions("tensorrt", level)
        return pipeline.run(
            dataclasses.replace(fashion, spec=spec),
            dataclasses.replace(REQUEST, engines=engines),
            model_directory=workspace.model,
            cache=Cache(kept_steps, {}),
            progress=Progress(),
        )

    return run


def engine_of(choice: Choice) -> Engine:
    assert choice.engine is not None
    return choice.engine


def plans_of(release: Manifest) -> dict[str, Choice]:
    return {choice.file: choice for choice in release.choices if choice.engine}


def test_a_gpu_adds_the_plan_of_its_compute_capability_timed_as_triton_runs_it(
    export: Callable[..., Manifest], workspace: Workspace, gpu: Gpu
) -> None:
    release = export()
    [(file, choice)] = plans_of(release).items()
    assert file == "model.sm90.plan" and choice.precision == "int8"
    assert choice.reason.endswith(f"{GRAPH} on {gpu.name} of compute capability 9.0")
    built = engine_of(choice)
    assert (built.gpu, built.compatibility, built.tf32) == (gpu.name, "same_compute_capability", False)
    assert built.library == f"tensorrt {SERVER_TENSORRT}" and not built.hardware_compatible
    assert set(gpu.levels) == {"SAME_COMPUTE_CAPABILITY"}
    assert version_of(workspace.model / "1" / file) == SERVER_TENSORRT
    timings = {v.precision: v.timings[file] for v in release.variants}
    assert {p: t.median_ms["16"] for p, t in timings.items()} == {"fp32": 0.04, "int8": MILLISECONDS["int8-fp16"]}
    assert all(t.how == GRAPH and t.from_python_ms["16"] > 0 for t in timings.values())


def test_what_int8_leaves_is_fp16_in_the_plan_and_fp32_on_the_cpu(
    export: Callable[..., Manifest], workspace: Workspace, gpu: Gpu
) -> None:
    _, int8 = (release := export()).variants
    assert int8.engine is not None and int8.engine.dtype_share == {"INT8": 0.9, "HALF": 0.1}
    [choice] = plans_of(release).values()
    assert choice.graph_sha256 == int8.engine.graph_sha256 != int8.sha256
    assert {name for name, _ in gpu.graphs.values()} == {"fp32", "int8-fp16"}
    assert "inspected_share" not in {gate.id for gate in (*int8.gates, *int8.engine.gates)}, "told, no gate"


def test_a_hardware_compatible_plan_has_every_name_but_leaves_a_native_one_alone(
    export: Callable[..., Manifest], workspace: Workspace, gpu: Gpu, capsys: pytest.CaptureFixture[str]
) -> None:
    native = plans_of(export())["model.sm90.plan"]
    gpu.name, gpu.capability = "NVIDIA A100-SXM4-40GB", (8, 0)
    found = plans_of(export("ampere_plus"))
    assert found.keys() == AMPERE_AND_NEWER
    assert found.pop("model.sm90.plan") == native
    assert "model.sm90.plan stays that of version 1" in capsys.readouterr().err
    assert {choice.reason.partition(f"{GRAPH} on ")[2] for choice in found.values()} == {
        "NVIDIA A100-SXM4-40GB of compute capability 8.0"
    }
    assert all(engine_of(choice).hardware_compatible for choice in found.values())
    directory = workspace.model / "2"
    plans = {path.name: manifest.sha256(path) for path in directory.glob("*.plan")}
    assert plans.keys() == AMPERE_AND_NEWER
    assert plans.pop("model.sm90.plan") == manifest.sha256(workspace.model / "1" / "model.sm90.plan")
    assert len(set(plans.values())) == 1


def test_a_native_plan_takes_the_place_of_a_hardware_compatible_one(export: Callable[..., Manifest], gpu: Gpu) -> None:
    export("ampere_plus")
    found = plans_of(export())
    assert found.keys() == AMPERE_AND_NEWER
    assert {file for file, choice in found.items() if not engine_of(choice).hardware_compatible} == {"model.sm90.plan"}


def test_every_plan_that_is_left_behind_is_said_with_the_reason(
    export: Callable[..., Manifest], gpu: Gpu, capsys: pytest.CaptureFixture[str]
) -> None:
    export()
    assert plans_of(export(None)).keys() == {"model.sm90.plan"}, "an export without a GPU takes them along"
    capsys.readouterr()
    assert not plans_of(export(None, int8=IMPOSSIBLE))
    told = "model.sm90.plan of version 2 stays behind: its int8 graph is not one that has passed now"
    assert told in capsys.readouterr().err


def test_a_capability_that_no_file_is_named_for_gets_the_plan_that_others_fall_back_on(
    export: Callable[..., Manifest], gpu: Gpu
) -> None:
    gpu.capability = (13, 0)
    assert plans_of(export()).keys() == {"model.plan"}


def test_int8_stays_beside_fp32_where_fp16_is_over_the_limits(
    export: Callable[..., Manifest], gpu: Gpu, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from export import measure

    of_rounded_graph = measure.of_rounded_graph
    monkeypatch.setattr(measure, "of_rounded_graph", lambda *a: dataclasses.replace(of_rounded_graph(*a), not_finite=7))
    _, int8 = export().variants
    assert "what is not INT8 stays FP32, as FP16 is over the limits: inf or nan 7" in capsys.readouterr().err
    assert int8.engine is not None and int8.engine.dtype_share == {"INT8": 0.9, "FLOAT": 0.1}
    assert int8.engine.graph_sha256 == ""


def test_the_library_says_its_version_whatever_its_bindings_claim(export: Callable[..., Manifest], gpu: Gpu) -> None:
    gpu.tensorrt = "11.4.0.12"
    with pytest.raises(
        EngineError, match=r"TensorRT 11\.4\.0\.12 builds plans that the server's TensorRT 11\.1\.0\.106"
    ):
        export()


def test_a_plan_for_ampere_and_newer_is_built_there(export: Callable[..., Manifest], gpu: Gpu) -> None:
    gpu.capability = (7, 5)
    with pytest.raises(EngineError, match=r"not on compute capability 7\.5"):
        export("ampere_plus")


def test_a_plan_of_another_tensorrt_than_it_was_checked_for_is_not_published(
    export: Callable[..., Manifest], gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.proof import engine

    gpu.tensorrt = "11.1.0.107"
    monkeypatch.setattr(engine, "library_version", lambda: SERVER_TENSORRT)  # it was exchanged meanwhile
    with pytest.raises(RefusedError, match=r"built by 11\.1\.0\.107, the server has 11\.1\.0\.106"):
        export()
