"""Models as callers are told of them: which there are, and what each takes, answers and is for."""

from typing import Any

from pydantic import BaseModel, Field

from gateway.triton.models import Tensor
from gateway.typed import openapi
from gateway.typed.known.catalog import Listed


class ModelBrief(BaseModel):
    """A model in the list."""

    name: str
    version: str = Field(description="that answers where none is named")
    versions: list[str]
    tasks: list[str] = Field(description="predict, classify, embed: what it is asked at /v1/models/NAME/TASK")
    purpose: str | None = Field(description="what it is for, as its release's card says")


class ModelList(BaseModel):
    """The models that the key may read."""

    models: list[ModelBrief]


class TensorAbout(BaseModel):
    """An input or output; -1 may be any size."""

    name: str
    datatype: str
    dims: list[int]
    optional: bool


class EntityAbout(BaseModel):
    """What a caller may give, so that the rest is looked up."""

    name: str
    kind: str
    about: str
    values: list[str]
    default: float | str | None


class ModelAbout(ModelBrief):
    """All that is known of a model."""

    max_batch_size: int
    inputs: list[TensorAbout]
    outputs: list[TensorAbout]
    forms: list[str] = Field(description="how `predict` is given rows: rows, inputs, entities")
    unsupported: str | None = Field(description="why it is not asked here")
    entities: list[EntityAbout]
    release: dict[str, Any] | None = Field(description="of its release: when it was made, what it scored, its card")
    example: dict[str, Any] | None = Field(description="a request that is right")


def brief(listed: Listed) -> dict[str, Any]:
    """Return a model for the list."""
    model = listed.signature.model
    card = listed.release.manifest.card if listed.release.manifest else None
    return {
        "name": model.name,
        "version": model.version,
        "versions": [*model.versions],
        "tasks": [*listed.signature.tasks],
        "purpose": card.purpose if card else None,
    }


def whole(listed: Listed) -> dict[str, Any]:
    """Return all that is known of a model."""
    model, made = listed.signature.model, openapi.examples(listed)
    return {
        **brief(listed),
        "max_batch_size": model.max_batch_size,
        "inputs": [_tensor(tensor) for tensor in model.inputs],
        "outputs": [_tensor(tensor) for tensor in model.outputs],
        "forms": [form for form in listed.signature.requests if form != "texts"],
        "unsupported": listed.signature.unsupported,
        "entities": [
            {
                "name": each.name,
                "kind": each.kind,
                "about": each.about,
                "values": [*each.values],
                "default": each.default,
            }
            for each in (listed.release.entities.known if listed.release.entities else ())
        ],
        "release": listed.release.described() or None,
        "example": next((made[form][0] for form in ("entities", "rows") if form in made), None),
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "dims": [*tensor.dims], "optional": tensor.optional}
