"""A graph whose weights are more than one message of protobuf holds is published with them beside it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from contracts import manifest
from tests.conftest import Workspace
from tests.export.brought import N, bring, noise, parsed, with_weights

ROWS, WIDTH = 2_200_000, 256  # 2.25 GB


def with_a_table(folder: Path) -> list[str]:
    """An embedding, as of a large language model: the file is sparse, and takes no room on the disk."""
    text = "(int64[N,8] ids) => (float[N,5] y) { e = Gather(table, ids)  m = ReduceMean <axes = [1], keepdims = 0> (e) "
    model = with_weights(parsed(text + " z = MatMul(m, w)  y = Add(z, b) }"), w=noise(WIDTH, 5), b=noise(5))
    table = TensorProto(
        name="table", data_type=TensorProto.FLOAT, dims=[ROWS, WIDTH], data_location=TensorProto.EXTERNAL
    )
    size = ROWS * WIDTH * 4
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(size))):
        table.external_data.add(key=key, value=value)
    model.graph.initializer.append(table)
    ids = np.random.default_rng(0).integers(0, ROWS, (N, 8))
    asked = bring(folder, model, {"ids": ids}, precisions=("fp32", "fp16"), more="tensorrt = false")
    with (folder / "weights.bin").open("wb") as weights:
        weights.truncate(size)
    return asked


@pytest.mark.heavy
@pytest.mark.slow
def test_over_two_gigabytes_are_published_in_fp32(workspace: Workspace, tmp_path: Path) -> None:
    models = workspace.root / "models"
    done = replace(workspace, serves=True).run("export", *with_a_table(tmp_path / "large"), "--repository", models)
    assert done.returncode == 0, done.stderr
    assert "fp16 REFUSED: its weights are too many for FP16: 563,200,000, which take 2.3 GB in FP32" in done.stderr
    release = manifest.verify(models / "large" / "1")
    assert release.served, "a Triton has answered its golden requests"
    sizes = {file.path: file.size_bytes for file in release.files}
    assert sizes["model.onnx.data"] == ROWS * WIDTH * 4 and sizes["model.onnx"] < 10_000
    assert release.variants[0].size_bytes == sizes["model.onnx.data"] + sizes["model.onnx"]
    [location] = {
        entry.value
        for tensor in onnx.load(models / "large" / "1" / "model.onnx", load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert location == "model.onnx.data"
