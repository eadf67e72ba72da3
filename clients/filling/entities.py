"""The entities of a model: what its callers know, made its inputs.

entities = Entities.of_release(Path("model_repository/NETWORK/VERSION"))
filled = entities.fill([{"line": "A", "pier": "North", "departure": "2013-11-03T08:30"}])
answer = client.infer(filled.model, filled.inputs)

The rest lies in the tables of the release, or wherever another Source looks. What the release says is in a feature view
is asked of a feature server, where one is given: what that does not know comes from the tables, else is the default.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from clients.errors import InvalidInputError
from clients.filling import features as messages
from contracts import manifest
from contracts.entities import example, filling, releases
from contracts.entities.declaration import Declaration, Entity
from contracts.entities.filling import Filled, Question, Row
from contracts.entities.tables import Found, Source, Tables
from contracts.errors import EntityError


class Features(Protocol):
    """A feature server for threads: clients.filling.feature_server.FeatureServer."""

    def answer(self, questions: Sequence[Question]) -> dict[int, Found]:
        """Answer questions, {id of each: what was found}; it raises nothing, and says why a row does not count."""


class AsyncFeatures(Protocol):
    """A feature server for asyncio: AsyncFeatureServer."""

    async def answer(self, questions: Sequence[Question]) -> dict[int, Found]:
        """As Features.answer."""


F = TypeVar("F")


class _Declared(Generic[F]):
    """What both kinds of entities have in common.

    Args:
        declaration: What callers know, and how the rest is looked up.
        source: Where that is: tables, or another Source.
        version: Of the release that declares it; None: it is of none.
        features: A server of features; None: nobody is asked.
    """

    def __init__(
        self, declaration: Declaration, source: Source, version: int | None = None, features: F | None = None
    ) -> None:
        self.declaration, self.version, self.features, self._source = declaration, version, features, source

    @classmethod
    def of_release(cls, directory: Path, features: F | None = None) -> Self:
        """Read the declaration and the tables in the directory of a version, as it was published.

        Raises:
            ManifestError: it declares none, or a table is missing or another one.
        """
        declaration, tables = releases.read(directory)
        return cls(declaration, tables, manifest.read(directory).version, features)

    @property
    def model(self) -> str:
        """The model that takes the inputs."""
        return self.declaration.model

    @property
    def known(self) -> tuple[Entity, ...]:
        """What a caller gives."""
        return self.declaration.entities

    def example(self, known: Mapping[str, Any]) -> Row | None:
        """Return a row that could be asked; None where one would have to be guessed.

        Args:
            known: {input: its value} of a request that is right.
        """
        return example.row(self.declaration, self._source, known) if isinstance(self._source, Tables) else None

    def _online(self, questions: Sequence[Question]) -> list[Question]:
        return [question for question in questions if self.features is not None and question.lookup.view]

    def _whole(self, questions: Sequence[Question], online: dict[int, Found]) -> list[Found]:
        return [
            messages.else_from(self._source, asked, online[id(asked)])
            if id(asked) in online
            else self._source.find(asked.lookup, asked.keys, asked.at)
            for asked in questions
        ]

    def _refused(self, error: EntityError) -> InvalidInputError:
        return InvalidInputError(f"{self.model}: {error}")


class Entities(_Declared[Features]):
    """Fills the inputs of a model from what its callers know. Thread-safe, as far as its source is."""

    def fill(self, rows: Sequence[Row]) -> Filled:
        """Make the inputs of the model for rows of {entity: value}; numbers and times may be text.

        Raises:
            InvalidInputError: a row lacks an entity or has one that is none, or nothing is known of it and no default
                is declared.
        """
        asking = filling.steps(self.declaration, rows)
        try:
            questions = next(asking)
            while True:
                online = self._online(questions)
                found = self.features.answer(online) if self.features and online else {}
                questions = asking.send(self._whole(questions, found))
        except StopIteration as done:
            filled: Filled = done.value
            return filled
        except EntityError as error:
            raise self._refused(error) from error


class AsyncEntities(_Declared[AsyncFeatures]):
    """The same for asyncio."""

    async def fill(self, rows: Sequence[Row]) -> Filled:
        """As Entities.fill."""
        asking = filling.steps(self.declaration, rows)
        try:
            questions = next(asking)
            while True:
                online = self._online(questions)
                found = await self.features.answer(online) if self.features and online else {}
                questions = asking.send(self._whole(questions, found))
        except StopIteration as done:
            filled: Filled = done.value
            return filled
        except EntityError as error:
            raise self._refused(error) from error
