"""Two releases of one family that differ in everything but the names of their models, so that a mixture shows.

`switch` is an ensemble of three Python models: `switch_before` -> `switch_network` -> `switch_after`. Output names,
types between the steps, batching, largest batches, labels and code are each release's own. The pre-processing tags a
number with its release, the network takes only its own release's tag, and the post-processing adds its release's label
to what the network made: an answer tells of all three.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contracts import golden, manifest, repository
from contracts.golden import GoldenRequest
from contracts.manifest import Manifest, Source

ENSEMBLE, NETWORK, _BEFORE, _AFTER = "switch", "switch_network", "switch_before", "switch_after"
INPUT = "x"
MOST = 1000  # the inputs are whole numbers below


@dataclass(frozen=True)
class Kind:
    """What is a release's own."""

    number: int
    output: str  # of the network and of the ensemble
    dtype: str  # between pre-processing and network, numpy's name
    rows: int  # of the largest batch
    batching: str
    label: str
    factor: int  # that the network multiplies by

    def answer(self, x: int) -> str:
        """Return the right answer to one number."""
        return f"{self.label} {self.factor * x}"


KINDS = (
    Kind(1, "first", "float32", rows=4, batching="", label="coat", factor=2),
    Kind(2, "second", "int32", rows=8, batching="dynamic_batching { }", label="shoe", factor=3),
)
_TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32"}
_STEP = """
backend: "python"
max_batch_size: {rows}
{batching}
input [ {{ name: "{taken}" data_type: {taken_type} dims: [ 1 ] }} ]
output [ {{ name: "{made}" data_type: {made_type} dims: [ 1 ] }} ]
"""
_WHOLE = """
platform: "ensemble"
max_batch_size: {rows}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_STRING dims: [ 1 ] }} ]
ensemble_scheduling {{ step [
  {{ model_name: "switch_before" model_version: -1
     input_map {{ key: "x" value: "x" }} output_map {{ key: "tagged" value: "tagged" }} }},
  {{ model_name: "switch_network" model_version: -1
     input_map {{ key: "tagged" value: "tagged" }} output_map {{ key: "{output}" value: "number" }} }},
  {{ model_name: "switch_after" model_version: -1
     input_map {{ key: "number" value: "number" }} output_map {{ key: "labelled" value: "{output}" }} }}
] }}
"""
_CODE = """
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        labels = Path(args["model_repository"], "labels.txt")
        self.label = labels.read_text().strip() if labels.exists() else ""

    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "{taken}").as_numpy()
        return pb_utils.Tensor("{made}", {answer})
"""
_TAG = '(x + {tag}).astype("{dtype}")'
_MULTIPLY = "np.where((x >= {tag}) & (x < {tag} + 1000), (x - {tag}) * {factor}, -1).astype(np.float32)"
_LABEL = 'np.array([[f"{self.label} {n:.0f}".encode()] for [n] in x], np.object_)'


def publish(root: Path, kind: Kind) -> None:
    """Publish a release of that kind in the repository `root`, where it has to be the next one."""
    network = root / NETWORK
    network.mkdir(parents=True, exist_ok=True)
    files = _files(kind)
    (network / "config.pbtxt").write_text(files[f"release/{NETWORK}/config.pbtxt"])
    with repository.new_version(network) as staged:
        for name, text in files.items():
            (staged.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (staged.directory / name).write_text(text)
        seven = {INPUT: np.full((1, 1), 7, np.float32)}
        answer = {kind.output: np.array([[kind.answer(7).encode()]], np.object_)}
        golden.write([GoldenRequest(ENSEMBLE, seven, answer)], staged.directory)
        release = dataclasses.replace(_manifest(kind.number), files=manifest.files_of(staged.directory))
        manifest.write(release, staged.directory)


def _files(kind: Kind) -> dict[str, str]:
    """Return {path in the version's directory: what it holds}."""
    between, tag = _TYPES[kind.dtype], kind.number * MOST

    def step(taken: str, taken_type: str, made: str, made_type: str) -> str:
        tensors = {"taken": taken, "taken_type": taken_type, "made": made, "made_type": made_type}
        return _STEP.format(rows=kind.rows, batching=kind.batching, **tensors)

    return {
        "model.py": _CODE.format(
            taken="tagged", made=kind.output, answer=_MULTIPLY.format(tag=tag, factor=kind.factor)
        ),
        f"release/{NETWORK}/config.pbtxt": step("tagged", between, kind.output, "TYPE_FP32"),
        f"release/{ENSEMBLE}/config.pbtxt": _WHOLE.format(rows=kind.rows, output=kind.output),
        f"release/{_BEFORE}/config.pbtxt": step("x", "TYPE_FP32", "tagged", between),
        f"release/{_BEFORE}/1/model.py": _CODE.format(
            taken="x", made="tagged", answer=_TAG.format(tag=tag, dtype=kind.dtype)
        ),
        f"release/{_AFTER}/config.pbtxt": step("number", "TYPE_FP32", "labelled", "TYPE_STRING"),
        f"release/{_AFTER}/1/model.py": _CODE.format(taken="number", made="labelled", answer=_LABEL),
        f"release/{_AFTER}/labels.txt": f"{kind.label}\n",
    }


def _manifest(version: int) -> Manifest:
    return Manifest(
        family=ENSEMBLE,
        model=NETWORK,
        version=version,
        created_at="2026-01-01T00:00:00+00:00",
        command="python -m benchmarks switch",
        source=Source("none", "", "", None, None, None),
        tools={},
        calibration_samples=0,
        test_samples=0,
        reference_score=None,
        gates=(),
        variants=(),
        trials=(),
        sensitivity=(),
        choices=(),
        files=(),
        models=(NETWORK, ENSEMBLE, _BEFORE, _AFTER),
    )
