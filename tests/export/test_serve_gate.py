"""Nothing is published that a real Triton does not serve as it was proven."""

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from cli.progress import Progress
from contracts import layout, manifest
from deploy.triton import environment
from export import pipeline
from export.cache import Cache
from export.errors import RefusedError
from export.release import serve_gate
from export.source.base import ExportSource
from tests.conftest import Workspace
from tests.export.conftest import REQUEST
from tests.workspace import PREPROCESS


def test_a_release_says_which_triton_served_it(release: Path) -> None:
    served = manifest.verify(release).served
    assert served == "2.51.0"
    assert environment.pinned("nvidia-pytriton") == "0.7.0", "which has that Triton"
    assert f"Served by Triton {served}" in (release / "report.html").read_text()
    assert f"served by Triton {served}" in (release / "report.md").read_text()


@pytest.fixture
def publish(fashion: ExportSource, workspace: Workspace, kept_steps: Path, few_rounds: None) -> Callable[[], object]:
    """Export the small source, served, in the test's own workspace."""
    request = dataclasses.replace(REQUEST, serve=True)
    cache = Cache(kept_steps, {})
    return lambda: pipeline.run(fashion, request, model_directory=workspace.model, cache=cache, progress=Progress())


def test_a_step_that_does_not_load_keeps_a_release_from_being_published(
    publish: Callable[[], object], workspace: Workspace
) -> None:
    step = workspace.repository / PREPROCESS / "1" / "model.py"
    step.write_text(f"import yaml\n{step.read_text()}")
    with pytest.raises(RefusedError, match="nothing was published") as error:
        publish()
    assert f"{PREPROCESS} does not load" in str(error.value)
    assert "No module named 'yaml'" in str(error.value)
    assert {path.name for path in workspace.model.iterdir() if path.is_dir()} == {"configs"}


def test_without_a_triton_it_is_published_as_not_yet_served(
    publish: Callable[[], object],
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workspace.root / "tritonserver").symlink_to("/bin/false")
    monkeypatch.setenv("PATH", str(workspace.root), prepend=":")
    publish()
    assert manifest.verify(workspace.model / "1").served is None
    assert "not yet served: tritonserver ended with exit code 1" in capsys.readouterr().err


SPEC = """
model = "centred"
task = "values"
limits = { fp32 = { tolerance = { y = 1e-6 } } }
[[inputs]]
name = "x"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 1, max = MAX }, 4]
[[outputs]]
name = "y"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 1, max = MAX }, 4]
"""


@pytest.mark.heavy
def test_a_graph_that_answers_by_its_batch_is_published_only_to_be_asked_a_row_at_a_time(workspace: Workspace) -> None:
    root = workspace.root
    graph = """centred (float[n, 4] x) => (float[n, 4] y) {
      rows = Shape <end = 1> (x)  many = Greater (rows, a_few)  sign = Cast <to = 1> (many)
      m = ReduceMean <keepdims = 1> (x, a)  p = Mul (m, sign)  y = Sub (x, p)
    }"""  # of more rows than the reference is looked at with
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {graph}')
    constants = {"a": np.array([0]), "a_few": np.array([8])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in constants.items())
    onnx.save(model, root / "centred.onnx")
    np.savez(root / "x.npz", x=np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))

    def export(most: int) -> "subprocess.CompletedProcess[str]":
        (root / "spec.toml").write_text(SPEC.replace("MAX", str(most)))
        files = ("--onnx", root / "centred.onnx", "--spec", root / "spec.toml", "--inputs", root / "x.npz")
        into = ("--repository", root / "models", "--no-register")
        return dataclasses.replace(workspace, serves=True).run("export", *files, *into)

    (root / "models").mkdir()
    refused = export(16)
    assert refused.returncode == 1
    assert "centred version 1, in a batch of 16, gives a wrong answer: y is " in refused.stderr
    assert "max = 1" in refused.stderr
    assert not list((root / "models").iterdir())
    alone = export(1)
    assert alone.returncode == 0, alone.stderr
    assert manifest.verify(root / "models" / "centred" / "1").served == "2.51.0"


def test_what_the_gate_says_is_passed_on_but_for_its_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "__main__.py").write_text(
        "import sys\nprint('Making it (once)', file=sys.stderr)\n"
        "print('error: it is bad\\nNote: so bad', file=sys.stderr)\nsys.exit(1)\n"
    )
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    said: list[str] = []
    with pytest.raises(RefusedError, match=r"nothing was published\nNote: it is bad\nNote: so bad$"):
        serve_gate.serve(tmp_path, said.append)
    assert said == ["Making it (once)"]
