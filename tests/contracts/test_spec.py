"""A spec in a TOML file is the same as one in Python, and says what it lacks."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.errors import SpecError
from contracts.files import spec_file
from contracts.spec import DEFAULT_METRICS, DynamicDim, Limits, ModelSpec, Task, TensorSpec, Tolerance

TOML = """\
model = "recogniser"
task = "ctc"
answer = "probabilities"
labels = ["blank", "a"]

[[inputs]]
name = "image"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 4, max = 16 }, 3, 48, { name = "width", min = 32, opt = 320, max = 640 }]

[[outputs]]
name = "features"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 4, max = 16 }, 8]

[[outputs]]
name = "probabilities"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 4, max = 16 }, { name = "steps", min = 4, opt = 40, max = 80 }, 2]

[limits.int8]
tolerance = { features = 1.0, probabilities = 0.9 }
agreement = 0.95
"""
BATCH = DynamicDim("batch", 1, 4, 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(TOML)
    return path


def test_a_toml_file_says_all_that_a_spec_in_python_does(path: Path) -> None:
    read = spec_file.read(path)
    assert read == ModelSpec(
        family="recogniser",
        model="recogniser",
        inputs=(TensorSpec("image", "float32", (BATCH, 3, 48, DynamicDim("width", 32, 320, 640))),),
        outputs=(
            TensorSpec("features", "float32", (BATCH, 8)),
            TensorSpec("probabilities", "float32", (BATCH, DynamicDim("steps", 4, 40, 80), 2)),
        ),
        limits={"int8": Limits({"features": 1.0, "probabilities": 0.9}, agreement=0.95)},
        task="ctc",
        answer="probabilities",
        labels=("blank", "a"),
    )
    assert (read.batch, read.answer_output) == (BATCH, "probabilities")
    assert read.inputs[0].shape_at("max") == (16, 3, 48, 640)


def test_a_file_that_is_no_spec_says_why(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read the spec .*none\.toml: No such file"):
        spec_file.read(tmp_path / "none.toml")
    for content in (b"model =", b"\xff\xfe"):
        (tmp_path / "spec.toml").write_bytes(content)
        with pytest.raises(SpecError, match="is not a TOML file"):
            spec_file.read(tmp_path / "spec.toml")


def test_a_spec_may_be_utf_16_with_its_mark(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_bytes(TOML.encode("utf-16"))
    assert spec_file.read(tmp_path / "spec.toml").model == "recogniser"


@pytest.mark.parametrize("name", ["object", "str", "bytes", "string"])
def test_text_has_four_names_and_is_one_type_that_tensorrt_has_not(tmp_path: Path, name: str) -> None:
    (tmp_path / "spec.toml").write_text(TOML.replace('dtype = "float32"', f'dtype = "{name}"', 1))
    found = spec_file.read(tmp_path / "spec.toml")
    assert found.inputs[0].dtype == "object"
    assert found.without_tensorrt == f"TensorRT has no text, as {found.inputs[0].name} is"


@pytest.mark.parametrize(
    ("line", "becomes", "told"),
    [
        ('model = "recogniser"', "", "is not a complete spec: it has no model"),
        ('dtype = "float32"', 'dtype = "float"', "has the dtype 'float', which Triton does not serve"),
        ('dtype = "float32"', 'dtype = "bfloat16"', "has the dtype 'bfloat16', which Triton does not serve"),
        ('task = "ctc"', 'task = "ocr"', "there is no task 'ocr'\nNote: tasks: classification, ctc, binary, regr"),
        ('task = "ctc"', 'kind = "ctc"', "has entries that no spec has: kind"),
        (
            'answer = "probabilities"',
            'answer = "text"',
            "the answer 'text' is no output\nNote: features, probabilities",
        ),
        ("[limits.int8]", "[limits.int4]", "there is no precision int4"),
        ("features = 1.0, ", "", "limits.int8 has no tolerance for features"),
        ("agreement = 0.95", "", "limits.int8 has no agreement"),
        (
            "agreement = 0.95",
            "agrement = 0.95",
            "agreement, drop, computed_share (is agreement meant?)",
        ),
        ("min = 32, opt = 320", "min = 321, opt = 320", '0 <= min <= opt <= max, not { name = "width", min = 321'),
        ("min = 32, opt = 320", "min = 0, opt = 320", "a dimension of the input 'image' starts below 1"),
        ('task = "ctc"', 'task = "ctc"\nbatch = "false"', "batch is true or false, not 'false'"),
        ('task = "ctc"', 'task = "ctc"\nthreshold = "half"', "threshold is 'half', which is no number"),
        ('task = "ctc"', 'task = "ctc"\nmetric = "bleu"', "there is no metric 'bleu'\nNote: metrics: accuracy, auc"),
        ("features = 1.0", "features = {}", "limits.int8, features: a tolerance limits nothing"),
        ("features = 1.0", "features = -1.0", "limits.int8, features: a tolerance of -1.0 is no number from 0 on"),
        ("features = 1.0", "features = { p90 = 1.0 }", "the tolerance of features in [limits.int8] has p90, and"),
        ("agreement = 0.95", 'agreement = "most"', "limits.int8 has something that is no number"),
        ("min = 32,", 'min = "32",', 'min is no whole number: { name = "width", min = "32", opt'),
        ('labels = ["blank", "a"]', 'labels = "ab"', "labels are an array of texts"),
        ('labels = ["blank", "a"]', 'labels = ["a"]', "1 labels, and the answer probabilities has 2 classes"),
        ('name = "image"', "name = 3", "the name of the first of [[inputs]] is a text in quotes, not 3"),
        ("3, 48,", "3, -48,", "in the shape of [[inputs]] 'image', -48 is neither a size nor {"),
        ("tolerance = { features = 1.0, probabilities = 0.9 }", "tolerance = 1", "[limits.int8] is a table, as in"),
        ('model = "recogniser"', "limits.int8 = 3\nmodel = 'a'", "is not a TOML file"),
        ("opt = 320, ", "", "{ name = \"width\", min = 32, max = 640 } in the shape of [[inputs]] 'image' has no opt"),
        ('dtype = "float32"', "", "is not a complete spec: [[inputs]] 'image' has no dtype"),
        ('shape = [{ name = "batch", min = 1, opt = 4, max = 16 }, 3', "shape = [16, 3", "must be a dynamic batch"),
    ],
)
def test_what_is_wrong_in_a_spec_is_named(path: Path, line: str, becomes: str, told: str) -> None:
    assert line in TOML
    path.write_text(TOML.replace(line, becomes, 1))
    with pytest.raises(SpecError) as refused:
        spec_file.read(path)
    assert told in str(refused.value)


def test_a_tolerance_may_limit_more_than_the_largest_difference(path: Path) -> None:
    path.write_text(TOML.replace("features = 1.0", "features = { mean = 0.1, p99 = 0.5, relative = 0.02 }"))
    limits = spec_file.read(path).limits["int8"]
    assert limits.of("features") == Tolerance(mean=0.1, p99=0.5, relative=0.02)
    assert limits.of("probabilities") == Tolerance(largest=0.9)


def test_a_drop_may_be_called_as_it_was_when_accuracy_was_the_only_metric(path: Path) -> None:
    for name in ("drop", "accuracy_drop_points"):
        path.write_text(TOML.replace("agreement = 0.95", f"agreement = 0.95\n{name} = 0.5"))
        assert spec_file.read(path).limits["int8"].drop == 0.5


def test_a_spec_is_utf_8_whatever_the_locale_is(path: Path) -> None:
    path.write_text(TOML.replace('"blank", "a"', '"Größe", "日本"'), "utf-8")
    code = f"import pathlib; from contracts.files import spec_file as s; print(ascii(s.read(pathlib.{path!r}).labels))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == ascii(("Größe", "日本")) + "\n", done.stderr


def test_a_byte_order_mark_is_no_part_of_a_spec(path: Path) -> None:
    """As editors on Windows write one."""
    plain = spec_file.read(path)
    path.write_bytes(b"\xef\xbb\xbf" + TOML.encode())
    assert spec_file.read(path) == plain
    path.write_bytes(TOML.encode("utf-16"))
    assert spec_file.read(path) == plain


def made(task: Task, shape: tuple[int | DynamicDim, ...], *, batched: bool = True, name: str = "y") -> ModelSpec:
    """A spec whose one output has this shape."""
    return ModelSpec(
        family="brought",
        model="brought",
        inputs=(TensorSpec("x", "float32", (BATCH, 6)),),
        outputs=(TensorSpec(name, "float32", shape),),
        limits={"fp32": Limits({name: 1e-3}, agreement=None if task == "values" else 0.99)},
        task=task,
        agree_within=0.1,
        batched=batched,
    )


@pytest.mark.parametrize(
    ("name", "shape", "begins"),
    [
        ("boxes", (DynamicDim("rows", 12, 96, 384), 4), "it begins with 'rows' (12 to 384)"),  # batch x anchors
        ("classes", (6, 4), "it begins with 6"),  # weights that are given out
        ("sequence", (7, BATCH, 4), "it begins with 7"),  # time first
        ("total", (), "it begins with nothing, as it is a scalar"),
        ("pair", (DynamicDim("batch", 1, 8, 32), 4), "it begins with 'batch' (1 to 32)"),
    ],
)
def test_an_output_without_a_row_for_each_sample_is_refused_by_name_unless_nothing_is_batched(
    name: str, shape: tuple[int | DynamicDim, ...], begins: str
) -> None:
    """Triton would give a request the rows of another, or load no model at all."""
    with pytest.raises(SpecError) as refused:
        made("values", shape, name=name)
    told = str(refused.value)
    assert f"the output {name!r} has no row for each sample of a batch: {begins}, not with the batch" in told
    assert "'batch' (1 to 16)" in told and told.endswith("batch = false")
    assert made("values", shape, name=name, batched=False).max_batch == 0


def test_without_a_batch_inputs_are_what_they_are(path: Path) -> None:
    state = TensorSpec("state", "float32", (2, 1, 128))
    vad = ModelSpec(
        family="vad",
        model="vad",
        inputs=(TensorSpec("sound", "float32", (1, 512)), TensorSpec("rate", "int64", ()), state),
        outputs=(TensorSpec("speech", "float32", (1, 1)), state),
        limits={"fp32": Limits({"speech": 1e-3, "state": 1e-3}, agreement=1.0)},
        task="binary",
        batched=False,
    )
    assert (vad.max_batch, vad.batch_sizes) == (0, [1])
    with pytest.raises(SpecError, match="must be a dynamic batch"):
        _ = vad.batch
    path.write_text("batch = false\n" + TOML)
    assert not spec_file.read(path).batched


FITS: list[tuple[Task, tuple[int | DynamicDim, ...]]] = [
    ("classification", (BATCH, 2)),
    ("ctc", (BATCH, DynamicDim("steps", 1, 4, 9), 5)),
    ("binary", (BATCH,)),
    ("binary", (BATCH, 1)),
    ("regression", (BATCH,)),
    ("regression", (BATCH, 3)),
    ("embedding", (BATCH, 16)),
    ("values", (BATCH, DynamicDim("steps", 0, 4, 9), 5, 2)),
]


@pytest.mark.parametrize(("task", "shape"), FITS)
def test_an_answer_has_the_dimensions_of_its_task(task: Task, shape: tuple[int | DynamicDim, ...]) -> None:
    found = made(task, shape)
    assert (found.metric and found.metric.name) == DEFAULT_METRICS.get(task)
    for one in (shape[1:], (1, *shape[1:])):  # of one sample
        assert made(task, one, batched=False).answer_output == "y"


@pytest.mark.parametrize(
    ("task", "shape", "told"),
    [
        ("classification", (BATCH,), "the answer of the task classification has 2 dimensions, y has not"),
        ("classification", (BATCH, 5, 2), "the answer of the task classification has 2 dimensions, y has not"),
        (
            "classification",
            (BATCH, 1),
            "has one class, so that every sample has the same answer\nHint: a yes or no",
        ),
        ("ctc", (BATCH, 5), "the answer of the task ctc has 3 dimensions, y has not"),
        ("binary", (BATCH, 2), "is one value a sample, y has 2\nHint: two values, one for each class, have task"),
        ("binary", (BATCH, 1, 1), "the answer of the task binary has 1 or 2 dimensions, y has not"),
        ("regression", (BATCH, DynamicDim("n", 1, 2, 3)), "regression has a fixed number of values, y has not"),
        ("embedding", (BATCH,), "the answer of the task embedding has 2 dimensions, y has not"),
        ("embedding", (BATCH, DynamicDim("n", 1, 2, 3)), "embedding has a fixed number of values, y has not"),
    ],
)
def test_an_answer_of_other_dimensions_is_refused_with_the_task_that_it_may_be(
    task: Task, shape: tuple[int | DynamicDim, ...], told: str
) -> None:
    with pytest.raises(SpecError) as refused:
        made(task, shape)
    assert told in str(refused.value)


def test_one_class_is_told_of_the_task_binary() -> None:
    """With the index of the largest of one value every answer is the same, whatever a precision does to it."""
    with pytest.raises(SpecError, match='task = "binary", with a threshold'):
        made("classification", (BATCH, 1))
    assert made("binary", (BATCH, 1)).threshold == 0.5


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_an_agreement_of_numbers_needs_to_be_said_what_it_means(task: Task) -> None:
    with pytest.raises(SpecError, match="has an agreement, and nothing says what it means"):
        replace(made(task, (BATCH, 4)), agree_within=None)
