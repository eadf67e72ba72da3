"""What a model takes and answers, as types: Pydantic checks by them, and OpenAPI shows them.

A model's rows may be given as `rows`, one object each, or as `inputs`, one list a tensor; a model of tables also as
`entities`, what a caller knows, from which the rest is looked up.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, create_model

from contracts.entities import records
from contracts.entities.declaration import Declaration, Entity
from gateway.triton.models import Model, Tensor
from gateway.typed.known import values
from gateway.typed.known.values import list_of

Task = Literal["predict", "classify", "embed"]
_STRICT = ConfigDict(extra="forbid")
_TOP = ("top_labels", "top_scores")


@dataclass(frozen=True)
class Signature:
    """A model as the typed door has it.

    Attributes:
        title: What the names of its types begin with: FashionClassifier. No other model's do.
        requests: {how rows are given: the type of such a request}.
        answers: {how they are given: the type of its answer}.
        records: It is sent one JSON text a row, `records`, in place of its inputs (contracts.entities.records).
        unsupported: Why JSON has nothing for its tensors; then there are no requests.
    """

    model: Model
    title: str
    declaration: Declaration | None
    tasks: tuple[Task, ...]
    requests: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    answers: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    unsupported: str | None = None
    records: bool = False

    @property
    def batched(self) -> bool:
        """Whether a request may have several rows."""
        return self.model.max_batch_size > 0


def title(name: str) -> str:
    """Return a model's name as the name of a type is written; those of `a_b` and `a.b` are the same."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    found = "".join(word[:1].upper() + word[1:] for word in words)
    return found if found[:1].isalpha() else f"Model{found}"


def of(model: Model, title: str, declaration: Declaration | None = None) -> Signature:
    """Make the types of a model, whose names begin with its title.

    Of one that takes records callers are told the other inputs alone, and all of them are asked for.
    """
    found = records.taken({tensor.name: (tensor.datatype, tensor.dims, tensor.optional) for tensor in model.inputs})
    if found:
        columns = (replace(tensor, optional=False) for tensor in model.inputs if tensor.name != records.NAME)
        model = replace(model, inputs=tuple(columns))
    try:
        requests = _requests(model, title, declaration)
        answers = _answers(model, title, requests)
    except ValueError as error:
        return Signature(model, title, declaration, (), unsupported=str(error))
    return Signature(model, title, declaration, _tasks(model), requests, answers, records=found)


def only_input(model: Model) -> Tensor | None:
    """Return the input of a model that takes one text or file a row; None of others."""
    first = model.inputs[0] if len(model.inputs) == 1 else None
    return first if first and first.datatype == "BYTES" and first.dims == (1,) and model.max_batch_size else None


def embedding(model: Model) -> Tensor | None:
    """Return the output of a model that answers one vector of floats a row; None of others."""
    first = model.outputs[0] if len(model.outputs) == 1 else None
    return first if first and first.datatype.startswith("FP") and len(first.dims) == 1 else None


def _tasks(model: Model) -> tuple[Task, ...]:
    found: list[Task] = ["predict"]
    if only_input(model) is not None:
        if all(name in model.output for name in _TOP):
            found.append("classify")
        if embedding(model) is not None:
            found.append("embed")
    return tuple(found)


def _requests(model: Model, name: str, declaration: Declaration | None) -> dict[str, type[BaseModel]]:
    outputs: Any = Literal[tuple(tensor.name for tensor in model.outputs)]
    wanted: Any = (
        list_of(outputs) | None,
        Field(None, min_length=1, description="which outputs; all where it is left out"),
    )
    found = {}
    if model.max_batch_size:
        most: Any = Field(min_length=1, max_length=model.max_batch_size)
        row = _object(f"{name}Row", {tensor.name: _typed(tensor) for tensor in model.inputs})
        found["rows"] = _object(f"{name}ByRows", {"rows": (list_of(row, most), ...), "outputs": wanted})
        columns = {tensor.name: _typed(tensor, most) for tensor in model.inputs}
    else:
        columns = {tensor.name: _typed(tensor) for tensor in model.inputs}
    inputs = _object(f"{name}Inputs", columns)
    found["inputs"] = _object(f"{name}ByInputs", {"inputs": (inputs, ...), "outputs": wanted})
    if declaration is not None and model.max_batch_size:
        known = _object(f"{name}Entities", {each.name: _entity(each) for each in declaration.entities})
        given = {"entities": (list_of(known, most), ...), "outputs": wanted}
        found["entities"] = _object(f"{name}ByEntities", given)
    if "embed" in _tasks(model):
        text = Annotated[StrictStr, Field(min_length=1)]
        found["texts"] = _object(f"{name}Texts", {"texts": (list_of(text, most), ...)})
    return found


def _answers(model: Model, name: str, requests: Mapping[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    about: dict[str, Any] = {
        "model": (str, ...),
        "version": (str, Field(description="that answered")),
        "request_id": (str, Field(description="by which a label is sent to /v1/feedback")),
    }
    row = {tensor.name: _answered(tensor) for tensor in model.outputs}
    found = {"inputs": _object(f"{name}Outputs", {**about, "outputs": (_columns(name, model), ...)}, None)}
    if "rows" in requests:
        rows: Any = (list_of(_object(f"{name}OutputRow", row, None)), ...)
        told = "where entities were given: of each row what is not known, so that a default is sent"
        # One type for both: a generated client takes the first that fits.
        more: Any = (
            {"defaults": (list[list[str]] | None, Field(None, description=told))} if "entities" in requests else {}
        )
        found["rows"] = _object(f"{name}Rows", {**about, "rows": rows, **more}, None)
    return found


def _columns(name: str, model: Model) -> type[BaseModel]:
    columns = {}
    for tensor in model.outputs:
        kind = values.annotation(tensor)
        columns[tensor.name] = (list_of(kind) if model.max_batch_size else kind, Field(None))
    return _object(f"{name}OutputColumns", columns, None)


def _answered(tensor: Tensor) -> Any:
    return values.annotation(tensor), Field(None, description=tensor.datatype)  # one that is not asked for is left out


def _typed(tensor: Tensor, rows: Any = None) -> Any:
    kind = values.annotation(tensor)
    kind = kind if rows is None else list_of(kind, rows)
    example = values.example(tensor)
    more: dict[str, Any] = {"description": tensor.datatype, "examples": [example if rows is None else [example]]}
    return (kind | None, Field(None, **more)) if tensor.optional else (kind, Field(**more))


def _entity(entity: Entity) -> Any:
    kinds: dict[str, Any] = {"text": StrictStr, "time": StrictStr, "integer": StrictInt, "number": StrictFloat}
    kind: Any = Literal[tuple(entity.values)] if entity.values else kinds[entity.kind]
    about = entity.about or entity.kind
    about += f", local time of {entity.zone}" if entity.kind == "time" and entity.zone else ""
    return (kind, Field(description=about)) if entity.default is None else (kind | None, Field(None, description=about))


def _object(name: str, fields: Mapping[str, Any], config: ConfigDict | None = _STRICT) -> type[BaseModel]:
    """Make a type; its fields have names of their own, as a tensor may be called `copy` or `model_config`."""
    made: dict[str, Any] = {}
    for number, (alias, (kind, told)) in enumerate(fields.items()):
        named: Any = Annotated[kind, Field(alias=alias, title=alias)]
        made[f"field_{number}"] = (named, told)
    base = ConfigDict(protected_namespaces=(), title=name, **(config or {}))
    return create_model(name, __config__=base, **made)
