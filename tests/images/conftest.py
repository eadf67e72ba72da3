"""Images that are built once a session, over bases that are made once a machine. All is skipped where none can be."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import layout
from tests.conftest import Workspace
from tests.images import build, debian, podman, prune, standin
from tests.images.build import Image

TRITON_DOCKERFILE = layout.ROOT / "Dockerfile.triton"
GATEWAY_DOCKERFILE = layout.ROOT / "deploy" / "gateway" / "Dockerfile"


@pytest.fixture(scope="session")
def images() -> Iterator[None]:
    """Images can be built and run here. What earlier runs and this one leave is removed."""
    if reason := podman.missing():
        pytest.skip(reason)
    podman.remove_abandoned()
    yield
    prune.later()


@pytest.fixture(scope="session")
def triton(images: None) -> str:
    """The base of Dockerfile.triton: NVIDIA's own where TRITON names it, else the stand-in."""
    return os.environ.get("TRITON") or standin.image()


@pytest.fixture(scope="session")
def server_image(triton: str) -> Image:
    image = build.build(TRITON_DOCKERFILE, f"server:{checkout_tag()}", target="server", arguments={"TRITON": triton})
    podman.say(str(image))
    return image


@pytest.fixture(scope="session")
def cpu_image(images: None) -> Image:
    """The slim one, over a Debian with Python 3.11 in place of `python:3.11-slim`, or over what PYTHON_IMAGE names."""
    base = os.environ.get("PYTHON_IMAGE") or debian.image()
    image = build.build(layout.ROOT / "Dockerfile", f"cpu:{checkout_tag()}", arguments={"PYTHON": base})
    podman.say(str(image))
    return image


@pytest.fixture(scope="session")
def gateway_image(images: None) -> Image:
    """The gateway's, over the same Debian."""
    bases = {"PYTHON": debian.image(), "POSTGRES": debian.image()}
    image = build.build(GATEWAY_DOCKERFILE, f"gateway:{checkout_tag()}", arguments=bases)
    podman.say(str(image))
    return image


@pytest.fixture(scope="session")
def repository(release: Path, shared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's release, copied as another machine's user would have it: of another uid, readable by all."""
    copy = tmp_path_factory.mktemp("mounted") / "model_repository"
    shutil.copytree(shared.repository, copy)
    for path in (copy.parent, copy, *copy.rglob("*")):
        os.chown(path, 4321, 4321)
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def checkout_tag() -> str:
    """A tag that no other checkout on this machine builds under."""
    return hashlib.sha256(str(layout.ROOT).encode()).hexdigest()[:8]
