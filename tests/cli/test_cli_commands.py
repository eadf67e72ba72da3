"""Commands that are declared once."""

import argparse
from collections.abc import Callable, Sequence

import pytest

from cli import commands
from cli.commands import Command, count, port, positive, positive_count, share

GIVEN: list[argparse.Namespace] = []


def remember(options: argparse.Namespace) -> int:
    GIVEN.append(options)
    return 7


def _times(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=count, default=1)


COMMANDS = (
    Command("wash", "90 % of the dirt", f"{__name__}:remember", _times),
    Command("broken", "a module that does not exist", "no.such.module:main"),
)


def run(arguments: Sequence[str]) -> int:
    return commands.run("laundry", "What it does.\n\n  laundry wash", COMMANDS, arguments)


def test_the_chosen_command_is_given_its_arguments_and_gives_the_exit_code() -> None:
    GIVEN.clear()
    assert run(["wash", "--times", "3"]) == 7
    [options] = GIVEN
    assert (options.command, options.times, options.arguments) == ("wash", 3, ["wash", "--times", "3"])


def test_the_processes_own_arguments_are_taken_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    GIVEN.clear()
    monkeypatch.setattr("sys.argv", ["laundry", "wash"])
    assert commands.run("laundry", None, COMMANDS, None) == 7
    assert GIVEN[0].arguments == ["wash"]


@pytest.mark.parametrize("arguments", [[], ["iron"], ["wash", "--times", "often"]])
def test_a_mistake_in_the_arguments_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 2
    assert "usage: laundry" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["wash", "--help"]])
def test_help_imports_no_command_and_shows_a_percent_sign_as_it_is(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 0
    assert "90 % of the dirt" in capsys.readouterr().out


def test_a_commands_module_is_imported_when_it_is_chosen() -> None:
    with pytest.raises(ModuleNotFoundError, match="no"):
        run(["broken"])


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [(port, "8000", 8000), (count, "0", 0), (positive_count, "1", 1), (positive, "0.5", 0.5), (positive, "2", 2.0)],
)
def test_arguments_are_read(read: Callable[[str], float], text: str, value: float) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((port, text) for text in ("0", "65536", "-1", "http", "")),
        *((count, text) for text in ("-1", "1.5", "many", "")),
        *((positive_count, text) for text in ("0", "-1", "many")),
        *((positive, text) for text in ("0", "-1", "nan", "inf", "soon")),
        *((share, text) for text in ("-0.1", "1.1", "nan", "half")),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_by_name(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=text or "is not a"):
        read(text)
