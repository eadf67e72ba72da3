"""Tables for people, on standard output."""

import sys
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.markup import escape as escape  # of a cell that may hold "["
from rich.table import Table as Table


def console(width: int = 120) -> Console:
    """Open standard output, `width` columns wide where it is no terminal, so that a table in a file is not cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)


def table(*headings: str, title: str | None = None, left: int | Collection[str] = 1, **style: Any) -> Table:
    """Make a table whose columns are aligned left, as text is, or right, as figures are.

    Args:
        title: Above the table; may hold markup.
        left: Which columns are text: so many of the first, or those with these headings.
        style: What else rich's Table takes.
    """
    texts = headings[:left] if isinstance(left, int) else left
    made = Table(title=title, **style)
    for heading in headings:
        made.add_column(heading, justify="left" if heading in texts else "right")
    return made


def mark(passed: bool) -> str:
    """Give the sign of a verdict, in its colour."""
    return "[green]✓[/]" if passed else "[red]✗[/]"
