"""What is written goes on where it ended, never beyond what there is, and never back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from training.errors import FeatureError
from training.features.intervals import interval

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def written(**given: Any) -> tuple[datetime, datetime]:
    return interval("tides", **{"newest": NOW, "before": None, "served": 90 * DAY, "to": None, "again": False, **given})


@pytest.mark.parametrize(
    ("given", "since", "until"),
    [
        ({}, NOW - 90 * DAY, NOW),  # at first, all that is served yet, of a history of whatever age
        ({"to": NOW - DAY}, NOW - 91 * DAY, NOW - DAY),
        ({"before": NOW - HOUR}, NOW - HOUR - DAY, NOW),  # what is new, and what was reported late
        ({"before": NOW - HOUR, "again": True}, NOW - 90 * DAY, NOW),
        ({"before": NOW - HOUR, "served": 3 * HOUR}, NOW - 3 * HOUR, NOW),
        ({"before": NOW - 200 * DAY}, NOW - 90 * DAY, NOW),  # after a long pause
        ({"before": NOW}, NOW - DAY, NOW),  # once more
        ({"served": timedelta(0)}, datetime(1970, 1, 1, tzinfo=UTC), NOW),  # for ever
        ({"to": NOW + 1000 * DAY}, NOW - 90 * DAY, NOW),  # not what there is not yet
    ],
)
def test_it_goes_on_where_it_ended(given: dict[str, Any], since: datetime, until: datetime) -> None:
    assert written(**given) == (since, until)


def test_rows_of_the_future_are_left_for_later() -> None:
    soon = datetime.now(UTC) + 10 * DAY
    _, until = written(newest=soon)
    assert abs(datetime.now(UTC) - until) < timedelta(minutes=1)


def test_back_in_time_is_refused_with_the_way_to_do_it() -> None:
    with pytest.raises(
        FeatureError, match=r"tides has .* 2026-01-10T12:00Z, and would be turned back to (.|\n)*--anew"
    ):
        written(before=NOW, to=NOW - HOUR)
