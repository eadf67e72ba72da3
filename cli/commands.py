"""Commands of a program, each declared once: its name, its help, its arguments, and where it is carried out."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import import_module

_UNITS = ("", "K", "M", "G", "T")


def _none(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


@dataclass(frozen=True)
class Command:
    """A command of a program.

    Attributes:
        name: What the user types behind the program's name.
        help: One line of the program's help.
        run: "package.module:function", imported when the command is chosen, so that `--help` is instant. The function
            is given the parsed arguments and returns the exit code.
        arguments: Adds the command's arguments to its parser.
        formatter: How its help is laid out, e.g. with every default.
    """

    name: str
    help: str
    run: str
    arguments: Callable[[argparse.ArgumentParser], None] = _none
    formatter: type[argparse.HelpFormatter] = argparse.HelpFormatter


def run(program: str, description: str | None, commands: Sequence[Command], arguments: Sequence[str] | None) -> int:
    """Parse `arguments`, the process's own where None, and carry out the command that they name.

    Returns:
        The command's exit code. A mistake in the arguments ends the process with 2, as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        command.arguments(
            chosen.add_parser(
                command.name,
                help=command.help.replace("%", "%%"),  # argparse formats this one, and not the description
                description=command.help,
                formatter_class=command.formatter,
            )
        )
    options = parser.parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)  # for who starts itself again
    [named] = [command for command in commands if command.name == options.command]
    module, _, function = named.run.partition(":")
    return int(getattr(import_module(module), function)(options))


def port(text: str) -> int:
    """Read an argument that is a port."""
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text} is not a port, 1 to 65535")
    return int(text)


def count(text: str) -> int:
    """Read an argument that is a number of something, 0 included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return int(text)


def positive_count(text: str) -> int:
    """Read an argument that is a number of something, at least 1."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return int(text)


def positive(text: str) -> float:
    """Read an argument that is a time, a rate or the like, more than 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def share(text: str) -> float:
    """Read an argument that is a share of something, 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share, 0 to 1")
    return number


def day(text: str) -> date:
    """Read an argument that is a day, as in 2026-11-30."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a day, as 2026-11-30 is") from None


def size(text: str) -> int:
    """Read an argument that is a size in bytes, as in 512M or 16G; the units are powers of 1024."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _UNITS or not number.isdecimal() or not int(number):
        raise argparse.ArgumentTypeError(f"{text} is not a size, as in 512M or 16G")
    return int(number) << 10 * _UNITS.index(unit)
