"""Tables for people, on standard output."""

import sys

from rich.console import Console
from rich.table import Table


def console(width: int = 120) -> Console:
    """Standard output; `width` columns wide where it is no terminal, so that a table in a file is not cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)


def table(*headings: str, title: str | None = None, left: int = 1) -> Table:
    """A table with these columns, the first `left` of them aligned left, as text is, the others right, as figures."""
    made = Table(title=title)
    for index, heading in enumerate(headings):
        made.add_column(heading, justify="left" if index < left else "right")
    return made
