"""What comes from elsewhere never steers a terminal: labels, names and reasons that a server or a file says.

An escape sequence in a label could clear the screen, set the window's title, or write a command where the user's next
Enter runs it. So whatever is printed goes through here: control characters become what they are called, `\\x1b`.
"""

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

# C0 but tab and newline, DEL, C1, what turns the direction of text or breaks its lines, and halves of characters,
# which no file can hold.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What a spreadsheet takes a cell for that begins so (OWASP, CSV injection), the last four of full width.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def plain(text: str) -> str:
    """Return a text without what steers a terminal: each such character as Python would write it."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def cell(text: str) -> str:
    """Return a text for a cell of a CSV file: one that begins like a formula is kept from being one."""
    return f"'{text}" if text.startswith(_FORMULAS) else text


class Rows:
    """The rows of a CSV file, whose texts are no formulas and steer nothing; numbers are written as they are."""

    def __init__(self, stream: TextIO, **dialect: Any) -> None:
        self._writer = csv.writer(stream, **dialect)

    def write(self, row: Iterable[Any]) -> None:
        """Write a row."""
        self._writer.writerow([cell(plain(each)) if isinstance(each, str) else each for each in row])


class Guarded:
    """A stream to which only plain text is written.

    Rich, which draws, writes to the stream itself (`rich_proxied_file` is its own word for that), and so does whoever
    asks for `drawn`; both make what they write plain themselves.
    """

    def __init__(self, stream: TextIO) -> None:
        self.drawn = self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write the text, and return how long it was."""
        self.drawn.write(plain(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.drawn, name)
