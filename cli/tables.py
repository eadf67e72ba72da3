"""Tables for people, on standard output."""

import os
import sys
from collections.abc import Collection, Iterator
from typing import Any

import rich.console
from rich.console import ConsoleOptions, Group
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table as Table
from rich.text import Text as Text

from cli.terminal import plain

_ANY_WIDTH = 10_000  # columns: what a table needs is measured without a limit


class Console(rich.console.Console):
    """Rich's, to which a string is what it says: neither markup nor what steers the terminal. Colours are a Text's.

    A table that is wider than the terminal, whatever is wrapped in it, is written row by row: nothing is cut.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of a string, a cell or a title, so that its column is as wide as what is shown of it."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Yield what is written, its text made plain."""
        if isinstance(renderable, Table) and renderable.columns:
            renderable = _fitting(renderable, self, options or self.options)
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def console(width: int = 120) -> Console:
    """Open standard output: as wide as the terminal or as COLUMNS says, elsewhere `width` columns."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(width=None if known else width)


def table(*headings: str, title: str | None = None, left: int | Collection[str] = 1, **style: Any) -> Table:
    """Make a table whose columns are aligned left, as text is, or right, as figures are, which are not wrapped.

    Args:
        title: Above the table.
        left: Which columns are text: so many of the first, or those with these headings.
        style: What else rich's Table takes.
    """
    texts = headings[:left] if isinstance(left, int) else left
    made = Table(title=title, **style)
    for heading in headings:
        text = heading in texts
        made.add_column(heading, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    return made


def _fitting(wide: Table, console: Console, options: ConsoleOptions) -> Table | Group:
    """Return a table that is wrapped between words alone; where even so it is too wide, its rows as paragraphs."""
    needed = Measurement.get(console, options.update_width(_ANY_WIDTH), wide)
    if needed.minimum > options.max_width:
        return _row_by_row(wide)
    if needed.maximum > options.max_width:
        for column in wide.columns:  # rich takes from the widest first, and folds words while others have room
            column.no_wrap = column.no_wrap or not any(" " in _text(cell).plain for cell in column.cells)
    return wide


def _row_by_row(wide: Table) -> Group:
    """Lay out a table as a paragraph a row: the first text, and below it every other cell behind its heading."""
    headings = [_text(column.header).plain.replace("-\n", "").replace("\n", " ").strip() for column in wide.columns]
    lines: list[Any] = [_text(wide.title)] if wide.title else []
    for cells in zip(*(column.cells for column in wide.columns), strict=True):
        texts = [_text(cell) for cell in cells]
        first = next((at for at, heading in enumerate(headings) if heading), 0)  # before it are marks
        lines.append(Text(" ").join(text for text in texts[: first + 1] if text.plain))
        told = [
            Text.assemble((heading, "dim"), " " * bool(heading), text)
            for heading, text in zip(headings[first + 1 :], texts[first + 1 :], strict=True)
            if text.plain
        ]
        lines.append(Padding(Text(", ", overflow="fold").join(told), (0, 0, 0, 2), expand=False))
    return Group(*lines, *([_text(wide.caption)] if wide.caption else []))


def _text(cell: Any) -> Text:
    return cell if isinstance(cell, Text) else Text(plain(str(cell)))


def mark(passed: bool) -> Text:
    """Give the sign of a verdict, in its colour."""
    return Text("✓", "green") if passed else Text("✗", "red")
