"""What a server or a file says never steers a terminal, nor a spreadsheet."""

import io
import subprocess
import sys

import pytest

from cli import tables
from cli.terminal import Guarded, cell, plain
from contracts import layout

EVIL = "\x1b]0;owned\x07\x1b[2Jcat\r\x9b31m\u202egnp.exe"
STEERING = ("\x1b", "\x07", "\r", "\x9b", "\u202e")
PRINTS = """
import sys
from cli.run import run_command_line
from cli.tables import console

def main():
    print({evil!r})
    print({evil!r}, file=sys.stderr)
    console().print("[bold]a table[/] of", {evil!r}, markup=False)
    raise ValueError({evil!r})

run_command_line(main, ValueError, guarded=True)
"""


def test_what_steers_is_written_as_what_it_is_called() -> None:
    assert plain(EVIL) == r"\x1b]0;owned\x07\x1b[2Jcat\r\x9b31m\u202egnp.exe"
    assert plain("Größe\t日本 🐈\n") == "Größe\t日本 🐈\n"


def test_a_program_that_prints_it_does_not_let_it_through() -> None:
    code = PRINTS.format(evil=EVIL)
    done = subprocess.run([sys.executable, "-c", code], cwd=layout.ROOT, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 1 and said.count("gnp.exe") == 4
    assert not [character for character in STEERING if character in said]


def test_a_table_has_its_own_colours_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    shown = tables.table("label")
    shown.add_row(tables.escape(EVIL))
    tables.Console(file=stream, force_terminal=True, color_system="standard", width=80).print(shown, "[red]own[/]")
    text = stream.getvalue()
    assert "\x1b[31mown" in text and "\x1b]0" not in text and "\x1b[2J" not in text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_cell_is_no_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell(f"a{text}") == f"a{text}"


def test_a_guarded_stream_is_the_stream_in_all_else() -> None:
    stream = io.StringIO()
    guarded = Guarded(stream)
    assert guarded.write("a\x1b") == 2
    guarded.flush()
    assert stream.getvalue() == r"a\x1b" and not guarded.isatty() and guarded.drawn is stream
