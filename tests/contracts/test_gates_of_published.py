"""Gates are found by id, also in manifests that were published before gates had any."""

import json
import shutil
from pathlib import Path

import pytest

from contracts import manifest
from contracts.manifest import Gate, Manifest, find_gate

# Published by commit 4669a00 from a checkpoint that was trained for some seconds; fewer trials.
BEFORE = Path(__file__).parent / "published" / "manifest-before-gate-ids.json"


@pytest.fixture
def before(tmp_path: Path) -> Manifest:
    shutil.copyfile(BEFORE, tmp_path / manifest.FILE_NAME)
    return manifest.read(tmp_path)


def test_its_gates_have_the_ids_of_today(before: Manifest) -> None:
    fp32, fp16, int8 = before.variants
    common = [
        *("contract:the graph", "largest_difference:logits", "largest_difference:probabilities"),
        *("finite", "agreement", "metric_drop", "contract:the engine", "computed_share"),
    ]
    assert [gate.id for gate in fp32.gates] == [gate.id for gate in fp16.gates] == common
    assert [gate.id for gate in int8.gates] == [common[0], "qdq_symmetric", *common[1:]]
    assert [gate.id for gate in before.gates] == [
        *("contract:config.pbtxt", "contract:configs/cpu.pbtxt", f"contract:{before.family}_postprocess/labels.txt"),
    ]
    worth_it = int8.timings["model.onnx"].worth_it
    assert worth_it is not None and worth_it.id == "worth_it"


def test_a_gate_is_selected_by_its_id_whatever_it_is_called(before: Manifest) -> None:
    drop = find_gate(before.variants[2].gates, "metric_drop")
    assert drop is not None and drop.limit == 0.5
    assert find_gate(before.variants[2].gates, "accuracy") is None
    renamed = (
        Gate("agreement of another name", 0.1, 1.0, "at most", id="other"),
        Gate("x", 0.9, 1, "at most", id="agreement"),
    )
    found = find_gate(renamed, "agreement")
    assert found is not None and found.name == "x"


def test_it_is_verified_and_read_without_being_rewritten(tmp_path: Path) -> None:
    raw = json.loads(BEFORE.read_text())
    (tmp_path / "model.onnx").write_bytes(b"weights")
    raw["files"] = [{"path": "model.onnx", "size_bytes": 7, "sha256": manifest.sha256(tmp_path / "model.onnx")}]
    path = tmp_path / manifest.FILE_NAME
    path.write_text(json.dumps(raw))
    published = path.read_bytes()
    assert manifest.verify(tmp_path).model == raw["model"]
    assert path.read_bytes() == published
