"""The gateway's compose file as it is: keys, answers, records in PostgreSQL; a database that dies, a stop, a start.

By podman-compose, as far as that and this machine go: where containers have the host's network, each is told a port of
its own, and PostgreSQL is Debian's.
"""

import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import free_ports, port_options, wait_for
from tests.deploy.conftest import write_model
from tests.gateway import typed_models
from tests.gateway.whole import Answer, Whole
from tests.images import compose, debian, pip_settings, podman, postgres
from tests.images.compose import Project
from tests.images.containers import Container

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(1800)]

UID = 4321  # neither the image's nor ours
PASSWORD = "p@ss/w#rd:?&%41$"  # nothing of it may be taken for a part of a URL
GATEWAY = "/opt/gateway/bin/python"


@dataclass(frozen=True)
class Composed:
    """The project, up."""

    project: Project
    port: int

    def container(self, service: str) -> Container:
        return Container(self.project.container(service))

    def whole(self, key: str = "") -> Whole:
        return Whole(Path("/"), {}, None, self.port, {(): key})  # type: ignore[arg-type]  # no process of ours

    def ask(self, key: str, image: str) -> Answer:
        return self.whole(key).ask("POST", "/v1/models/labels/predict", {"rows": [{"image": image}]})

    def recorded(self) -> int:
        """How many predictions PostgreSQL has; -1: it does not say."""
        words = ("psql", "--username=gateway", "--tuples-only", "--command=SELECT count(*) FROM predictions")
        said = self.container("database").execute(*words)
        return int(said.stdout) if said.returncode == 0 else -1

    def live(self) -> bool:
        try:
            return self.whole().ask("GET", "/livez", key="").status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def composed(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    if reason := compose.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("composed")
    models = typed_models.repository(folder / "models")
    write_model(models, "sleeper")
    checkout = compose.checkout(folder / "checkout", models, UID)
    file = checkout / "deploy" / "gateway" / "compose.yaml"
    ports = free_ports(5)
    files = [file, on_the_hosts_network(file, *ports)] if debian.way().host_network else [at_port(file, ports[0])]
    bases = {"PYTHON": debian.image(), "POSTGRES": postgres.image().name}
    build = [*(f"--build-arg={name}={base}" for name, base in bases.items())]
    build += pip_settings.of_this_machine().options(folder)
    environment = {"HOST_UID": str(UID), "HOST_GID": str(UID), "POSTGRES_PASSWORD": PASSWORD}
    with compose.project(*files, scratch=folder, build_options=build, environment=environment) as project:
        said = project.run("up", "--build", "--detach", timeout_s=1200)
        assert said.returncode == 0, said.stdout + said.stderr
        up = Composed(project, ports[0])
        for service in ("database", "triton", "gateway", "writer"):  # podman-compose passes over builds that fail
            assert podman.exists(f"{project.name}_{service}"), said.stdout[-9000:] + said.stderr[-9000:]
        wait_for(up.live, 180)
        yield up


def at_port(file: Path, port: int) -> Path:
    text = file.read_text()
    assert "127.0.0.1:8080:8080" in text
    file.write_text(text.replace("127.0.0.1:8080:8080", f"127.0.0.1:{port}:8080"))
    return file


def on_the_hosts_network(file: Path, gateway: int, database: int, *triton: int) -> Path:
    """What it takes where all have one network: other ports, and names that lead to the machine itself."""
    hosts = {"extra_hosts": ["database:127.0.0.1", "triton:127.0.0.1"]}
    url = f"postgresql://gateway@database:{database}/gateway"
    stores = {"GATEWAY_STORE__URL": url, "STORE_URL": url}
    asked = {"GATEWAY_LISTEN__PORT": str(gateway), "GATEWAY_TRITON__ENDPOINTS": f"http://triton:{triton[0]}"}
    more = {
        "database": {"environment": {"PGPORT": str(database)}},
        "triton": {"command": ["up", "--log-to-stdout", "--device=cpu", *port_options([*triton])]},
        "gateway": {"environment": {**stores, **asked}, **hosts},
        "writer": {"environment": stores, **hosts},
    }
    top = file.with_name("more.yaml")
    top.write_text(yaml.safe_dump({"services": more}))
    return top


@pytest.fixture(scope="module")
def key(composed: Composed) -> str:
    """Made in the container, as the file's head says."""
    command = (GATEWAY, "-m", "gateway", "keys", "create", "shop", "--json")
    made = composed.project.run("exec", "-T", "gateway", *command)
    assert made.returncode == 0, made.stdout + made.stderr
    [told] = [line for line in made.stdout.splitlines() if line.startswith("{")]  # podman-compose says more
    secret = str(json.loads(told)["secret"])
    wait_for(lambda: composed.ask(secret, "boot").status == 200, 90)
    return secret


def test_a_key_that_is_made_inside_is_answered_and_recorded_in_postgresql(composed: Composed, key: str) -> None:
    before = composed.recorded()
    answers = [composed.ask(key, "boot") for _ in range(20)]
    assert {answer.status for answer in answers} == {200} and answers[0].json["rows"][0]["label"] == "boot"
    assert composed.ask("gk_00000000_nobody", "boot").status == 401
    wait_for(lambda: composed.recorded() >= before + 20, 30)


def test_all_of_them_are_healthy_and_have_no_privilege(composed: Composed, key: str) -> None:
    for service in ("database", "triton", "gateway", "writer"):
        wait_for(composed.container(service).healthy, 60)
    for service in ("triton", "gateway", "writer"):
        said = composed.container(service).execute("cat", "/proc/1/status").stdout
        status = dict(line.split(":\t") for line in said.splitlines())
        assert status["NoNewPrivs"] == "1", service
        assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert composed.container(service).execute("touch", "/app/new").returncode != 0


def test_a_database_that_is_killed_costs_no_request_and_no_record(composed: Composed, key: str) -> None:
    before = composed.recorded()
    podman.call("kill", composed.container("database").identity, options=debian.way().options)
    answers = [composed.ask(key, "boot") for _ in range(50)]
    assert {answer.status for answer in answers} == {200}
    assert composed.recorded() == -1
    assert composed.project.run("start", "database").returncode == 0
    wait_for(lambda: composed.recorded() >= before + 50, 90)
    assert composed.recorded() == before + 50


def test_a_stop_answers_what_was_accepted_and_a_start_knows_the_keys(composed: Composed, key: str) -> None:
    recorded, answers = composed.recorded(), list[Answer]()
    tensor = {"name": "IN", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
    header = json.dumps({"inputs": [tensor]}).encode()
    length = {"Inference-Header-Content-Length": str(len(header))}
    asked = ("POST", "/v2/models/sleeper/infer", header + struct.pack("<f", 5.0), length)
    slow = threading.Thread(target=lambda: answers.append(composed.whole(key).ask(*asked)))
    slow.start()
    slow.join(1.5)
    assert slow.is_alive(), answers
    assert composed.container("gateway").stop(grace_s=45) < 20
    slow.join(10)
    assert [answer.status for answer in answers] == [200], answers
    assert composed.project.run("stop", timeout_s=200).returncode == 0
    assert not composed.live()
    assert composed.project.run("start").returncode == 0
    wait_for(composed.live, 90)
    wait_for(lambda: composed.ask(key, "boot").status == 200, 90)
    wait_for(lambda: composed.recorded() >= recorded + 2, 60)
