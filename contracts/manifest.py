"""The release manifest: where a version came from, what was tried, what was proven, what was chosen.

It lies beside the files it describes, `model_repository/<model>/<version>/manifest.json`. Its parts are
contracts/proven, imported from here: who reads a manifest takes them from one place.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from contracts.entities.declaration import Declaration
from contracts.errors import ManifestError, SpecError
from contracts.files.decoded import decode as decode
from contracts.judging.card import Card
from contracts.proven.figures import Figure as Figure
from contracts.proven.figures import Judge as Judge
from contracts.proven.gates import Gate as Gate
from contracts.proven.gates import find_gate as find_gate
from contracts.proven.variants import Choice as Choice
from contracts.proven.variants import Compatibility as Compatibility
from contracts.proven.variants import Difference as Difference
from contracts.proven.variants import Engine as Engine
from contracts.proven.variants import Layer as Layer
from contracts.proven.variants import Recipe as Recipe
from contracts.proven.variants import Timing as Timing
from contracts.proven.variants import Trial as Trial
from contracts.proven.variants import Variant as Variant
from contracts.spec import Task
from contracts.trust.account import Account

FILE_NAME = "manifest.json"
SIGNATURE = "model.sig"  # signs the manifest, so the manifest cannot list it
SCHEMA_VERSION = 4  # what is written
READABLE = (2, 3, 4)  # what was ever published; 4 has bundles
FIRST_SCHEMA = READABLE[0]


@dataclass(frozen=True)
class Source:
    """What a release was made from: a checkpoint of ours, a module or a graph trained elsewhere."""

    file: str  # "best.ckpt", "recogniser.onnx"
    sha256: str
    data_fingerprint: str
    mlflow_run_id: str | None
    git_commit: str | None
    git_dirty: bool | None
    # What the FP32 graph was compared with: "PyTorch", "expected outputs"; None: not with its framework.
    compared_with: str | None = None
    weights: str | None = None  # which of those in the file, where it has several: "current_model_state", "model_ema"
    trained_by: Account | None = None  # who the training ran as; None: elsewhere, or before that was written down

    @property
    def identity(self) -> str:
        """What tells it from other sources: its digest, and which of the weights in it were taken."""
        return f"{self.sha256} {self.weights}" if self.weights else self.sha256


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
    command: str  # what to type to make it again
    source: Source
    tools: Mapping[str, str]
    calibration_samples: int
    test_samples: int
    reference_score: float | None
    gates: tuple[Gate, ...]  # of the release as a whole: the configurations against the spec
    variants: tuple[Variant, ...]
    trials: tuple[Trial, ...]
    sensitivity: tuple[Layer, ...]  # worst first
    choices: tuple[Choice, ...]
    files: tuple[File, ...]
    task: Task = "classification"
    metric: Judge | None = None  # None for a task that has none: numbers alone were compared
    # {input: its smallest and its largest shape that were proven}; a server refuses what is outside.
    proven_range: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    golden: Mapping[str, int] = field(default_factory=dict)  # {model: how many golden requests it has}
    # The models of its bundle, the network first; none in a version that was published before bundles.
    models: tuple[str, ...] = ()
    served: str | None = None  # the Triton that answered its golden requests, "2.51.0"; None: not yet served
    warnings: tuple[str, ...] = ()  # what the samples do not show although every figure looks well
    adopted_from: int | None = None  # the version that its graph and plans are from, where only its bundle is new
    without_tensorrt: str | None = None  # why TensorRT compiled none of it, so that it is served on a CPU alone
    entities: Declaration | None = None  # what callers know and what its tables fill; None: they give all inputs
    # What the reference is worth on the held-out split: each metric of the whole, then of each segment.
    figures: tuple[Figure, ...] = ()
    card: Card | None = None  # what it is for and what not; None: nobody has said
    splits: Mapping[str, int] = field(default_factory=dict)  # {part of the data: its samples}; {}: as it was brought
    exported_by: Account | None = None  # who the export ran as; None: before that was written down
    schema_version: int = SCHEMA_VERSION

    def variant_for(self, file: str) -> Variant:
        """Return the variant that is served as `file`, e.g. "model.onnx".

        Raises:
            ManifestError: this version serves nothing under that name.
        """
        for choice in self.choices:
            for variant in self.variants:
                if choice.file == file and choice.precision == variant.precision:
                    return variant
        raise ManifestError(f"{self.model} version {self.version} serves nothing as {file}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(directory: Path) -> tuple[File, ...]:
    """Describe every file below `directory` but the manifest and its signature, sorted by path."""
    own = {directory / FILE_NAME, directory / SIGNATURE}
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p not in own)
    return tuple(File(p.relative_to(directory).as_posix(), p.stat().st_size, sha256(p)) for p in paths)


def write(manifest: Manifest, directory: Path) -> None:
    """Write `directory`/manifest.json, in today's schema whatever schema it was read from."""
    (directory / FILE_NAME).write_text(text(manifest), encoding="utf-8")


def text(manifest: Manifest) -> str:
    """Return what `write` writes."""
    return json.dumps(asdict(replace(manifest, schema_version=SCHEMA_VERSION)), indent=2) + "\n"


def read(directory: Path) -> Manifest:
    """Read `directory`'s manifest, of any schema that was ever published. What is on disk stays as it was signed.

    Raises:
        ManifestError: it is missing, is not JSON, or has another schema.
    """
    path = directory / FILE_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist", hint="publish a version: python -m export FAMILY") from None
    except ValueError as error:
        raise ManifestError(f"{path} is not valid JSON: {error}") from None
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found not in READABLE:
        raise ManifestError(
            f"{path} has schema version {found}",
            note=f"this version reads {', '.join(map(str, READABLE))}",
            hint="check out the version that published it, or publish the model again: python -m export",
        )
    try:
        return cast("Manifest", decode(Manifest, _as_of_today(raw) if found == 2 else raw))
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path} is not a release manifest: {error!r}") from None
    except SpecError as error:
        raise ManifestError(f"{path} declares what cannot be: {error}") from None


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
        raise ManifestError(
            f"{directory} is not what was published",
            note="; ".join(wrong),
            hint=f"export it again, or serve the version before: python -m deploy rollback {manifest.model}",
        )
    return manifest


def _as_of_today(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest of schema 2, when accuracy was the only metric, as one of schema 3."""
    today = {**raw, "metric": {"name": "accuracy"}, "reference_score": raw["reference_accuracy"]}
    del today["reference_accuracy"]
    today["variants"] = [
        {**{key: value for key, value in variant.items() if key != "accuracy"}, "score": variant["accuracy"]}
        for variant in raw["variants"]
    ]
    return today
