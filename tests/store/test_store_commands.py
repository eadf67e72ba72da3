"""`python -m store` as people use it: what it says, what it ends with, and that no mistake shows a traceback."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts import layout
from store.payloads.samples import Samples
from store.writing import state
from tests.command_lines import run_here
from tests.conftest import wait_for
from tests.store.given import DAY_NS, event, label, prediction
from tests.store.records import spooled

DAY = 20_000 * DAY_NS  # 2024-10-04


class Machine:
    """A machine with a store in its default places."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.spool = artifacts / "store" / "spool"

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run_here(["store", *arguments], self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.artifacts), "ARTIFACTS_DIR": str(self.artifacts)}

    def must(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def told(self, *arguments: str) -> Any:
        return json.loads(self.must(*arguments, "--json"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "artifacts")


@pytest.fixture
def filled(machine: Machine) -> Machine:
    name = Samples(machine.spool, 1).keep("boats", "r1", DAY, b"the inputs")
    spooled(
        machine.spool, prediction(1, time=DAY, payload=name, caller_id="mine"),
        prediction(2, time=DAY + DAY_NS, status=503), prediction(3, time=DAY + 2 * DAY_NS, key="mobile"),
        label(1, "r1", "shoe"), label(2, "r1", "boot"), event(1, request="r1", value=5.0),
    )  # fmt: skip
    assert "Wrote 6 records" in machine.must("write", "--once")
    return machine


def test_the_first_minute(machine: Machine) -> None:
    assert "schema none yet" in machine.must("status") and not (machine.artifacts / "store" / "store.db").exists()
    spooled(machine.spool, prediction(1))
    waiting = machine.run("status")
    assert waiting.returncode == 3 and "bytes wait in 1 segments" in waiting.stdout
    assert "does not run: python -m store write" in waiting.stdout
    assert "Wrote 1 records" in machine.must("write", "--once")
    told = machine.told("status")
    assert told["database"]["rows"]["predictions"] == 1 and told["spool"]["waiting_bytes"] == 0
    assert told["database"]["error"] == "" and told["writer"]["written"] == 1 and not told["writer"]["runs"]
    assert "is 0002 already" in machine.must("migrate")


def test_predictions_a_page_at_a_time(filled: Machine) -> None:
    page = filled.told("predictions", "--limit", "2")
    assert [row["id"] for row in page["rows"]] == ["r3", "r2"]
    rest = filled.told("predictions", "--limit", "2", "--after", page["next"])
    assert [(row["id"], row["labels"]) for row in rest["rows"]] == [("r1", {"label": "boot"})] and rest["next"] is None
    assert f"There are more: --after {page['next']}" in filled.must("predictions", "--limit", "2")
    for options, expected in (
        (("--since", "2024-10-05", "--until", "2024-10-05"), ["r2"]), (("--failed",), ["r2"]),
        (("--labelled",), ["r1"]), (("--key", "mobile"), ["r3"]), (("--caller-id", "mine"), ["r1"]),
        (("--model", "other"), []),
    ):  # fmt: skip
        assert [row["id"] for row in filled.told("predictions", *options)["rows"]] == expected, options
    assert "boot" in filled.must("predictions")
    wrong = filled.run("predictions", "--after", "nowhere")
    assert wrong.returncode == 1 and "is no place in the predictions" in wrong.stderr


def test_all_of_a_request_and_its_inputs(filled: Machine, tmp_path: Path) -> None:
    shown = filled.must("show", "r1", "--save", str(tmp_path / "inputs"))
    assert "boot" in shown and "shoe" in shown and "event conversion" in shown
    assert (tmp_path / "inputs").read_bytes() == b"the inputs"
    for request, said in (("r2", "were not kept"), ("r9", "nothing is known of the request 'r9'")):
        done = filled.run("show", request, "--save", str(tmp_path / "none"))
        assert done.returncode == 1 and said in done.stderr and not (tmp_path / "none").exists()


def test_usage(filled: Machine) -> None:
    assert filled.told("usage", "--by", "key") == [
        {"key": key, "day": None, "model": None, "requests": requests, "rows": rows, "failed": failed}
        for key, requests, rows, failed in (("mobile", 1, 2, 0), ("web", 2, 4, 1))
    ]
    assert "mobile" in filled.must("usage")


def test_retain_says_first_what_it_would_remove(filled: Machine) -> None:
    done = filled.run("retain")
    assert done.returncode == 1 and "--predictions 90" in done.stderr
    expected = {"predictions": 3, "payloads": 1, "labels": 0, "events": 0, "usage": 0}
    assert filled.told("retain", "--predictions", "30", "--dry-run") == expected
    assert filled.told("predictions")["rows"], "it was a dry run"
    assert filled.told("retain", "--predictions", "30") == expected
    assert not filled.told("predictions")["rows"]


def test_erase_and_what_a_backup_makes_of_it(filled: Machine, tmp_path: Path) -> None:
    backup, other = str(tmp_path / "store.zip"), f"sqlite:///{tmp_path / 'other.db'}"
    assert "restore" in filled.must("backup", backup)
    assert "is whole" in filled.must("restore", backup, "--check")
    assert filled.told("erase", "--request", "r1") == {
        "predictions": 1, "labels": 2, "events": 1, "payloads": 1, "refused": 0
    }  # fmt: skip
    assert filled.told("restore", backup, "--to", other)["erased"] == 4
    assert [row["id"] for row in filled.told("predictions", "--store", other)["rows"]] == ["r3", "r2"]
    again = filled.run("restore", backup, "--to", other)
    assert again.returncode == 1 and "is not empty" in again.stderr
    gone = filled.run("restore", backup, "--to", f"sqlite:///{tmp_path / 'third.db'}", "--erasures-of",
                      "postgresql://nobody@127.0.0.1:1/store")  # fmt: skip
    assert gone.returncode == 1 and "it is not known what was erased since" in gone.stderr
    assert "1 predictions" in filled.must("erase", "--key", "mobile")


def test_a_database_that_is_gone_is_said_in_words(machine: Machine) -> None:
    gone = ("--store", "postgresql://me:sesame@127.0.0.1:1/store")
    for command in (("predictions",), ("migrate",), ("backup", "x.zip"), ("usage",)):
        done = machine.run(*command, *gone)
        assert done.returncode == 1 and "does not answer" in done.stderr
        assert "Traceback" not in done.stderr and "sesame" not in done.stderr
    status = machine.run("status", *gone)
    assert status.returncode == 3 and "does not answer" in status.stdout and "sesame" not in status.stdout
    wrong = machine.run("status", "--store", "oracle://x")
    assert wrong.returncode == 1 and "neither SQLite's nor PostgreSQL's" in wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_writer_ends_when_it_is_told_to_and_what_comes_later_waits(machine: Machine, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "store", "write"]
    spooled(machine.spool, prediction(1))
    with subprocess.Popen(
        command, cwd=layout.ROOT, env=machine.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_for(lambda: state.read(machine.spool).written == 1, 60)
        assert machine.told("status")["writer"]["runs"]
        running.send_signal(number)
        said, errors = running.communicate(timeout=60)
    assert running.returncode == 0 and "Wrote 1 records" in said and "Traceback" not in errors
    spooled(machine.spool, prediction(2))
    assert machine.run("status").returncode == 3
