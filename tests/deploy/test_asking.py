"""A release is asked golden requests before the server is ready; one that no server has served yet is asked all."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from contracts import golden, manifest
from contracts.golden import GoldenRequest
from tests.conftest import Workspace, free_ports, port_options
from tests.deploy.conftest import write_model
from tests.deploy.test_proving import DOUBLER, FOLLOWER
from tests.small_releases import release_of

pytestmark = pytest.mark.heavy

WRONG = DOUBLER.replace("* 2", "* 3")
SLEEP = "import time; time.sleep(60)"
HANG = DOUBLER.replace("def execute(self, requests):", f"def execute(self, requests):\n        {SLEEP}")
CRASH = HANG.replace("import time;", "import os, time; os.kill(os.getppid(), 11);")
VALUES = ([1], [2, -3, 4], [5, 6], [70, 8, 9, 10, 11])


def publish(repository: Path, name: str, code: str, served: str | None = None) -> None:
    """A release with golden requests, each the double; `served` is the Triton that has served it."""
    version = write_model(repository, name, code, max_batch_size=8)
    sealed = version / "release" / name
    sealed.mkdir(parents=True)
    (sealed / "config.pbtxt").write_bytes((version.parent / "config.pbtxt").read_bytes())
    rows = [np.array(values, np.float32)[:, None] for values in VALUES]
    golden.write([GoldenRequest(name, {"IN": x}, {"OUT": 2 * x}, {"OUT": 1e-3}) for x in rows], version)
    release = release_of((name,), family=name, model=name, version=1, served=served)
    manifest.write(dataclasses.replace(release, files=manifest.files_of(version)), version)


def look(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads(workspace.run("deploy", "status", "--json").stdout))


def test_what_does_not_answer_as_it_was_proven_is_left_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    publish(workspace.repository, "right", DOUBLER)
    publish(workspace.repository, "follower", FOLLOWER)
    publish(workspace.repository, "known_follower", FOLLOWER, served="2.51.0")
    publish(workspace.repository, "wrong", WRONG, served="2.51.0")
    publish(workspace.repository, "hang", HANG, served="2.51.0")
    options = ("--repository", workspace.repository, "--drain", "2", "--load-timeout", "4", *port_options(free_ports()))
    done = workspace.run("deploy", "up", "--detach", *options)
    assert done.returncode == 3, done.stderr
    said = (workspace.root / "artifacts" / "server" / "up.log").read_text()
    proven = "✓ right version 1 serves as it was proven: alone 4, in full batches 2, in odd mixtures 3, all at once 4"
    assert proven in said
    assert "known_follower version 1 serves as it was proven" not in said, "it was asked one request"
    found = look(workspace)
    assert found["ready"] and not found["server_restarts"]
    reasons = {group["name"]: group["reason"] for group in found["left_out"]}
    assert reasons.keys() == {"follower", "wrong", "hang"}
    assert "follower version 1, in a batch of 8, gives a wrong answer: OUT is 1 away" in reasons["follower"]
    assert "wrong version 1 gives a wrong answer: OUT is 1 away" in reasons["wrong"]
    assert "hang does not answer a golden request within 4 s" in reasons["hang"]
    serving = {model["name"]: model for model in found["models"] if model["state"] == "READY"}
    assert {name: (model["requests"], model["failures"]) for name, model in serving.items()} == {
        "right": (0, 0),
        "known_follower": (0, 0),
    }, "nobody has asked yet"
    with triton.InferenceServerClient(found["http"]) as client:
        assert client.is_server_ready()
    workspace.down()


def test_one_that_takes_the_server_down_when_it_is_asked_is_left_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    publish(workspace.repository, "right", DOUBLER)
    publish(workspace.repository, "crash", CRASH, served="2.51.0")
    # It answers over gRPC alone: nothing to ask over HTTP.
    write_model(workspace.repository, "stream", DOUBLER, more="model_transaction_policy { decoupled: true }")
    options = ("--repository", workspace.repository, "--drain", "2", *port_options(free_ports()))
    assert workspace.run("deploy", "up", "--detach", *options).returncode == 3
    found = look(workspace)
    assert (found["ready"], found["server_restarts"]) == (True, 1)
    [group] = found["left_out"]
    assert group["name"] == "crash"
    assert "SIGSEGV while crash was asked its golden requests" in group["reason"]
    again = workspace.run("deploy", "reload", "stream")
    assert again.returncode == 0, again.stderr
    assert "stream: version 1, as before" in again.stdout
    workspace.down()
