"""The release manifest: where a version came from, what was tried, what was proven, what was chosen.

It lies beside the files it describes, `model_repository/<model>/<version>/manifest.json`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from contracts.entities.declaration import Declaration
from contracts.errors import ManifestError, SpecError
from contracts.judging.card import Card
from contracts.spec import Precision, Task
from contracts.trust.account import Account

FILE_NAME = "manifest.json"
SIGNATURE = "model.sig"  # signs the manifest, so the manifest cannot list it
SCHEMA_VERSION = 4  # what is written
READABLE = (2, 3, 4)  # what was ever published; 4 has bundles
FIRST_SCHEMA = READABLE[0]

# The GPUs that a plan runs on: those of the model that built it, of its compute capability, or Ampere and newer.
Compatibility = Literal["none", "same_compute_capability", "ampere_plus"]


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


# What begins the name of a gate in versions that were published before gates had ids, and the id it has now.
# Of a prefix that ends with a space the rest of the name follows the id.
_IDS = {
    "accuracy drop": "metric_drop",
    "agreement": "agreement",
    "compiled by TensorRT": "compiled",
    "computed in": "computed_share",
    "contract: ": "contract",
    "inf or nan": "finite",
    "inspected: computed in": "inspected_share",
    "largest difference of ": "largest_difference",
    "loads in the server's TensorRT": "server_tensorrt",
    "made": "made",
    "model.": "worth_it",
    "Q/DQ not signed and symmetric": "qdq_symmetric",
    "quantized": "quantized",
}


@dataclass(frozen=True)
class Gate:
    """One proof: a figure, its limit, and whether it held."""

    name: str  # for people, who read it in tables; whoever looks for a gate asks for its id
    figure: float
    limit: float
    bound: Literal["at most", "at least"]
    detail: str = ""  # what the figure does not say: which tensors, which layers, which file
    id: str = ""  # "agreement", "largest_difference:logits"
    needed: int | None = None  # it failed, and its samples are too few to tell: about so many would

    def __post_init__(self) -> None:
        known = self.id or _id_of(self.name)
        # As it was called while accuracy was the only metric.
        object.__setattr__(self, "id", "metric_drop" if known == "accuracy_drop" else known)

    @property
    def passed(self) -> bool:
        """Whether the figure is within the limit; one that is no number never is."""
        return self.figure <= self.limit if self.bound == "at most" else self.figure >= self.limit

    def __str__(self) -> str:
        said = f"{self.name} {self.figure:.5g} (limit: {self.bound} {self.limit:g})"
        said = f"{said}: {self.detail}" if self.detail else said
        return f"{said}; too few samples to tell, about {self.needed:,} would" if self.needed else said


@dataclass(frozen=True)
class Engine:
    """An engine that a TensorRT library built from a variant's graph, and the machine it was built on."""

    library: str  # "tensorrt_rtx 1.7.1.116"
    size_bytes: int
    build_s: float
    # Share of convolution and matrix-multiply layers in each dtype, {"INT8": 0.9, "HALF": 0.1}: the network's, as
    # TensorRT reads the graph. Which kernels it then picks is in `inspected_share`.
    dtype_share: Mapping[str, float]
    cuda: str | None = None  # None: built without a GPU
    driver: str | None = None
    compute_capability: str | None = None  # "9.0"
    hardware_compatible: bool = False  # runs on Ampere and everything newer, not on this architecture alone
    # {input: its smallest, optimal and largest shape}
    profile: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    # The proofs of the engine's own answers; only where it could run, on a GPU.
    gates: tuple[Gate, ...] = ()
    gpu: str | None = None  # that built and timed it, "NVIDIA H100 80GB HBM3"
    compatibility: Compatibility | None = None  # TensorRT's word for the GPUs it runs on; None: nobody wrote it down
    tf32: bool = False  # whether its FP32 layers may round to 10 bits
    graph_sha256: str = ""  # of the graph that it was built from, where that is not the one served on a CPU
    # The same shares by what the engine's inspector says of the layers that TensorRT fused; {}: nobody could ask it.
    inspected_share: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Timing:
    """What one call costs on the machine that exported, {batch size: figure}.

    Of a plan it is the GPU's time, from inputs to outputs that lie in its memory.
    """

    median_ms: Mapping[str, float]
    p99_ms: Mapping[str, float]
    samples_per_s: Mapping[str, float]
    # Its time as a share of the best more precise variant's, in paired runs. None for the most precise one.
    worth_it: Gate | None = None
    how: str = ""  # of a plan: "replays of a CUDA graph", "launches" where none could be captured
    # Of a plan: the median of a call from Python, with its copies from and to pageable memory. No server runs it so.
    from_python_ms: Mapping[str, float] = field(default_factory=dict)
    interval_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of the median, 95 %: its two ends
    disturbed: str = ""  # why a 99th percentile is far from its median, also when it was measured again


@dataclass(frozen=True)
class Recipe:
    """How an INT8 or FP8 graph was made."""

    quantizer: str  # "modelopt", "onnxruntime"
    method: str  # "entropy", "max", …
    samples: int  # that the activation ranges come from
    left_out: tuple[str, ...] = ()  # layers kept in FP32, in the module's terms
    precision: Precision = "int8"

    def __str__(self) -> str:
        count = len(self.left_out)
        left_out = f", {count} layer{'s' * (count > 1)} left in FP32" if count else ""
        kind = "" if self.precision == "int8" else f"{self.precision} "
        return f"{kind}{self.quantizer} {self.method}, {self.samples} samples{left_out}"


@dataclass(frozen=True)
class Trial:
    """One recipe of 8 bits that was tried, measured on the search split (never on the held-out one)."""

    recipe: Recipe
    gates: tuple[Gate, ...]
    error: float  # RMS difference of the answer output from the FP32 graph's, as a share of its RMS
    seconds: float

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Layer:
    """What computing one layer alone in 8 bits costs: the same error as a Trial's."""

    name: str  # in the module's terms
    error: float


@dataclass(frozen=True)
class Difference:
    """How far an output of a variant is from its reference's, over all elements of the held-out split."""

    largest: float  # absolute difference of any element
    mean: float  # absolute difference
    p99: float  # 99 % of the absolute differences are not above it
    relative: float  # RMS difference, as a share of the reference's RMS


@dataclass(frozen=True)
class Variant:
    """One precision of the network and everything measured on it. `gates` are those of its ONNX graph."""

    precision: Precision
    score: float | None  # the metric's figure on the whole held-out split; None where nothing is labelled
    gates: tuple[Gate, ...]
    size_bytes: int
    sha256: str
    engine: Engine | None = None
    timings: Mapping[str, Timing] = field(default_factory=dict)  # {"model.onnx": …}; passing variants only
    recipe: Recipe | None = None  # of an INT8 or FP8 graph
    kept_fp32: tuple[str, ...] = ()  # layers of an FP16 graph that would overflow or err, and why
    differences: Mapping[str, Difference] = field(default_factory=dict)  # {output: …}

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Choice:
    """The variant behind one file that a server loads, and why it is that one."""

    file: str  # "model.onnx" for CPU, "model.sm90.plan" for a GPU
    precision: Precision
    reason: str
    engine: Engine | None = None  # of a plan: the one in this file, which another machine may have built
    graph_sha256: str = ""  # of a plan: the graph that it was built from


@dataclass(frozen=True)
class File:
    """A file of the release, relative to its version directory."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Judge:
    """The metric that a release was judged by."""

    name: str  # "accuracy"
    better: Literal["higher", "lower"] = "higher"
    share: bool = True  # of one: shown in percent, its loss in percentage points

    def shown(self, value: float | None) -> str:
        """Return a figure of it as people read it."""
        return "—" if value is None else f"{value:.4f}" if self.share else f"{value:.5g}"


@dataclass(frozen=True)
class Figure:
    """A metric of the reference on the held-out split, or on a segment of it, with its 95 % confidence interval."""

    metric: Judge
    segment: str  # "October"; "" for the whole split
    samples: int
    value: float | None  # None: there is none, as of the area under a curve where all is of one class
    low: float | None  # None: so few samples have no interval
    high: float | None


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


def find_gate(gates: Iterable[Gate], gate_id: str) -> Gate | None:
    """Return the first gate with this id, or None: a variant without labels has no accuracy to lose."""
    return next((gate for gate in gates if gate.id == gate_id), None)


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


def decode(kind: Any, raw: Any) -> Any:
    """Turn `raw`, as json.loads made it, into the annotated type `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast("Any", kind)(**{name: decode(hints[name], value) for name, value in raw.items()})
    if origin is tuple:
        return tuple(decode(arguments[0], value) for value in raw)
    if origin is Mapping:
        return {key: decode(arguments[1], value) for key, value in raw.items()}
    if origin is UnionType and raw is not None:  # only "… | None" is used
        return decode(arguments[0], raw)
    return raw


def _as_of_today(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest of schema 2, when accuracy was the only metric, as one of schema 3."""
    today = {**raw, "metric": {"name": "accuracy"}, "reference_score": raw["reference_accuracy"]}
    del today["reference_accuracy"]
    today["variants"] = [
        {**{key: value for key, value in variant.items() if key != "accuracy"}, "score": variant["accuracy"]}
        for variant in raw["variants"]
    ]
    return today


def _id_of(name: str) -> str:
    for prefix, kind in _IDS.items():
        if name.startswith(prefix):
            return f"{kind}:{name.removeprefix(prefix)}" if prefix.endswith(" ") else kind
    return name
