"""The units of deploy/gateway/systemd, started by a real systemd: a Debian in a container stands for the machine.

/opt/inference is put together of what the two images have: the checkout, its environment, and the server's.
"""

import json
import time
from collections.abc import Iterator

import pytest

from contracts import layout
from tests.conftest import wait_for
from tests.gateway import typed_models
from tests.images import build, debian
from tests.images.build import Image
from tests.images.conftest import checkout_tag
from tests.images.containers import Container, started

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(1200)]

UNITS = ("triton", "gateway", "gateway-writer")
PYTHON = "/opt/inference/.venv/bin/python"
HOME = "ARTIFACTS_DIR=/var/lib/gateway"
AS_GATEWAY = ("runuser", "-u", "gateway", "--", "env", "--chdir=/opt/inference", HOME, PYTHON)
_DOCKERFILE = """FROM {gateway} AS gateway
FROM {cpu} AS cpu
FROM {machine}
RUN useradd --system gateway && useradd --system triton
COPY --from=gateway /app /opt/inference
COPY --from=gateway /opt/gateway /opt/inference/.venv
COPY --from=cpu /app /opt/inference
COPY --from=cpu /opt/deploy /opt/inference/.venv
COPY --from=cpu /opt/server /opt/server
COPY models /srv/models
COPY units /etc/systemd/system
CMD ["/lib/systemd/systemd"]
"""
# Where the image's server environment was made: it cannot be moved. On a machine it is /opt/inference/.venv-server.
_DROP_IN = "[Service]\nEnvironment=SERVER_ENVIRONMENT=/opt/server\n"
# Sends a row; the status, and whose record it is.
_ASK = """
import json, sys, urllib.error, urllib.request
asked = urllib.request.Request("http://127.0.0.1:8080/v1/models/labels/predict", b'{"rows": [{"image": "boot"}]}',
                               {"authorization": f"Bearer {sys.argv[1]}", "content-type": "application/json"})
try:
    print(json.load(urllib.request.urlopen(asked, timeout=5))["request_id"])
except (OSError, urllib.error.HTTPError) as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def machine(gateway_image: Image, cpu_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("machine")
    typed_models.repository(folder / "models")
    (folder / "units" / "triton.service.d").mkdir(parents=True)
    (folder / "units" / "triton.service.d" / "server.conf").write_text(_DROP_IN)
    for unit in UNITS:
        path = layout.ROOT / "deploy" / "gateway" / "systemd" / f"{unit}.service"
        (folder / "units" / path.name).write_text(path.read_text())
    bases = {"gateway": gateway_image.name, "cpu": cpu_image.name, "machine": debian.image(("systemd",))}
    (folder / "Dockerfile").write_text(_DOCKERFILE.format(**bases))
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    image = build.build(folder / "Dockerfile", f"machine:{checkout_tag()}", context=folder)
    # systemd mounts; SYS_PTRACE is for the test, which looks from where a unit stands.
    options = ["--systemd=always", "--cap-add=SYS_ADMIN,SYS_PTRACE", "--shm-size=256m"]
    with started(image.identity, options=options) as container:
        wait_for(lambda: "running" in container.execute("systemctl", "is-system-running").stdout, 60)
        yield container


def systemctl(machine: Container, *words: str) -> str:
    done = machine.execute("systemctl", *words)
    return (done.stdout + done.stderr).strip()


def asked(machine: Container, key: str) -> str | None:
    """The request's id; None: it was not answered."""
    done = machine.execute(PYTHON, "-c", _ASK, key)
    return done.stdout.strip() if done.returncode == 0 else None


def told(machine: Container) -> str:
    return machine.execute("journalctl", "--no-pager", "--lines=80").stdout


@pytest.fixture(scope="module")
def key(machine: Container) -> str:
    for unit in UNITS:
        assert systemctl(machine, "enable", "--now", unit).startswith("Created symlink")
    made = machine.execute(*AS_GATEWAY, "-m", "gateway", "keys", "create", "shop", "--json")
    assert made.returncode == 0, made.stderr
    secret = str(json.loads(made.stdout)["secret"])
    wait_for(lambda: asked(machine, secret) is not None, 90)
    return secret


def test_they_answer_and_record(machine: Container, key: str) -> None:
    request = asked(machine, key)
    assert request is not None
    wait_for(lambda: "labels" in machine.execute(*AS_GATEWAY, "-m", "store", "show", request).stdout, 30)
    for unit, user in (("triton", "triton"), ("gateway", "gateway"), ("gateway-writer", "gateway")):
        pid = systemctl(machine, "show", "--property=MainPID", "--value", unit)
        assert machine.execute("stat", "--format=%U", f"/proc/{pid}").stdout.strip() == user


def test_what_is_killed_comes_again(machine: Container, key: str) -> None:
    for unit in UNITS:
        before = systemctl(machine, "show", "--property=MainPID", "--value", unit)
        assert systemctl(machine, "kill", "--signal=KILL", "--kill-who=main", unit) == ""
        wait_for(lambda: systemctl(machine, "show", "--property=MainPID", "--value", unit) not in ("0", before), 30)  # noqa: B023
    wait_for(lambda: asked(machine, key) is not None, 90)


def test_a_stop_is_no_failure_and_leaves_nothing(machine: Container, key: str) -> None:
    for unit in reversed(UNITS):
        began = time.monotonic()
        assert systemctl(machine, "stop", unit) == ""
        assert time.monotonic() - began < 40
        assert systemctl(machine, "is-active", unit) == "inactive", told(machine)
    assert asked(machine, key) is None
    left = machine.execute("find", "/dev/shm", "-name", "triton_*").stdout
    assert left == "" and "python" not in machine.execute("sh", "-c", "cat /proc/[0-9]*/comm").stdout
    for unit in UNITS:
        assert systemctl(machine, "start", unit) == ""
    wait_for(lambda: asked(machine, key) is not None, 90)  # keys are kept


def test_the_gateway_writes_to_its_own_folder_alone(machine: Container, key: str) -> None:
    pid = systemctl(machine, "show", "--property=MainPID", "--value", "gateway")
    inside = ("nsenter", f"--target={pid}", "--mount", "runuser", "-u", "gateway", "--", "touch")
    for place in ("/opt/inference/new", "/etc/new", "/srv/models/new"):
        assert "Read-only file system" in machine.execute(*inside, place).stderr
    assert machine.execute(*inside, "/var/lib/gateway/new").returncode == 0
