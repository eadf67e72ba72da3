"""From when to when rows are written into an online store."""

from datetime import UTC, datetime, timedelta

from training.errors import FeatureError

# Rows that are reported so late are written all the same; later ones with --again.
LATE = timedelta(days=1)
_BEGIN = datetime.fromtimestamp(0, UTC)


def interval(
    view: str, *, newest: datetime, before: datetime | None, served: timedelta, to: datetime | None, again: bool
) -> tuple[datetime, datetime]:
    """Return the moments between which rows of a view became known that are to be written.

    It ends with the newest row that there is, whatever was asked for: noted as done beyond that, a row that is reported
    later would never be written.

    Args:
        newest: Of the view's rows.
        before: Where the last time ended; None: there was none.
        served: How long a row is served; 0: for ever.
        to: Up to when; None: the newest row.
        again: As if there were no last time.

    Raises:
        FeatureError: it would end before the last time.
    """
    until = min(to or newest, newest, datetime.now(UTC))
    if before is not None and until < before:
        raise FeatureError(
            f"{view} has what was known by {told(before)}, and would be turned back to {told(until)}",
            note="rows of the future would stay in it",
            hint="--anew empties the online store first",
        )
    since = until - served if served else _BEGIN
    return (since if before is None or again else max(since, before - LATE)), until


def told(moment: datetime | None) -> str:
    """Return a moment as people read it."""
    return "nothing" if moment is None else moment.strftime("%Y-%m-%dT%H:%MZ")
