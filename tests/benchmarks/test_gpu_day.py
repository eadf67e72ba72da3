"""A GPU day goes on whatever a step does, and leaves whole evidence however it is ended."""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks.errors import MeasurementError
from benchmarks.gpu_day import commands, evidence, needs, record, run
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.evidence import Evidence, StepResult
from benchmarks.gpu_day.record import Record, SkippedError
from benchmarks.gpu_day.steps import STEPS, Step
from contracts import layout
from tests.benchmarks.gpu_day_steps import BEGAN, step
from tests.benchmarks.test_gpu_day_checks import NETWORK
from tests.conftest import FAMILY, Workspace, processes_of, wait_for
from tests.export import modules

_LIMIT_S = 6  # in which a process has surely begun, on a busy machine, too


@pytest.fixture
def day(tmp_path: Path) -> Day:
    made = Day(tmp_path / "day", "cpu", (FAMILY,))
    made.write()
    return made


def by_name(found: Evidence) -> dict[str, StepResult]:
    return {result.name: result for result in found.steps}


def test_a_day_goes_on_after_every_way_that_a_step_can_end(day: Day) -> None:
    ways = ("does_not_hold", "is_lacking", "goes_wrong", "has_a_bug", "crashes", "holds")
    told: list[str] = []
    found = run.run(day, [step(way) for way in ways], BEGAN, lambda result: told.append(result.name))
    steps = by_name(found)
    assert [result.status for result in found.steps] == ["failed", "skipped", *["failed"] * 3, "passed"]
    assert steps["does-not-hold"].reason == "it is fast: 3 ms, 2 at most"
    assert steps["is-lacking"].reason == "there is no such thing here"
    assert steps["goes-wrong"].reason == "it went wrong\nNote: with a note" and steps["goes-wrong"].checks
    assert steps["has-a-bug"].reason == "ZeroDivisionError: a bug"
    assert "Traceback" in day.log("has-a-bug").read_text()
    assert steps["crashes"].reason == "its process was killed by signal 11"
    assert steps["crashes"].figures == {"before_the_crash": 1}
    assert told == [result.name for result in found.steps]
    assert not found.passed and found.ended is not None
    assert found.verdict() == "A rehearsal on the CPU: 1 passed, 4 failed, 1 skipped"
    assert evidence.read(day.folder) == found


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_hangs_is_ended_with_its_children_and_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_GRACE_S", 0.5)

    def taken(name: str, steps: list[Step], budget_s: float) -> Evidence:
        day = Day(tmp_path / name, "cpu", (FAMILY,))
        day.write()
        return run.run(day, steps, replace(BEGAN, budget_s=budget_s))

    with ThreadPoolExecutor() as pool:  # at once: each waits for its limit
        first = pool.submit(taken, "hangs", [step("hangs", _LIMIT_S), step("holds")], 600)
        second = pool.submit(taken, "deaf", [step("will_not_end", _LIMIT_S)], 600)
        third = pool.submit(taken, "budget", [step("hangs", 600), step("holds")], _LIMIT_S)
    hung, held = first.result().steps
    [deaf] = second.result().steps
    spent, not_begun = third.result().steps
    assert hung.status == deaf.status == spent.status == "timed out" and held.status == "passed"
    assert hung.reason.startswith("timed out after ")
    assert hung.figures is not None and deaf.figures is not None and spent.figures is not None
    assert hung.figures["measured"] == [{"batch": 1}]
    for pid in (hung.figures["child"], deaf.figures["pid"], spent.figures["child"]):
        wait_for(lambda pid=pid: gone(pid), 10)  # type: ignore[misc]
    assert not_begun.status == "not reached"
    assert not_begun.reason == f"the {_LIMIT_S} s of the day were spent"


DAY = """
import argparse
import sys
from pathlib import Path
from benchmarks.gpu_day import commands
from cli.run import run_command_line
from contracts.errors import ProjectError
from tests.benchmarks.gpu_day_steps import step
commands.STEPS = (step("holds"), step("hangs"), step("does_not_hold"))
options = argparse.Namespace(
    only=None, device="cpu", folder=Path(sys.argv[1]), export="--onnx none", requests=1, drill_requests=1, budget=600,
    arguments=["gpu-day"],
)
run_command_line(lambda: commands.main(options), ProjectError)
"""


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator["tuple[subprocess.Popen[str], Path]"]:
    """A day whose second step hangs."""
    folder = tmp_path / "day"
    process = subprocess.Popen(
        [sys.executable, "-c", DAY, str(folder)], cwd=layout.ROOT, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_for(lambda: "measured" in record.read(folder / "steps" / "hangs.json").figures, 60)
    yield process, folder
    process.kill()
    process.communicate()


def test_ctrl_c_ends_the_step_and_the_day_and_leaves_whole_evidence(
    under_way: "tuple[subprocess.Popen[str], Path]",
) -> None:
    process, folder = under_way
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "A rehearsal on the CPU: 1 passed, 1 interrupted, 1 not reached" in said.splitlines()
    found = evidence.read(folder)
    assert [result.status for result in found.steps] == ["passed", "interrupted", "not reached"]
    assert found.ended is not None and found.steps[1].figures is not None
    child = found.steps[1].figures["child"]
    wait_for(lambda: gone(child), 10)
    with tarfile.open(folder.with_name("day.tar.gz")) as packed:
        names = packed.getnames()
    assert {"day/evidence.json", "day/evidence.html", "day/logs/hangs.log", "day/steps/hangs.json"} <= set(names)
    assert not [name for name in names if "work" in name or "key" in name]


def test_a_day_that_was_killed_has_evidence_of_what_it_had_done_and_leaves_nothing_behind(
    under_way: "tuple[subprocess.Popen[str], Path]",
) -> None:
    process, folder = under_way
    process.kill()
    process.wait()
    found = evidence.read(folder)
    assert [result.status for result in found.steps] == ["passed"] and found.ended is None
    assert "(not finished)" in (folder / evidence.PAGE_NAME).read_text()
    child = record.read(folder / "steps" / "hangs.json").figures["child"]
    wait_for(lambda: gone(child), 10)


def test_the_page_shows_checks_tables_and_reasons_and_nothing_of_them_as_markup(day: Day) -> None:
    found = run.run(day, [step("holds"), step("does_not_hold")], BEGAN)
    page = evidence.page(found)
    assert "&lt;b&gt;always&lt;/b&gt;" in page and "<b>always" not in page
    assert "<th>batch</th><th>ms</th>" in page and '<td class="n">0.75</td>' in page
    assert "3 ms, 2 at most" in page
    assert "No GPU took part" in page
    assert "http" not in page.replace("http-equiv", "")


def test_every_step_is_there_and_is_skipped_or_taken_by_what_it_needs(day: Day) -> None:
    assert len({one.name for one in STEPS}) == len(STEPS)
    for one in STEPS:
        module, _, function = one.run.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), one.name
        for need in one.needs:
            try:
                needs.check([need], day)
            except SkippedError as error:
                assert str(error)
    with pytest.raises(SkippedError, match="it needs a GPU"):
        needs.check(["gpu"], day)
    with pytest.raises(SkippedError, match="published nothing"):
        needs.check(["release"], day)


def test_a_record_is_whole_on_disk_after_every_addition(tmp_path: Path) -> None:
    found = Record(tmp_path / "steps" / "one.json")
    found.check("first", True)
    found.figure(ms=1.5)
    assert record.read(found.path) == found
    assert record.read(tmp_path / "none.json") == Record(tmp_path / "none.json")
    assert json.loads(found.path.read_text())["figures"] == {"ms": 1.5}
    assert [path.name for path in found.path.parent.iterdir()] == ["one.json"]
    assert time.time() - found.path.stat().st_mtime < 60


SCRIPT = layout.ROOT / "deploy" / "gpu-day.sh"


def script(tmp_path: Path, docker: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the script with a docker and a make of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, does in (("docker", docker), ("make", "true")):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\n{does}\n')
        (programs / name).chmod(0o755)
    return subprocess.run(
        [SCRIPT, *arguments], cwd=tmp_path, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_script_runs_the_day_in_the_exporters_image_where_docker_reaches_a_gpu(tmp_path: Path) -> None:
    done = script(tmp_path, "exit 0", "--only", "machine", "--export", "--onnx a b.onnx")
    assert done.returncode == 0, done.stderr
    _, build, probe, started = (tmp_path / "called").read_text().splitlines()
    assert build == "docker build --file Dockerfile.triton --target export --tag gpu-day ."
    assert probe == "docker run --rm --gpus all --entrypoint true gpu-day"
    assert f"--user {os.getuid()}:{os.getgid()}" in started and f"--volume {layout.ROOT}:/app" in started
    assert "--entrypoint /opt/nvidia/nvidia_entrypoint.sh gpu-day /opt/export/bin/python -m" in started
    assert started.endswith("-m benchmarks gpu-day --only machine --export --onnx a b.onnx")
    dockerfile = (layout.ROOT / "Dockerfile.triton").read_text()
    assert "FROM ${TRITON} AS export" in dockerfile
    assert 'ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "/opt/export/bin/python"' in dockerfile


@pytest.mark.parametrize(
    ("docker", "options", "why"),
    [
        ("exit 0", ("--no-docker",), "--no-docker"),
        ("exit 1", (), "docker info fails: is the daemon up, and may you use it?"),
        ('test "$1" != run', (), "docker run --gpus all fails: is the NVIDIA Container Toolkit installed?"),
    ],
)
def test_the_script_runs_it_here_otherwise_and_says_why(
    tmp_path: Path, docker: str, options: tuple[str, ...], why: str
) -> None:
    folder = tmp_path / "evidence"
    done = script(tmp_path, docker, *options, "--device", "cpu", "--only", "machine", "--folder", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Without Docker: {why}" in done.stderr.splitlines()
    assert "A rehearsal on the CPU: 1 passed" in done.stdout.splitlines()
    assert evidence.read(folder).steps[0].status == "passed"
    assert folder.with_name("evidence.tar.gz").exists()


def test_a_folder_with_evidence_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evidence.json").write_text("{}")
    options = argparse.Namespace(
        only=["machine"], device="cpu", folder=tmp_path, export=FAMILY, requests=1, drill_requests=1, budget=600,
        arguments=["gpu-day"],
    )  # fmt: skip
    with pytest.raises(MeasurementError, match="is there already"):
        commands.main(options)
    assert (tmp_path / "evidence.json").read_text() == "{}"


@pytest.mark.slow
@pytest.mark.heavy
def test_a_rehearsal_takes_every_step_that_needs_no_gpu(tmp_path: Path) -> None:
    """For a module of plain PyTorch, whose export is quick: as a user types it."""
    torch.manual_seed(0)
    torch.save(modules.Net().eval().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "spec.toml").write_text(NETWORK)
    samples = modules.save(tmp_path, x=modules.floats(modules.BATCH, 4))
    export = f"--torch tests.export.modules:Net --weights {tmp_path}/weights.pt --inputs {samples}"
    workspace, folder = Workspace(tmp_path), tmp_path / "evidence"
    done = workspace.run_apart(
        "benchmarks", "gpu-day", "--export", f"{export} --spec {tmp_path}/spec.toml", "--device", "cpu",
        "--requests", "200", "--drill-requests", "100", "--folder", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    steps = by_name(evidence.read(folder))
    taken = {name for name, result in steps.items() if result.status == "passed"}
    assert taken == {
        "machine", "export", "fp32", "fp16", "plans", "answers", "reload", "drill", "two-servers", "large-bodies",
    }  # fmt: skip
    assert all(result.status == "skipped" and result.reason for name, result in steps.items() if name not in taken)
    assert {path.name for path in (folder / "release").iterdir()} == {"manifest.json", "report.html", "report.md"}
    assert processes_of(workspace) == []
