"""What a server or a file says never steers a terminal, nor a spreadsheet, and is never markup."""

import ast
import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from cli import progress, tables
from cli.terminal import Guarded, Rows, cell, plain
from contracts import layout
from tests.hostile_names import EVIL, NAMES, steering
from tests.tracked import tracked

PRINTS = """
import sys
from cli.progress import Progress, bar
from cli.run import run_command_line
from cli.tables import console, table

def main():
    name = {evil!r}
    print(name)
    print(name, file=sys.stderr)
    shown = table("label", title=name)
    shown.add_row(name)
    console().print(shown)
    console().print(name, soft_wrap=True)
    progress = Progress()
    progress.say(name)
    with progress.step(name) as done, bar(name, 2, "requests") as drawn:
        drawn.say(name)
        drawn.now(name)
        done(name)
    raise ValueError(name)

run_command_line(main, ValueError)
"""


def test_what_steers_is_written_as_what_it_is_called() -> None:
    assert plain(EVIL) == r"\x1b]0;owned\x07\x1b[2Jcat\r\x9b31m\u202egnp.exe"
    assert plain("Größe\t日本 🐈\n") == "Größe\t日本 🐈\n"


def test_a_program_that_prints_it_does_not_let_it_through() -> None:
    """By every way that a program of ours has to say something."""
    code = PRINTS.format(evil=f"{EVIL} [bold]x[/] [/]")
    done = subprocess.run([sys.executable, "-c", code], cwd=layout.ROOT, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 1 and said.count("gnp.exe [bold]x[/] [/]") == 10, said
    assert not steering(said)


@pytest.mark.parametrize("program", ["deploy", "export", "training", "benchmarks", "clients"])
def test_every_program_is_run_so(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, EVIL], cwd=layout.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "gnp.exe" in done.stderr
    assert not steering(done.stderr)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_table_survives_any_name(name: str) -> None:
    stream = io.StringIO()
    shown = tables.table(name, title=name, caption=name)
    shown.add_row(name)
    shown.add_row(tables.Text(name, "red"))
    tables.Console(file=stream, force_terminal=True, color_system="standard", width=80).print(shown, name)
    text = stream.getvalue().replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[3m", "")
    assert not steering(text.replace("\x1b[2m", "").replace("\x1b[0m", "").replace("\x1b[2;3m", ""))
    text.encode()


def test_a_row_is_as_wide_as_what_is_shown_of_it() -> None:
    stream = io.StringIO()
    shown = tables.table("label")
    shown.add_row("\x1b[2J")
    tables.Console(file=stream, width=80).print(shown)
    assert len({*map(len, stream.getvalue().splitlines())}) == 1


def test_a_table_has_its_own_colours_and_no_others() -> None:
    stream = io.StringIO()
    shown = tables.table("label")
    shown.add_row("[red]not ours[/]", tables.Text("ours", "red"))
    tables.Console(file=stream, force_terminal=True, color_system="standard", width=80).print(shown)
    assert "[red]not ours[/]" in stream.getvalue() and "\x1b[31mours" in stream.getvalue()


def test_what_looks_like_markup_breaks_no_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress().step("[/]") as done:
        done("[/Conv_1] [bold")
    assert "[/Conv_1] [bold" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=x", "=cmd|' /C calc'!A1", "＝1+1"])
def test_a_cell_is_no_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell(f"a{text}") == f"a{text}"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_csv_file_survives_any_name(name: str, tmp_path: Path) -> None:
    with (tmp_path / "file.csv").open("w", newline="", encoding="utf-8") as stream:
        Rows(stream).write([name, -1.5, None])
    with (tmp_path / "file.csv").open(newline="", encoding="utf-8") as stream:
        [[first, number, nothing]] = csv.reader(stream)
    assert (number, nothing) == ("-1.5", "") and not steering(first)
    assert first == plain(name) or (first == f"'{plain(name)}" and name[0] in "=+-@")


def test_no_program_writes_a_csv_file_by_itself() -> None:
    """But for the labels of a family, which are its own and are read again by what classifies."""
    for path in tracked("*.py"):
        name = path.relative_to(layout.ROOT).as_posix()
        if name == "cli/terminal.py" or name.startswith(("tests/", "training/families/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) in ("csv.writer", "csv.DictWriter")), name


def test_a_guarded_stream_is_the_stream_in_all_else() -> None:
    stream = io.StringIO()
    guarded = Guarded(stream)
    assert guarded.write("a\x1b") == 2
    guarded.flush()
    assert stream.getvalue() == r"a\x1b" and not guarded.isatty() and guarded.drawn is stream
