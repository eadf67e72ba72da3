"""Graphs that a seed makes up are published and served with onnxruntime's own values, or refused in words.

A seed that fails is made again by itself: `made_up_graphs.write(folder, seed)`.
"""

import functools
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from clients import Client
from contracts import golden, manifest
from contracts.files import texts
from export.proof import timing
from export.release import configs
from tests.conftest import Workspace, free_ports, new_workspace, port_options
from tests.export import made_up_graphs
from tests.export.made_up_graphs import MadeUp

FEW = range(15)
MANY = range(1000, 1200)  # all others than the few
AT_ONCE = 20  # that one server serves: each is a process


@dataclass(frozen=True)
class Tried:
    """A graph that was given to `export`, and how that ended."""

    graph: MadeUp
    done: "subprocess.CompletedProcess[str]"

    @property
    def published(self) -> bool:
        return self.done.returncode == 0


def tried(workspace: Workspace, folder: Path, seed: int) -> Tried:
    one = made_up_graphs.write(folder, seed)
    done = workspace.run(
        "export", "--onnx", one.graph, "--spec", one.spec, "--inputs", one.samples,
        "--repository", workspace.root / "models", "--no-register", "--search", "never",
    )  # fmt: skip
    return Tried(one, done)


def check(workspace: Workspace, every: list[Tried]) -> None:
    """Hold each to what must hold of it."""
    for one in every:
        said, folder = one.done.stderr, workspace.root / "models" / one.graph.model
        assert "Traceback" not in said, f"{one.graph.model}: {said}"
        if one.published:
            manifest.verify(folder / "1")
            assert one.graph.runs, f"{one.graph.model} was published, and onnxruntime does not run it"
        else:
            assert one.done.returncode == 1 and "error: " in said, f"{one.graph.model}: {said}"
            assert not folder.exists(), f"{one.graph.model} is half written"


def check_that_most_are_published(every: list[Tried]) -> None:
    run = [one for one in every if one.graph.runs]
    refused = {one.graph.model: one.done.stderr[one.done.stderr.find("error: ") :] for one in run if not one.published}
    assert len(refused) <= len(run) / 10, refused


def wrong_answers(url: str, workspace: Workspace, every: list[Tried]) -> Mapping[str, str]:
    """Ask a server the golden requests of each; {model: how its answers are not onnxruntime's}."""
    wrong = {}
    with Client(f"grpc://{url}") as client:
        for one in every:
            requests = golden.find(workspace.root / "models", one.graph.model)
            given = [{n: texts.as_str(v) if texts.is_text(v) else v for n, v in r.inputs.items()} for r in requests]
            for request, right in zip(requests, made_up_graphs.answers(one.graph.graph, given), strict=True):
                [(output, answer)] = client.infer(one.graph.model, request.inputs).items()
                apart = np.abs(np.subtract(answer, right.reshape(answer.shape), dtype=np.float64)).max(initial=0.0)
                if apart > request.tolerance.get(output, 0.0):
                    wrong[one.graph.model] = f"{apart} apart"
    return wrong


@pytest.fixture(scope="module")
def quickly() -> Iterator[None]:
    """One instance a model, and as few timings as decide anything: neither is what is asked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configs, "_cpu_instances", lambda cores: "instance_group [ { kind: KIND_CPU count: 1 } ]")
        patch.setattr(timing, "measure", functools.partial(timing.measure, rounds=5))
        yield


def serve_and_check(workspace: Workspace, every: list[Tried]) -> None:
    ports = ("--drain", "3", *port_options(free_ports()))
    workspace.must("deploy", "up", "--detach", "--repository", workspace.root / "models", *ports)
    try:
        url = json.loads(workspace.must("deploy", "status", "--json"))["grpc"]
        assert wrong_answers(url, workspace, [one for one in every if one.published]) == {}
    finally:
        workspace.down()


@pytest.mark.heavy
def test_a_few_are_served_with_onnxruntimes_own_values_or_refused_in_words(
    quickly: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = new_workspace(tmp_path_factory.mktemp("few"))
    every = [tried(workspace, workspace.root / "brought", seed) for seed in FEW]
    check(workspace, every)
    check_that_most_are_published(every)
    serve_and_check(workspace, every)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_are(quickly: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    done: list[Tried] = []
    for start in range(MANY.start, MANY.stop, AT_ONCE):
        workspace = new_workspace(tmp_path_factory.mktemp(f"many-{start}"))
        every = [tried(workspace, workspace.root / "brought", seed) for seed in range(start, start + AT_ONCE)]
        check(workspace, every)
        serve_and_check(workspace, every)
        done += every
    assert len(done) == len(MANY)
    check_that_most_are_published(done)
