"""What a caller knows of a flight, and where a release looks up the rest: by the same joins as training."""

from dataclasses import dataclass

from contracts.entities.declaration import AsOf, Declaration, Entity, Fill, Lookup
from training.families.flights.features import FAMILY, names

ORIGIN_ZONE = "America/New_York"  # of all three airports
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
PLANE = ("plane_year", "plane_seats")
HOUR_S = 3600
STALE_S = 3 * HOUR_S  # weather that was over so long ago is taken for none: some hours were not recorded
KEY = ("carrier", "flight", "origin", "destination")


@dataclass(frozen=True)
class Rolling:
    """How late the flights of a carrier, a route or an airport have lately arrived.

    Attributes:
        of: Whose they are: what its two features, and its table, are named after.
        window_s: Of the arrivals that count, up to the newest of them; after as long, that is forgotten as well.
    """

    of: str
    key: tuple[str, ...]
    window_s: int

    @property
    def table(self) -> str:
        """The table, and the feature view."""
        return f"{self.of}_delays"

    @property
    def features(self) -> tuple[str, str]:
        """The mean delay of the arrivals in the window, in minutes, and how many they are."""
        return f"{self.of}_delay", f"{self.of}_arrivals"


ROLLING = (
    Rolling("carrier", ("carrier",), 3 * HOUR_S),
    Rolling("route", ("origin", "destination"), 24 * HOUR_S),
    Rolling("origin", ("origin",), 3 * HOUR_S),
    Rolling("destination", ("destination",), 6 * HOUR_S),
)
DELAYS = tuple(name for rolling in ROLLING for name in rolling.features)


def _fills(columns: tuple[str, ...]) -> tuple[Fill, ...]:
    return tuple(Fill(name, default="nan") for name in columns)


def _lookup(rolling: Rolling) -> Lookup:
    """Declare a rolling delay: no release has the table, which would be of no use after some hours."""
    key, as_of = dict(zip(rolling.key, rolling.key, strict=True)), AsOf("departure", most_age_s=rolling.window_s)
    return Lookup(rolling.table, key, _fills(rolling.features), as_of, view=rolling.table, kept=False)


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
        Lookup("schedule", dict(zip(KEY, KEY, strict=True)), _fills(("duration", "distance", *PLANE))),
        Lookup(
            "weather",
            {"origin": "origin"},
            _fills(WEATHER),
            # A row has the time at which its hour begins, and is known when that is over.
            AsOf("departure", lag_s=HOUR_S, most_age_s=HOUR_S + STALE_S),
            view="weather",
        ),
        *(_lookup(rolling) for rolling in ROLLING),
    ),
)
