"""An example of what a caller gives, for pages and documentation: what a request had, and keys that the tables have."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from contracts.entities.declaration import Declaration
from contracts.entities.filling import Row
from contracts.entities.tables import Tables


def row(declaration: Declaration, tables: Tables, known: Mapping[str, Any]) -> Row | None:
    """Make a row of entities of which the tables know something.

    Args:
        known: {input: its value} of a request that is right; of an entity that is not sent it has nothing, and a row of
            a table is taken that has the others' values, or its first.

    Returns:
        {entity: value}, without those that have a default; None where some entity can only be guessed.
    """
    entities = {entity.name: entity for entity in declaration.entities}
    found = {name: known[name] for name in entities if name in known}
    for lookup in declaration.lookups:
        own = {column: name for column, name in lookup.key.items() if name in entities}
        keys = tables.keys(lookup)
        if not keys or found.keys() >= {*own.values()}:
            continue
        fitting = [keys[column].astype(np.str_) == str(found[name]) for column, name in own.items() if name in found]
        place = int(np.argmax(np.all(fitting, axis=0))) if fitting else 0
        found |= {name: keys[column][place].item() for column, name in own.items()}
    found |= {name: entity.values[0] for name, entity in entities.items() if entity.values and name not in found}
    if any(entity.default is None and name not in found for name, entity in entities.items()):
        return None
    return {name: found[name] for name in entities if name in found}
