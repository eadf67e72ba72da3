"""What the export shows while it works: a line a step, with a bar where there is something to count."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console
from rich.markup import escape  # what TensorRT says of its layers looks like markup


class Done:
    """Given to a step: call it with the step's result, `advance` it by what is done, say what is done `now`."""

    def __init__(self, bar: rich.progress.Progress, task: rich.progress.TaskID, name: str) -> None:
        self._bar, self._task, self._name = bar, task, name
        self.result, self.cached = "", False

    def __call__(self, result: str, *, cached: bool = False) -> None:
        self.result, self.cached = result, cached

    def advance(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def now(self, doing: str) -> None:
        self._bar.update(self._task, description=f"{self._name}: {escape(doing)}")


class Progress:
    """Writes to stderr, so that `--json` leaves stdout to the machine."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Done]:
        started = time.monotonic()
        columns = ("  ", rich.progress.SpinnerColumn(), "{task.description}", rich.progress.BarColumn())
        quiet = not self._console.is_terminal  # a bar in a log file is a line of noise
        with rich.progress.Progress(*columns, console=self._console, transient=True, disable=quiet) as bar:
            done = Done(bar, bar.add_task(name, total=total), name)
            yield done
        took = "cached " if done.cached else f"{time.monotonic() - started:5.1f} s"
        mark = "[red]✗[/]" if "REFUSED" in done.result else "[green]✓[/]"
        self._console.print(f"  {mark} {name:<18} [dim]{took}[/]  {escape(done.result)}", soft_wrap=True)


@contextmanager
def request_bar(total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A bar of requests on stderr: who moves it to a count, and who prints above it."""
    console = Console(stderr=True, highlight=False)
    columns = (rich.progress.SpinnerColumn(), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), "requests")
    quiet = not console.is_terminal  # a bar in a log file is a line of noise
    with rich.progress.Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=total)
        yield (
            lambda completed: progress.update(task, completed=completed),
            lambda line: console.print(f"  {line}", soft_wrap=True, markup=False),
        )
