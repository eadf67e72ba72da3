"""The large model: a release of ResNet-50 and its golden requests, made once and kept with the results."""

import datetime
import hashlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import results
from contracts import bundle, golden, layout, manifest
from contracts.golden import GoldenRequest
from contracts.manifest import Choice, Manifest, Source, Variant

MODEL, NETWORK = "photo", "photo_network"
_SOURCES = Path(__file__).with_name("photo_repository")
# The same in every step.
_ADAPTER = layout.ROOT / "model_repository" / f"{layout.DEFAULT_FAMILY}_preprocess" / "1" / "model.py"
_PHOTOS = 16
_SIZE = 224
_LEAST_GAP = 1e-2  # between two of the likeliest: what a batch is does not change their order


def repository() -> Path:
    """Return the model repository with the large model; make it where it is not there, which takes half a minute."""
    home = results.directory() / f"large-{_digest()}"
    if not home.is_dir():
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            made = Path(scratch, "repository")
            _make(made)
            if not home.is_dir():  # another run may have been faster
                made.rename(home)
    return home


def photos(count: int, seed: int = 0) -> list[bytes]:
    """Make JPEGs of 224×224 that are about as large as real ones: smooth colours with some detail."""
    drawn = np.random.default_rng(seed)
    return [_jpeg(drawn) for _ in range(count)]


def _jpeg(drawn: np.random.Generator) -> bytes:
    picture = np.zeros((_SIZE, _SIZE, 3))
    for cells in (4, 14, 56):  # coarse to fine
        noise = Image.fromarray(drawn.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        picture += np.asarray(noise.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC), np.float64) / cells
    picture = 255 * (picture - picture.min()) / (picture.max() - picture.min())
    encoded = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def _digest() -> str:
    files = sorted(path for path in _SOURCES.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    own = (Path(__file__), Path(__file__).with_name("resnet.py"), _ADAPTER)
    return hashlib.sha256(b"".join(path.read_bytes() for path in (*own, *files))).hexdigest()[:12]


def _make(root: Path) -> None:
    import torch

    from benchmarks.peers import resnet

    shutil.copytree(_SOURCES, root, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_ADAPTER, root / "photo_preprocess" / "1")
    version = root / NETWORK / "1"
    version.mkdir()
    encoded = photos(4 * _PHOTOS)
    pixels = np.stack([_pixels(photo) for photo in encoded])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of what it will be one day
        resnet.write(version / "model.onnx", torch.from_numpy(pixels[:_PHOTOS]))
    requests = _golden(version / "model.onnx", encoded, pixels)
    golden.write(requests, version)
    models = bundle.write(root, NETWORK, version)
    manifest.write(_manifest(version, models, len(requests)), version)


def _pixels(encoded: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def _golden(graph: Path, encoded: Sequence[bytes], pixels: NDArray[np.uint8]) -> list[GoldenRequest]:
    """Answer one photo at a time; keep those whose likeliest classes are clear."""
    import onnxruntime as ort

    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found: list[GoldenRequest] = []
    for photo, one in zip(encoded, pixels, strict=True):
        classes, scores = session.run(["classes", "scores"], {"pixels": one[np.newaxis]})
        if float((1 - scores[0, 1:] / scores[0, :-1]).min()) > _LEAST_GAP and len(found) < _PHOTOS:
            inputs = {"photo": np.array([[photo]], np.object_)}
            found.append(GoldenRequest(MODEL, inputs, {"classes": classes, "scores": scores}, {"scores": 1e-5}))
    assert found, "no photo has clear classes"
    return found


def _manifest(version: Path, models: tuple[str, ...], requests: int) -> Manifest:
    graph = manifest.sha256(version / "model.onnx")
    return Manifest(
        family=MODEL,
        model=NETWORK,
        version=1,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command="python -m benchmarks peers --models large",
        source=Source("model.onnx", graph, "", None, None, None),
        tools={},
        calibration_samples=0,
        test_samples=requests,
        reference_score=None,
        gates=(),
        variants=(Variant("fp32", None, (), (version / "model.onnx").stat().st_size, graph),),
        trials=(),
        sensitivity=(),
        choices=(Choice("model.onnx", "fp32", "random weights: there is nothing to prove"),),
        files=manifest.files_of(version),
        golden={MODEL: requests},
        models=models,
    )
