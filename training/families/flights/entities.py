"""What a caller knows of a flight, and where a release looks up the rest: by the same joins as training."""

from contracts.entities.declaration import AsOf, Declaration, Entity, Fill, Lookup
from training.families.flights.departures import HOUR, ORIGIN_ZONE, PLANE, STALE, WEATHER
from training.families.flights.features import names

_HOUR_S = round(HOUR.total_seconds())
_KEY = ("carrier", "flight", "origin", "destination")


def _fills(columns: tuple[str, ...]) -> tuple[Fill, ...]:
    return tuple(Fill(name, default="nan") for name in columns)


ENTITIES = Declaration(
    "flights",
    (
        Entity("carrier", "text", about="the airline's code of two letters, as UA"),
        Entity("flight", "text", sent=False, about="its number without the airline, as 1545"),
        Entity("origin", "text", values=names()["origin"][1:], about="the airport that it leaves"),
        Entity("destination", "text", about="the airport that it goes to, as IAH"),
        Entity("departure", "time", zone=ORIGIN_ZONE, about="when it is scheduled to leave"),
    ),
    (
        Lookup("schedule", dict(zip(_KEY, _KEY, strict=True)), _fills(("duration", "distance", *PLANE))),
        Lookup(
            "weather",
            {"origin": "origin"},
            _fills(WEATHER),
            # A row has the time at which its hour begins, and is known when that is over.
            AsOf("departure", lag_s=_HOUR_S, most_age_s=_HOUR_S + round(STALE.total_seconds())),
        ),
    ),
)
