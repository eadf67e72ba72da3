"""What a model answered, and which of its versions did."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from clients.core.tensors import Arrays, concatenated


class Answer(Arrays):
    """A model's outputs by their names: a dict, which also says who answered.

    Attributes:
        model: The name under which it answered.
        versions: Of the model, ascending: one, or none if the server did not say. Of a batch that was split several, if
            the server was switched to another release meanwhile.
    """

    def __init__(self, outputs: Mapping[str, NDArray[Any]], model: str = "", versions: tuple[int, ...] = ()) -> None:
        super().__init__(outputs)
        self.model, self.versions = model, versions

    @classmethod
    def said(cls, outputs: Mapping[str, NDArray[Any]], model: Any, version: Any) -> Self:
        """Make one of what a response says of model and version, which may be anything."""
        number = str(version)
        known = number.isascii() and number.isdecimal() and len(number) < 20  # digits: as Triton's 64 bits have
        return cls(outputs, model if isinstance(model, str) else "", (int(number),) if known else ())

    @classmethod
    def of_chunks(cls, answers: Sequence["Answer"], rows: Sequence[int]) -> Self:
        """Put the answers to the chunks of a batch together, as that to the whole.

        Args:
            rows: How many were sent in each chunk.

        Raises:
            InvalidResponseError: they do not fit together.
        """
        versions = {version for answer in answers for version in answer.versions}
        return cls(concatenated(answers, rows), answers[0].model, tuple(sorted(versions)))

    @property
    def version(self) -> int | None:
        """The version that answered; None if the server did not say, or there are several."""
        return self.versions[0] if len(self.versions) == 1 else None
