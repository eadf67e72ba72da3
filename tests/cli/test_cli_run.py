"""How a command line ends: its exit code, what it says, and what it cleans up."""

import errno
import os
import signal as signals
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.run import exit_code_of
from contracts import layout

PROGRAM = """
import sys, time
from pathlib import Path
from cli.run import run_command_line

class Expected(Exception):
    pass

def main():
    {body}
    return 0

run_command_line(main, Expected)
"""


class ExpectedError(Exception):
    """What a user can mend."""


def raising(error: BaseException) -> int:
    raise error


def start(body: str, **streams: object) -> "subprocess.Popen[str]":
    program = PROGRAM.format(body=body.replace("\n", "\n    "))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([sys.executable, "-c", program], cwd=layout.ROOT, text=True, **pipes)


@pytest.mark.parametrize("code", [0, 1, 42])
def test_the_commands_own_code_is_the_exit_code(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: code, ExpectedError) == code
    assert capsys.readouterr() == ("", "")


def test_an_expected_error_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    error = ExpectedError("no server is up\nHint: python -m deploy up")
    assert exit_code_of(lambda: raising(error), ExpectedError) == 1
    assert capsys.readouterr() == ("", "error: no server is up\nHint: python -m deploy up\n")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 // 0, ExpectedError)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_told_with_the_file(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, os.strerror(number), "model.onnx")
    assert exit_code_of(lambda: raising(error), ExpectedError) == 1
    first, hint = capsys.readouterr().err.splitlines()
    assert first == f"error: {os.strerror(number)}: model.onnx"
    assert hint.startswith("Hint: ")


def test_another_error_of_the_system_is_a_bug() -> None:
    with pytest.raises(FileNotFoundError):
        exit_code_of(lambda: raising(FileNotFoundError(errno.ENOENT, "not there", "x")), ExpectedError)


def test_ctrl_c_is_told_in_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: raising(KeyboardInterrupt()), ExpectedError) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_left_is_no_error_of_ours() -> None:
    with start("for n in range(100_000): print(n)") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()  # as `head` does
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_the_caller_closed_cost_no_result(closed: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    body = f'print("out"); print("err", file=sys.stderr); sys.stdin.read(); Path({str(made)!r}).touch()'
    program = PROGRAM.format(body=body)
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program],
        cwd=layout.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert made.exists()
    assert "Traceback" not in done.stderr


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    body = r'print("\u2713"); print("\udcff", file=sys.stderr)'
    with start(body, env={**os.environ, "PYTHONIOENCODING": "ascii"}) as process:
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "\\u2713\n", "\\udcff\n")


@pytest.mark.parametrize(("signal", "code"), [(signals.SIGTERM, 143), (signals.SIGHUP, 129)])
def test_a_signal_ends_it_with_its_clean_up_done(signal: signals.Signals, code: int) -> None:
    body = 'try:\n    print("up", flush=True)\n    time.sleep(30)\nfinally:\n    print("cleaned up")'
    began = time.monotonic()
    with start(body) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (code, "cleaned up\n", "")
    assert time.monotonic() - began < 20
