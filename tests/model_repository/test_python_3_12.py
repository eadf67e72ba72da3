"""The Python models answer alike in the image's Python: Ubuntu's 3.12, with its numpy 1.26, and with 2."""

import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts import layout
from export.release import ensemble
from tests.tracked import MODEL_REPOSITORY
from tests.workspace import PREPROCESS

ANSWERS = {"label": np.object_, "score": np.float32, "top_labels": np.object_, "top_scores": np.float32}


def pinned(package: str, lock: Path) -> str:
    [version] = re.findall(rf"^{package}==([^\s;]+)", lock.read_text(), re.MULTILINE)
    return f"{package}=={version}"


@pytest.fixture(scope="module")
def python() -> str:
    own = sorted(Path.home().glob(".pyenv/versions/3.12*/bin/python3.12"))
    for found in (shutil.which("python3.12"), *map(str, own)):
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    pytest.skip("needs python3.12: sudo apt-get install python3.12, where the distribution has it")


@pytest.fixture(params=["deploy/server.lock", "requirements.lock"], ids=["numpy 1.26", "numpy 2"], scope="module")
def packages(request: pytest.FixtureRequest, python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with numpy and Pillow for it: the image's numpy is that of the pip-installed server."""
    folder = tmp_path_factory.mktemp("packages")
    wanted = [pinned("numpy", layout.ROOT / request.param), pinned("pillow", layout.ROOT / "deploy" / "server.lock")]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    done = subprocess.run([*pip, "--target", str(folder), *wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs {', '.join(wanted)}: {(done.stderr.splitlines() or [''])[-1]}")
    return folder


@pytest.fixture
def there(python: str, packages: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, np.ndarray]]:
    """Ask a model in that Python, as an export asks it in ours."""

    def ask(*arguments: object) -> dict[str, np.ndarray]:
        with monkeypatch.context() as patched:
            patched.setattr(ensemble.sys, "executable", python)  # type: ignore[attr-defined]
            patched.setenv("PYTHONPATH", str(packages))
            return ensemble.run_step(*arguments)  # type: ignore[arg-type]

    return ask


def test_images_are_decoded_alike(there: Callable[..., dict[str, np.ndarray]]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    files = []
    for kind in ("PNG", "JPEG"):
        Image.fromarray(pixels).save(file := io.BytesIO(), kind)
        files.append(file.getvalue())
    asked = MODEL_REPOSITORY / PREPROCESS, {"image": np.array(files, np.object_).reshape(-1, 1)}, ["pixels"]
    expected, found = ensemble.run_step(*asked)["pixels"], there(*asked)["pixels"]
    assert expected.shape == (2, 1, 28, 28) and found.dtype == np.uint8 and np.array_equal(found, expected)


def test_answers_are_read_alike(there: Callable[..., dict[str, np.ndarray]]) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 3).astype(np.float32)
    asked = MODEL_REPOSITORY / "fashion_postprocess", {"probabilities": probabilities}, list(ANSWERS)
    expected, found = ensemble.run_step(*asked), there(*asked)
    for name, dtype in ANSWERS.items():
        assert found[name].dtype == dtype and np.array_equal(found[name], expected[name])
