"""A build is worth something: what is wrong in a Dockerfile or a lock ends it, and the reason is told."""

import re
import shutil
from pathlib import Path

import pytest

from contracts import layout
from tests.images import build, debian
from tests.images.podman import ImageError
from tests.tracked import tracked

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout, to be changed."""
    for path in tracked(others=True):
        copy = tmp_path / path.relative_to(layout.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return tmp_path


def change(file: Path, right: str, wrong: str) -> None:
    text = file.read_text()
    assert right in text
    file.write_text(text.replace(right, wrong))


# The hashes of a package that all of its files have.
[RICH] = re.findall(
    r"^rich==\S+((?: \\\n    --hash=\S+)+\n)", (layout.ROOT / "deploy/commands.lock").read_text(), re.MULTILINE
)

FAULTS = [
    pytest.param("", "COPY deploy deploy", "COPY deploi deploy", "deploi", id="a path that is not there"),
    pytest.param(
        "", "USER 1000:1000", "USER triton-sever", "unable to find user triton-sever", id="a user that there is not"
    ),
    pytest.param("deploy/commands.lock", RICH, "\n", "Hashes are required", id="a package without a hash"),
    pytest.param(
        "deploy/commands.lock",
        RICH,
        " \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "DO NOT MATCH THE HASHES",
        id="a file with another hash",
    ),
    pytest.param(
        "deploy/commands.lock",
        "rich==",
        "rich==0.0.",
        "rich.*conflicting|No matching distribution found for rich",
        id="a version that there is not",
    ),
    pytest.param("deploy/errors.py", "class SetupError", "class SetUpError", "SetupError", id="a module that fails"),
]


@pytest.mark.parametrize(("file", "right", "wrong", "said"), FAULTS)
@pytest.mark.parametrize("dockerfile", ["Dockerfile.triton", "Dockerfile"])
def test_a_fault_ends_the_build(
    dockerfile: str, file: str, right: str, wrong: str, said: str, checkout: Path, triton: str
) -> None:
    change(checkout / (file or dockerfile), right, wrong)
    with pytest.raises(ImageError, match=said):
        build_of(checkout, dockerfile, triton)


def test_an_image_with_another_tensorrt_is_not_made(checkout: Path, triton: str) -> None:
    change(checkout / "contracts" / "engines" / "plans.py", 'SERVER_TENSORRT = "11.', 'SERVER_TENSORRT = "12.')
    with pytest.raises(ImageError, match="this repository builds and serves plans of TensorRT 12"):
        build_of(checkout, "Dockerfile.triton", triton)


def build_of(checkout: Path, dockerfile: str, triton: str) -> build.Image:
    bases = {"TRITON": triton, "PYTHON": debian.image()}
    argument = "TRITON" if dockerfile == "Dockerfile.triton" else "PYTHON"
    return build.build(checkout / dockerfile, "planted:fault", context=checkout, arguments={argument: bases[argument]})
