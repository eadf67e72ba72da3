"""A graph that was trained elsewhere is taken with real inputs that fit it, or refused with what does not."""

import dataclasses
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contracts import manifest
from contracts.samples import Group, Split
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export import graphs
from export.errors import GraphError, SampleError
from export.proof import contract
from export.source.graph_file import from_graph
from export.source.samples import read_samples

BATCH, WIDTH = DynamicDim("batch", 1, 8, 64), DynamicDim("width", 4, 8, 16)
SPEC = ModelSpec(
    family="toy",
    model="toy",
    inputs=(TensorSpec("x", "float32", (BATCH, WIDTH)),),
    outputs=(TensorSpec("y", "float32", (BATCH, WIDTH)),),
    limits={"fp32": Limits({"y": 1e-6}, agreement=1.0)},
)
X = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
LABELS = X.argmax(axis=1)

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """y = relu(x), of any batch and width."""
    return write_graph(tmp_path / "relu.onnx", ["n", "w"])


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "samples.npz", {"x": X, "labels": LABELS})


def only(split: Split) -> Group:
    [group] = split.groups
    return group


def write_graph(path: Path, dims: list[str | int | None]) -> Path:
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in "xy"]
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", io[:1], io[1:])
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def write_samples(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    return path


def test_half_of_the_samples_calibrates_and_the_other_half_is_held_out(graph: Path, samples: Path) -> None:
    found = from_graph(graph, SPEC, [samples], calibration_samples=10)
    assert (len(found.calibration), len(found.search), len(found.held_out)) == (10, 25, 25)
    assert np.array_equal(only(found.calibration).inputs["x"], X[:10])
    assert np.array_equal(only(found.search).inputs["x"], X[:25])
    assert np.array_equal(only(found.held_out).inputs["x"], X[25:])
    assert found.held_out.targets is not None and np.array_equal(found.held_out.targets[0], LABELS[25:])


def test_its_reference_is_the_graph_itself_and_its_source_both_files(
    graph: Path, samples: Path, tmp_path: Path
) -> None:
    found = from_graph(graph, SPEC, [samples], calibration_samples=10)
    assert np.array_equal(found.reference()(only(found.held_out).inputs)["y"], X[25:].clip(0))
    assert (found.origin.file, found.origin.sha256) == ("relu.onnx", manifest.sha256(graph))
    assert found.origin.data_fingerprint == manifest.sha256(samples)
    found.write_graph(tmp_path / "fp32.onnx")
    assert contract.graph_gate(graphs.load(tmp_path / "fp32.onnx"), SPEC).passed


def test_labels_may_be_missing(graph: Path, tmp_path: Path) -> None:
    found = from_graph(graph, SPEC, [write_samples(tmp_path / "x.npz", {"x": X})], calibration_samples=10)
    assert found.search.targets is None and found.held_out.targets is None


@pytest.mark.parametrize(("end", "shape"), [("min", (1, 4)), ("opt", (8, 8)), ("max", (64, 16))])
def test_at_the_ends_of_the_dimensions_real_inputs_are_cut_or_repeated(
    graph: Path, samples: Path, end: str, shape: tuple[int, int]
) -> None:
    found = from_graph(graph, SPEC, [samples], calibration_samples=10).inputs_at(end)
    values = only(found).inputs["x"]
    assert values.shape == shape
    rows, columns = np.indices(shape)
    assert np.array_equal(values, X[25:][rows % 25, columns % 8])


def test_a_dimension_that_the_graph_leaves_open_and_the_spec_does_not_is_fixed(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.npz", {"x": X})
    x, y = (TensorSpec(name, "float32", (BATCH, 8)) for name in "xy")
    fixed = ModelSpec("toy", "toy", (x,), (y,), {}, task="values")
    open_ended = write_graph(tmp_path / "open.onnx", [None, None])
    from_graph(open_ended, fixed, [samples], calibration_samples=10).write_graph(tmp_path / "fp32.onnx")
    assert graphs.io_tensors(onnx.load(tmp_path / "fp32.onnx"))[0] == {"x": ("float32", (-1, 8))}


@pytest.mark.parametrize(
    ("dims", "told"),
    [
        ([16, "w"], r"input 'x' has dims \[16, -1\], not \[-1, -1\], it is baked in"),
        (["n", 8], r"input 'x' has dims \[-1, 8\], not \[-1, -1\], it is baked in"),
        (["n", 3, "w"], r"input 'x' has dims \[-1, 3, -1\], not \[-1, -1\]"),
    ],
)
def test_a_graph_that_is_not_what_the_spec_says_is_refused(
    tmp_path: Path, samples: Path, dims: list[str | int | None], told: str
) -> None:
    path = write_graph(tmp_path / "other.onnx", dims)
    with pytest.raises(GraphError, match=rf"other\.onnx is not what the spec says\nNote: {told}"):
        from_graph(path, SPEC, [samples], calibration_samples=10)


def test_other_weights_in_an_external_file_are_another_source(tmp_path: Path, samples: Path) -> None:
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "w"]) for name in "xy"]
    digests = set()
    for scale in (1.0, 2.0):
        weight = numpy_helper.from_array(np.full((1,), scale, np.float32), "s")
        body = helper.make_graph([helper.make_node("Mul", ["x", "s"], ["y"])], "scaled", io[:1], io[1:], [weight])
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path = tmp_path / "scaled.onnx"
        (tmp_path / "weights").unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
        digests.add(from_graph(path, SPEC, [samples], calibration_samples=10).origin.sha256)
    assert len(digests) == 2


def test_a_graph_that_gives_out_a_sequence_is_refused(tmp_path: Path, samples: Path) -> None:
    """As scikit-learn's converter writes them."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "w"])
    y = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("SequenceConstruct", ["x"], ["y"])], "sequence", [x], [y])
    path = tmp_path / "sequence.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(GraphError, match="'y' is no tensor, but a sequence_type"):
        from_graph(path, SPEC, [samples], calibration_samples=10)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, samples: Path) -> None:
    with pytest.raises(GraphError, match=r"none\.onnx does not exist"):
        from_graph(tmp_path / "none.onnx", SPEC, [samples], calibration_samples=10)
    with pytest.raises(GraphError, match=r"samples\.npz is no ONNX graph"):
        from_graph(samples, SPEC, [samples], calibration_samples=10)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garble_the_data(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x.npy").header_offset + 60
    content = bytearray(path.read_bytes())
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)


def pickle_it(path: Path) -> None:
    np.savez(path, x=np.array([object()] * 50))


def save_one_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, X)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (Path.unlink, "does not exist"),
        (truncate, "is no .npz of plain arrays, or a damaged one\nNote: File is not a zip file"),
        (garble_the_data, "is no .npz of plain arrays, or a damaged one\nNote: Error -3 while decompressing"),
        (pickle_it, "is no .npz of plain arrays, or a damaged one\nNote: Object arrays cannot be loaded"),
        (save_one_array, "is no .npz of plain arrays, or a damaged one"),
        (lambda path: path.write_bytes(b""), "is no .npz of plain arrays, or a damaged one"),
        (lambda path: path.write_text("x"), "is no .npz of plain arrays, or a damaged one"),
    ],
)
def test_a_file_that_holds_no_samples_is_refused(
    graph: Path, samples: Path, damage: Callable[[Path], object], told: str
) -> None:
    damage(samples)
    with pytest.raises(SampleError, match=re.escape(f"{samples} {told}")):
        from_graph(graph, SPEC, [samples], calibration_samples=10)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"image": X}, "holds image\nNote: the inputs of the spec are x"),
        ({"x": X, "mask": X}, "holds x, mask\nNote: the inputs of the spec are x"),
        ({"labels": LABELS}, "holds nothing\nNote: the inputs of the spec are x"),
        ({"x": X.astype(np.float64)}, "is float64\nNote: the spec says float32"),
        ({"x": X[:, :3]}, "has shape [50, 3]\nNote: the spec: "),
        ({"x": np.tile(X, 3)}, "has shape [50, 24]\nNote: the spec: "),
        ({"x": X[:, None]}, "has shape [50, 1, 8]\nNote: the spec: "),
        ({"x": np.float32(1)}, "has shape []\nNote: the spec: "),
        ({"x": np.where(X > 2, np.nan, X).astype(np.float32)}, "has inf or nan in it"),
        ({"x": X[:39]}, "has 39 samples\nNote: at least 40 are needed"),
        ({"x": X, "labels": LABELS[:49]}, "has 49 and 50 samples"),
        ({"x": X, "labels": LABELS[:, None]}, "are int64 [50, 1]\nNote: class indices [N]"),
        ({"x": X, "labels": LABELS.astype(np.float32)}, "are float32 [50]\nNote: class indices [N]"),
        ({"x": X, "labels": np.int64(3)}, "are int64 []\nNote: class indices [N]"),
    ],
)
def test_samples_that_do_not_fit_the_spec_are_refused(graph: Path, tmp_path: Path, arrays: Arrays, told: str) -> None:
    path = write_samples(tmp_path / "samples.npz", arrays)
    with pytest.raises(SampleError) as refused:
        from_graph(graph, SPEC, [path], calibration_samples=10)
    assert f"{path} {told}" in str(refused.value)


def test_labels_that_are_sorted_are_told_before_there_is_half_a_curve(graph: Path, tmp_path: Path) -> None:
    x, y = TensorSpec("x", "float32", (BATCH, WIDTH)), TensorSpec("y", "float32", (BATCH, 1))
    limits = {"fp32": Limits({"y": 1e-6}, agreement=1.0)}
    spec = ModelSpec("toy", "toy", (x,), (y,), limits, task="binary")  # type: ignore[arg-type]  # one precision
    path = write_samples(tmp_path / "sorted.npz", {"x": X, "labels": np.arange(50) >= 25})
    with pytest.raises(SampleError, match=r"every label of the first half of .*sorted\.npz is 0\n(?s:.*)shuffle: "):
        read_samples([path], spec)
    shuffled = write_samples(tmp_path / "shuffled.npz", {"x": X, "labels": np.arange(50) % 2})
    assert len(read_samples([shuffled], spec)) == 50


ORDERS: dict[str, tuple[NDArray[np.int64], str | None]] = {
    "shuffled": (np.random.default_rng(0).permutation(np.arange(50) % 8), None),
    "of one class": (np.zeros(50, np.int64), None),  # which is said later, with what it does not show
    "sorted": (
        np.arange(50) // 7,
        "the other is held out: 7 of 8 classes are in one of them alone, as 0 is",
    ),
    "sorted downwards": (7 - np.arange(50) // 7, "lie sorted by their labels"),
    "in blocks": (np.array([3, 7, 0, 5])[np.arange(50) // 13], "lie sorted by their labels"),
    "in two blocks": ((np.arange(50) >= 25).astype(np.int64) + 2, "every label of the first half"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_samples_that_lie_sorted_by_their_labels_are_refused(tmp_path: Path, order: str) -> None:
    """One half would calibrate on classes that the other, which proves, has none of."""
    labels, told = ORDERS[order]
    spec = dataclasses.replace(SPEC, outputs=(TensorSpec("y", "float32", (BATCH, 8)),))
    path = write_samples(tmp_path / "samples.npz", {"x": X, "labels": labels})
    if told is None:
        assert len(read_samples([path], spec)) == 50
        return
    with pytest.raises(SampleError) as refused:
        read_samples([path], spec)
    assert told in str(refused.value) and "shuffle: order =" in str(refused.value)


def test_a_class_a_file_is_in_both_halves(tmp_path: Path) -> None:
    files = [
        write_samples(tmp_path / f"{label}.npz", {"x": X, "labels": np.full(50, label, np.int64)}) for label in (0, 1)
    ]
    assert len(read_samples(files, SPEC)) == 100


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (np.eye(8, dtype=np.int64)[LABELS], "labels.argmax(axis=1)"),
        (LABELS[:, None], "labels[:, 0]"),
        (LABELS.astype(np.float32), "labels.astype(int)"),
        (np.array(list("abcdefgh"))[LABELS], "names.index(label)"),
        (LABELS + 1, "labels - 1"),
    ],
)
def test_labels_in_another_form_are_told_the_call_that_makes_class_indices(
    tmp_path: Path, labels: NDArray[np.generic], hint: str
) -> None:
    spec = dataclasses.replace(SPEC, outputs=(TensorSpec("y", "float32", (BATCH, 8)),), labels=tuple("abcdefgh"))
    path = write_samples(tmp_path / "samples.npz", {"x": X, "labels": labels})
    with pytest.raises(SampleError) as refused:
        read_samples([path], spec)
    assert hint in str(refused.value)
