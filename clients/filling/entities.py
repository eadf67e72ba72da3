"""The entities of a model: what its callers know, made its inputs.

entities = Entities.of_release(Path("model_repository/NETWORK/VERSION"))
filled = entities.fill([{"line": "A", "pier": "North", "departure": "2013-11-03T08:30"}])
answer = client.infer(filled.model, filled.inputs)

Nothing is sent to find the rest: it lies in the tables of the release, or wherever another Source looks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from clients.errors import InvalidInputError
from contracts import manifest
from contracts.entities import filling, releases
from contracts.entities.declaration import Declaration, Entity
from contracts.entities.filling import Filled, Row
from contracts.entities.tables import Source
from contracts.errors import EntityError


class Entities:
    """Fills the inputs of a model from what its callers know. Thread-safe, as far as its source is.

    Args:
        declaration: What they know, and how the rest is looked up.
        source: Where that is: tables, or a server of features.
        version: Of the release that declares it; None: it is of none.
    """

    def __init__(self, declaration: Declaration, source: Source, version: int | None = None) -> None:
        self.declaration, self.version, self._source = declaration, version, source

    @classmethod
    def of_release(cls, directory: Path) -> Self:
        """Read the declaration and the tables in the directory of a version, as it was published.

        Raises:
            ManifestError: it declares none, or a table is missing or another one.
        """
        declaration, tables = releases.read(directory)
        return cls(declaration, tables, manifest.read(directory).version)

    @property
    def model(self) -> str:
        """The model that takes the inputs."""
        return self.declaration.model

    @property
    def known(self) -> tuple[Entity, ...]:
        """What a caller gives."""
        return self.declaration.entities

    def fill(self, rows: Sequence[Row]) -> Filled:
        """Make the inputs of the model for rows of {entity: value}; numbers and times may be text.

        Raises:
            InvalidInputError: a row lacks an entity or has one that is none, or nothing is known of it and no default
                is declared.
        """
        try:
            return filling.fill(self.declaration, rows, self._source)
        except EntityError as error:
            raise InvalidInputError(f"{self.model}: {error}") from error
