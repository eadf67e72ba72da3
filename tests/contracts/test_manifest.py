"""A manifest says what was published, and notices when that has changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from contracts import manifest
from contracts.errors import ManifestError
from contracts.manifest import Choice, Engine, Gate, Layer, Manifest, Recipe, Source, Timing, Trial, Variant
from tests.workspace import FAMILY, MODEL


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    variant = Variant(
        precision="fp16",
        score=0.9,
        gates=(Gate("top-1 agreement", 0.999, 0.998, "at least"),),
        size_bytes=7,
        sha256=manifest.sha256(tmp_path / "model.onnx"),
        engine=Engine("tensorrt_rtx 1.7", 100, 0.1, {"HALF": 1.0}),
        timings={"model.onnx": Timing({"1": 0.2}, {"1": 0.3}, {"1": 5000.0}, Gate("time", 0.5, 0.9, "at most"))},
        recipe=Recipe("modelopt", "max", 64, ("a",)),
    )
    release = Manifest(
        family=FAMILY,
        model=MODEL,
        version=1,
        created_at="2026-01-01T00:00:00+00:00",
        source=Source("best.ckpt", "00", "11", None, None, None),
        tools={"torch": "2.13.0"},
        command=f"python -m export {FAMILY}",
        calibration_samples=5,
        test_samples=10,
        reference_score=0.9,
        gates=(Gate("contract: config.pbtxt", 0, 0, "at most"),),
        variants=(variant,),
        trials=(Trial(Recipe("modelopt", "max", 64), variant.gates, 0.1, 2.0),),
        sensitivity=(Layer("a", 0.1),),
        choices=(Choice("model.onnx", "fp16", "the only one"),),
        files=manifest.files_of(tmp_path),
    )
    manifest.write(release, tmp_path)
    return tmp_path


def test_what_is_written_is_read_back(published: Path) -> None:
    release = manifest.verify(published)
    assert release.variants[0].engine == Engine("tensorrt_rtx 1.7", 100, 0.1, {"HALF": 1.0})
    assert release.variant_for("model.onnx").precision == "fp16"
    assert release.files[0].path == "model.onnx"
    manifest.write(release, published)
    assert manifest.read(published) == release


def test_one_flipped_byte_is_named(published: Path) -> None:
    (published / "model.onnx").write_bytes(b"weighty")
    with pytest.raises(ManifestError, match=r"changed: model\.onnx"):
        manifest.verify(published)


def test_a_missing_and_an_unlisted_file_are_named(published: Path) -> None:
    (published / "model.onnx").rename(published / "other.onnx")
    with pytest.raises(ManifestError, match=r"missing: model\.onnx; not in the manifest: other\.onnx"):
        manifest.verify(published)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "schema version None"), ('{"schema_version": 99}', "schema version 99")],
)
def test_what_is_no_manifest_is_refused(published: Path, text: str, message: str) -> None:
    (published / manifest.FILE_NAME).write_text(text)
    with pytest.raises(ManifestError, match=message):
        manifest.read(published)


def test_a_manifest_without_a_field_is_refused(published: Path) -> None:
    raw = json.loads((published / manifest.FILE_NAME).read_text())
    del raw["source"]
    (published / manifest.FILE_NAME).write_text(json.dumps(raw))
    with pytest.raises(ManifestError, match="not a release manifest"):
        manifest.read(published)


def test_no_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="python -m export"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("figure", "bound", "passed"),
    [(0.5, "at most", True), (0.51, "at most", False), (0.5, "at least", True), (0.49, "at least", False)],
)
def test_a_gate_holds_at_its_limit_and_not_beyond(figure: float, bound: str, passed: bool) -> None:
    gate = replace(Gate("g", 0, 0.5, "at most"), figure=figure, bound=bound)
    assert gate.passed is passed
