"""What can be checked of the container files without a Docker daemon."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from contracts import layout
from tests.test_architecture import imported

DOCKERFILE = (layout.ROOT / "Dockerfile.triton").read_text()
COMPOSE = yaml.safe_load((layout.ROOT / "deploy" / "compose.yaml").read_text())


def test_the_image_is_pinned_and_its_tensorrt_is_the_one_plans_are_built_with() -> None:
    assert re.search(r"^ARG TRITON=\S+:\d\d\.\d\d-py3@", DOCKERFILE, re.MULTILINE)
    [recorded] = re.findall(r"has TensorRT (\d+\.\d+\.\d+)", DOCKERFILE)
    bindings, gpu = ((layout.ROOT / "deploy" / name).read_text() for name in ("bindings.lock", "server-gpu.lock"))
    [installed] = re.findall(r"^tensorrt-cu13-bindings==(\S+)", bindings, re.MULTILINE)
    assert set(re.findall(r"^tensorrt-cu13\S*==(\S+)", gpu, re.MULTILINE)) == {installed}
    extra = tomllib.loads((layout.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["gpu"]
    assert extra == [f"tensorrt-cu13=={installed}"]
    assert installed.startswith(f"{recorded}.")


def test_both_stages_ask_the_images_tensorrt_for_its_version_before_anything_else_is_made() -> None:
    """And fail closed: the command exits with 1 where there is no library, too. Nothing else brings a TensorRT."""
    for name in ("server", "export"):
        stage = DOCKERFILE.partition(f" AS {name}")[2].partition("\nFROM ")[0]
        assert re.search(
            r"^COPY contracts contracts$.*^RUN \S+python -m contracts\.engines\.library$", stage, re.M | re.S
        )
    assert "TRT_VERSION" not in DOCKERFILE and "tensorrt-cu13==" not in DOCKERFILE


def test_compose_serves_on_the_gpu_or_says_that_there_is_none() -> None:
    [entry] = re.findall(r'^CMD (\["up".*\])$', DOCKERFILE, re.MULTILINE)
    assert COMPOSE["services"]["triton"]["command"] == [*yaml.safe_load(entry), "--device=gpu"]


def test_every_stage_runs_unprivileged() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert len(stages) == 3
    for stage in stages[:2]:
        assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1] == "1000:1000"


def test_the_server_and_the_container_agree_on_pillow() -> None:
    server, image = (
        re.findall(r"^pillow==\S+", (layout.ROOT / "deploy" / name).read_text(), re.MULTILINE)
        for name in ("server.lock", "image.lock")
    )
    assert server == image and len(image) == 1


def test_compose_listens_on_the_loopback_only() -> None:
    triton = COMPOSE["services"]["triton"]
    assert all(port.startswith("127.0.0.1:") for port in triton["ports"])
    assert triton["volumes"] == ["../model_repository:/models"]
    for service in COMPOSE["services"].values():
        assert service["user"] == "${HOST_UID:-1000}:${HOST_GID:-1000}"
        assert service["init"] is True and service["environment"]["HOME"] == "/tmp"
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True and service["tmpfs"] == ["/tmp"]
        assert (layout.ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        target = service["build"].get("target")
        assert target is None or f" AS {target}" in DOCKERFILE


def test_the_image_starts_the_server_with_a_command_that_there_is() -> None:
    [entry] = re.findall(r'ENTRYPOINT \[.*?"(python|/opt/deploy/bin/python)", "-m", "deploy"\]', DOCKERFILE)
    [arguments] = re.findall(r'^CMD \["up", (.*)\]$', DOCKERFILE, re.MULTILINE)
    options = [word.strip('" ').partition("=")[0] for word in arguments.split(",")]
    usage = subprocess.run(
        [sys.executable, "-m", "deploy", "up", "--help"], cwd=layout.ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert entry and options and all(option in usage for option in options)


def test_the_image_has_what_deploy_imports() -> None:
    """Only these are installed beside the standard library: anything else would fail at the first `up`."""
    asked = (layout.ROOT / "deploy" / "commands.in").read_text()
    provided = {"numpy", "google", *re.findall(r"^\w+", asked, re.MULTILINE)}
    provided |= {
        {
            "nvidia": "pynvml",
            "pillow": "PIL",
            "prometheus": "prometheus_client",
            "model": "model_signing",
            "pyopenssl": "OpenSSL",
        }.get(p, p)
        for p in provided
    }
    server = DOCKERFILE.partition(" AS server")[2].partition("\nFROM ")[0]
    copied = set(re.findall(r"^COPY (\w+) \1$", server, re.MULTILINE))
    backends = layout.ROOT / "deploy" / "backends"  # these run in Triton
    own = [p for name in copied for p in (layout.ROOT / name).rglob("*.py") if backends not in p.parents]
    judging = layout.ROOT / "contracts" / "judging"
    assert not any(re.search(r"contracts[. ].*\bjudging\b", p.read_text()) for p in own if "deploy" in p.parts)
    own = [p for p in own if judging not in p.parents]  # what compares variants, and serves nobody
    needed = set().union(*(imported(path) for path in own)) - {*sys.stdlib_module_names, *copied}
    assert copied >= {"cli", "contracts", "deploy"} and needed <= provided, needed - provided


def test_the_export_image_can_serve_what_it_publishes() -> None:
    """Its tritonserver runs Python models with the image's own Python, as in the server's image."""
    stages = {name: DOCKERFILE.partition(f" AS {name}")[2].partition("\nFROM ")[0] for name in ("server", "export")}
    assert "COPY deploy deploy" in stages["export"] and "PATH=" not in stages["export"]
    pillow, hook = r"--requirement deploy/image\.lock", r"cp deploy/\S+/own_packages\.\* \S+"
    for wanted in (pillow, hook):
        assert re.findall(wanted, stages["export"]) == re.findall(wanted, stages["server"])
    assert COMPOSE["services"]["export"]["shm_size"] == COMPOSE["services"]["triton"]["shm_size"]


def test_the_image_installs_what_models_have_locked_and_their_processes_find_it() -> None:
    """As the pip-installed server does: the same command, and the same two files among the packages of its Python."""
    server = DOCKERFILE.partition(" AS server")[2].partition("\nFROM ")[0]
    [layers] = re.findall(r"MODEL_LAYERS=(\S+)", server)
    root = server.partition("USER 1000:1000")[0]
    assert Path(layers).is_absolute() and "-m deploy environments build --repository /tmp/model_repository" in root
    assert "--mount=type=bind,source=model_repository,target=/tmp/model_repository" in root
    [hook] = re.findall(r"cp (deploy/\S+)/own_packages\.\* ", root)
    assert {path.name for path in (layout.ROOT / hook).glob("own_packages.*")} == {
        "own_packages.py",
        "own_packages.pth",
    }
    assert "requirements" not in (layout.ROOT / ".dockerignore").read_text()


def test_the_slim_image_is_the_same_server_but_for_where_its_triton_comes_from() -> None:
    slim = (layout.ROOT / "Dockerfile").read_text()
    for wanted in (
        r"/opt/deploy/bin/pip install (.*commands\.lock)",  # what `deploy` imports
        r"^HEALTHCHECK (.*\n.*)$",
        r"^EXPOSE (.*)$",
        r"-m deploy environments build --repository (\S+)",
    ):
        [mine], [theirs, *_] = (re.findall(wanted, text, re.MULTILINE) for text in (slim, DOCKERFILE))
        assert mine == theirs
    for variable in ("MODEL_REPOSITORY", "ARTIFACTS_DIR", "MODEL_LAYERS"):
        assert len(set(re.findall(rf"\b{variable}=(\S+)", slim + DOCKERFILE.partition(" AS export")[0]))) == 1
    [entry], [command] = (re.findall(rf"^{word} (\[.*\])$", slim, re.MULTILINE) for word in ("ENTRYPOINT", "CMD"))
    assert yaml.safe_load(entry) == ["/opt/deploy/bin/python", "-m", "deploy"]
    assert yaml.safe_load(command) == [
        *yaml.safe_load(re.findall(r"^CMD (\[\"up.*)$", DOCKERFILE, re.M)[0]),
        "--device=cpu",
    ]
    assert re.findall(r"^USER (\S+)$", slim, re.MULTILINE) == ["1000:1000"]
    assert re.search(r"^ARG PYTHON=python:3\.11-slim-\w+@", slim, re.MULTILINE)


def test_the_slim_image_is_composed_with_nothing_to_write_to_but_memory_and_the_repository() -> None:
    [service] = yaml.safe_load((layout.ROOT / "deploy" / "compose.cpu.yaml").read_text())["services"].values()
    gpu = COMPOSE["services"]["triton"]
    assert service["build"] == {"context": ".."}
    for same in ("ports", "volumes", "shm_size", "stop_grace_period", "restart", "read_only", "tmpfs"):
        assert service[same] == gpu[same]
    assert service["read_only"] and service["tmpfs"] == ["/tmp"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["init"] is True
    assert service["user"] == "${HOST_UID:-1000}:${HOST_GID:-1000}"
