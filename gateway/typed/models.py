"""The models' part of the typed door: which there are, and what each is asked."""

from typing import Any, cast

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from gateway.brain.decide import Brain
from gateway.refusals import MALFORMED, NO_TASK, UNSUPPORTED, Fault, FaultyInput
from gateway.seen import logs
from gateway.triton.models import Tensor
from gateway.typed import described, idempotency, inference, reading
from gateway.typed.described import ModelAbout, ModelList
from gateway.typed.inference import Answered, Wanted
from gateway.typed.known import signatures, values
from gateway.typed.known.catalog import Listed
from gateway.typed.parts import Parts, caller_of, parts_of

router = APIRouter(prefix="/v1/models", tags=["models"])
PRIORITY = "request-priority"


@router.get("", response_model=ModelList, operation_id="list_models")
async def list_models(request: Request) -> Response:
    """List the models that the key may read."""
    parts = parts_of(request)
    caller = await caller_of(request)
    found = await parts.catalog.all(caller)
    return _json({"models": [described.brief(listed) for listed in found]})


@router.get("/{model}", response_model=ModelAbout, operation_id="get_model")
async def get_model(request: Request, model: str) -> Response:
    """Describe a model: signature, versions, tasks, and its release's card."""
    parts = parts_of(request)
    caller = await caller_of(request)
    return _json(described.whole(await parts.catalog.get(caller, model, None, "read")))


@router.post("/{model}/predict", operation_id="predict")
async def predict(request: Request, model: str) -> Response:
    """Ask a model: rows as objects, inputs as columns, or entities from which the rest is looked up."""
    return await _asked(request, model, "predict")


@router.post("/{model}/classify", operation_id="classify")
async def classify(request: Request, model: str) -> Response:
    """Label files: one as the body, or several in a form."""
    return await _asked(request, model, "classify")


@router.post("/{model}/embed", operation_id="embed")
async def embed(request: Request, model: str) -> Response:
    """Turn texts into vectors."""
    return await _asked(request, model, "embed")


async def _asked(request: Request, name: str, task: str) -> Response:
    parts = parts_of(request)
    headers = request.headers
    caller = await caller_of(request)
    deadline = parts.brain.deadline(headers.get("request-timeout-ms"))
    version = request.query_params.get("version")
    if version is not None and not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise MALFORMED(f"version is {version[:40]!r}, expected a number")
    listed = await parts.catalog.get(caller, name, version, "infer", deadline)
    _check_task(listed, task)
    wanted = Wanted(
        *(caller, deadline, logs.request_id.get(), headers.get("x-request-id"), version),
        priority=_priority(headers.get(PRIORITY)),
        traceparent=headers.get("traceparent"),
    )
    content = await reading.body(request, parts.settings.limits.typed_body_bytes, deadline)
    if (key := headers.get(idempotency.HEADER)) is None:
        return await _answered(parts, request, listed, wanted, task, content)
    path = f"{request.url.path}?{request.url.query}"
    place = await idempotency.place(parts.keeper, key, caller.key_id, path, content)
    if (kept := place.answer) is not None:
        return Response(kept.body, 200, {**kept.headers, idempotency.REPLAYED: "true"}, "application/json")
    try:
        answer = await _answered(parts, request, listed, wanted, task, content)
    except BaseException:
        await place.give_back()
        raise
    await _keep(parts, place, answer)
    return answer


async def _keep(parts: Parts, place: idempotency.Place, answer: Response) -> None:
    body = bytes(answer.body)
    if len(body) > parts.settings.idempotency.answer_bytes:
        answer.headers["idempotency-kept"] = "false"
        await place.give_back()
        return
    kept = {name: value for name, value in answer.headers.items() if name == "x-request-id"}
    await place.keep(body, kept)


async def _answered(
    parts: Parts, request: Request, listed: Listed, wanted: Wanted, task: str, content: bytes
) -> Response:
    if task == "classify":
        return await _classified(parts.brain, request, listed, wanted, content)
    found = reading.json_object(request, content)
    if task == "embed":
        return await _embedded(parts.brain, listed, wanted, found)
    given = reading.given(listed.signature, found)
    arrays, rows, defaults = inference.arrays_of(listed, given)
    answer = await inference.ask(parts.brain, listed, arrays, rows, wanted, given.outputs)
    outputs = listed.signature.model.outputs
    if given.form == "inputs":
        shown = inference.columns_of(outputs, answer.outputs, batched=listed.signature.batched)
        return _answer(listed, answer, {"outputs": shown})
    told = {} if defaults is None else {"defaults": defaults}
    return _answer(listed, answer, {"rows": inference.rows_of(outputs, answer.outputs), **told})


async def _classified(brain: Brain, request: Request, listed: Listed, wanted: Wanted, content: bytes) -> Response:
    model, kind = listed.signature.model, reading.media_type(request)
    if kind == "multipart/form-data":
        files = await reading.files(request, content, model.max_batch_size)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        files = [content]
    else:
        expected = "image/png or another image/*, application/octet-stream, or multipart/form-data"
        raise UNSUPPORTED(f"it is {kind[:80] or 'not named'}, expected {expected}")
    if empty := [number for number, file in enumerate(files) if not file]:
        raise FaultyInput("a file is empty", [Fault(f"/files/{empty[0]}", "0 bytes", "an image")])
    tensor = cast(Tensor, signatures.only_input(model))
    arrays = {tensor.name: inference.files_array(files)}
    answer = await inference.ask(brain, listed, arrays, len(files), wanted, ["top_labels", "top_scores"])
    labels, scores = (values.plain(answer.outputs[name]) for name in ("top_labels", "top_scores"))
    tops = [
        [{"label": label, "score": score} for label, score in zip(*row, strict=True)]
        for row in zip(labels, scores, strict=True)
    ]
    return _answer(listed, answer, {"predictions": [{**top[0], "top": top} for top in tops]})


async def _embedded(brain: Brain, listed: Listed, wanted: Wanted, found: dict[str, Any]) -> Response:
    model = listed.signature.model
    texts = reading.checked(listed.signature.requests["texts"], found, listed.signature).field_0
    tensor, output = cast(Tensor, signatures.only_input(model)), cast(Tensor, signatures.embedding(model))
    arrays = {tensor.name: inference.files_array([text.encode() for text in texts])}
    answer = await inference.ask(brain, listed, arrays, len(texts), wanted, [output.name])
    return _answer(listed, answer, {"embeddings": values.plain(answer.outputs[output.name])})


def _check_task(listed: Listed, task: str) -> None:
    signature = listed.signature
    if signature.unsupported:
        raise NO_TASK(f"{signature.model.name}: {signature.unsupported}; the raw door at /v2 takes it")
    if task not in signature.tasks:
        raise NO_TASK(f"{signature.model.name} does {', '.join(signature.tasks)}, and no {task}")


def _priority(header: str | None) -> int | None:
    if header is None:
        return None
    if header not in ("1", "2", "3"):
        raise MALFORMED(f"{PRIORITY} is {header[:40]!r}, expected 1, 2 or 3")
    return int(header)


def _answer(listed: Listed, answer: Answered, content: dict[str, Any]) -> Response:
    about = {"model": listed.signature.model.name, "version": answer.version, "request_id": answer.request_id}
    headers = {
        **answer.headers,
        "x-request-id": answer.request_id,
        "x-model-release": answer.version,
        "server-timing": answer.timing,
    }
    return Response(to_json({**about, **content}), 200, headers, "application/json")


def _json(content: dict[str, Any]) -> Response:
    return Response(to_json(content), media_type="application/json")
