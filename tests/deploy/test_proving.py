"""The serve gate lets through what a Triton of its own serves as it was proven, and says why it does not the rest."""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import golden
from contracts.golden import GoldenRequest
from contracts.samples import Batch
from deploy.proving import mixtures, outside
from tests.conftest import Workspace, processes_of, wait_for
from tests.deploy.conftest import write_model

DOUBLER = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(pb_utils.get_input_tensor_by_name(r, "IN").as_numpy()) for r in requests]

    def respond(self, values):
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values * 2)])
"""
FOLLOWER = DOUBLER.replace("values * 2", "values * 2 + (len(values) > 5)")  # depends on the others in the batch
# It goes on answering for a moment, until it has written down where it crashed: this does not load meanwhile.
CRASH = f"import os, time\nos.kill(os.getppid(), 11)\ntime.sleep(60)\n{DOUBLER}"
ENSEMBLE = """
name: "twice" platform: "ensemble" max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling { step [
  { model_name: "net" model_version: -1 input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "MID" } },
  { model_name: "after" model_version: -1 input_map { key: "IN" value: "MID" } output_map { key: "OUT" value: "OUT" } }
] }
"""


def request(values: list[float], model: str = "net", factor: int = 2) -> GoldenRequest:
    rows = np.array(values, np.float32)[:, None]
    return GoldenRequest(model, {"IN": rows}, {"OUT": rows * factor}, {"OUT": 1e-3})


REQUESTS = [request([1]), request([2, -3, 4]), request([5, 6]), request([70, 8, 9, 10, 11])]


def write(repository: Path, code: str = DOUBLER, **options: Any) -> Path:
    """A network `net` with golden requests; its version directory."""
    version = write_model(repository, "net", code, max_batch_size=8, **options)
    golden.write(REQUESTS, version)
    return version


def regions() -> list[Path]:
    """The shared memory of the gates that this process has."""
    return list(Path("/dev/shm").glob(f"gate_{os.getpid()}_*"))


def prove(workspace: Workspace, directory: Path, *options: str) -> tuple[int, Mapping[str, Any], str]:
    done = workspace.run("deploy", "prove", directory, "--json", *options)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.heavy
def test_what_serves_as_it_was_proven_passes(tmp_path: Path) -> None:
    """Also with a blank in every path, which ends Triton 2.51; and nothing of it is left."""
    workspace = Workspace(tmp_path / "a blank")
    version = write(workspace.repository)
    write_model(workspace.repository, "after", DOUBLER, max_batch_size=8)
    (workspace.repository / "twice" / "1").mkdir(parents=True)
    (workspace.repository / "twice" / "config.pbtxt").write_text(ENSEMBLE)
    golden.write([*REQUESTS, request([1, 2], "twice", 4)], version)
    with ThreadPoolExecutor(1) as beside:
        shared_memory = beside.submit(wait_for, regions)  # while it serves
        code, verdict, said = prove(workspace, version)
        shared_memory.result()
    assert code == 0, said
    assert (verdict["model"], verdict["version"], verdict["unasked"]) == ("net", 1, [])
    assert [(check["name"], check["fault"]) for check in verdict["checks"]] == [
        (name, "")
        for name in (
            *("loads", "alone", "in full batches", "in odd mixtures", "all at once", "out of range", "unloads"),
        )
    ]
    assert all(check["count"] for check in verdict["checks"])
    assert not list((workspace.root / "artifacts").glob("private-*"))
    assert not regions()
    assert not processes_of(workspace)


BAD = {  # what is wrong: the code, more of the configuration, what is said
    "answers by the company": (
        FOLLOWER,
        "",
        ("in full batches", "net version 1, in a batch of 8, gives a wrong answer: OUT is "),
    ),
    "wrong answers": (
        DOUBLER.replace("* 2", "* 3"),
        "",
        ("alone (cpu)", "net version 1 gives a wrong answer: OUT is "),
    ),
    "no dims": (DOUBLER, 'input [ { name: "MORE" data_type: TYPE_FP32 } ]', ("loads (cpu)", "must specify 'dims'")),
    "no such module": (f"import cv2\n{DOUBLER}", "", ("net does not load", "add the package opencv-python-headless")),
    "a crash": (
        CRASH,
        "",
        ("killed by SIGSEGV while net was being loaded",),
    ),
    "a hang": (
        f"import time\ntime.sleep(60)\n{DOUBLER}",
        "",
        ("did not answer within 3 s while net was being loaded",),
    ),
}


@pytest.mark.heavy
@pytest.mark.parametrize("what", BAD)
def test_what_does_not_is_refused_with_the_reason(workspace: Workspace, what: str) -> None:
    code, more, expected = BAD[what]
    timeout = ("--timeout", "3") if what == "a hang" else ()
    exit_code, _, said = prove(workspace, write(workspace.root / "models", code, more=more), *timeout)
    assert exit_code == 1
    assert "error: net version 1 does not pass the serve gate: " in said
    for part in expected:
        assert part in said, said
    assert not processes_of(workspace)


@pytest.mark.heavy
def test_without_a_server_nothing_is_said_of_the_release(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(workspace.root), prepend=":")
    (workspace.root / "tritonserver").symlink_to("/bin/false")
    code, verdict, said = prove(workspace, write(workspace.root / "models"))
    assert (code, verdict) == (3, {})
    assert "error: tritonserver ended with exit code 1 before it loaded anything" in said


def test_what_is_no_version_is_refused(workspace: Workspace) -> None:
    code, _, said = prove(workspace, workspace.repository)
    assert code == 1
    assert "is no version of a model" in said


def test_every_row_of_a_mixture_is_held_to_its_own_answers() -> None:
    asked = mixtures.asked(REQUESTS, [r.answers for r in REQUESTS])
    for batches, sizes in ((mixtures.full, [8, 8]), (mixtures.odd, [3, 5, 3])):
        found = list(batches(asked, 8))
        assert [len(rows) for rows in found] == sizes
        for rows in found:
            sent = mixtures.joined(rows)
            assert len({id(row) for row in rows}) > 1
            assert mixtures.fault(rows, {"OUT": sent["IN"] * 2}) is None
            assert "a wrong answer" in str(mixtures.fault(rows, {"OUT": np.roll(sent["IN"] * 2, 1)}))


def test_a_wide_tolerance_hides_no_dependence_on_the_batch() -> None:
    """Of a graph that answers by the company its golden requests, too, were measured in one."""
    wide = [replace(r, tolerance={"OUT": 1000.0}) for r in REQUESTS]
    asked = mixtures.asked(wide, [r.answers for r in wide])
    rows = next(mixtures.full(asked, 8))
    told = mixtures.fault(rows, {"OUT": mixtures.joined(rows)["IN"] * 2 + 20})
    assert "from the answer that it gets alone" in str(told)


def test_rows_of_other_shapes_are_not_mixed() -> None:
    long = GoldenRequest("net", {"IN": np.ones((2, 3), np.float32)}, {"OUT": np.ones((2, 3), np.float32)})
    asked = mixtures.asked([*REQUESTS, long], [r.answers for r in [*REQUESTS, long]])
    assert {mixtures.joined(rows)["IN"].shape[1] for rows in mixtures.odd(asked, 8)} == {1, 3}


def test_what_lies_outside_moves_what_varies_together() -> None:
    inputs: Batch = {
        "ids": np.ones((1, 4), np.int64),
        "mask": np.ones((1, 4), np.int64),
        "age": np.ones((1, 1), np.float32),
    }
    proven = {"ids": ((1, 2), (8, 16)), "mask": ((1, 2), (8, 16)), "age": ((1, 1), (8, 1))}
    shapes = [[v.shape for v in bad.values()] for bad in outside.of_other_shapes(inputs, proven, batched=True)]
    assert shapes == [[(1, 17), (1, 17), (1, 1)], [(1, 1), (1, 1), (1, 1)]]
    assert outside.too_many_rows(inputs, 8)["ids"].shape == (9, 4)
