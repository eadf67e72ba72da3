"""Progress of long work: bars, and the lines of a program that goes step by step.

All of it goes to stderr, so that stdout is left to the machine, and bars show on a terminal only: in a log file a bar
is a line of noise.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress as widgets

from cli.tables import Console, Text, mark

_T = TypeVar("_T")


class Bar:
    """A bar that is being shown."""

    def __init__(self, drawn: widgets.Progress, title: str, total: float | None) -> None:
        self._drawn, self._title = drawn, title
        self._task = drawn.add_task(title, total=total)

    def advance(self, count: float = 1) -> None:
        """Move on by `count`."""
        self._drawn.advance(self._task, count)

    def reach(self, count: float) -> None:
        """Move to `count`, of the total."""
        self._drawn.update(self._task, completed=count)

    def now(self, doing: str) -> None:
        """Show what is being done, behind the title."""
        self._drawn.update(self._task, description=f"{self._title}: {doing}")

    def say(self, line: str) -> None:
        """Print a line above the bar; also where no bar is shown."""
        self._drawn.console.print(f"  {line}", soft_wrap=True)


class Step(Bar):
    """A step of `Progress`, to be called with its result when it is done."""

    result, cached, skipped = "", False, False

    def __call__(self, result: str, *, cached: bool = False, skipped: bool = False) -> None:
        self.result, self.cached, self.skipped = result, cached, skipped


class Progress:
    """A line a step, with its time and its result, and a bar while it is under way."""

    def __init__(self) -> None:
        self._console = _stderr()

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Time the block, and print its line when it has ended without an error.

        Args:
            total: What the block will `advance` by; None if nobody knows.
        """
        started = time.monotonic()
        with _drawn(self._console, "  ", widgets.SpinnerColumn(), _TITLE, widgets.BarColumn()) as drawn:
            step = Step(drawn, name, total)
            yield step
        took = "cached " if step.cached else f"{time.monotonic() - started:5.1f} s"
        sign = Text("–", "yellow") if step.skipped else mark("REFUSED" not in step.result)
        line = Text.assemble("  ", sign, f" {name:<18} ", (took, "dim"), f"  {step.result}")
        self._console.print(line, soft_wrap=True)


@contextmanager
def bar(title: str, total: float, unit: str | None = None, *, hidden: bool = False) -> Iterator[Bar]:
    """Show a bar while the block runs, with the time that is left.

    Args:
        unit: What is counted, as in "3/20 requests"; None if the numbers mean nothing to people.
        hidden: Show none: the results themselves say on the terminal how far it is.
    """
    counted = () if unit is None else (widgets.MofNCompleteColumn(), unit)
    columns = (widgets.SpinnerColumn(), _TITLE, widgets.BarColumn(), *counted, widgets.TimeRemainingColumn())
    with _drawn(_stderr(), *columns, hidden=hidden) as drawn:
        yield Bar(drawn, title, total)


def track(items: Iterable[_T], title: str, unit: str, total: int | None = None) -> Iterator[_T]:
    """Yield the items, with a bar that moves on when the next one is asked for.

    Args:
        total: How many there are, where `len(items)` cannot tell.
    """
    with bar(title, len(items) if total is None else total, unit) as shown:  # type: ignore[arg-type]
        for item in items:
            yield item
            shown.advance()


_TITLE = widgets.TextColumn("{task.description}", markup=False)  # what TensorRT says of its layers looks like markup


def _stderr() -> Console:
    return Console(stderr=True)


def _drawn(console: Console, *columns: str | widgets.ProgressColumn, hidden: bool = False) -> widgets.Progress:
    return widgets.Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal)
