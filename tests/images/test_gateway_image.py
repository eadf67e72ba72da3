"""The gateway's image answers as an unprivileged user, with nothing to write to but its own folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import free_ports, wait_for
from tests.gateway.conftest import typed_triton as typed_triton  # a fixture
from tests.gateway.tritons import Running
from tests.gateway.whole import Whole
from tests.images import debian
from tests.images.build import Image
from tests.images.containers import LOCKED, Container, started

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(1200)]

MOST_MB = 600


@pytest.fixture(scope="module")
def answering(gateway_image: Image, typed_triton: Running) -> Iterator[tuple[Container, Whole]]:
    """A container in front of a Triton whose socket it is given, as a neighbour on the same machine is."""
    [port, *_] = free_ports()
    socket = Path(typed_triton.address.path)
    socket.chmod(0o777)
    for folder in (socket.parent, *socket.parent.parents[:3]):
        folder.chmod(0o755)
    network, inside = ([], port) if debian.way().host_network else ([f"--publish=127.0.0.1:{port}:8080"], 8080)
    variables = [f"--env=GATEWAY_LISTEN__PORT={inside}", "--env=GATEWAY_TRITON__ENDPOINTS=unix:/triton/http"]
    options = [*LOCKED, *network, *variables, f"--volume={socket.parent}:/triton"]
    with started(gateway_image.identity, options=options) as container:
        # No process of ours: what asks it is the same as for one.
        whole = Whole(Path("/"), {}, None, port)  # type: ignore[arg-type]
        wait_for(lambda: _is_live(whole) or container.state("State.Running") != "true", 60)
        assert container.state("State.Running") == "true", container.logs()
        create = ("-m", "gateway", "keys", "create", "a", "--scope=*:*", "--json")
        made = container.execute("/opt/gateway/bin/python", *create)
        assert made.returncode == 0, made.stderr
        whole._keys[()] = json.loads(made.stdout)["secret"]
        wait_for(lambda: whole.ask("GET", "/v1/models").status == 200, 20)
        yield container, whole


def test_it_is_slim_and_no_model_or_key_is_in_it(gateway_image: Image) -> None:
    assert gateway_image.size_bytes < MOST_MB * 1e6
    with started(gateway_image.identity, "60", options=["--entrypoint=/bin/sleep"]) as container:
        assert container.execute("id", "--user").stdout.strip() == "1000"
        found = container.execute("find", "/app", "/opt", "-name", "*.onnx", "-o", "-name", ".env*").stdout
        assert found == ""


def test_it_answers_records_and_is_healthy(answering: tuple[Container, Whole]) -> None:
    container, gateway = answering
    answer = gateway.ask("POST", "/v1/models/labels/predict", {"rows": [{"image": "boot"}]})
    assert answer.status == 200 and answer.json["rows"][0]["label"] == "boot", answer.body
    assert container.healthy()
    request_id = answer.json["request_id"]

    def recorded() -> bool:
        shown = container.execute("/opt/gateway/bin/python", "-m", "store", "show", request_id)
        return "labels" in shown.stdout

    wait_for(recorded, 30)


def test_it_can_write_nowhere_else_and_has_no_privilege(answering: tuple[Container, Whole]) -> None:
    container, _ = answering
    status = dict(line.split(":\t") for line in container.execute("cat", "/proc/1/status").stdout.splitlines())
    assert status["Uid"].split() == ["1000"] * 4 and status["NoNewPrivs"] == "1"
    assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    for place in ("/app/new", "/opt/new", "/new"):
        assert "Read-only file system" in container.execute("touch", place).stderr


def test_a_stop_drains_it_before_its_grace_is_over(answering: tuple[Container, Whole]) -> None:
    container, _ = answering
    assert container.stop(grace_s=40) < 20


def _is_live(whole: Whole) -> bool:
    try:
        return whole.ask("GET", "/livez", key="").status == 200
    except OSError:
        return False
