"""A precision of the network and everything measured on it: its engine, its timings, the recipes that were tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from contracts.proven.gates import Gate
from contracts.spec import Precision

# The GPUs that a plan runs on: those of the model that built it, of its compute capability, or Ampere and newer.
Compatibility = Literal["none", "same_compute_capability", "ampere_plus"]


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
