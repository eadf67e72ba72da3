"""What is sent over gRPC, and how responses are read. Messages are tritonclient's; nothing here does I/O."""

from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.utils import deserialize_bytes_tensor

from clients.core.answer import Answer
from clients.core.failures import Failure, Kind, message_too_large
from clients.core.request import Endpoint, Query, Request
from clients.core.tensors import datatype_of, encoded_strings, numpy_type

# The method, and the field of its response that matters; none: all of it.
_METHODS: dict[Endpoint, tuple[str, str]] = {
    "live": ("ServerLive", "live"),
    "ready": ("ServerReady", "ready"),  # of a model: ModelReady
    "server_metadata": ("ServerMetadata", ""),
    "model_metadata": ("ModelMetadata", ""),
    "model_config": ("ModelConfig", "config"),
    "statistics": ("ModelStatistics", "model_stats"),
    "repository_index": ("RepositoryIndex", "models"),
    "load_model": ("RepositoryModelLoad", ""),
    "unload_model": ("RepositoryModelUnload", ""),
    "shared_memory_status": ("SystemSharedMemoryStatus", "regions"),
    "register_shared_memory": ("SystemSharedMemoryRegister", ""),
    "unregister_shared_memory": ("SystemSharedMemoryUnregister", ""),
}


def infer_message(request: Request, limit_bytes: int) -> Any:
    """Write an inference request down, but for its queue timeout.

    Raises:
        Failure: it is larger than that.
    """
    message = messages.ModelInferRequest(model_name=request.model, model_version=request.version, id=request.id)
    size_bytes = 0
    for name, array in request.inputs.items():
        datatype = datatype_of(array.dtype)
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if place := request.shared.get(name):
            tensor.parameters["shared_memory_region"].string_param = place.region
            tensor.parameters["shared_memory_byte_size"].int64_param = place.size_bytes
            tensor.parameters["shared_memory_offset"].int64_param = place.offset
            continue
        content = encoded_strings(array) if datatype == "BYTES" else array.tobytes()
        if (size_bytes := size_bytes + len(content)) > limit_bytes:
            raise message_too_large("the request", limit_bytes)
        message.raw_input_contents.append(content)
    for name in request.outputs:
        message.outputs.add(name=name)
    if request.priority:
        message.parameters["priority"].uint64_param = request.priority
    for name, value in request.parameters.items():
        _set(message.parameters[name], value)
    return message


def query_message(query: Query) -> tuple[str, Any]:
    """Return the method to call, and its message."""
    method = "ModelReady" if query.endpoint == "ready" and query.model else _METHODS[query.endpoint][0]
    message = getattr(messages, f"{method}Request")(**_fields(query))
    for key, value in query.parameters.items():
        _set(message.parameters[key], value)
    return method, message


def answer_of(request: Request, response: Any) -> Answer:
    """Read the outputs of a response to this request, and who gave it.

    Raises:
        Failure: it is none, or cannot be read.
    """
    try:
        arrays = {
            output.name: _array(output, content)
            for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
        }
        answer = Answer.said(arrays, response.model_name, response.model_version)
        response_id = response.id
    except Exception as error:  # the bytes may be anything
        raise Failure(Kind.INVALID_RESPONSE, f"its tensors cannot be read: {error!r}") from error
    return request.verified(answer, response_id)


def json_of(query: Query, response: Any) -> Any:
    """Read a response as the HTTP endpoint would return it: with zeros, empty lists, and numbers as numbers.

    Raises:
        Failure: it cannot be read.
    """
    try:
        if query.endpoint in ("live", "ready"):
            return bool(response.ready if query.endpoint == "ready" else response.live)
        whole = MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        whole = _with_numbers(response.DESCRIPTOR, whole)
    except Exception as error:  # of protobuf, whose JSON does not have all that its messages have
        raise Failure(Kind.INVALID_RESPONSE, f"it cannot be read: {error!r}") from error
    field = _METHODS[query.endpoint][1]
    found = whole.get(field, []) if field else whole
    return list(found.values()) if query.endpoint == "shared_memory_status" and found else found


def _set(parameter: Any, value: str | int | float | bool) -> None:
    """Set a message's InferParameter or ModelRepositoryParameter."""
    if isinstance(value, str):
        parameter.string_param = value
    elif isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    else:
        parameter.double_param = value


def _fields(query: Query) -> dict[str, Any]:
    match query.endpoint:
        case "load_model" | "unload_model":
            return {"model_name": query.model}
        case "register_shared_memory":
            return {"name": query.region, "key": query.key, "byte_size": query.size_bytes}
        case "unregister_shared_memory":
            return {"name": query.region}
        case _:
            return {"name": query.model, "version": query.version} if query.model else {}


def _array(output: Any, content: bytes) -> NDArray[Any]:
    if output.datatype == "BYTES":
        array: NDArray[Any] = deserialize_bytes_tensor(content)
    else:
        array = np.frombuffer(content, numpy_type(output.datatype))
    return array.reshape(output.shape)


def _with_numbers(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Make numbers of a message's 64-bit integers, for which protobuf's JSON has strings."""

    def value_of(field: Any, value: Any) -> Any:
        if isinstance(value, list):
            return [value_of(field, item) for item in value]
        if field.message_type is None:
            return int(value) if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else value
        if not field.message_type.GetOptions().map_entry:
            return _with_numbers(field.message_type, value)
        of_entry = field.message_type.fields_by_name["value"]
        return {name: value_of(of_entry, item) for name, item in value.items()}

    return {name: value_of(kind.fields_by_name[name], value) for name, value in found.items()}
