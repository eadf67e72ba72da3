"""What Triton counts of an ensemble whose steps are models of their own."""

import json
from typing import Any

import pytest
from tritonclient import grpc

from tests.conftest import RunningServer, wait_for
from tests.deploy.test_status import images, models_of, once_counted, png
from tests.workspace import FAMILY, MODEL, POSTPROCESS, PREPROCESS


def test_every_step_counts_for_itself_and_a_failed_one_twice_as_a_failure_of_the_ensemble(
    server: RunningServer,
) -> None:
    """If a newer Triton does not, docs/how-to/observe.md says something wrong."""
    before: dict[str, dict[str, Any]] = models_of(server)
    others = before[FAMILY]["failures_by_reason"].get("OTHER", 0)
    with grpc.InferenceServerClient(server.grpc) as client:
        for _ in range(5):
            client.infer(FAMILY, images(png(), png()))
        with pytest.raises(grpc.InferenceServerException, match="not a readable"):
            client.infer(FAMILY, images(b"no image"))
    # A step's own failures are successes to Triton: the step did answer, with an error for that request.
    answered = {name: 6 if name == PREPROCESS else 5 for name in (FAMILY, PREPROCESS, MODEL, POSTPROCESS)}
    wait_for(lambda: models_of(server)[FAMILY]["failures_by_reason"].get("OTHER", 0) >= others + 2)
    once_counted(server, before, "failures", {FAMILY: 2})
    after = once_counted(server, before, "requests", answered)
    assert after[FAMILY]["failures_by_reason"]["OTHER"] - others == 2
    for name, count in answered.items():
        assert after[name]["requests"] - before[name]["requests"] == count, name
        assert after[name]["rows"] - before[name]["rows"] in (10, 11), name
    workers = {model["name"]: model["workers"] for model in json.loads(_status(server))["models"]}
    assert [name for name, found in workers.items() if not found] == [FAMILY], "an ensemble has none"


def _status(server: RunningServer) -> str:
    return server.workspace.must("deploy", "status", "--json")
