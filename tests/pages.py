"""The pages that people read, taken apart: blocks of code, code in a line of text, links, headings."""

import re
from dataclasses import dataclass
from pathlib import Path

from contracts import layout
from tests.tracked import tracked

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, as after the fence, and its text."""

    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """A Markdown page of the repository."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(layout.ROOT))

    @property
    def blocks(self) -> list[Block]:
        return [Block(*found) for found in _FENCE.findall(self.path.read_text())]

    @property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return _FENCE.sub("", self.path.read_text())

    @property
    def inline_code(self) -> list[str]:
        """What stands between single backticks, on one line."""
        return [" ".join(found.split()) for found in _INLINE.findall(self.prose)]

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """The headings, as a link names them: GitHub's rule."""
        kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(self.prose))
        return {heading.replace(" ", "-") for heading in kept}

    @property
    def typed(self) -> list[str]:
        """What the page tells to type: the lines behind a `$`, without their comments."""
        texts = (block.text.replace("\\\n", " ") for block in self.blocks)
        lines = (line for text in texts for line in text.splitlines() if line.startswith("$ "))
        return [line[2:].partition("  #")[0].strip() for line in lines]


PAGES = [Page(path) for path in tracked(others=True) if path.suffix == ".md" and "tests" not in path.parts]
