"""What a gate found: an outcome for each expectation."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_LONGEST = 160  # characters that are shown of what was found or expected


@dataclass(frozen=True)
class Outcome:
    """What became of an expectation.

    Attributes:
        expectation: As Great Expectations calls it, expect_column_values_to_be_unique.
        column: Of which column; None of several or of the table.
        expected: Its other arguments.
        observed: A figure of the column; None of one that looks at each row by itself.
        unexpected: So many rows are not as expected; None of one that is about a figure.
        examples: Some of their values.
        exception: Why it could not be asked; None where it was.
    """

    table: str
    expectation: str
    column: str | None
    expected: Mapping[str, Any]
    success: bool
    observed: Any
    unexpected: int | None
    examples: tuple[Any, ...]
    exception: str | None

    @property
    def name(self) -> str:
        """Return "weather.expect_column_values_to_be_unique(hour)"."""
        return f"{self.table}.{self.expectation}({self.column or ''})"

    @property
    def told(self) -> str:
        """Say what was found in place of what."""
        if self.exception is not None:
            return f"could not be asked: {_short(self.exception)}"
        found = f"found {_short(self.observed)}" if self.unexpected is None else self._rows()
        return f"{found}; expected {_short(self.expected)}"

    def _rows(self) -> str:
        rows = "row is" if self.unexpected == 1 else "rows are"
        return f"{self.unexpected:,} {rows} not so, as {_short(list(self.examples))}"


@dataclass(frozen=True)
class Verdict:
    """What a gate found in the tables of a family.

    Attributes:
        rows: {table: how many}.
        docs: The first page of the data docs.
    """

    family: str
    gate: str
    rows: Mapping[str, int]
    outcomes: tuple[Outcome, ...]
    docs: str

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Return the outcomes that stop the pipeline, those first that say why others could not be asked."""
        failed = [outcome for outcome in self.outcomes if not outcome.success]
        return tuple(sorted(failed, key=lambda outcome: outcome.exception is not None))

    def figures(self) -> Mapping[str, Any]:
        """Return {table: {"rows": …, "mean(distance)": …}}: what `dvc metrics diff` compares."""
        found: dict[str, dict[str, Any]] = {table: {"rows": count} for table, count in self.rows.items()}
        for outcome in self.outcomes:
            for name, value in _numbers(outcome):
                found[outcome.table][name] = value
        return found


def as_json(found: Verdict) -> str:
    """Return a verdict for whatever reads JSON, which has no NaN: null in its place, as of the mean of nothing."""
    return json.dumps(_finite(asdict(found)), indent=2, allow_nan=False)


def read(path: Path) -> Verdict:
    """Read a verdict that was written as JSON."""
    held = json.loads(path.read_text(encoding="utf-8"))
    outcomes = tuple(Outcome(**{**each, "examples": tuple(each["examples"])}) for each in held.pop("outcomes"))
    return Verdict(**held, outcomes=outcomes)


def _numbers(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """Yield the figure of a column that was looked at, "mean(distance)"; of rows, the share that is not as expected."""
    if outcome.column is None or outcome.exception is not None:
        return
    figure = outcome.expectation.removeprefix("expect_column_").partition("_to_be_between")[0]
    if isinstance(outcome.observed, int | float) and math.isfinite(outcome.observed):
        yield f"{figure}({outcome.column})", outcome.observed
    elif outcome.unexpected is not None and outcome.expectation == "expect_column_values_to_not_be_null":
        yield f"missing({outcome.column})", outcome.unexpected


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
