"""Every task, and what takes no batch, is exported and answers its golden requests on a real Triton."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clients import Client
from contracts import golden, manifest
from contracts.manifest import Manifest
from tests.conftest import Workspace, free_ports, new_workspace, port_options
from tests.export import small_graphs
from tests.export.small_graphs import MODELS, Brought

METRICS = {
    "classes": ("accuracy", 1.0),
    "characters": ("accuracy", 1.0),
    "yes_or_no": ("auc", None),
    "price": ("squared_error", None),
    "vectors": ("recall_at_1", None),
}


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Brought]:
    directory = tmp_path_factory.mktemp("brought")
    return {model: small_graphs.write(directory, model) for model in MODELS}


@pytest.fixture(scope="module")
def every_task(brought: dict[str, Brought], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in whose repository every one of them is published, and nothing else."""
    workspace = new_workspace(tmp_path_factory.mktemp("tasks"))
    for one in brought.values():
        export(workspace, one)
    return workspace


def export(workspace: Workspace, one: Brought) -> str:
    return workspace.must(
        "export", "--onnx", one.graph, "--spec", one.spec, "--inputs", *one.samples,
        "--repository", workspace.root / "models", "--no-register",
    )  # fmt: skip


def release_of(workspace: Workspace, model: str) -> Manifest:
    return manifest.verify(workspace.root / "models" / model / "1")


@pytest.fixture(scope="module")
def up(every_task: Workspace) -> Iterator[str]:
    quickly = ("--drain", "3", *port_options(free_ports()))
    every_task.must("deploy", "up", "--detach", "--repository", every_task.root / "models", *quickly)
    yield json.loads(every_task.must("deploy", "status", "--json"))["grpc"]
    every_task.down()


@pytest.mark.parametrize("model", MODELS)
def test_a_release_is_judged_as_its_task_says(every_task: Workspace, model: str) -> None:
    release = release_of(every_task, model)
    name, value = METRICS.get(model, (None, None))
    assert (release.metric.name if release.metric else None) == name
    [fp32] = release.variants
    assert fp32.passed and (fp32.score is None) == (name is None)
    if value is not None:
        assert fp32.score == value
    ids = {gate.id.partition(":")[0] for gate in fp32.gates}
    assert ("metric_drop" in ids) == (name is not None)
    assert ("agreement" in ids) == (release.task != "values")
    assert release.source.compared_with is None


@pytest.mark.parametrize("model", MODELS)
def test_the_golden_requests_are_answered_right(every_task: Workspace, up: str, model: str) -> None:
    requests = golden.find(every_task.root / "models", model)
    assert len(requests) >= 20
    with Client(f"grpc://{up}") as client:
        faults = [request.fault(client.infer(model, request.inputs)) for request in requests]
    assert set(faults) == {None}


def test_golden_requests_are_spread_over_batch_sizes_and_lengths(every_task: Workspace) -> None:
    requests = golden.find(every_task.root / "models", "price")
    assert {request.rows for request in requests} == {1, 2, 3, 4, 8}
    assert {request.inputs["ids"].shape[1] for request in requests} == {3, 7}


def test_the_rows_of_a_golden_batch_cannot_be_swapped_unseen(every_task: Workspace) -> None:
    """The tolerance is below what tells one sample's answer from another's."""
    for model in ("classes", "price", "numbers"):
        for request in golden.find(every_task.root / "models", model):
            if request.rows > 1:
                swapped = {name: np.roll(values, 1, axis=0) for name, values in request.answers.items()}
                assert request.fault(swapped), model


def test_a_metric_sees_every_sample_of_every_length(every_task: Workspace) -> None:
    assert release_of(every_task, "characters").test_samples == small_graphs.N  # half of two groups of as many
    assert release_of(every_task, "price").test_samples == small_graphs.N


def test_the_range_that_was_proven_is_in_the_manifest(every_task: Workspace) -> None:
    assert release_of(every_task, "price").proven_range == {"a": ((1, 4), (8, 4)), "ids": ((1, 2), (8, 8))}
    assert release_of(every_task, "voice").proven_range["rate"] == ((), ())


PLANT = {"as it is": 0.0, "five added to the bias": 5.0}


@pytest.fixture
def with_expected(brought: dict[str, Brought], tmp_path: Path) -> Callable[[float], Brought]:
    """The regression, its framework's answers beside its samples; what is added to them is missing in the graph."""

    def make(added: float) -> Brought:
        import onnxruntime as ort

        one, files = brought["price"], []
        session = ort.InferenceSession(one.graph, providers=["CPUExecutionProvider"])
        for path in one.samples:
            arrays = dict(np.load(path))
            inputs = {name: values for name, values in arrays.items() if name != "labels"}
            expected = session.run(["price"], inputs)[0] + np.float32(added)
            files.append(tmp_path / path.name)
            np.savez(files[-1], **arrays, **{"expected.price": expected})
        return Brought(one.model, one.graph, one.spec, tuple(files))

    return make


@pytest.mark.heavy
def test_a_graph_is_held_to_what_its_framework_gives(
    with_expected: Callable[[float], Brought], workspace: Workspace
) -> None:
    out = export(workspace, with_expected(0.0))
    assert "The reference is what the framework that it comes from" in out
    assert release_of(workspace, "price").source.compared_with
    one = with_expected(5.0)
    refused = workspace.run(
        "export", "--onnx", one.graph, "--spec", one.spec, "--inputs", *one.samples,
        "--repository", workspace.root / "others", "--no-register",
    )  # fmt: skip
    assert refused.returncode == 1
    assert "largest difference of price 5 (limit: at most 0.0001)" in refused.stderr
    assert not (workspace.root / "others" / "price").exists(), "nothing was published"


def test_without_its_answers_it_is_said_that_nothing_was_compared(every_task: Workspace) -> None:
    shown = every_task.must("export", "show", "price", "--repository", every_task.root / "models")
    assert "Not compared with its framework" in shown
    page = (every_task.root / "models" / "price" / "1" / "report.html").read_text()
    assert "Not compared with its framework" in page
