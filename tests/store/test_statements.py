"""How many statements a command asks does not grow with how much there is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from tests.store.given import event as happened
from tests.store.given import label, prediction
from tests.store.records import spooled
from tests.store.test_store_commands import DAY, Machine

COMMANDS = {
    "status": 3,
    "predictions --limit 1000": 2,
    "show r1": 3,
    "usage": 1,
    "retain --predictions 30 --labels 30 --events 30 --usage 30 --dry-run": 5,
    "retain --predictions 30": 6,
    "erase --request r1": 11,
}


@contextmanager
def counted() -> Iterator[list[str]]:
    """What any database is asked in this process within the block, without what begins, ends and settles."""
    heard: list[str] = []

    def hear(_: object, __: object, statement: str, *___: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            heard.append(re.sub(r"\?(, \?)+", "?", statement))

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def asked(machine: Machine, count: int, command: str) -> list[str]:
    records = [
        record
        for number in range(count)
        for record in (
            prediction(number + 1, time=DAY), label(2 * number, f"r{number + 1}", "a"),
            label(2 * number + 1, f"r{number + 1}", "b"), happened(number, request=f"r{number + 1}", time=DAY),
        )
    ]  # fmt: skip
    spooled(machine.spool, *records)
    machine.must("write", "--once")
    with counted() as heard:
        machine.must(*command.split())
    return heard


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_asks_the_same_of_few_and_of_many(command: str, tmp_path: Path) -> None:
    few, many = (asked(Machine(tmp_path / str(count)), count, command) for count in (2, 400))
    assert few == many and len(many) == COMMANDS[command], "\n".join(many)
