"""The report: one page that needs nothing else, Markdown with its pictures; its figures are those of the result."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import MeasurementError
from benchmarks.reporting import measurements, page
from benchmarks.reporting.measurements import LIMIT, OURS, Result
from tests.workspace import Workspace

LABELS = {OURS: "this project", "peer": "<b>Peer</b> & $x$ | Co", LIMIT: "the limit"}
PER_S = {OURS: 3000.0, "peer": 1000.0, LIMIT: 6000.0}


def written(path: Path, *, limit: bool = True) -> Path:
    random, found = np.random.default_rng(0), []
    for system, per_s in PER_S.items():
        if system == LIMIT and not limit:
            continue
        for connections in (1, 64) if system == LIMIT else (1, 16, 64):
            rounds = [
                {"per_s": per_s * k, "p50_ms": 1.0 * k, "p99_ms": 9.0 * k, "cpu_us": 360.0 * k, "others": 0.12}
                for k in (0.9, 1.0, 1.1)
            ]
            drawn = random.lognormal(7, 0.5, 2000).astype(int)
            latency_us = {} if system == LIMIT else {str(v): int((drawn == v).sum()) for v in np.unique(drawn)}
            entry = {"task": "small", "system": system, "connections": connections}
            found.append({**entry, "rounds": rounds, "latency_us": latency_us})
    machine = {"cpu": "A <CPU>", "cores": 2, "memory_gb": 8.0, "kernel": "6", "virtual": True}
    load = {"load_before": [0.1, 0, 0], "load_after": [2.0, 0, 0]}
    when = {"began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:10:00Z", "commit": "abc", "dirty": True}
    systems = [{"task": "small", "name": name, "label": label} for name, label in LABELS.items()]
    systems[1] |= {"versions": {"peer": "1.2"}, "settings": {"workers": 2}, "wire": "HTTP"}
    tasks = [{"name": "small", "what": "a PNG", "graph_sha256": "12ab", "bodies_sha256": "34cd", "requests": 16}]
    told = {
        "schema": 1, "what": "peers", "origin": {**when, **load, "machine": machine, "versions": {}},
        "rounds": 3, "seconds": 1.0, "generator": {"program": "wrk", "checked": "every answer"},
        "tasks": tasks, "systems": systems, "measurements": found,
    }  # fmt: skip
    path.write_text(json.dumps(told))
    return path


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return measurements.read(written(tmp_path / "peers-1.json"))


def test_the_rows_are_medians_and_shares_of_the_limit(result: Result) -> None:
    found = {row.system: row for row in page.rows(result, "small", price=0.04)}
    assert [*found] == [LIMIT, OURS, "peer"], "the one that answers most is first"
    ours = found[OURS]
    assert (ours.per_s.median, ours.p99_ms.median, ours.alone_p50_ms.median) == (3000.0, 9.0, 1.0)
    assert ours.share is not None and ours.share.median == 0.5
    # 360 µs × 10⁶ are 360 s, a tenth of an hour.
    assert ours.cost == pytest.approx(0.004)


def test_the_page_needs_nothing_else_and_says_what_was_compared(tmp_path: Path, workspace: Workspace) -> None:
    given, folder = written(tmp_path / "peers-1.json"), tmp_path / "made"
    done = workspace.run_here("benchmarks", "report", given, "--folder", folder, "--price-per-core-hour", "0.04")
    assert done.returncode == 0, done.stderr
    text = (folder / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text.replace("xlink:href", "xlink_href")), (
        "something is fetched"
    )
    assert text.count("<svg") == 4 and "&lt;b&gt;Peer" in text and "<b>Peer" not in text
    for told in (
        "A &lt;CPU&gt;, 2 cores, a virtual machine",
        "with changes beside it",
        "others took 12% of the CPU",
        "12ab",
        "workers 2",
        "0.0040",
    ):
        assert told in text
    markdown = (folder / "report.md").read_text()
    pictures = re.findall(r"\]\((\S+\.png)\)", markdown)
    assert len(pictures) == 4 and all((folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    [row] = [line for line in markdown.splitlines() if line.startswith("| this project")]
    assert row == "| this project | 3,000 (2,700 … 3,300) | 50% | 9.0 | 360 | 1.00 | 0.0040 |"
    assert "|\n!" not in markdown, "a picture right below a table is a row of it"
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8}, "a row of another length is no table"


def test_without_a_limit_there_are_no_shares_and_still_a_page(tmp_path: Path, workspace: Workspace) -> None:
    given, folder = written(tmp_path / "peers-1.json", limit=False), tmp_path / "made"
    done = workspace.run_here("benchmarks", "report", given, "--folder", folder)
    assert done.returncode == 0, done.stderr
    assert "| this project | 3,000 (2,700 … 3,300) | – | 9.0 | 360 | 1.00 |" in (folder / "report.md").read_text()


def test_what_speaks_against_a_result_is_on_its_page(result: Result) -> None:
    told = {**result.told, "failed": [{"task": "small", "system": "x", "label": "X", "why": "it ended\nlog"}]}
    noisy = tuple(replace(one, rounds=tuple({**each, "others": 0.4} for each in one.rounds)) for one in
                  result.measurements)  # fmt: skip
    assert page.warnings(replace(result, told=told, measurements=noisy)) == [
        "Of 3 rounds no interval is surer than 75%.",
        "Others took 40% of the CPU: shares of the limit are not to be trusted.",
        "Small: X is left out: it ended",
    ]
    assert "a machine that nobody described" in page.circumstances(replace(result, origin={}))[0]


def test_nothing_that_does_nothing_has_a_share_of_the_limit(result: Result) -> None:
    one = result.one("small", OURS, 64)
    assert one is not None and result.share(one) is not None
    assert result.share(replace(one, system=measurements.NOTHING)) is None
    assert result.share(replace(one, rounds=one.rounds[:2])) is None, "other rounds than the limit's"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("per_s", float("nan"), "per_s is nan"),
        ("cpu_us", None, "no measurements that can be read"),
        ("p99_ms", float("inf"), "p99_ms is inf"),
        ("per_s", 0, "nothing was answered"),
        ("p50_ms", -1, "p50_ms is -1"),
    ],
)
def test_a_figure_that_is_none_is_said(tmp_path: Path, key: str, value: object, told: str) -> None:
    path = written(tmp_path / "peers-1.json")
    found = json.loads(path.read_text())
    found["measurements"][0]["rounds"][1][key] = value
    path.write_text(json.dumps(found))
    with pytest.raises(MeasurementError, match=told):
        measurements.read(path)


def test_half_a_file_and_one_of_nobody_are_said(tmp_path: Path) -> None:
    path = written(tmp_path / "peers-1.json")
    text = path.read_text()
    for content, told in (
        (text[: len(text) // 2], "is no result"),
        ("", "is no result"),
        ("[]", "no result that says where"),
        (text.replace('"origin"', '"whence"'), "does not say where they come from"),
    ):
        path.write_text(content)
        with pytest.raises(MeasurementError, match=told):
            measurements.read(path)


def test_the_newest_result_is_meant_where_none_is_named(workspace: Workspace) -> None:
    done = workspace.run_here("benchmarks", "report")
    assert done.returncode == 1 and "there is no result of `peers`" in done.stderr and "benchmarks peers" in done.stderr
