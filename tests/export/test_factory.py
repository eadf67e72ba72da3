"""A module comes from "package.module:callable"; what is wrong with that is said in the user's terms."""

from pathlib import Path

import pytest
import torch
from torch import nn

from export.errors import ModuleError
from export.source.factory import make_module, prepare

WRITTEN = """
import torch
from torch import nn

class Net(nn.Linear):
    def __init__(self, width=2):
        super().__init__(width, width)

made, number = Net(), 3
def make_model(): return made
def compiled(): return torch.compile(nn.DataParallel(made))
def needs(width): return Net(width)
def fails(): return made(torch.ones(1, 7))
def pair(): return made, 3
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, of a name that no other test has."""
    name = f"written_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(WRITTEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("callable_", ["make_model", "Net", "made", "compiled"])
def test_it_may_be_a_function_a_class_or_the_module_and_wrapped(written: str, callable_: str) -> None:
    module = make_module(f"{written}:{callable_}")
    assert type(module).__name__ == "Net"
    assert module(torch.ones(1, 2)).shape == (1, 2)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("{0}", "--torch takes package.module:callable, not"),
        ("{0}.py:make_model", "Hint: --torch {0}:make_model"),
        ("models/{0}.py:make_model", "Hint: --torch models.{0}:make_model"),
        ("no_such.model:make", "there is no module 'no_such'"),
        ("{0}:make_modle", "Hint: --torch {0}:make_model"),
        ("{0}:number", "is of the type int, and cannot be called"),
        ("{0}:needs", "raises TypeError: needs() missing 1 required positional argument: 'width'"),
        ("{0}:fails", "line 13: def fails(): return made(torch.ones(1, 7))"),
        ("{0}:pair", "gives a tuple, not an nn.Module"),
    ],
)
def test_what_is_no_callable_that_gives_a_module_is_refused(written: str, factory: str, told: str) -> None:
    with pytest.raises(ModuleError) as refused:
        make_module(factory.format(written))
    assert told.format(written) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import not_installed_here", "imports 'not_installed_here', which is not installed here"),
        ("def (", r"cannot be imported: SyntaxError: .*\nNote: .*broken.*\.py, line 1"),
        ("raise SystemExit('usage')", r"cannot be imported: SystemExit: usage\nNote: .*line 1"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    name = f"broken_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleError, match=told):
        make_module(f"{name}:make_model")


def test_it_is_put_into_float32_and_evaluation_with_a_word() -> None:
    module, said = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).half(), list[str]()
    prepare(module, said.append)
    assert not module.training and module[0].weight.dtype == torch.float32
    assert said and "float16" in said[0]


def test_one_without_values_is_refused() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 2)
    with pytest.raises(ModuleError, match=r"parameters without values: weight, bias\nHint: give its weights"):
        prepare(module, lambda line: None)
    with pytest.raises(ModuleError, match="parameters without values"):
        prepare(nn.LazyLinear(2), lambda line: None)
