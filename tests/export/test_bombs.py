"""Files of some bytes that would take gigabytes are refused, with the limit."""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from contracts import golden
from contracts.errors import ManifestError, SpecError
from contracts.files import spec_file
from export import graphs
from export.errors import GraphError, SampleError
from export.source.samples import load_arrays


def claims(path: Path, shape: str) -> Path:
    """A .npz whose array says that it has that shape, and has no values."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (0,)})
    text = header.getvalue().replace(b"(0,), }" + b" " * len(shape), f"({shape},), }}".encode().ljust(7 + len(shape)))
    with zipfile.ZipFile(path, "w") as stored:
        stored.writestr("x.npy", text)
    return path


def test_an_array_that_claims_what_no_memory_has(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"would take 274,877,906,944 bytes, and the limit is 17,179,869,184"):
        load_arrays(claims(tmp_path / "samples.npz", str(2**36)))
    claims(tmp_path / golden.FILE_NAME, str(2**36))
    with pytest.raises(ManifestError, match=r"would take 274,877,906,944 bytes, and the limit is 1,073,741,824"):
        golden.read(tmp_path)


def test_zeros_that_are_packed_well(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / golden.FILE_NAME, "w", zipfile.ZIP_DEFLATED) as stored,
        stored.open("x.npy", "w", force_zip64=True) as entry,
    ):
        np.lib.format.write_array_header_1_0(entry, {"descr": "|u1", "fortran_order": False, "shape": (1,)})
        for _ in range(65):
            entry.write(bytes(16 << 20))
    assert (tmp_path / golden.FILE_NAME).stat().st_size < 2 << 20
    with pytest.raises(ManifestError, match="the limit is 1,073,741,824"):
        golden.read(tmp_path)


@pytest.mark.parametrize(("text", "told"), [("a = " + "[" * 100_000, "is not a TOML file"), ("#" * 2**21, "1,048,576")])
def test_a_spec_that_is_too_deep_or_too_large(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "spec.toml").write_text(text)
    with pytest.raises(SpecError, match=told):
        spec_file.read(tmp_path / "spec.toml")


BODIES = {
    "of a shape": "s = Constant <value: tensor = int64[1] {68719476736}> () z = ConstantOfShape (s) y = Add (x, z)",
    "expanded": "shape = Constant <value: tensor = int64[2] {262144, 262144}> () y = Expand (x, shape)",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_a_graph_with_a_constant_that_no_memory_has(tmp_path: Path, body: str) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[1] x) => (float[N] y) {{ {body} }}'
    )
    onnx.save(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size < 1000
    with pytest.raises(GraphError, match=r"has 68,719,476,736 elements\nNote: the limit is 2,147,483,648"):
        graphs.load(tmp_path / "model.onnx")
