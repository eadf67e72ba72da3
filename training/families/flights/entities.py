"""What a caller knows of a flight, and where a release looks up the rest: by the same joins as training."""

from contracts.entities.declaration import AsOf, Declaration, Entity, Fill, Lookup
from training.families.flights.features import FAMILY, names

ORIGIN_ZONE = "America/New_York"  # of all three airports
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
PLANE = ("plane_year", "plane_seats")
HOUR_S = 3600
STALE_S = 3 * HOUR_S  # weather that was over so long ago is taken for none: some hours were not recorded
_KEY = ("carrier", "flight", "origin", "destination")


def _fills(columns: tuple[str, ...]) -> tuple[Fill, ...]:
    return tuple(Fill(name, default="nan") for name in columns)


ENTITIES = Declaration(
    FAMILY,
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
            AsOf("departure", lag_s=HOUR_S, most_age_s=HOUR_S + STALE_S),
        ),
    ),
)
