"""What the pages name is there: links, files, modules, and every command with its options."""

import argparse
import itertools
import re
import runpy
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import layout
from tests.pages import PAGES, Page
from tests.tracked import tracked
from tests.workspace import FAMILY

PROGRAMS = ("training", "export", "deploy", "clients", "store", "gateway", "benchmarks")
TRACKED = tracked(others=True)
# Files of ours are named by these; other suffixes are of what the stages make, or what a user brings.
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".pbtxt", ".conf", ".lock", ".j2"}
FOLDERS = {path.relative_to(layout.ROOT).parts[0] for path in TRACKED if path.parent != layout.ROOT}
MADE = {
    "progression.toml",
    "report.md",
    "MODEL_CARD.md",
    "1/preprocess.py",
    "1/postprocess.py",
}  # by an export, beside model.onnx or for a user to write
# What stands for something of the reader's choice in a command, and a value that will do in its place.
STAND_INS = {"FAMILY": FAMILY, "<name>": FAMILY, "pump": FAMILY}  # one that a page makes


class _Understood(BaseException):
    """Raised in place of carrying a command out."""


class _Incomplete(BaseException):
    """Raised where only arguments are missing: a text may speak of `python -m deploy rollback`."""


@pytest.fixture
def only_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs end once they have parsed their arguments, with one of the above or argparse's SystemExit."""
    parse, refuse = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.error

    def parsed(*arguments: Any, **named: Any) -> None:
        parse(*arguments, **named)
        raise _Understood

    def refused(parser: argparse.ArgumentParser, message: str) -> None:
        if message.startswith("the following arguments are required"):
            raise _Incomplete
        refuse(parser, message)

    def found(*arguments: Any) -> None:
        raise _Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(argparse.ArgumentParser, "error", refused)
    # Training leaves what it does not know to Lightning, whose own parser takes seconds to import.
    stand_in = SimpleNamespace(run=found)
    monkeypatch.setitem(sys.modules, "training.lightning.cli", stand_in)
    monkeypatch.setattr("training.lightning.cli", stand_in, raising=False)
    monkeypatch.setattr("training.families.load", found)
    monkeypatch.setattr("training.sweep.searching.run", found)
    monkeypatch.setattr("training.new_family.make", found)
    monkeypatch.setattr("training.runs.outbox.send", found)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # a program makes the process its own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Page) -> None:
    for link in page.links:
        if re.match(r"\w+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.path.parent / file).resolve() if file else page.path
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in Page(target).anchors, f"{page.name} links to {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Page) -> None:
    for word in _words(page):
        if _is_path(word):
            assert _exists(word, page), f"{page.name} names {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_named_exists(page: Page) -> None:
    """As in `clients.shared_memory`, or `export.gates.Gate`: the last part may be a name within the module."""
    ours = re.compile(rf"({'|'.join(sorted(FOLDERS))})(\.\w+)+(:\w+)?")
    for word in _words(page):
        if ours.fullmatch(word) and Path(word).suffix not in {*SUFFIXES, ".pem"}:
            *parents, last = word.replace(":", ".").split(".")
            module, parent = layout.ROOT.joinpath(*parents, last), layout.ROOT.joinpath(*parents)
            found = any(path.exists() for path in (module, module.with_suffix(".py")))
            if not found:
                file = next((p for p in (parent.with_suffix(".py"), parent / "__init__.py") if p.is_file()), None)
                found = file is not None and re.search(rf"\b{last}\b", file.read_text()) is not None
            assert found, f"{page.name} names {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("only_parsed")
def test_every_command_is_understood(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def understand(command: str) -> None:
        for program, *arguments in _programs_in(command):
            if program in PROGRAMS or program.startswith("examples."):
                monkeypatch.setattr(sys, "argv", [program, *arguments])
                with pytest.raises(_Understood):
                    runpy.run_module(program, run_name="__main__")

    for command in page.typed:
        understand(command)
    for code in page.inline_code:
        with suppress(_Incomplete):
            understand(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Page) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (layout.ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {code.split()[1] for code in (*page.typed, *page.inline_code) if re.match(r"make [a-z]+", code)}
    assert named <= targets, page.name


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page below docs/, the decisions by way of their own index."""
    indexes = [Page(layout.ROOT / "docs" / "README.md"), Page(layout.ROOT / "docs" / "decisions" / "README.md")]
    linked = {(index.path.parent / link.partition("#")[0]).resolve() for index in indexes for link in index.links}
    pages = {page.path for page in PAGES if page.path.is_relative_to(layout.ROOT / "docs")}
    assert pages - {indexes[0].path} <= linked


@pytest.mark.parametrize("name", ["README.md", "docs/reference/tree.md"])
def test_the_tree_is_that_of_the_repository(name: str) -> None:
    """Every line of it is a file or a folder, every room beside a folder is in it, and no package is left out."""
    [tree] = [block.text for block in Page(layout.ROOT / name).blocks if block.text.startswith("cli/")]
    above, seen = "", set()
    for line in tree.splitlines():
        entry, *words = line.split()
        above = above if line.startswith(" ") else entry
        found = [entry] if above == entry else [f"{above}{entry}"]
        found += [f"{entry}{word}" for word in words if word.endswith("/")]
        for path in found:
            assert (layout.ROOT / path).exists(), f"{name} has {path}"
        seen.add(above)
    packages = {f"{path.parent.name}/" for path in layout.ROOT.glob("*/__init__.py")}
    assert packages <= seen


def _words(page: Page) -> set[str]:
    """What may be the name of a file or a module: code in the text, and what is typed."""
    typed = [word for command in page.typed for word in _split(command)]
    return {word.strip(",;:()[]'\"") for code in (*page.inline_code, *typed) for word in code.split()}


def _is_path(word: str) -> bool:
    """Of ours: below a folder of ours or a file of a kind that we write, and not `<name>.py` or a published version."""
    if not re.fullmatch(r"[\w./-]+", word) or word in MADE or re.match(r"model_repository/\w+/\d", word):
        return False
    return Path(word).suffix in SUFFIXES or ("/" in word and word.partition("/")[0] in FOLDERS)


def _exists(word: str, page: Page) -> bool:
    """From the root, from the page, or as the end of the path of a file of ours; or the page says what is in it."""
    if (layout.ROOT / word).exists() or (page.path.parent / word).exists():
        return True
    parts = Path(word).parts
    if any(path.parts[-len(parts) :] == parts or path.parent.parts[-len(parts) :] == parts for path in TRACKED):
        return True
    return any(block.text.startswith(f"# {word}") or f'"{word}"' in block.text for block in page.blocks)


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an apostrophe in a text
        return command.split()


def _programs_in(command: str) -> list[list[str]]:
    """The arguments of every `python -m PROGRAM …` in a line, with values in place of stand-ins."""
    found = []
    for part in re.split(r"\s(?:[|;<>]|&&)\s", command):
        words = _split(part)
        for at in range(len(words) - 2):
            if Path(words[at]).name == "python" and words[at + 1] == "-m":
                rest = [w for w in words[at + 2 :] if w not in {"…", "&"} and not w.startswith("[")]
                given = [STAND_INS.get(word, word.removesuffix("…")) for word in rest]
                found += [list(each) for each in itertools.product(*(word.split("|") for word in given))]
    return found
