"""A spec in a TOML file is the same as one in Python, and says what it lacks."""

from pathlib import Path

import pytest

from contracts import spec
from contracts.errors import SpecError
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec

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
    read = spec.from_toml(path)
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
        spec.from_toml(tmp_path / "none.toml")
    for content in (b"model =", b"\xff\xfe"):
        (tmp_path / "spec.toml").write_bytes(content)
        with pytest.raises(SpecError, match="is not a TOML file"):
            spec.from_toml(tmp_path / "spec.toml")


@pytest.mark.parametrize(
    ("line", "becomes", "told"),
    [
        ('model = "recogniser"', "", "is not a complete spec: 'model'"),
        ('task = "ctc"', 'task = "ocr"', "there is no task 'ocr'\nNote: tasks: classification, ctc, values"),
        ('task = "ctc"', 'kind = "ctc"', "has entries that no spec has: kind"),
        (
            'answer = "probabilities"',
            'answer = "text"',
            "the answer 'text' is no output\nNote: features, probabilities",
        ),
        ("[limits.int8]", "[limits.int4]", "there is no precision int4"),
        ("features = 1.0, ", "", "limits.int8 has no tolerance for features"),
        ("agreement = 0.95", "", "limits.int8 has no agreement"),
        ("agreement = 0.95", "accuracy = 0.95", "is not a complete spec"),
        ("min = 32, opt = 320", "min = 321, opt = 320", "dimension 'width' needs 1 <= min <= opt <= max"),
        ("min = 32,", 'min = "32",', "is not a complete spec"),
        ("opt = 320, ", "", "is not a complete spec"),
        ('dtype = "float32"', "", "is not a complete spec: 'dtype'"),
        ('shape = [{ name = "batch", min = 1, opt = 4, max = 16 }, 3', "shape = [16, 3", "must be a dynamic batch"),
    ],
)
def test_what_is_wrong_in_a_spec_is_named(path: Path, line: str, becomes: str, told: str) -> None:
    assert line in TOML
    path.write_text(TOML.replace(line, becomes, 1))
    with pytest.raises(SpecError) as refused:
        spec.from_toml(path)
    assert told in str(refused.value)
