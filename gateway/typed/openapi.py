"""The OpenAPI document: the door's own paths, and for every model that the caller may read paths with its real types.

`/v1/models/{model}/predict` stands there once for each model, under its name, so that a client that is generated from
it has a function and types for each. Examples are golden requests of the releases, with the reference's answers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import refusals
from gateway.refusals import MEDIA_TYPE, Kind
from gateway.typed import inference
from gateway.typed.known import signatures, values
from gateway.typed.known.catalog import Listed
from gateway.typed.known.values import Base64

_REF = "#/components/schemas/{model}"
_GENERIC = "/v1/models/{model}/"
_MOST_EXAMPLE = 65_536  # bytes; a larger one is made up
_ALWAYS = (400, 401, 403, 404, 413, 422, 429, 502, 503, 504)
_LABEL = {"anyOf": [{"type": "string"}, {"$ref": _REF.format(model="Base64")}]}
_TOP: dict[str, Any] = {"label": _LABEL, "score": {"type": ["number", "null"]}}
_HEADERS = (
    ("Idempotency-Key", {"type": "string", "maxLength": 255, "minLength": 1, "pattern": "^[\\x20-\\x7e]+$"}),
    ("Request-Timeout-Ms", {"type": "integer", "minimum": 1, "maximum": 999_999_999}),
    ("Request-Priority", {"type": "integer", "enum": [1, 2, 3]}),
)


def document(
    app: FastAPI, listed: Sequence[Listed], server: str, bodies: Mapping[str, type[BaseModel]]
) -> dict[str, Any]:
    """Write the document for a caller who may read these models.

    Args:
        bodies: {operation of the door's own: the type of its body}.
    """
    found = get_openapi(title="Models", version="1", description=app.description, routes=app.routes)
    paths = {path: item for path, item in found["paths"].items() if not path.startswith(_GENERIC)}
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= {"Problem": _problem(), "Prediction": _prediction()}
    schemas |= _types(listed, bodies.values())
    for each in listed:
        paths |= dict(_paths(each))
    for item in paths.values():
        for operation in item.values():
            if (kind := bodies.get(operation["operationId"])) is not None:
                content = {"schema": {"$ref": _REF.format(model=kind.__name__)}}
                operation["requestBody"] = {"required": True, "content": {"application/json": content}}
            _with_problems(operation)
    found["paths"] = paths
    found["servers"] = [{"url": server}]
    found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"key": []}]
    return found


def _types(listed: Sequence[Listed], bodies: Iterable[type[BaseModel]]) -> dict[str, Any]:
    own: list[type[BaseModel]] = [Base64, *bodies]
    kinds: list[tuple[type[BaseModel], Any]] = [(kind, "validation") for kind in own]
    for each in listed:
        kinds += [(kind, "validation") for kind in each.signature.requests.values()]
        kinds += [(kind, "serialization") for kind in each.signature.answers.values()]
    _, schema = models_json_schema(kinds, ref_template=_REF)
    return dict(_without_defaults(schema.get("$defs", {})))


def _without_defaults(schema: Any) -> Any:
    """Take the defaults out: for who generates types, a field that has one must be given."""
    if isinstance(schema, dict):
        named = schema.get("properties") is not None or "type" in schema or "anyOf" in schema or "$ref" in schema
        return {name: _without_defaults(value) for name, value in schema.items() if not (named and name == "default")}
    return [_without_defaults(each) for each in schema] if isinstance(schema, list) else schema


def _paths(listed: Listed) -> Iterator[tuple[str, Any]]:
    name, signature = listed.signature.model.name, listed.signature
    for task in signature.tasks:
        made = {"predict": _predict, "classify": _classify, "embed": _embed}[task](listed)
        operation = {
            "operationId": f"{task}_{name}",
            "summary": f"{task.capitalize()} with {name}",
            "tags": [name],
            "description": _about(listed),
            "parameters": [{"name": header, "in": "header", "schema": schema} for header, schema in _HEADERS],
            **made,
        }
        yield f"/v1/models/{name}/{task}", {"post": operation}


def _about(listed: Listed) -> str:
    manifest = listed.release.manifest
    return manifest.card.purpose if manifest and manifest.card else f"The model {listed.signature.model.name}."


def _predict(listed: Listed) -> dict[str, Any]:
    signature = listed.signature
    forms = {form: kind for form, kind in signature.requests.items() if form != "texts"}
    body: dict[str, Any] = {"schema": _one_of(forms)}
    if made := examples(listed):
        body["examples"] = {form: {"value": value} for form, (value, _) in made.items()}
    answer: dict[str, Any] = {"schema": _one_of(signature.answers)}
    if made:
        answer["examples"] = {form: {"value": value} for form, (_, value) in made.items() if value is not None}
    return {
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": {"description": "The answer", "content": {"application/json": answer}}},
    }


def _classify(listed: Listed) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    most = listed.signature.model.max_batch_size
    form = {
        "type": "object",
        "required": ["files"],
        "properties": {"files": {"type": "array", "items": file, "minItems": 1, "maxItems": most}},
    }
    content = {"multipart/form-data": {"schema": form}, "application/octet-stream": {"schema": file}}
    predictions = {"type": "array", "items": {"$ref": _REF.format(model="Prediction")}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _answered(f"{listed.signature.title}Labels", "predictions", predictions)},
    }


def _embed(listed: Listed) -> dict[str, Any]:
    output = signatures.embedding(listed.signature.model)
    size = output.dims[0] if output else -1
    vector: dict[str, Any] = {"type": "array", "items": {"type": ["number", "null"]}}
    vector |= {"minItems": size, "maxItems": size} if size > 0 else {}
    body = {"schema": {"$ref": _REF.format(model=listed.signature.requests["texts"].__name__)}}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {**body, "example": {"texts": ["A small boat.", "A large ship."]}}},
        },
        "responses": {
            "200": _answered(f"{listed.signature.title}Vectors", "embeddings", {"type": "array", "items": vector})
        },
    }


def _answered(title: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    texts = {each: {"type": "string"} for each in ("model", "version", "request_id")}
    whole = {"type": "object", "title": title, "required": [*texts, name], "properties": {**texts, name: schema}}
    return {"description": "The answer", "content": {"application/json": {"schema": whole}}}


def _one_of(kinds: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    refs = [{"$ref": _REF.format(model=kind.__name__)} for kind in kinds.values()]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def examples(listed: Listed) -> dict[str, tuple[Any, Any]]:
    """Return {form: a request and its answer}, of the release's golden request; of entities no answer is known."""
    golden, model = listed.release.example, listed.signature.model
    if golden is None or golden.size_bytes > _MOST_EXAMPLE or not listed.signature.batched:
        return {}
    if any(tensor.name not in golden.inputs for tensor in model.inputs if not tensor.optional):
        return {}
    inputs = {tensor.name: golden.inputs[tensor.name] for tensor in model.inputs if tensor.name in golden.inputs}
    about = {"model": model.name, "version": model.version, "request_id": "0f3a5c1e9b7d4f2a8c6e1d3b5a7f9c2e"}
    asked = {name: values.row(model.input[name], array[:1]) for name, array in inputs.items()}
    answers = {name: array[:1] for name, array in golden.answers.items() if name in model.output}
    rows = inference.rows_of(model.outputs, answers)
    columns = inference.columns_of(model.outputs, answers, batched=True)
    row = {name: column[0] for name, column in asked.items()}
    found = {
        "rows": ({"rows": [row]}, {**about, "rows": rows}),
        "inputs": ({"inputs": asked}, {**about, "outputs": columns}),
    }
    if listed.release.entities and (known := listed.release.entities.example(row)):
        found["entities"] = ({"entities": [known]}, None)
    return found


def _with_problems(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    kinds: dict[int, list[Kind]] = {}
    for kind in vars(refusals).values():
        if isinstance(kind, Kind):
            kinds.setdefault(kind.status, []).append(kind)
    for status in _ALWAYS:
        told = "; ".join(f"{kind.title.lower()}: {kind.remedy}" for kind in kinds.get(status, ()))
        content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
        responses[str(status)] = {"description": told or "The deadline passed", "content": content}
        if status in (429, 503):
            responses[str(status)]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    for status in (409, 415):
        if "requestBody" in operation:
            content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
            told = "; ".join(f"{kind.title.lower()}: {kind.remedy}" for kind in kinds[status])
            responses[str(status)] = {"description": told, "content": content}


def _prediction() -> dict[str, Any]:
    scored = {"type": "object", "title": "Scored", "required": [*_TOP], "properties": _TOP}
    properties = {**_TOP, "top": {"type": "array", "items": scored}}
    return {"type": "object", "title": "Prediction", "required": [*properties], "properties": properties}


def _problem() -> dict[str, Any]:
    texts: dict[str, Any] = {name: {"type": "string"} for name in ("type", "title", "detail", "request_id")}
    fault = {
        "type": "object",
        "title": "Fault",
        "required": ["field", "got", "expected"],
        "properties": {name: {"type": "string"} for name in ("field", "got", "expected")},
    }
    return {
        "type": "object",
        "title": "Problem",
        "description": "Problem details, RFC 9457",
        "required": ["type", "title", "status", "detail"],
        "properties": {**texts, "status": {"type": "integer"}, "errors": {"type": "array", "items": fault}},
    }
