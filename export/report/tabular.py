"""The report's pictures of what each column of a table does to the answers."""

from collections.abc import Sequence

from cli.plots import BLUE, GREY, VERMILION
from export.report.importance import Explained, Importance
from export.report.plots import data_url, page_figure

_ROWS = 12  # columns of one prediction


def overall(found: Importance) -> str:
    """Draw what each column moves an answer by on average, the most important above."""
    columns = dict(reversed(found.overall.items()))
    with page_figure(0.9 + 0.24 * len(columns)) as canvas:
        axes = canvas.add_subplot()
        axes.barh(list(columns), list(columns.values()), color=BLUE)
        axes.set_xlabel("mean of what it moves the answer by, without sign")
        axes.grid(axis="y", visible=False)
        return data_url(canvas)


def predictions(found: Importance) -> str:
    """Draw what moved single predictions, a panel each: from the mean of the others to the answer."""
    with page_figure(0.9 + 0.24 * _ROWS) as canvas:
        for number, one in enumerate(found.shown, start=1):
            axes = canvas.add_subplot(1, len(found.shown), number)
            rows = _largest(one, found.columns)
            moved = [value for _, value in rows]
            axes.barh(range(len(rows)), moved, color=[VERMILION if value > 0 else BLUE for value in moved])
            axes.set_yticks(range(len(rows)), [label for label, _ in rows])
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_title(f"no. {one.index}: {one.answer:.3f}, the mean is {found.mean:.3f}", fontsize=9)
            axes.grid(axis="y", visible=False)
        return data_url(canvas)


def _largest(one: Explained, columns: Sequence[str]) -> list[tuple[str, float]]:
    """Return the columns that moved a prediction most, and the others together, the most above: last."""
    rows = [(f"{column} = {value}", moved) for column, value, moved in zip(columns, one.values, one.moved, strict=True)]
    rows.sort(key=lambda row: -abs(row[1]))
    others = rows[_ROWS - 1 :]
    shown = rows[: _ROWS - 1]
    if others:
        shown.append((f"{len(others)} others", sum(moved for _, moved in others)))
    return shown[::-1]
