"""The gate sees 100 µs of every request, and takes neither noise nor 100 µs of every batch for them."""

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from benchmarks import limit
from benchmarks.errors import MeasurementError
from benchmarks.releases.checkout import Checkout
from benchmarks.speed import command, sides, stand_in, verdict
from benchmarks.speed.sides import Round
from contracts import golden, layout
from tests.conftest import Workspace

MODELS = layout.ROOT / "model_repository"
IN_PROCESS_US, SERVED_MS, SERVED_US = 330.0, 1.2, 1100.0  # as on two cores
PER_BATCH_US = 100 / 16  # what 100 µs of a batch of 16 are of a request
# --against, --keep, whether something is kept, whether it is said.
NOTHING_KEPT = [("HEAD", False, False, True), ("HEAD", False, True, False), ("HEAD", True, False, False)]


def rounds(added_us: float = 0, seed: int = 0, count: int = 15, noise: float = 0.02) -> list[Round]:
    """Rounds on a machine whose speed changes by a half from one to the next."""
    random = np.random.default_rng(seed)

    def once(machine: float) -> Round:
        own = random.normal(1, noise, 4) * machine
        served_ms, served_us = (SERVED_MS + added_us / 1e3) * own[2], (SERVED_US + added_us) * own[3]
        return Round(IN_PROCESS_US / 1e3 * own[0], IN_PROCESS_US * own[1], served_ms, served_us)

    return [once(machine) for machine in np.random.default_rng(99).uniform(1, 1.5, count)]


def findings(this: Sequence[Round], other: Sequence[Round] = (), kept: Sequence[Round] = ()) -> str:
    known = {one.name: one.now for one in verdict.judge(kept, [], {}, 1)} if kept else {}
    return "\n".join(f for one in verdict.judge(this, other, known, verdict.SLACK) for f in one.findings)


def test_100_us_of_every_request_are_found_against_what_is_kept() -> None:
    told = findings(rounds(100), kept=rounds(seed=1))
    assert "latency of a request is" in told and "CPU of a request is" in told
    assert told.count("more than") == 2


def test_100_us_of_every_request_are_found_against_another_checkout() -> None:
    assert findings(rounds(100), rounds(seed=1)).count("of the other checkout's: more than") == 2


def test_100_us_of_every_batch_are_not_found() -> None:
    assert not findings(rounds(PER_BATCH_US), rounds(seed=1), rounds(seed=2))


def test_a_request_that_costs_what_it_did_is_no_finding_in_49_of_50_runs() -> None:
    alarms = [findings(rounds(seed=n), rounds(seed=1000 + n), rounds(seed=2000)) for n in range(50)]
    assert sum(map(bool, alarms)) <= 1, [told for told in alarms if told]


def test_a_machine_on_which_nothing_can_be_seen_does_not_pass() -> None:
    told = findings(rounds(noise=0.5), rounds(seed=1, noise=0.5))
    assert "too wide to see 100 µs" in told


def test_what_became_quicker_is_no_finding() -> None:
    assert not findings(rounds(-300), rounds(seed=1), rounds(seed=2))


def test_what_is_kept_is_read_again_and_another_machine_gets_more_leeway(tmp_path: Path) -> None:
    path, measured = tmp_path / "speed.json", rounds()
    judged = verdict.judge(measured, [], {}, verdict.SLACK)
    verdict.keep(judged, measured, "abc", path)
    known, allowance = verdict.kept(path)
    assert known == {one.name: one.now for one in judged} and allowance == verdict.SLACK
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another"}))
    assert verdict.kept(path)[1] == verdict.OTHER_MACHINE
    assert verdict.kept(tmp_path / "none.json") == ({}, verdict.SLACK)


@pytest.mark.parametrize("content", ["", "{}", '{"figures": 3, "machine": ""}'])
def test_a_damaged_file_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(content)
    with pytest.raises(MeasurementError, match="is damaged"):
        verdict.kept(tmp_path / "speed.json")


@pytest.mark.parametrize(("against", "keep", "kept", "said"), NOTHING_KEPT)
def test_where_nothing_is_kept_it_is_said_what_is_compared(
    against: str | None,
    keep: bool,
    kept: bool,
    said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    monkeypatch.setattr(verdict, "KEPT", tmp_path / "speed.json")
    known = {one.name: one.now for one in verdict.judge(rounds(seed=2), [], {}, 1)} if kept else {}
    monkeypatch.setattr(verdict, "kept", lambda: (known, verdict.SLACK))
    monkeypatch.setattr(verdict, "keep", lambda *_: None)
    monkeypatch.setattr(command, "checked_out", lambda _: nullcontext(layout.ROOT))
    monkeypatch.setattr(command, "stand_in_side", lambda *_: nullcontext())
    monkeypatch.setattr(
        command, "measure", lambda *_: {"this": rounds(), **({"other": rounds(seed=1)} if against else {})}
    )
    options = argparse.Namespace(against=against, keep=keep, seconds=1, budget=1, json=True)
    assert command.main(options) == 0
    assert ("! nothing is kept: only the other commit is compared" in capsys.readouterr().err) == said


def test_what_is_no_commit_is_said() -> None:
    with pytest.raises(MeasurementError, match="neither a checkout nor a commit"), sides.checked_out("no-such-commit"):
        pass


def test_a_commit_is_unpacked_as_long_as_it_is_needed() -> None:
    with sides.checked_out("HEAD") as root:
        assert (root / "deploy" / "__main__.py").is_file()
    assert not root.exists()


def test_a_checkout_without_the_family_is_said(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=f"has no {layout.DEFAULT_FAMILY}"):
        stand_in.write(tmp_path, tmp_path / "made")


@pytest.mark.heavy
def test_the_stand_in_answers_as_its_golden_requests_say(tmp_path: Path) -> None:
    """Through git's own steps, in process: they and its network agree."""
    stand_in.write(MODELS, tmp_path / "made")
    assert len(golden.find(tmp_path / "made", stand_in.MODEL)) == 32
    with limit.opened(tmp_path / "made", stand_in.MODEL) as bound:
        assert bound.measure(1, 0.05).per_s > 0


@pytest.mark.slow
@pytest.mark.heavy
def test_the_gate_fails_when_100_us_of_every_request_are_planted(tmp_path: Path, workspace: Workspace) -> None:
    """In a served step, not in the one that is called in process: as if the server itself had become slower."""
    clean, planted = tmp_path / "clean", tmp_path / "planted"
    for repository in (clean, planted):
        stand_in.write(MODELS, repository)
    plant(planted / f"{stand_in.MODEL}_preprocess" / "1")
    here, there = (Checkout(layout.ROOT, tmp_path / name) for name in ("a", "b"))
    with (
        sides.opened(here, planted, stand_in.MODEL, clean) as this,
        sides.opened(there, clean, stand_in.MODEL) as other,
    ):
        measured = command.measure({"this": this, "other": other}, 0.4, 60)
    told = findings(measured["this"], measured["other"], measured["other"])
    assert "CPU of a request is" in told and "more than" in told, told
    assert "more than" not in findings(measured["other"], kept=measured["other"])


def plant(version: Path) -> None:
    """Let a step work for 100 µs on each request of a batch, whoever runs it: step.py's class, or Triton's."""
    name, name_of, method = ("step.py", "Step", "answer")
    if not (version / name).is_file():
        name, name_of, method = ("model.py", "TritonPythonModel", "execute")
    source = version / name
    source.write_text(
        source.read_text()
        + f"""

import time


class _Planted({name_of}):
    def {method}(self, requests):
        for _ in requests:
            until = time.thread_time() + 100e-6
            while time.thread_time() < until:
                pass
        return super().{method}(requests)


{name_of} = _Planted
"""
    )
