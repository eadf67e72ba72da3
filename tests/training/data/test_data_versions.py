"""Two branches hold two versions of the data, in the cache and in remotes, and what differs can be shown."""

import json
import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from tests import object_store
from tests.training.data import checkouts, deliveries
from tests.training.data.checkouts import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(3600)]

STAGES = ("raw", "interim", "processed", "sample", "gates")
ALL_DONE = "Data and pipelines are up to date."
WITHOUT_JANUARY = list(range(2, 13))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, data_tools: Path) -> Checkout:
    """The branch main has the year, the branch later all but January; both are committed, main is checked out."""
    made = checkouts.new(tmp_path_factory.mktemp("versions") / "checkout", data_tools)
    deliveries.write(made.root / "delivered")
    (made.root / ".gitignore").open("a").write("/delivered/\n")
    made.set("ingest", source="delivered")
    made.set("sample", rows=20)
    made.dvc("repro", made.stage("sample"))
    made.commit("the year")
    made.must("git", "switch", "--quiet", "--create", "later")
    made.set("ingest", months=WITHOUT_JANUARY)
    made.dvc("repro", made.stage("sample"))
    made.commit("without January")
    made.must("git", "switch", "--quiet", "main")
    made.dvc("checkout", "--allow-missing")
    return made


def months(checkout: Checkout, stage: str) -> list[int]:
    found = pd.read_parquet(checkout.root / "data" / stage / "flights" / "departures.parquet")
    return sorted(found["departure"].dt.month.unique().tolist())


def switch(checkout: Checkout, branch: str) -> None:
    checkout.must("git", "switch", "--quiet", branch)
    checkout.dvc("checkout", "--allow-missing")


def test_a_branch_has_its_version_of_every_stage(versions: Checkout) -> None:
    held = {}
    for branch, expected in (
        ("main", [1, *WITHOUT_JANUARY]),
        ("later", WITHOUT_JANUARY),
        ("main", [1, *WITHOUT_JANUARY]),
    ):
        switch(versions, branch)
        assert [months(versions, stage) for stage in ("interim", "processed", "sample")] == [expected] * 3
        assert ALL_DONE in versions.dvc("repro", versions.stage("sample")), "of either version nothing is left to do"
        now = {stage: versions.lies(stage) for stage in STAGES}
        assert held.setdefault(branch, now) == now, "to the byte what it was"
    assert held["main"]["gates"]["raw/passed"] == held["later"]["gates"]["raw/passed"]


def test_what_a_change_of_data_did_is_shown(versions: Checkout) -> None:
    told = json.loads(versions.dvc("metrics", "diff", "main", "later", "--json"))
    rows = told["data/gates/flights/raw/figures.json"]["flights.rows"]
    assert (rows["old"], rows["new"], rows["diff"]) == (3285, 3285 - 31 * 9, -31 * 9)
    assert "data/gates/flights/processed/figures.json" in told
    parameters = json.loads(versions.dvc("params", "diff", "main", "later", "--json"))
    [(_, changed)] = parameters.items()
    assert changed["ingest.months"]["new"] == str(WITHOUT_JANUARY) or changed["ingest.months"]["new"] == WITHOUT_JANUARY


def test_a_changed_feature_redoes_only_what_depends_on_it(versions: Checkout) -> None:
    switch(versions, "main")
    source = versions.root / "training" / "families" / "flights" / "tables" / "delays.py"
    text = source.read_text()
    before = {stage: versions.lies(stage) for stage in STAGES}
    try:
        source.write_text(text + "\n# Changed, and to no effect.\n")
        said = versions.dvc("repro", versions.stage("sample"))
        assert ran(said) == ["features"], "and what it made is what it was, so that nothing else is redone"
        source.write_text(text.replace("rolling.window_s, side", "rolling.window_s // 2, side"))
        said = versions.dvc("repro", versions.stage("sample"))
        assert ran(said) == ["features", "validate_processed", "sample"]
        assert versions.lies("raw") == before["raw"] and versions.lies("sample") != before["sample"]
    finally:
        versions.must("git", "checkout", "--quiet", ".")
        versions.dvc("checkout", "--allow-missing")
    assert {stage: versions.lies(stage) for stage in STAGES} == before


def test_what_is_killed_goes_on_and_ends_as_if_it_had_not_been(versions: Checkout) -> None:
    switch(versions, "main")
    versions.set("ingest", months=list(range(3, 13)))
    chance = random.Random(0)
    command = [versions.programs / "dvc", "repro", versions.stage("sample")]
    try:
        for _ in range(5):
            started = subprocess.Popen(
                command, cwd=versions.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, "TOOL_ENVIRONMENTS": str(versions.programs.parent.parent)}, start_new_session=True,
            )  # fmt: skip
            with suppress(subprocess.TimeoutExpired):
                started.wait(chance.uniform(1, 12))
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        versions.dvc("repro", versions.stage("sample"))
        after = {stage: versions.lies(stage) for stage in STAGES}
        assert months(versions, "sample") == list(range(3, 13))
        versions.dvc("repro", "--force", versions.stage("sample"))
        assert {stage: versions.lies(stage) for stage in STAGES} == after
        assert not list((versions.root / "data").rglob(".*.made-*")), "nor does it leave anything lying about"
    finally:
        versions.must("git", "checkout", "--quiet", ".")
        versions.dvc("checkout", "--allow-missing")


@pytest.mark.parametrize("remote", ["a folder", "S3"])
def test_a_remote_gives_another_clone_both_versions(versions: Checkout, remote: str, tmp_path: Path) -> None:
    if remote == "a folder":
        _through(versions, str(tmp_path / "remote"), {}, tmp_path / "clone", versions.variables)
        assert list((tmp_path / "remote").rglob("*"))
        return
    with object_store.running(tmp_path / "s3") as store:
        settings = {"endpointurl": store.address}
        _through(versions, f"s3://{object_store.BUCKET}/data", settings, tmp_path / "clone", {**object_store.KEY})
        assert len(store.listed()) > 10 and all(key.startswith("data/files/md5/") for key in store.listed())


def _through(source: Checkout, url: str, settings: dict[str, str], clone: Path, variables: dict[str, str]) -> None:
    """Push both versions to a remote, clone the repository, and pull them there."""
    source.must("git", "clone", "--quiet", source.root, clone)
    other = Checkout(clone, source.programs, {**variables})
    pushing = Checkout(source.root, source.programs, {**variables})
    for one in (pushing, other):
        one.dvc("remote", "add", "--local", "--force", "--default", "team", url)
        for name, value in settings.items():
            one.dvc("remote", "modify", "--local", "team", name, value)
    for branch in ("later", "main"):
        switch(source, branch)
        pushing.dvc("push")
        other.must("git", "switch", "--quiet", branch)
        assert not (clone / "data" / "raw").exists() or branch == "main"
        other.dvc("pull", "--allow-missing")
        assert {stage: other.lies(stage) for stage in STAGES} == {stage: source.lies(stage) for stage in STAGES}
    assert not (clone / ".dvc" / "config.local").read_text().count("a key of this test")


def ran(said: str) -> list[str]:
    """The stages that `dvc repro` ran, in order."""
    return [line.split(":")[1].rstrip("'") for line in said.splitlines() if line.startswith("Running stage ")]
