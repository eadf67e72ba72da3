"""Two releases are switched under load, every answer is looked at, and what must hold is judged rightly."""

import json
from pathlib import Path

import pytest

from benchmarks.releases import many_releases, two_releases
from benchmarks.releases.asking import MIXED, Asked, _Judge
from benchmarks.releases.switch import summary, table, verdict
from benchmarks.releases.switch_run import Change, Memory, Settings, SwitchRun
from benchmarks.releases.two_releases import ENSEMBLE, KINDS, NETWORK
from contracts import bundle, golden, manifest, model_config
from tests.conftest import Workspace


def right(release: int, *moments: tuple[float, float]) -> list[Asked]:
    return [Asked(0, start_s, end_s, release, "") for start_s, end_s in moments]


def failed(start_s: float, end_s: float, error: str = "refused") -> Asked:
    return Asked(0, start_s, end_s, 0, error)


def a_run(*more: Asked, requests: int = 8) -> SwitchRun:
    """A switch from 1 to 2, during which one answer of 1 comes after the first of 2; a kill; and back to 1."""
    one = right(1, (0, 1), (1, 2), (2, 3.2), (10.3, 11))
    two = right(2, (2, 3.1), (3, 4), (4, 5), (7, 8), (8, 9))
    changes = (Change("switch", 2, 2.5, 3.5), Change("server killed", 2, 5.5, 7.5), Change("back", 1, 9.5, 10.1))
    memory = tuple(Memory(at_s, 100 + at_s, 50) for at_s in (1, 3, 10.5))
    asked = sorted([*one, *two, failed(5.4, 5.6), failed(6, 6.1), *more], key=lambda each: each.end_s)
    return SwitchRun(Settings(requests, 1), tuple(asked), changes, memory)


def test_a_switch_that_nobody_noticed_holds() -> None:
    result = a_run()
    assert result.findings == []
    assert (len(result.excused), result.failed, result.mixed) == (2, [], [])
    assert result.handover_ms(result.changes[0]) == pytest.approx(100)
    assert result.back_s == 8
    figures = json.loads(json.dumps(summary(result)))
    assert (figures["holds"], figures["requests"], figures["pause_after_the_kill_s"]) == (True, 11, 2.5)
    assert figures["memory_mb"]["rss"] == {"before": 101, "peak": 110.5, "after": 110.5}
    assert verdict(result).startswith("✓ 11 requests over 1 connections: none failed, none mixed; 2 failed with")
    assert len(table(result).rows) == 4


@pytest.mark.parametrize(
    ("one", "finding"),
    [
        (failed(2.6, 2.7), "1 requests failed: refused"),  # in a switch
        (failed(8.1, 8.2), "1 requests failed: refused"),  # after the killed server was back
        (failed(5.1, 5.4), "1 requests failed: refused"),  # before it was killed
        (failed(5.4, 5.6, f"{MIXED}?"), "1 answers mix releases"),  # not even then
        (*right(2, (10.2, 10.3)), "after back release 2 answers"),
    ],
)
def test_whatever_must_not_be_is_found(one: Asked, finding: str) -> None:
    result = a_run(one)
    [found] = result.findings
    assert found.startswith(finding)
    assert verdict(result).startswith("✗ FAILED")


def test_too_few_requests_are_found() -> None:
    assert a_run(requests=100).findings == ["11 requests, and not 100"]


def response(version: int, output: str, *data: str) -> bytes:
    outputs = [{"name": output, "datatype": "BYTES", "shape": [len(data), 1], "data": data}]
    return json.dumps({"model_name": ENSEMBLE, "model_version": str(version), "outputs": outputs}).encode()


def test_an_answer_is_one_releases_or_a_mixture() -> None:
    judge = _Judge([7, 8])
    assert judge.judged(200, response(1, "first", "coat 14", "coat 16")) == (1, "")
    assert judge.judged(200, response(2, "second", "shoe 21", "shoe 24")) == (2, "")
    for mixture in (
        response(2, "first", "coat 14", "coat 16"),
        response(1, "first", "coat 14", "coat 24"),
        response(1, "first", "shoe 14", "shoe 16"),
        response(2, "second", "shoe -1", "shoe -1"),
        response(1, "second", "coat 14", "coat 16"),
    ):
        release, error = judge.judged(200, mixture)
        assert release == 0 and error.startswith(MIXED)
    assert judge.judged(400, b"no such model") == (0, "status 400: no such model")


def test_copies_of_a_release_are_whole_releases_of_their_own(tmp_path: Path) -> None:
    two_releases.publish(tmp_path / "made", KINDS[0])
    source = tmp_path / "made" / NETWORK / "1"
    golden.write([golden.GoldenRequest(name, {}, {}) for name in (NETWORK, ENSEMBLE)], source)
    root = tmp_path / "many"
    names = many_releases.write(source, root, 2)
    assert names == [f"{NETWORK}_1", f"{NETWORK}_2"]
    many_releases.publish_again(root / names[0])
    for name, version in ((names[0], 1), (names[0], 2), (names[1], 1)):
        directory = root / name / str(version)
        described = manifest.verify(directory)
        assert (described.model, described.version, described.models) == (name, version, (name,))
        assert list(bundle.of(root, name, version).models) == [name]
        assert [request.model for request in golden.read(directory)] == [name]
        assert f'"{ENSEMBLE}"' not in (root / name / model_config.FILE_NAME).read_text()


@pytest.mark.slow
@pytest.mark.heavy
def test_nothing_fails_and_nothing_is_mixed_under_load(tmp_path: Path) -> None:
    done = Workspace(tmp_path).run("benchmarks", "switch", "--requests", "20000", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["requests"] >= 20_000 and figures["failed"] == figures["mixed"] == 0
    assert figures["failed_by_the_kill"] > 0 and figures["pause_after_the_kill_s"] > 0
