"""An ensemble that one process runs: where its steps lie, and that clients see what the ensemble would give."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from contracts import model_config
from contracts.bundle import Bundle
from contracts.errors import ModelConfigError
from deploy.served import assemble, content, inside
from deploy.triton import released
from export.scaffold import render
from tests.small_releases import files, written
from tests.tracked import MODEL_REPOSITORY, tracked_models
from training.families import FAMILIES

TENSORS = """
input [ { name: "IN" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""
ONE_PROCESS = f'name: "whole" backend: "inprocess" max_batch_size: 8 {TENSORS}'
CACHE = "response_cache { enable: true }"
STEPS = """
ensemble_scheduling { step [
  { model_name: "net" model_version: -1 input_map { key: "x" value: "X" } output_map { key: "y" value: "OUT" } },
  { model_name: "before" model_version: -1 input_map { key: "IN" value: "IN" } output_map { key: "x" value: "X" } }
] }
"""
ENSEMBLE = f'name: "whole" platform: "ensemble" max_batch_size: 8 {TENSORS} {STEPS}'
NET = """
backend: "onnxruntime" max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
"""
BEFORE = """
backend: "python" max_batch_size: 8
input [ { name: "IN" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
# Sums a row; `bad` refuses, `bug` fails, `thin` gives what its configuration does not say.
STEP = """
import numpy as np
from numbers_of import Refused, numbers

CALLED = "the reader"


class Step:
    def __init__(self, folder, config):
        if not (folder / "factor").is_file():
            raise ValueError("there is no factor")
        self.factor = float((folder / "factor").read_text())

    def answer(self, requests):
        return [self.one(request["IN"].ravel()) for request in requests]

    def one(self, texts):
        try:
            return {"x": np.stack([numbers(text, self.factor) for text in texts])}
        except Refused as error:
            return error
"""
NUMBERS = """
import numpy as np


class Refused(Exception):
    pass


def numbers(text, factor):
    if text == b"bad":
        raise Refused("no numbers: bad")
    if text == b"thin":
        return np.float64(1)
    return np.array([int(each) for each in text.split()], np.float32) * factor
"""
SUM = """
  agraph (float[N, L] x) => (float[N, 1] y)
  { one = Constant <value_ints = [1]> () y = ReduceSum <keepdims = 1> (x, one) }
"""


def graph() -> bytes:
    text = f'<ir_version: 8, opset_import: ["" : 17]> {SUM}'
    return bytes(onnx.parser.parse_model(text).SerializeToString())


@pytest.fixture
def release(tmp_path: Path) -> Bundle:
    """Release 3 of `net`, whose ensemble one process runs without a GPU."""
    root = tmp_path / "repository"
    written(root / "net", {"config.pbtxt": NET, "configs/cpu.pbtxt": NET, "warmup/x": "x", "3/README": ""})
    (root / "net" / "3" / "model.onnx").write_bytes(graph())
    written(root / "before", {"config.pbtxt": BEFORE, "factor": "2", "warmup/t": "t"})
    written(root / "before" / "1", {"step.py": STEP, "numbers_of.py": NUMBERS, "model.py": "never run here"})
    written(root / "whole", {"config.pbtxt": ENSEMBLE, "configs/cpu.pbtxt": ONE_PROCESS, "1/README": "empty"})
    return Bundle("net", 3, root / "net" / "3", {name: root / name for name in ("net", "whole", "before")}, False)


def placed(release: Bundle, tmp_path: Path, config_name: str = "cpu", suffix: str = "") -> Path:
    """A private repository with the release in it."""
    shaped = inside.shaped(release, config_name)
    taken = assemble.take(shaped, tmp_path / f"taken{suffix}")
    assemble.place(taken, tmp_path / "served", config_name, suffix)
    return tmp_path / "served"


def pipeline(version: Path) -> Any:
    from one_process import call
    from one_process.pipeline import Pipeline

    return Pipeline(call.read(version, ("OUT",)))


def sent(*texts: bytes) -> Mapping[str, Any]:
    return {"IN": np.array(texts, np.object_).reshape(-1, 1)}


def test_the_steps_lie_in_the_version_and_are_no_models_of_their_own(release: Bundle, tmp_path: Path) -> None:
    shaped = inside.shaped(release, "cpu")
    assert (tuple(shaped.models), tuple(shaped.inside)) == (("net", "whole"), ("before",))
    served = placed(release, tmp_path)
    assert {path.name for path in served.iterdir()} == {"net", "whole"}
    found = {path.relative_to(served / "whole").as_posix() for path in served.glob("whole/**/*") if path.is_file()}
    found = {name for name in found if "__pycache__" not in name}
    assert found == {
        *(".release", "config.pbtxt", "3/README", "3/steps.json", "3/steps/before/factor"),
        *(f"3/steps/before/3/{name}.py" for name in ("step", "numbers_of", "model")),
        *("3/steps/net/3/model.onnx", "3/steps/net/3/README"),
    }
    described = json.loads((served / "whole" / "3" / "steps.json").read_text())
    assert [step["model"] for step in described] == ["before", "net"], "each behind what makes its inputs"
    assert inside.steps_of(served / "whole") == ("before", "net") and inside.steps_of(served / "net") == ()
    assert not any(path.stat().st_mode & 0o222 for path in served.rglob("*") if path.is_file())


def test_as_an_ensemble_and_without_cpu_pbtxt_it_is_what_it_ever_was(release: Bundle, tmp_path: Path) -> None:
    """So is a release from before there was any."""
    for name in (None, model_config.as_ensembles("cpu")):
        assert tuple(inside.shaped(release, name).models) == ("net", "whole", "before")
    (release.models["whole"] / "configs" / "cpu.pbtxt").unlink()
    served = placed(release, tmp_path)
    assert {path.name for path in served.iterdir()} == {"net", "whole", "before"}
    assert model_config.read(served / "whole" / "config.pbtxt").platform == "ensemble"


def test_an_ensemble_that_caches_its_answers_is_served_as_one(release: Bundle, tmp_path: Path) -> None:
    (release.models["whole"] / "config.pbtxt").write_text(f"{ENSEMBLE} {CACHE}")
    assert {path.name for path in placed(release, tmp_path).iterdir()} == {"net", "whole", "before"}


def test_a_step_that_another_ensemble_needs_stays_a_model(release: Bundle) -> None:
    other = written(release.models["whole"].parent / "other", {"config.pbtxt": ENSEMBLE.replace("whole", "other")})
    both = Bundle("net", 3, release.directory, {**release.models, "other": other}, False)
    assert not inside.shaped(both, "cpu").inside


def test_of_no_release_it_is_served_as_the_ensemble(release: Bundle, tmp_path: Path) -> None:
    """Its steps may be released without it, and it would go on with what it had."""
    content.put_loose(release.models["whole"], tmp_path / "loose", "cpu", None)
    assert "configs/cpu.pbtxt" not in files(tmp_path / "loose")


def test_what_is_left_out_knows_its_steps(release: Bundle, tmp_path: Path) -> None:
    root = release.models["whole"].parent
    (root / "net" / "3").rename(root / "net" / ".parked-3")
    assert {*released.names(released.left_out(root, "cpu"))} == {"net", "whole", "before"}


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("net/configs/cpu.pbtxt", NET.replace("onnxruntime", "tensorrt"), "net has the backend 'tensorrt'"),
        ("whole/configs/cpu.pbtxt", f"{ONE_PROCESS} {CACHE}", "would keep failures, too"),
        ("whole/config.pbtxt", ENSEMBLE.replace('"before"', '"absent"'), "has absent as a step, which"),
        ("whole/config.pbtxt", ENSEMBLE.replace('value: "IN"', 'value: "NONE"'), "waits for a tensor that no step"),
        ("whole/config.pbtxt", ENSEMBLE.replace('value: "OUT"', 'value: "MORE"'), "makes the output OUT"),
        ("whole/config.pbtxt", ENSEMBLE.replace('name: "OUT" data', 'name: "MORE" data'), "other inputs or outputs"),
    ],
    ids=["backend", "cache", "absent", "waits", "lacks", "differs"],
)
def test_what_one_process_cannot_run_is_refused_with_the_way_out(
    release: Bundle, tmp_path: Path, file: str, text: str, told: str
) -> None:
    (release.models["whole"].parent / file).write_text(text)
    with pytest.raises(ModelConfigError, match=told):
        placed(release, tmp_path)


def test_packages_of_a_step_are_those_of_the_process_and_two_may_not_differ(release: Bundle, tmp_path: Path) -> None:
    before = written(release.models["before"], {"requirements.txt": "soundfile==0.13.1"})
    assert (placed(release, tmp_path) / "whole" / "requirements.txt").read_text() == "soundfile==0.13.1"
    after = written(
        before.parent / "after", {"config.pbtxt": BEFORE, "requirements.txt": "soundfile==0.13.0", "1/a": ""}
    )
    ensemble = ENSEMBLE.replace("] }\n", ', { model_name: "after" model_version: -1 } ] }\n')
    (release.models["whole"] / "config.pbtxt").write_text(ensemble)
    both = Bundle("net", 3, release.directory, {**release.models, "after": after}, False)
    with pytest.raises(ModelConfigError, match="packages of their own"):
        placed(both, tmp_path, suffix=".r3")


def test_it_answers_each_request_by_itself_whatever_the_others_are(
    release: Bundle, tmp_path: Path, backend: None
) -> None:
    whole = pipeline(placed(release, tmp_path) / "whole" / "3")
    good, bad, bug, thin, long, two = whole.answer(
        [sent(b"1 2"), sent(b"bad"), sent(b"1 bug"), sent(b"thin"), sent(b"1 2 3 4"), sent(b"5 5", b"6 6")]
    )
    assert [answer["OUT"].tolist() for answer in (good, long, two)] == [[[6]], [[20]], [[20], [24]]]
    assert (str(bad), bad.its_fault, bad.log) == ("no numbers: bad", True, "refused: no numbers: bad")
    assert (str(bug), bug.its_fault) == ("the reader failed: ValueError", False) and "numbers_of.py" in bug.log
    assert "before gave float64 [1] for 'x', which is configured as float32 [-1]" in str(thin) and not thin.its_fault


def test_what_the_network_was_not_proven_with_is_refused_and_no_other(
    release: Bundle, tmp_path: Path, backend: None
) -> None:
    proven = json.dumps({"proven_range": {"x": [[1, 1], [8, 3]]}})
    served = placed(release, tmp_path)
    (served / "whole" / "3" / "steps" / "net" / "3" / "manifest.json").write_text(proven)
    good, long = pipeline(served / "whole" / "3").answer([sent(b"1 2"), sent(b"1 2 3 4")])
    assert good["OUT"].tolist() == [[6]]
    assert "has shape [1, 4]; proven from [1, 1] to [8, 3]" in str(long) and long.its_fault


def test_modules_of_two_steps_may_have_the_same_names(release: Bundle, tmp_path: Path, backend: None) -> None:
    one = pipeline(placed(release, tmp_path) / "whole" / "3")
    (release.models["before"] / "factor").write_text("3")
    other_numbers = NUMBERS.replace("* factor", "* factor + 1")
    (release.models["before"] / "1" / "numbers_of.py").write_text(other_numbers)
    other = pipeline(placed(release, tmp_path, suffix=".r3") / "whole.r3" / "3")
    assert [p.answer([sent(b"1 2")])[0]["OUT"].tolist() for p in (one, other)] == [[[6]], [[11]]]


@pytest.mark.parametrize(
    ("file", "told"),
    [("1/step.py", "before has no step.py"), ("factor", "before: there is no factor")],
)
def test_a_step_that_does_not_load_is_named(
    release: Bundle, tmp_path: Path, backend: None, file: str, told: str
) -> None:
    from python_based.errors import ModelError

    (release.models["before"] / file).unlink()
    with pytest.raises(ModelError, match=told):
        pipeline(placed(release, tmp_path) / "whole" / "3")


def test_in_a_repository_that_nobody_assembled_the_steps_are_those_beside(release: Bundle, backend: None) -> None:
    """A plain tritonserver serves that, as it does the ensemble."""
    version = release.models["whole"] / "1"
    good, bad = pipeline(version).answer([sent(b"1 2"), sent(b"bad")])
    assert good["OUT"].tolist() == [[6]] and str(bad) == "no numbers: bad"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("whole/config.pbtxt", "{", "whole/config.pbtxt is no model configuration"),
        ("whole/config.pbtxt", 'name: "whole" backend: "python"', "its config.pbtxt is no ensemble"),
        ("whole/config.pbtxt", ENSEMBLE.replace('"before"', '"absent"'), "absent/config.pbtxt is not there"),
        ("whole/config.pbtxt", ENSEMBLE.replace('value: "IN"', 'value: "NONE"'), "waits for a tensor"),
    ],
    ids=["none", "no ensemble", "absent", "waits"],
)
def test_what_is_wrong_beside_is_named(release: Bundle, backend: None, file: str, text: str, told: str) -> None:
    from python_based.errors import ModelError

    (release.models["whole"].parent / file).write_text(text)
    with pytest.raises(ModelError, match=told):
        pipeline(release.models["whole"] / "1")


@pytest.mark.parametrize(
    "path", [*tracked_models("*/config.pbtxt"), *tracked_models("*/configs/*")], ids=lambda p: "/".join(p.parts[-3:])
)
def test_a_configuration_is_read_as_protobuf_reads_it(path: Path, backend: None) -> None:
    from one_process import text

    found, right = text.parse(path.read_text(), path.name), model_config.read(path)
    assert found["max_batch_size"] == right.max_batch_size
    for role, tensors in (("input", right.input), ("output", right.output)):
        assert [(t["name"], t["dims"]) for t in found[role]] == [(t.name, list(t.dims)) for t in tensors]
    steps = [(s["model_name"], s["input_map"]) for s in found.get("ensemble_scheduling", {}).get("step", [])]
    assert steps == [(s.model_name, dict(s.input_map)) for s in right.ensemble_scheduling.step]
    values = {name: value["string_value"] for name, value in found.get("parameters", {}).items()}
    assert values == {name: value.string_value for name, value in right.parameters.items()}


def test_every_step_in_git_has_the_same_adapter() -> None:
    """So that a step is what step.py says, wherever it runs."""
    adapters = [path.with_name("model.py") for path in MODEL_REPOSITORY.glob("*/1/step.py")]
    assert len(adapters) >= 4 and {path.read_text() for path in adapters} == {render.adapter()}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_one_process_runs_takes_and_gives_what_the_ensemble_does(family: str) -> None:
    folder = MODEL_REPOSITORY / family
    own, ensemble = (model_config.read(model_config.chosen(folder, name)) for name in ("cpu", None))
    assert own.backend == model_config.IN_PROCESS
    assert list(own.input) == list(ensemble.input) and list(own.output) == list(ensemble.output)
    assert own.max_batch_size == ensemble.max_batch_size
    door = ensemble.ensemble_scheduling.step[0].model_name
    policy = model_config.read(MODEL_REPOSITORY / door / "config.pbtxt").dynamic_batching
    assert own.dynamic_batching == policy, "the same at the door"
