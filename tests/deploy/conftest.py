"""Small model repositories for tests that need a model with a certain behaviour."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import layout
from tests.conftest import Workspace
from tests.deploy import echoes

# One FP32 [1] in, one FP32 [1] out.
_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }} ]
{more}
"""
# Answers with its input doubled, after as many seconds as the input says; a file tells that it has begun to.
SLEEPER = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.begun = Path(args["model_repository"]) / "begun"

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        seconds = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        self.begun.touch()
        time.sleep(float(seconds.max()))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", seconds * 2)])
"""


def write_model(repository: Path, name: str, code: str = SLEEPER, *, max_batch_size: int = 0, more: str = "") -> Path:
    """A Python model in the repository; its version directory."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    config = _CONFIG.format(name=name, max_batch_size=max_batch_size, more=more)
    (repository / name / "config.pbtxt").write_text(config)
    return version


@pytest.fixture
def sleeper(tmp_path: Path) -> Workspace:
    """A workspace whose only model is `sleeper`."""
    workspace = Workspace(tmp_path)
    write_model(workspace.repository, "sleeper")
    return workspace


@pytest.fixture(scope="session")
def echoing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[echoes.Front]:
    """The shipped proxy in front of a Triton with two models that answer with what they were asked."""
    with echoes.front(tmp_path_factory.mktemp("echoing")) as running:
        yield running


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the backend `inprocess` imports, as in the server."""
    from export.release.python_step import stand_in

    for folder in ("python", "inprocess"):
        monkeypatch.syspath_prepend(layout.ROOT / "deploy" / "backends" / folder)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in())
    before, path = {*sys.modules}, [*sys.path]
    yield
    sys.path[:] = path
    for name in {*sys.modules} - before:
        if name.partition(".")[0] in ("one_process", "python_based", "ort_session"):
            del sys.modules[name]
