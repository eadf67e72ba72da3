"""What the feature store has of flights: the views that entities.py declares, of what delays.py computes."""

from training.families import Features
from training.families.flights.entities import ENTITIES
from training.families.flights.tables import delays

FEATURES = Features(
    declaration=ENTITIES,
    rows="departures",
    moment="departure_utc",
    computed=delays.tables,
    known=delays.arrived,
)
