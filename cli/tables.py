"""Tables for people, on standard output."""

import sys
from collections.abc import Collection, Iterator
from typing import Any

import rich.console
from rich.segment import Segment
from rich.table import Table as Table
from rich.text import Text as Text

from cli.terminal import plain


class Console(rich.console.Console):
    """Rich's, to which a string is what it says: neither markup nor what steers the terminal. Colours are a Text's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of a string, a cell or a title, so that its column is as wide as what is shown of it."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Yield what is written, its text made plain."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def console(width: int = 120) -> Console:
    """Open standard output, `width` columns wide where it is no terminal, so that a table in a file is not cut."""
    return Console(width=None if sys.stdout.isatty() else width)


def table(*headings: str, title: str | None = None, left: int | Collection[str] = 1, **style: Any) -> Table:
    """Make a table whose columns are aligned left, as text is, or right, as figures are.

    Args:
        title: Above the table.
        left: Which columns are text: so many of the first, or those with these headings.
        style: What else rich's Table takes.
    """
    texts = headings[:left] if isinstance(left, int) else left
    made = Table(title=title, **style)
    for heading in headings:
        made.add_column(heading, justify="left" if heading in texts else "right")
    return made


def mark(passed: bool) -> Text:
    """Give the sign of a verdict, in its colour."""
    return Text("✓", "green") if passed else Text("✗", "red")
