"""`Entities` and `python -m clients predict`: rows of what a caller knows, answered by a model that takes far more.

The model is a stand-in for a server: what it is sent is what these tests are about, and what it refuses.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clients import Entities, InvalidInputError, ServerUnavailableError
from clients.command_line import commands
from clients.core.answer import Answer
from contracts import layout
from contracts.errors import ManifestError
from tests.clients.conftest import Run
from tests.ferries import ENTITIES, HOUR_S, MIDNIGHT, released, tables
from tests.pages import Page
from tests.small_releases import published

ROW = {"line": "A", "pier": "North", "departure": "2013-11-03T03:10", "passengers": 12}
WORDS = [f"{name}={value}" for name, value in ROW.items()]


class Server:
    """Answers with the tide and the year; refuses a batch with a boat of 1980 in it."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.down = False
        self.version = 1
        self.outputs = "late"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def metadata(self, model: str) -> Any:
        return SimpleNamespace(outputs=[SimpleNamespace(name="late"), SimpleNamespace(name="why")])

    def infer(self, model: str, inputs: Mapping[str, Any]) -> Answer:
        assert model == "ferries" and inputs.keys() == ENTITIES.inputs.keys()
        if self.down:
            raise ServerUnavailableError("nobody is there")
        self.inputs = inputs
        self.batches.append(len(inputs["tide"]))
        if 1980 in inputs["built"]:
            raise InvalidInputError("it is too old")
        late = inputs["tide"] + inputs["built"] - 2000
        why = np.full(late.shape, b"tide", np.object_)
        return Answer({self.outputs: late.astype(np.float32), "why": why}, model, (self.version,))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(commands, "connected", lambda options: made)
    return made


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return released(tmp_path)


def test_the_library_fills_what_its_caller_does_not_know(release: Path) -> None:
    entities = Entities.of_release(release)
    filled = entities.fill([ROW])
    assert (entities.model, entities.version, filled.model) == ("ferries", 1, "ferries")
    assert filled.inputs.keys() == ENTITIES.inputs.keys()
    assert filled.inputs["built"] == 2001 and filled.inputs["tide"] == 1.5
    with pytest.raises(InvalidInputError, match="ferries: there is no pier 'East'"):
        entities.fill([{**ROW, "pier": "East"}])


def test_a_release_that_declares_nothing_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="takes no entities"):
        Entities.of_release(published(tmp_path, 1))


def test_one_row_is_asked_on_the_command_line(run: Run, server: Server, release: Path) -> None:
    done = run("predict", "ferries", *WORDS, "--release", release)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "A North 2013-11-03T03:10 12  late 2.5, why tide  (not known: tonnes)\n"
    done = run("predict", "ferries", *WORDS, "--release", release, "--json")
    told = json.loads(done.stdout)
    assert told["outputs"] == {"late": 2.5, "why": "tide"} and told["defaults"] == ["tonnes"]
    assert (told["model"], told["version"]) == ("ferries", 1)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_file_is_separated_as_its_line_of_names_is(
    separator: str, run: Run, server: Server, release: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("".join(separator.join(map(str, cells)) + "\r\n" for cells in (ROW, ROW.values())))
    done = run("predict", "ferries", "--rows", path, "--release", release, "--csv")
    assert [row["late"] for row in csv.DictReader(io.StringIO(done.stdout.decode()))] == ["2.5"], done.stderr


def test_a_row_that_is_refused_costs_no_other_its_answer(
    run: Run, server: Server, release: Path, tmp_path: Path
) -> None:
    rows = [ROW, {**ROW, "line": "B"}, {**ROW, "pier": "East"}, {**ROW, "departure": "2013-03-10T02:30"}, ROW]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as stream:  # as a spreadsheet writes it
        table = csv.DictWriter(stream, ROW)
        table.writeheader()
        table.writerows(rows)
    done = run("predict", "ferries", "--rows", path, "--release", release, "--csv")
    found = [*csv.DictReader(io.StringIO(done.stdout.decode()))]
    assert done.returncode == 1 and b"2 answered, 3 failed" in done.stderr
    assert [row["late"] for row in found] == ["2.5", "", "", "", "2.5"]
    errors = ["", "it is too old", "no pier 'East'", "does not exist in America/New_York", ""]
    assert all(
        error in row["error"] and bool(error) == bool(row["error"]) for error, row in zip(errors, found, strict=True)
    )
    assert server.batches[0] == 3  # those that could be filled, together first


def test_rows_may_be_objects_and_more_than_are_sent_at_once(
    run: Run, server: Server, release: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(ROW) for _ in range(600)))
    done = run("predict", "ferries", "--rows", path, "--release", release, "--json")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 600
    assert server.batches == [512, 88]


def test_a_server_that_is_gone_ends_it(run: Run, server: Server, release: Path) -> None:
    server.down = True
    done = run("predict", "ferries", *WORDS, "--release", release)
    assert done.returncode == 1 and b"nobody is there" in done.stderr


def test_tables_of_another_version_than_answered_are_said(run: Run, server: Server, release: Path) -> None:
    server.version = 2
    done = run("predict", "ferries", *WORDS, "--release", release)
    assert done.returncode == 0 and b"version 2 answered, and the tables are those of version 1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ferries"], "line (the letter on its bow), pier (text), departure (time)"),
        (["ferries", "line"], "'line' is not NAME=VALUE"),
        (["ferries", "line=A", "--rows", "x.csv"], "give one of the two"),
        (["ferries", "--rows", "missing.csv"], "cannot read missing.csv"),
        (["trains", "line=A"], "declares entities of ferries"),
        (["ferries", *WORDS, "boats=3"], "has no entity 'boats'"),
    ],
)
def test_what_cannot_be_asked_is_said(run: Run, server: Server, release: Path, arguments: list[str], told: str) -> None:
    done = run("predict", *arguments, "--release", release)
    assert done.returncode == 1 and told in done.stderr.decode()
    assert not server.batches


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"line,pier\nA,North,more\n", "more cells"),
        (b"line\n\xff\xfe\n", "in UTF-8"),
        (b"line,line\nA,B\n", "two of its columns"),
        (b"", "has no rows"),
        (b"line,pier\n", "has no rows"),
        (b"{]\n", "no rows of entities"),
        (b'{"line": "A"}\n[1]\n', "no rows of entities"),
        (b"line\n" + b"A" * 200_000 + b"\n", "no rows of entities"),
    ],
)
def test_a_file_without_rows_is_refused(
    run: Run, server: Server, release: Path, tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    done = run("predict", "ferries", "--rows", path, "--release", release)
    assert done.returncode == 1 and told in done.stderr.decode(), done.stderr


def test_the_page_declares_what_it_says(server: Server, release: Path) -> None:
    page = Page(layout.ROOT / "docs" / "how-to" / "entities.md")
    moments = np.array([MIDNIGHT + 2 * HOUR_S, MIDNIGHT])
    names: dict[str, Any] = {"tables": tables(), "piers": np.array(["North", "South"]), "departures": moments}
    exec("\n".join(block.text for block in page.blocks if block.language == "python"), names)
    assert names["ENTITIES"] == ENTITIES
    assert names["tides"].known["tide"].tolist() == [True, False]
    server.outputs = "minutes"
    assert names["minutes_late"](server, release) == server.infer("ferries", server.inputs)["minutes"]
