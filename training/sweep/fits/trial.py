"""A trial: one `python -m training fit` of a search, and the folder in which it and the search tell each other.

  trial.json      what it was started with, written by the search
  reports.jsonl   how good it was so far, a line a step, written by the fit: {"step": 3, "of": 6, "value": 0.71}
  result.json     how good it is, written by the fit when it has ended
  best.ckpt       what it learned; config.yaml is beside it, and log.txt has what it printed

The fit of a trial finds its folder in TRIAL_DIRECTORY, and ends with the search: the search holds one end of a pipe,
and however it dies, the other end says so. The standard library alone, as Ray's environment has nothing of ours.
"""

import json
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DIRECTORY, SEARCH = "TRIAL_DIRECTORY", "TRIAL_SEARCH"  # environment: the folder; the descriptor of the pipe
QUALITY, LATENCY = "quality", "latency"  # what a trial is judged by

_GIVEN, _REPORTS, _RESULT = "trial.json", "reports.jsonl", "result.json"
_STOPPED, _FAILED = "stopped", "exit_code"


@dataclass(frozen=True)
class Report:
    """How good a model was at a step of its training."""

    step: int  # from 1: epochs, or trees
    of: int  # the last there will be, unless it stops by itself
    value: float  # the figure that the search goes by, on the validation split


@dataclass(frozen=True)
class Result:
    """How good a trained model is."""

    value: float  # the figure that the search goes by, on the validation split
    figures: Mapping[str, float]  # whatever else was found: {"test_auc": …}
    data_fingerprint: str  # two trials are compared on the same data, or not at all
    latency_ms: float | None = None  # training/sweep/latency.py says of what


@dataclass(frozen=True)
class Trial:
    """A trial, by its folder. What is written is there as a whole or not at all, whenever either side is killed."""

    directory: Path
    given: Mapping[str, Any] = field(default_factory=dict)  # command, environment, mlflow_run, objectives

    @staticmethod
    def prepare(directory: Path, given: Mapping[str, Any]) -> "Trial":
        """Write down what a fit is started with, and forget what an earlier start of it left."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in (_REPORTS, _RESULT, _STOPPED, _FAILED):
            (directory / name).unlink(missing_ok=True)
        _write(directory / _GIVEN, dict(given))
        return Trial(directory, given)

    @staticmethod
    def at(directory: Path) -> "Trial | None":
        """Return the trial of a folder, None where none was prepared."""
        given = _read(directory / _GIVEN)
        return None if given is None else Trial(directory, given)

    @property
    def mlflow_run(self) -> str | None:
        """The run that the search made for it."""
        return self.given.get("mlflow_run")

    @property
    def wants_latency(self) -> bool:
        """Whether it is judged by what an answer costs, too."""
        return LATENCY in self.given.get("objectives", ())

    def is_of(self, given: Mapping[str, Any]) -> bool:
        """Tell whether what lies here was found with the same parameters."""
        return bool(self.given.get("parameters") == given["parameters"])

    def report(self, step: int, of: int, value: float) -> None:
        """Tell the search how good the model is at a step."""
        with (self.directory / _REPORTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(Report(step, of, float(value)))) + "\n")

    def finish(self, result: Result) -> None:
        """Tell the search what came of it, the last thing that a fit does."""
        _write(self.directory / _RESULT, asdict(result))

    def stop(self) -> None:
        """Write down that it was stopped, as others were better at the same step."""
        (self.directory / _STOPPED).touch()

    def fail(self, code: int) -> None:
        """Write down that the fit ended with this exit code, and without a result."""
        (self.directory / _FAILED).write_text(str(code), encoding="utf-8")

    @property
    def failed(self) -> int | None:
        """The exit code of a fit that has ended without a result, where somebody wrote it down."""
        file = self.directory / _FAILED
        return int(file.read_text(encoding="utf-8") or 1) if file.exists() else None

    @property
    def stopped(self) -> bool:
        """Whether it was stopped."""
        return (self.directory / _STOPPED).exists()

    def reports(self) -> list[Report]:
        """Return what was reported so far."""
        with suppress(FileNotFoundError):
            lines = (self.directory / _REPORTS).read_text(encoding="utf-8").split("\n")
            return [Report(**json.loads(line)) for line in lines[:-1]]  # behind the last \n: half a line, or nothing
        return []

    def result(self) -> Result | None:
        """Return what came of it; None: it has not ended, or has failed."""
        found = _read(self.directory / _RESULT)
        return None if found is None else Result(**found)


def current() -> Trial | None:
    """Return the trial that this process is the fit of; None: nobody searches."""
    directory = os.environ.get(DIRECTORY)
    return Trial.at(Path(directory)) if directory else None


def end_with_the_search() -> None:
    """Have this process and what it started killed when the search that started it has died; nothing elsewhere."""
    descriptor = os.environ.get(SEARCH, "")
    # A process that a fit starts, as one of several for DDP, has the variable as well, and not the pipe.
    if descriptor.isdecimal() and os.getsid(0) == os.getpid():
        threading.Thread(target=_wait, args=(int(descriptor),), daemon=True).start()


def _wait(descriptor: int) -> None:
    with suppress(OSError):
        while os.read(descriptor, 1):
            pass
        os.killpg(os.getpid(), signal.SIGKILL)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    half = path.with_name(f".{path.name}.half")
    with half.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
