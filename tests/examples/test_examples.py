"""The examples of graphs trained elsewhere: their scripts run, and what they write is what their specs promise."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts import layout
from contracts.files import spec_file
from contracts.spec import USUAL_PRECISIONS, DynamicDim, ModelSpec
from examples import wheel
from tests.conftest import Workspace

EXAMPLES = sorted(path.parent.name for path in (layout.ROOT / "examples").glob("*/spec.toml"))


@pytest.fixture(scope="module")
def examples_made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which every example has made its inputs, as a user would; all at the same time."""
    workspace = Workspace(tmp_path_factory.mktemp("examples"))
    with ThreadPoolExecutor() as pool:
        making = {each: pool.submit(workspace.must, f"examples.{each}.make_inputs") for each in EXAMPLES}
    for example, done in making.items():
        said = done.result()
        here = workspace.root / "artifacts" / "examples" / example
        assert said.endswith(
            f"Next: python -m export --onnx {here / 'model.onnx'} --spec examples/{example}/spec.toml"
            f" --inputs {here / 'samples.npz'}\n"
        )
    return workspace


def spec_of(example: str) -> ModelSpec:
    return spec_file.read(layout.ROOT / "examples" / example / "spec.toml")


def samples_of(example: str, examples_made: Workspace) -> dict[str, NDArray[Any]]:
    with np.load(examples_made.root / "artifacts" / "examples" / example / "samples.npz") as arrays:
        return dict(arrays)


def session_of(example: str, examples_made: Workspace) -> Any:
    """onnxruntime on a CPU with the example's graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = examples_made.root / "artifacts" / "examples" / example / "model.onnx"
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answers(example: str, examples_made: Workspace) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """What the graph gives for the samples, and their labels, 32 at a time."""
    session, samples = session_of(example, examples_made), samples_of(example, examples_made)
    [tensor] = spec_of(example).inputs
    for start in range(0, len(samples["labels"]), 32):
        batch = slice(start, start + 32)
        [output] = session.run(None, {tensor.name: samples[tensor.name][batch]})
        yield output, samples["labels"][batch]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_samples_fit_the_spec(example: str, examples_made: Workspace) -> None:
    """An array for each input, of its dtype and within its shape, and as many labels as samples."""
    spec, samples = spec_of(example), samples_of(example, examples_made)
    assert samples.keys() == {*(tensor.name for tensor in spec.inputs), "labels"}
    for tensor in spec.inputs:
        array = samples[tensor.name]
        assert array.dtype == tensor.dtype
        assert len(array) == len(samples["labels"]) >= 200
        for size, dim in zip(array.shape[1:], tensor.shape[1:], strict=True):
            assert dim.min <= size <= dim.max if isinstance(dim, DynamicDim) else size == dim
    assert samples["labels"].dtype == np.int64


@pytest.mark.parametrize("end", ["min", "opt", "max"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_graph_gives_what_the_spec_says_at_each_end_of_its_dimensions(
    example: str, end: Literal["min", "opt", "max"], examples_made: Workspace
) -> None:
    spec = spec_of(example)
    inputs = {tensor.name: np.zeros(tensor.shape_at(end), tensor.dtype) for tensor in spec.inputs}
    names = [tensor.name for tensor in spec.outputs]
    for tensor, found in zip(spec.outputs, session_of(example, examples_made).run(names, inputs), strict=True):
        assert found.shape == tensor.shape_at(end)
        assert found.dtype == tensor.dtype


def test_the_spec_in_the_how_to_is_one(tmp_path: Path) -> None:
    page = (layout.ROOT / "docs" / "how-to" / "bring-your-own-graph.md").read_text()
    (tmp_path / "spec.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    spec = spec_file.read(tmp_path / "spec.toml")
    assert spec.limits.keys() == set(USUAL_PRECISIONS)
    assert spec.answer_output == "logits"


def test_magika_knows_the_types_of_the_files(examples_made: Workspace) -> None:
    """0.91 of them in this project's environment; labels in another order would give next to none."""
    right = count = 0
    for probabilities, labels in answers("magika", examples_made):
        assert probabilities.shape[1] == len(spec_of("magika").labels)
        right += int((probabilities.argmax(1) == labels).sum())
        count += len(labels)
    assert right / count > 0.85


def test_ppocr_reads_the_lines(examples_made: Workspace) -> None:
    """0.89 of them without a mistake; another alphabet or normalisation would give next to none."""
    right = count = 0
    for probabilities, labels in answers("ppocr", examples_made):
        for best, label in zip(probabilities.argmax(2), labels, strict=True):
            changed = np.append(True, best[1:] != best[:-1])
            right += best[changed & (best != 0)].tolist() == label[label >= 0].tolist()
        count += len(labels)
    assert 0.85 < right / count < 0.97


def test_the_same_samples_are_made_again_without_fetching_the_graph(examples_made: Workspace) -> None:
    before = samples_of("ppocr", examples_made)
    assert "Fetching" not in examples_made.must("examples.ppocr.make_inputs")
    for name, array in samples_of("ppocr", examples_made).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_fetch_that_fails_says_what_pip_said_and_what_to_do(workspace: Workspace) -> None:
    environment = {**os.environ, **workspace.environment, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(workspace.root)}
    done = subprocess.run(
        [sys.executable, "-m", "examples.magika.make_inputs"],
        cwd=layout.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: could not fetch magika==1.0.3" in done.stderr
    assert "No matching distribution found" in done.stderr
    assert "Hint: " in done.stderr and "model.onnx" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_another_one_is_refused(examples_made: Workspace, tmp_path: Path) -> None:
    with pytest.raises(wheel.FetchError, match=r"not the expected file"):
        wheel.fetch("magika==1.0.3", "magika/models/standard_v3_3/model.onnx", "0" * 64, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir()), "nothing that was not checked stays"


@pytest.mark.parametrize("example", EXAMPLES)
def test_help_teaches_the_command(example: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{example}.make_inputs", "--help"],
        cwd=layout.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python -m examples.{example}.make_inputs" in done.stdout
    assert "samples.npz" in done.stdout
