"""Plans that other GPU machines added go with a release, if they are plans of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.progress import Progress
from contracts import manifest
from contracts.engines.plans import SERVER_TENSORRT
from contracts.errors import ManifestError
from contracts.manifest import Choice, Engine
from contracts.spec import Limits
from export import pipeline
from export.cache import Cache
from export.proof import engine, plans
from export.source.base import ExportSource
from tests.conftest import Workspace
from tests.export.conftest import REQUEST

PLAN = b"ftrt" + bytes(20) + bytes(int(part) for part in SERVER_TENSORRT.split(".")) + b"engine"


@pytest.fixture
def export(
    fashion: ExportSource, workspace: Workspace, kept_steps: Path, few_rounds: None
) -> Callable[..., manifest.Manifest]:
    def run(**limits: Limits) -> manifest.Manifest:
        source = dataclasses.replace(
            fashion,
            spec=dataclasses.replace(fashion.spec, limits={**fashion.spec.limits, **limits}),  # type: ignore[dict-item]
        )
        cache = Cache(kept_steps, {})
        return pipeline.run(source, REQUEST, model_directory=workspace.model, cache=cache, progress=Progress())

    return run


def add_plan(directory: Path, fashion: ExportSource, plan: bytes = PLAN, **facts: object) -> None:
    """Publish an INT8 plan for another GPU in the version, as a machine with that GPU would have."""
    release = manifest.verify(directory)
    (directory / "model.sm89.plan").write_bytes(plan)
    built = Engine("tensorrt 11.1.0.106", len(plan), 1.0, {"INT8": 1.0}, profile=engine.profile_of(fashion.spec))
    built = dataclasses.replace(built, compute_capability="8.9", **facts)  # type: ignore[arg-type]
    choice = Choice("model.sm89.plan", "int8", "the fastest there", built, release.variants[1].sha256)
    changed = dataclasses.replace(release, choices=(*release.choices, choice), files=manifest.files_of(directory))
    manifest.write(changed, directory)


def test_a_plan_of_the_same_graph_is_taken_along_with_what_is_known_of_it(
    export: Callable[..., manifest.Manifest], workspace: Workspace, fashion: ExportSource
) -> None:
    export()
    add_plan(workspace.model / "1", fashion)
    export()
    released = manifest.verify(workspace.model / "2")
    [plan] = [choice for choice in released.choices if choice.engine]
    assert plan.engine and plan.engine.compute_capability == "8.9"
    assert (workspace.model / "2" / "model.sm89.plan").read_bytes() == PLAN
    assert released.variant_for("model.sm89.plan").precision == "int8"


@pytest.mark.parametrize(
    ("plan", "facts", "limits"),
    [
        (b"ftrt" + bytes(20) + bytes([11, 4, 0, 12]), {}, {}),  # of a TensorRT that is not the server's
        (PLAN, {"profile": {"pixels": ((1, 1, 28, 28), (8, 1, 28, 28), (8, 1, 28, 28))}}, {}),  # for smaller batches
        (PLAN, {}, {"int8": Limits({"logits": 0.0, "probabilities": 0.0}, agreement=1.01)}),  # its graph is refused now
    ],
)
def test_a_plan_that_is_not_of_this_release_stays_behind(
    export: Callable[..., manifest.Manifest],
    workspace: Workspace,
    fashion: ExportSource,
    plan: bytes,
    facts: dict[str, object],
    limits: dict[str, Limits],
) -> None:
    export()
    add_plan(workspace.model / "1", fashion, plan, **facts)
    assert not any(choice.engine for choice in export(**limits).choices)
    assert not list((workspace.model / "2").glob("*.plan"))


def test_a_changed_version_before_costs_its_plans_and_not_the_export(
    export: Callable[..., manifest.Manifest], workspace: Workspace, fashion: ExportSource
) -> None:
    export()
    add_plan(workspace.model / "1", fashion)
    (workspace.model / "1" / "model.sm89.plan").write_bytes(b"another")
    assert [choice.file for choice in export().choices] == ["model.onnx"]


def test_a_file_that_nothing_is_served_as_is_an_error(export: Callable[..., manifest.Manifest]) -> None:
    with pytest.raises(ManifestError, match=r"serves nothing as model\.plan"):
        export().variant_for("model.plan")


def test_a_hardware_compatible_plan_is_published_for_every_gpu_that_can_run_it() -> None:
    facts = Engine("tensorrt 11.1.0.106", 1, 0.1, {}, compute_capability="8.0", hardware_compatible=True)
    files = plans.plan_files(facts)
    assert "model.sm80.plan" in files and "model.sm120.plan" in files and "model.sm75.plan" not in files
