"""From a fresh clone to a served model: `dvc repro`, `deploy up`, a request; then a change, and what it did."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from contracts import layout
from tests.conftest import free_ports, port_options
from tests.training.data import checkouts
from tests.training.data.checkouts import Checkout
from training.families.flights.tables import source

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(3600)]

STAGES = ["ingest", "validate_raw", "transform", "features", "validate_processed", "sample", "train", "export"]
FLIGHT = ("carrier=UA", "flight=1545", "origin=EWR", "destination=IAH", "departure=2013-11-05T05:15")


# They name the run and the commit that they are of. All else is, to the bit, what whoever wrote dvc.lock had.
OF_A_RUN = {"data/trained/flights/best.ckpt", "data/released/flights/release.json"}


def locked(clone: Checkout) -> dict[str, str]:
    """Return the digest of everything that a stage makes: {path: MD5}."""
    lock = yaml.safe_load((clone.root / "training" / "families" / "flights" / "pipeline" / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, data_tools: Path) -> Checkout:
    """A clone of what git has, with the files that would be fetched: they are the same, and 9 MB."""
    made = checkouts.new(tmp_path_factory.mktemp("clone") / "checkout", data_tools)
    shutil.copytree(source.locate(layout.data()), made.root / "data" / source.FOLDER)
    return made


def test_three_commands_serve_it_and_a_change_redoes_what_depends_on_it(clone: Checkout) -> None:
    before = locked(clone)
    said = clone.dvc("repro", "-P")
    assert [name for name in STAGES if f"dvc.yaml:{name}':" in said] == STAGES
    assert "Data and pipelines are up to date." in clone.dvc("repro", "-P"), "nothing is left to do"
    release = json.loads((clone.root / "data" / "released" / "flights" / "release.json").read_text())
    assert release["version"] == 1
    assert {path for path, digest in locked(clone).items() if before[path] != digest} <= OF_A_RUN

    clone.python("deploy", "up", "--detach", *port_options(free_ports()))
    try:
        answer = json.loads(clone.python("clients", "predict", "flights", *FLIGHT, "--json"))
        assert 0 < np.ravel(answer["outputs"]["probability"])[0] < 0.5
    finally:
        clone.python("deploy", "down")

    clone.commit("a version")
    clone.set("train", preset="logistic")
    again = clone.dvc("repro", clone.stage("train"))
    assert [name for name in STAGES if f"Running stage '{clone.stage(name)}'" in again] == ["train"]
    auc = json.loads(clone.dvc("metrics", "diff", "--json"))["data/trained/flights/figures.json"]["test.auc"]
    assert 0.6 < auc["new"] < auc["old"] < 0.9, "trees are better"
    clone.dvc("plots", "diff", "--out", "artifacts/plots")
    page = (clone.root / "artifacts" / "plots" / "index.html").read_text()
    assert all(curve in page for curve in ("calibration.csv", "roc.csv", "segments.csv"))
