"""The release manifest: where a version came from, what was tried, what was proven, what was chosen.

It lies beside the files it describes, `model_repository/<model>/<version>/manifest.json`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from contracts.errors import ManifestError
from contracts.spec import Precision

FILE_NAME = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Source:
    """What a release was made from."""

    checkpoint: str
    checkpoint_sha256: str
    data_fingerprint: str
    mlflow_run_id: str | None
    git_commit: str | None
    git_dirty: bool | None


@dataclass(frozen=True)
class Gate:
    """One proof: a figure, its limit, and whether it held."""

    name: str
    figure: float
    limit: float
    bound: Literal["at most", "at least"]

    @property
    def passed(self) -> bool:
        return self.figure <= self.limit if self.bound == "at most" else self.figure >= self.limit

    def __str__(self) -> str:
        return f"{self.name} {self.figure:.5g} (limit: {self.bound} {self.limit:g})"


@dataclass(frozen=True)
class Engine:
    """An engine that a TensorRT library built from a variant's graph."""

    library: str  # "tensorrt_rtx 1.7.1.116"
    size_bytes: int
    build_s: float
    # Share of convolution and matrix-multiply layers computed in each dtype, {"INT8": 0.9, "FLOAT": 0.1}.
    dtype_share: Mapping[str, float]
    # The proofs of the engine's own answers; only where it could run, on a GPU.
    gates: tuple[Gate, ...] = ()

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Variant:
    """One precision of the network and everything measured on it. `gates` are those of its ONNX graph."""

    precision: Precision
    accuracy: float  # share of the whole test split
    gates: tuple[Gate, ...]
    size_bytes: int
    sha256: str
    engine: Engine | None = None
    # Median of one call on the machine that exported, {"model.onnx": {batch size: ms}}. Passing variants only.
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Choice:
    """The variant behind one file that a server loads, and why it is that one."""

    file: str  # "model.onnx" for CPU, "model.plan" for GPU
    precision: Precision
    reason: str


@dataclass(frozen=True)
class File:
    """A file of the release, relative to its version directory."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything about one published version."""

    family: str
    model: str
    version: int
    created_at: str  # UTC, ISO 8601
    source: Source
    tools: Mapping[str, str]
    calibration_images: int
    test_images: int
    checkpoint_accuracy: float
    variants: tuple[Variant, ...]
    choices: tuple[Choice, ...]
    files: tuple[File, ...]
    schema_version: int = SCHEMA_VERSION

    def served(self, file: str) -> Variant:
        """The variant behind `file`, e.g. "model.onnx"."""
        precision = next(c.precision for c in self.choices if c.file == file)
        return next(v for v in self.variants if v.precision == precision)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(directory: Path) -> tuple[File, ...]:
    """Every file below `directory` but the manifest itself, in a stable order."""
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != FILE_NAME)
    return tuple(File(p.relative_to(directory).as_posix(), p.stat().st_size, sha256(p)) for p in paths)


def write(manifest: Manifest, directory: Path) -> None:
    (directory / FILE_NAME).write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def read(directory: Path) -> Manifest:
    """Read `directory`'s manifest.

    Raises:
        ManifestError: it is missing, is not JSON, or has another schema.
    """
    path = directory / FILE_NAME
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist", hint="publish a version: python -m export FAMILY") from None
    except ValueError as error:
        raise ManifestError(f"{path} is not valid JSON: {error}") from None
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found != SCHEMA_VERSION:
        raise ManifestError(f"{path} has schema version {found}", note=f"expected {SCHEMA_VERSION}")
    try:
        return _from_json(raw)
    except (KeyError, TypeError) as error:
        raise ManifestError(f"{path} is not a release manifest: {error!r}") from None


def verify(directory: Path) -> Manifest:
    """Read the manifest and compare every file with it.

    Raises:
        ManifestError: naming each file that is missing, changed or not listed.
    """
    manifest = read(directory)
    listed = {f.path: f for f in manifest.files}
    present = {f.path: f for f in files_of(directory)}
    wrong = [f"missing: {p}" for p in sorted(listed.keys() - present.keys())]
    wrong += [f"not in the manifest: {p}" for p in sorted(present.keys() - listed.keys())]
    wrong += [f"changed: {p}" for p in sorted(listed.keys() & present.keys()) if listed[p] != present[p]]
    if wrong:
        raise ManifestError(f"{directory} is not what was published", note="; ".join(wrong))
    return manifest


def _engine(raw: dict[str, Any]) -> Engine:
    return Engine(**{**raw, "gates": tuple(Gate(**g) for g in raw["gates"])})


def _from_json(raw: dict[str, Any]) -> Manifest:
    variants = tuple(
        Variant(
            **{
                **v,
                "gates": tuple(Gate(**g) for g in v["gates"]),
                "engine": _engine(v["engine"]) if v["engine"] else None,
            }
        )
        for v in raw["variants"]
    )
    return Manifest(
        **{
            **raw,
            "source": Source(**raw["source"]),
            "variants": variants,
            "choices": tuple(Choice(**c) for c in raw["choices"]),
            "files": tuple(File(**f) for f in raw["files"]),
        }
    )
