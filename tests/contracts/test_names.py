"""A name is checked before anything is written: it becomes a folder, a model of Triton and a part of addresses."""

import dataclasses
from pathlib import Path

import pytest

from contracts.errors import SpecError
from contracts.files import spec_file
from contracts.names import is_model_name
from tests.workspace import FAMILY, MODEL
from training import families

SPEC = families.spec(FAMILY)
GOOD = [MODEL, "a.b-c", "7", "A", "ppocr_v4.rec"]
# What people call theirs, and what would leave the repository, end Triton 2.51 or be a shell's.
BAD = [
    *("", " ", ".", "..", "../escaped", "team/router", "/etc/passwd", "a\\b", ".hidden", "-v", "_private"),
    *(
        "text classifier v2",
        "trailing ",
        "größe",
        "模型",
        "what!",
        'qu"ote',
        "line\nbreak",
        "newline\n",
        "nul\0",
        "a:b",
        "a*b",
    ),
]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_of_letters_digits_and_three_signs_is_one(name: str) -> None:
    assert is_model_name(name)
    assert dataclasses.replace(SPEC, model=name, family=name).model == name


@pytest.mark.parametrize("name", BAD)
def test_another_name_is_refused_wherever_it_comes_from(name: str) -> None:
    assert not is_model_name(name)
    for changed in ({"model": name}, {"family": name}):
        with pytest.raises(SpecError, match="a model cannot be called"):
            dataclasses.replace(SPEC, **changed)


@pytest.mark.parametrize("name", [7, True, ["a"], 1.5])
def test_a_name_in_toml_that_is_no_string_is_refused(name: object, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(
        f"model = {str(name).lower()}\n[[inputs]]\nname = 'x'\ndtype = 'float32'\n"
        "shape = [{ name = 'batch', min = 1, opt = 2, max = 4 }]\n[[outputs]]\nname = 'y'\ndtype = 'float32'\n"
        "shape = [{ name = 'batch', min = 1, opt = 2, max = 4 }, 2]\n"
        "[limits.fp32]\ntolerance = { y = 1.0 }\nagreement = 1.0\n"
    )
    with pytest.raises(SpecError, match="a model cannot be called"):
        spec_file.read(path)
