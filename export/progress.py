"""What the export shows while it works: a line a step, with a bar where there is something to count."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console


class Done:
    """Given to a step: call it with the step's result, `advance` it by what is done."""

    def __init__(self, bar: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        self._bar, self._task = bar, task
        self.result = ""

    def __call__(self, result: str) -> None:
        self.result = result

    def advance(self, count: int) -> None:
        self._bar.advance(self._task, count)


class Progress:
    """Writes to stderr, so that `--json` leaves stdout to the machine."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Done]:
        started = time.monotonic()
        columns = ("  ", rich.progress.SpinnerColumn(), "{task.description}", rich.progress.BarColumn())
        quiet = not self._console.is_terminal  # a bar in a log file is a line of noise
        with rich.progress.Progress(*columns, console=self._console, transient=True, disable=quiet) as bar:
            done = Done(bar, bar.add_task(name, total=total))
            yield done
        self._console.print(
            f"  [green]✓[/] {name:<18} [dim]{time.monotonic() - started:5.1f} s[/]  {done.result}",
            soft_wrap=True,
        )
