"""A model of one's own, as the README and its how-to say: every block, in order, against a real server."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clients import Client
from contracts import layout
from contracts.files import spec_file
from deploy.triton.ports import free_ports
from tests.command_lines import may_run_here, run_here
from tests.conftest import Workspace, port_options
from tests.pages import Page

README = Page(layout.ROOT / "README.md")
HOW_TO = Page(layout.ROOT / "docs" / "how-to" / "bring-your-own-graph.md")
MODULE = Page(layout.ROOT / "docs" / "how-to" / "bring-your-own-module.md")

# The model that the how-to speaks of: two inputs, two dynamic dimensions, two outputs.
ROUTER = """
import numpy as np
import onnxruntime
import torch


class Router(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = torch.nn.Embedding(100, 384)
        self.head = torch.nn.Linear(384, 3)

    def forward(self, ids, masks):
        weights = masks.unsqueeze(-1).float()
        vector = (self.tokens(ids) * weights).sum(1) / weights.sum(1)
        return self.head(vector), vector


torch.manual_seed(0)
model = Router()
ids = torch.randint(0, 100, (40, 16))
masks = torch.ones(40, 16, dtype=torch.int64)
labels = torch.randint(0, 3, (40,))
"""


def written(page: Page, folder: Path) -> None:
    """The page's files, into `folder`: a block that begins with `# name` is that file."""
    for block in page.blocks:
        first, _, _ = block.text.partition("\n")
        if block.language in {"python", "toml"} and first.startswith("# "):
            (folder / first.removeprefix("# ")).write_text(block.text)


def typed(page: Page, heading: str) -> list[list[str]]:
    """What is typed below `heading`, line by line."""
    section = page.path.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [shlex.split(line[2:]) for line in section.splitlines() if line.startswith("$ ")]


def environment_of(workspace: Workspace) -> dict[str, str]:
    repository = str(workspace.repository)
    return {**workspace.environment, "MODEL_REPOSITORY": repository, "PYTHONPATH": str(layout.ROOT)}


def run(arguments: Sequence[str], folder: Path, workspace: Workspace) -> str:
    """`python ARGUMENTS…` in the reader's folder; its standard output, or the test fails with what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment_of(workspace),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.heavy
def test_a_model_of_ones_own_is_exported_served_and_called(released: Workspace, tmp_path: Path) -> None:
    """And the block of a service, which imports the client by the name that the wheel has."""
    from onnxruntime import InferenceSession

    folder = tmp_path / "mine"
    folder.mkdir()
    written(README, folder)
    ports = free_ports()
    grpc = f"grpc://127.0.0.1:{ports[1]}"
    commands = typed(README, "Your own model in three commands")
    assert [command[:3] for command in commands] == [
        ["python", "digits.py"],
        ["python", "-m", "export"],
        ["python", "-m", "deploy"],
        ["python", "-m", "clients"],
    ]
    more = {"deploy": port_options(ports), "clients": ["--server", grpc]}  # in place of the usual ports
    service = folder / "service.py"
    service.write_text(
        service.read_text()
        .replace("grpc://127.0.0.1:8001", grpc)
        .replace("from gpu_inference_client import", "from clients import")  # the wheel has a test of its own
    )
    try:
        for _, *arguments in commands:
            program = arguments[1] if arguments[0] == "-m" else ""
            said = run([*arguments, *more.get(program, [])], folder, released)
        [served] = json.loads(said)["logits"]
        [[expected]] = InferenceSession(folder / "digits.onnx").run(None, {"pixels": np.load(folder / "one.npy")})
        tolerance = spec_file.read(folder / "digits.toml").limits["int8"].tolerance["logits"]  # whichever was published
        np.testing.assert_allclose(served, expected, rtol=0, atol=tolerance)
        assert run(["service.py"], folder, released) == f"{np.argmax(served)}\n"
    finally:
        run(["-m", "deploy", "down"], folder, released)


@pytest.mark.heavy
def test_a_module_becomes_a_release_that_is_served_loaded_and_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From model.py, weights.pt and samples.npz, in the five commands of the page."""
    import torch

    workspace, folder = Workspace(tmp_path), tmp_path / "mine"
    folder.mkdir()
    written(MODULE, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    runpy.run_path("train.py")
    model, samples = sys.modules.pop("model").make_model(), np.load("samples.npz")
    model.load_state_dict(torch.load("weights.pt"))
    commands = typed(MODULE, "Five commands")
    assert [command[2] for command in commands] == ["export", "export", "deploy", "benchmarks", "deploy"]
    ports = free_ports()
    try:
        for _, _, *arguments in commands:
            here([*arguments, *(port_options(ports) if "up" in arguments else [])], folder, workspace)
            if arguments[0] == "benchmarks":
                assert ready(folder, workspace) == [2]
        assert ready(folder, workspace) == [1]
        with Client(f"grpc://127.0.0.1:{ports[1]}", timeout_s=20) as client:
            inputs = {name: samples[name][:5] for name in ("person", "blood")}
            answered = client.infer("progression", inputs)["progression"]
        expected = model(*map(torch.tensor, inputs.values()))["progression"].detach()
        tolerance = spec_file.read(Path("progression.toml")).limits["fp16"].of("progression").largest
        assert tolerance is not None
        np.testing.assert_allclose(answered, expected.reshape(5, 1), rtol=0, atol=tolerance)
    finally:
        sys.modules.pop("model", None)
        workspace.down()


def here(arguments: Sequence[str], folder: Path, workspace: Workspace) -> str:
    """`python -m ARGUMENTS…` in the reader's folder and this process, where that makes no difference."""
    if not may_run_here(arguments):
        return run(["-m", *arguments], folder, workspace)
    done = run_here(arguments, environment_of(workspace), folder)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def ready(folder: Path, workspace: Workspace) -> list[int]:
    """The versions of the page's model that are served."""
    models = json.loads(here(["deploy", "status", "--json"], folder, workspace))["models"]
    return [int(model["version"]) for model in models if model["state"] == "READY"]


@pytest.mark.heavy
def test_the_graph_of_the_how_to_is_what_its_spec_says(tmp_path: Path) -> None:
    """Its export from PyTorch, the comparison with the model, and the samples run as they stand."""
    from export.source.graph_file import from_graph

    written(HOW_TO, tmp_path)
    blocks = [block.text for block in HOW_TO.blocks if block.language == "python"]
    (tmp_path / "router.py").write_text("\n".join([ROUTER, *blocks]))
    done = subprocess.run(
        [sys.executable, "router.py"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    spec = spec_file.read(tmp_path / "router.toml")
    source = from_graph(tmp_path / "router.onnx", spec, [tmp_path / "router.npz"], calibration_samples=1024)
    assert len(source.held_out) == 20
    answer = source.reference()(next(source.held_out.batches(20)))
    assert answer["logits"].shape == (20, 3)
    assert answer["vector"].shape == (20, 384)


@pytest.mark.parametrize("page", [README, HOW_TO], ids=lambda page: page.name)
def test_a_spec_on_the_page_is_complete(page: Page, tmp_path: Path) -> None:
    written(page, tmp_path)
    [spec] = tmp_path.glob("*.toml")
    assert spec_file.read(spec).limits
