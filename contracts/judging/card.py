"""The words of a model card: what figures do not say of a model, said by who made it.

A release has them in its manifest, and its report shows them beside the figures that its export measured (Mitchell et
al., Model Cards for Model Reporting, FAccT 2019).
"""

from dataclasses import dataclass, fields

from contracts.errors import SpecError


@dataclass(frozen=True)
class Card:
    """What a model is for and what not, in sentences of plain text."""

    purpose: str  # what it answers, and for whom
    data: str  # what it learned from: where that comes from, its licence, what was left out
    splits: str  # how that was split, and why so
    limits: tuple[str, ...]  # where its answers are known to be worse, or nothing is known of them
    not_for: tuple[str, ...]  # what it must not be used for

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            texts = (value,) if field.type == "str" or field.type is str else value
            if not isinstance(texts, tuple) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
                raise SpecError(f"the model card says nothing of {field.name}", hint="a sentence; of limits, several")
