"""The systemd units start commands that there are, with room for a drain."""

import argparse
import configparser
import runpy
import shlex
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
