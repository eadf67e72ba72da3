"""Moments, as callers write them and as the store keeps them: nanoseconds since 1970, in 64 bits."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

_FIRST, _END = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)


def ns_of(moment: datetime) -> int:
    """Return a moment as it is kept."""
    return (moment - _FIRST) // timedelta(microseconds=1) * 1000


def _kept(moment: datetime) -> datetime:
    if not _FIRST <= moment < _END:
        raise ValueError(f"a moment from {_FIRST.year} to {_END.year - 1}")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_kept)]
