"""Bars, steps, tables and pictures, on a terminal and in a file."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cli import plots, progress, tables
from cli.progress import Progress
from contracts import layout


def on_a_terminal(program: str) -> str:
    """What a program writes to a terminal of 80 columns that is its stderr."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", program], cwd=layout.ROOT, env=environment, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while data := os.read(ours, 65536):
                written += data
        except OSError:  # it has ended
            pass
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_a_bar_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track("abc", "measuring", "rounds")) == ["a", "b", "c"]
    with progress.bar("sending", 10, "requests") as bar:
        bar.advance(3)
        bar.reach(5)
        bar.now("the sixth")
    assert capsys.readouterr() == ("", "")


def test_what_is_said_beside_a_bar_is_printed_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("sending", 10, "requests") as bar:
        bar.say("[upgraded] " + "x" * 200)
    assert capsys.readouterr() == ("", "  [upgraded] " + "x" * 200 + "\n")


def test_a_bar_shows_on_a_terminal_how_far_it_is_and_goes_when_it_is_done() -> None:
    shown = on_a_terminal(
        "from cli import progress\n"
        "for _ in progress.track(range(3), 'measuring [a]', 'rounds'): import time; time.sleep(0.2)"
    )
    assert "measuring [a]" in shown
    assert "1/3" in shown and "rounds" in shown
    assert "\x1b[2K" in shown.rpartition("rounds")[2]  # the line is cleared


def test_a_bar_may_be_hidden_on_a_terminal() -> None:
    assert on_a_terminal("from cli import progress\nwith progress.bar('x', 3, hidden=True) as b: b.advance()") == ""


def test_an_iterator_whose_length_nobody_knows_is_given_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(iter("ab"), "classifying", "images", total=2)) == ["a", "b"]
    with pytest.raises(TypeError):
        list(progress.track(iter("ab"), "classifying", "images"))


def test_a_step_leaves_a_line_with_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Progress()
    lines.say("Exporting [best]")
    with lines.step("graph", total=2) as done:
        done.advance(2)
        done("opset 20 [/Conv]")
    with lines.step("int8") as done:
        done("REFUSED: agreement", cached=True)
    out, err = capsys.readouterr()
    first, graph, int8 = err.splitlines()
    assert out == ""
    assert first == "Exporting [best]"
    assert graph.split() == ["✓", "graph", "0.0", "s", "opset", "20", "[/Conv]"]
    assert int8.split() == ["✗", "int8", "cached", "REFUSED:", "agreement"]


def test_a_step_that_fails_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Progress().step("graph"):
        raise ZeroDivisionError
    assert capsys.readouterr() == ("", "")


def test_a_table_in_a_file_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes a file for a terminal of 80 columns."""
    file = io.StringIO()
    monkeypatch.setattr("sys.stdout", file)
    shown = tables.table("model", "reason", title="models")
    shown.add_row("m" * 30, "r" * 60)
    shown.add_row("n", "s", end_section=True)
    tables.console().print(shown)
    [row] = [line for line in file.getvalue().splitlines() if "m" * 30 in line]
    assert "r" * 60 in row
    assert max(map(len, file.getvalue().splitlines())) <= 120


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_table_cuts_nothing_however_narrow_the_terminal_is(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Where even wrapped words do not fit, a row is a paragraph: a model's name cut in half names another model."""
    file = io.StringIO()
    monkeypatch.setattr("sys.stdout", file)
    monkeypatch.setenv("COLUMNS", str(width))
    shown = tables.table("", "model", "requests\nin all", "memory\nMB", "reason", left={"", "model", "reason"})
    name, reason = "a_model_of_thirty_characters_x", "it was put there after the server had been started"
    shown.add_row(tables.mark(True), name, "123,456", "99.5", reason)
    shown.add_row("", "b", "1", "", "")
    tables.console().print(shown)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in file.getvalue() and any(name in line for line in lines)
    assert all(word in file.getvalue() for word in ("123,456", "99.5", *reason.split()))
    assert ("requests in all 123,456" in file.getvalue()) == (width == 40)


def test_the_first_columns_are_text_and_the_others_figures() -> None:
    shown = tables.table("a", "b", "c", left=2)
    assert [column.justify for column in shown.columns] == ["left", "left", "right"]
    shown = tables.table("a", "b", "c", left={"c"})
    assert [column.justify for column in shown.columns] == ["right", "right", "left"]


def test_a_verdict_has_its_sign() -> None:
    assert "✓" in tables.mark(True) and "✗" in tables.mark(False)


def test_a_figure_has_the_projects_style_and_leaves_matplotlibs_alone(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with plots.figure(4, 3, style={"axes.grid": False}) as figure:
        axes = figure.subplots()
        axes.set_title("$ is a name")
        assert not axes.spines["top"].get_visible()
        figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
