"""Tables for people, on standard output."""

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape as escape  # of a cell that may hold "["
from rich.table import Table as Table


def console(width: int = 120) -> Console:
    """Standard output; `width` columns wide where it is no terminal, so that a table in a file is not cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)


def table(*headings: str, title: str | None = None, left: int = 1, **style: Any) -> Table:
    """Make a table with these columns, the first `left` of them aligned left, as text is, the others right, as figures.

    Args:
        title: Above the table; may hold markup.
        style: What else rich's Table takes.
    """
    made = Table(title=title, **style)
    for index, heading in enumerate(headings):
        made.add_column(heading, justify="left" if index < left else "right")
    return made


def mark(passed: bool) -> str:
    """The sign of a verdict, in its colour."""
    return "[green]✓[/]" if passed else "[red]✗[/]"
