"""The systemd units start commands that there are, with room for a drain."""

import argparse
import configparser
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import layout
from gateway.settings.schema import Limits

UNITS = sorted((layout.ROOT / "deploy" / "gateway" / "systemd").glob("*.service"))


class Parsed(BaseException):
    """The arguments are understood."""


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_there_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    unit.read(path)
    service = unit["Service"]
    python, dash_m, program, *arguments = shlex.split(service["ExecStart"])
    assert python.endswith("/.venv/bin/python") and dash_m == "-m"
    parse = argparse.ArgumentParser.parse_args

    def parsed(*given: object, **named: object) -> None:
        parse(*given, **named)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.delitem(sys.modules, f"{program}.__main__", raising=False)  # another test may have imported it
    with pytest.raises(Parsed):
        runpy.run_module(program, run_name="__main__")
    assert service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict" and service["User"] != "root"
    if program == "gateway":
        assert float(service["TimeoutStopSec"]) > Limits().drain_s + 2


def test_there_are_units_for_each_process() -> None:
    assert {path.stem for path in UNITS} == {"gateway", "gateway-writer", "triton"}


def verified(folder: Path, *, planted: str = "") -> "subprocess.CompletedProcess[str]":
    """What systemd itself says of the units, for this checkout."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: sudo apt-get install systemd")
    copies = [folder / unit.name for unit in UNITS]
    for unit, copy in zip(UNITS, copies, strict=True):
        text = unit.read_text().replace("/opt/inference/.venv/bin/python", sys.executable)
        copy.write_text(text.replace("/opt/inference", str(layout.ROOT)) + planted)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, copies)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    found = verified(tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert "'Restrt' in section" in verified(tmp_path, planted="[Service]\nRestrt=always\n").stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_stop_is_no_failure_and_a_failure_is_never_the_last_try(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert "SuccessExitStatus=143" in lines and "StartLimitIntervalSec=0" in lines
