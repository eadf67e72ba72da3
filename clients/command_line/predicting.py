"""What `python -m clients predict` does: rows of entities, each filled, sent, and answered or refused by itself."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from cli.terminal import Rows
from clients.client import Client
from clients.command_line import commands, files
from clients.core.answer import Answer
from clients.errors import ClientError, DeadlineExceededError, InvalidInputError, ServerUnavailableError
from clients.filling import features
from clients.filling.entities import Entities
from clients.filling.feature_server import FeatureServer
from contracts import layout
from contracts.entities import releases
from contracts.entities.declaration import Entity
from contracts.entities.filling import Filled, Row
from contracts.running import record

_ROWS = 512  # that are filled and sent at once
_IN_VAIN = (ServerUnavailableError, DeadlineExceededError)  # nor will there be an answer to the other rows

Outcome = Answer | ClientError


def predict(options: argparse.Namespace) -> int:
    """Answer each row; return 1 if one was refused or failed."""
    with _features(options) as server:
        return _predict(options, _entities(options, server), server)


def _predict(options: argparse.Namespace, entities: Entities, server: FeatureServer | None) -> int:
    answered, failed, versions = 0, 0, set[int]()
    with _rows(options, entities) as rows, commands.connected(options) as client:
        outputs = [tensor.name for tensor in client.metadata(options.model).outputs] if options.csv else []
        show = _printer(options, entities, outputs)
        while chunk := [*islice(rows, _ROWS)]:
            for row, (filled, outcome) in zip(chunk, _outcomes(client, entities, chunk), strict=True):
                show(row, filled, outcome)
                failed += isinstance(outcome, ClientError)
                answered += not isinstance(outcome, ClientError)
                versions |= {*outcome.versions} if isinstance(outcome, Answer) else set()
    if not answered + failed:
        raise InvalidInputError(f"{options.rows} has no rows")
    if answered + failed > 1:
        print(f"{answered:,} answered, {failed:,} failed", file=sys.stderr)
    _tell(server, entities)
    if strange := sorted(versions - {entities.version}):
        print(
            f"Note: version {strange[0]} answered, and the tables are those of version {entities.version}\n"
            "Hint: --release names the directory of the version that serves",
            file=sys.stderr,
        )
    return 1 if failed else 0


@contextmanager
def _features(options: argparse.Namespace) -> Iterator[FeatureServer | None]:
    """Open the feature server that was named, if one was."""
    url = options.features or os.environ.get("FEATURES_URL")
    if not url:
        yield None
        return
    with FeatureServer(url) as server:
        yield server


def _tell(server: FeatureServer | None, entities: Entities) -> None:
    """Say what the feature server answered, and of what it did not why."""
    if server is None:
        return
    if not entities.declaration.views:
        print(f"Note: the release declares no features: {server.address} was not asked", file=sys.stderr)
    elif server.counts:
        print(f"Rows from {server.address}: {', '.join(features.told(server.counts))}", file=sys.stderr)
    if server.failure:
        print(
            f"Note: {server.address} did not answer: {server.failure}\n"
            "Hint: python -m training features serve FAMILY; without it rows have the release's tables and defaults",
            file=sys.stderr,
        )


def _entities(options: argparse.Namespace, server: FeatureServer | None) -> Entities:
    """Find the release whose declaration is meant: the one named, or the newest of the model."""
    directory = options.release
    if directory is None:
        up = record.running()
        root = Path(up.repository) if up else layout.model_repository()
        if (directory := releases.find(root, options.model)) is None:
            raise InvalidInputError(
                f"no release in {layout.shown(root)} declares entities of {options.model}",
                hint=f"--release names the directory of one; python -m clients infer {options.model} takes its inputs",
            )
    entities = Entities.of_release(directory, server)
    if entities.model != options.model:
        raise InvalidInputError(f"the release in {directory} declares entities of {entities.model}")
    return entities


@contextmanager
def _rows(options: argparse.Namespace, entities: Entities) -> Iterator[Iterator[Row]]:
    """Open the rows that were named: a file of them, or one on the command line."""
    if options.rows is not None and options.entities:
        raise InvalidInputError("rows come from --rows or from the command line: give one of the two")
    if options.rows is None:
        yield iter([_row_of(options.entities, entities)])
    elif str(options.rows) == files.STDIN:
        yield _read(sys.stdin, "standard input")
    else:
        try:
            with options.rows.open(encoding="utf-8-sig", newline="") as stream:
                yield _read(stream, str(options.rows))
        except OSError as error:
            raise InvalidInputError(f"cannot read {options.rows}: {error.strerror}") from error


def _row_of(given: Sequence[str], entities: Entities) -> Row:
    row = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"{text!r} is not NAME=VALUE", note=f"entities: {_listed(entities.known)}")
        row[name] = value
    if not row:
        raise InvalidInputError(
            f"{entities.model} is asked of: {_listed(entities.known)}", hint="NAME=VALUE, or --rows"
        )
    return row


def _listed(known: Iterable[Entity]) -> str:
    return ", ".join(f"{entity.name} ({entity.about or entity.kind})" for entity in known)


def _read(stream: TextIO, name: str) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header, or of JSON objects, one a line.

    Spreadsheets of half the world separate by semicolons or tabs: whichever the line of names has.
    """
    try:
        first = stream.readline()
        lines = (line for start in ([first], stream) for line in start)
        if first.lstrip().startswith("{"):
            yield from (dict(json.loads(line)) for line in lines if line.strip())
            return
        separator = next((mark for mark in ",;\t" if mark in first), ",")
        table = csv.DictReader(lines, restkey="", delimiter=separator)
        if len({*(table.fieldnames or ())}) < len(table.fieldnames or ()):
            raise InvalidInputError(f"{name}: two of its columns have the same name")
        for row in table:
            if row.pop("", None):
                raise InvalidInputError(f"{name}: a row has more cells than the first one has names")
            yield row
    except (ValueError, TypeError, RecursionError, csv.Error) as error:  # a UnicodeDecodeError is a ValueError
        raise InvalidInputError(
            f"{name} has no rows of entities: {error}",
            hint="CSV with a line of names, or a JSON object a line, in UTF-8",
        ) from error


def _outcomes(client: Client, entities: Entities, rows: Sequence[Row]) -> list[tuple[Filled | None, Outcome]]:
    """Fill rows and ask them together: one that is refused costs no other its answer."""
    found = _filled(entities, rows)
    sent = [filled for filled in found if isinstance(filled, Filled)]
    answers = iter(_answers(client, sent) if sent else ())
    return [(each, next(answers)) if isinstance(each, Filled) else (None, each) for each in found]


def _filled(entities: Entities, rows: Sequence[Row]) -> list[Filled | InvalidInputError]:
    """Fill rows at once, as a feature server is asked once then; where that is refused, halves of them."""
    try:
        whole = entities.fill(rows)
    except InvalidInputError as error:
        if len(rows) == 1:
            return [error]
        middle = len(rows) // 2
        return [*_filled(entities, rows[:middle]), *_filled(entities, rows[middle:])]
    return [
        Filled(
            whole.model,
            {name: values[row : row + 1] for name, values in whole.inputs.items()},
            whole.defaults[row : row + 1],
            whole.instead[row : row + 1],
        )
        for row in range(len(rows))
    ]


def _answers(client: Client, sent: Sequence[Filled]) -> list[Outcome]:
    """Ask rows at once; where that is refused, halves of them, down to the row that is why."""
    inputs = {name: np.concatenate([filled.inputs[name] for filled in sent]) for name in sent[0].inputs}
    try:
        answer = client.infer(sent[0].model, inputs)
    except _IN_VAIN:
        raise
    except ClientError as error:
        if len(sent) == 1:
            return [error]
        middle = len(sent) // 2
        return [*_answers(client, sent[:middle]), *_answers(client, sent[middle:])]
    return [
        Answer({name: values[row : row + 1] for name, values in answer.items()}, answer.model, answer.versions)
        for row in range(len(sent))
    ]


def _printer(
    options: argparse.Namespace, entities: Entities, outputs: Sequence[str]
) -> Callable[[Row, Filled | None, Outcome], None]:
    """Return what prints a row's outcome, in the form that was asked for."""
    names = [entity.name for entity in entities.known]
    table = Rows(sys.stdout, lineterminator="\n")
    if options.csv:
        table.write([*names, *outputs, "defaults", "error", "version"])

    def as_csv(row: Row, filled: Filled | None, outcome: Outcome) -> None:
        told: list[object] = [" ".join(filled.defaults[0]) if filled else ""]
        if isinstance(outcome, ClientError):
            values, told = {}, [*told, str(outcome), ""]
        else:
            values, told = _values(outcome), [*told, "", outcome.version]
        table.write([*(row.get(name) for name in names), *(values.get(name, "") for name in outputs), *told])

    def as_json(row: Row, filled: Filled | None, outcome: Outcome) -> None:
        if isinstance(outcome, ClientError):
            print(json.dumps({"entities": row, "error": str(outcome)}))
            return
        defaults = [*filled.defaults[0]] if filled else []
        instead = {"instead": dict(filled.instead[0])} if filled and filled.instead[0] else {}
        who = {"model": outcome.model, "version": outcome.version}
        print(json.dumps({"entities": row, "outputs": _values(outcome), "defaults": defaults, **instead, **who}))

    def as_text(row: Row, filled: Filled | None, outcome: Outcome) -> None:
        told = " ".join(str(row[name]) for name in names if row.get(name) not in (None, ""))
        if isinstance(outcome, ClientError):
            print(f"{told}  error: {outcome}", file=sys.stderr)
            return
        figures = ", ".join(f"{name} {_short(value)}" for name, value in _values(outcome).items())
        defaults = f"  (not known: {', '.join(filled.defaults[0])})" if filled and filled.defaults[0] else ""
        print(f"{told}  {figures}{defaults}")

    return as_json if options.json else as_csv if options.csv else as_text


def _values(answer: Answer) -> dict[str, Any]:
    """Return the outputs of one row: one value as it is, several as a list."""
    rows = {name: files.as_json(values)[0] for name, values in answer.items()}
    return {name: row[0] if isinstance(row, list) and len(row) == 1 else row for name, row in rows.items()}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
