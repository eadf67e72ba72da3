"""Request to prediction: `python -m clients`, and a typed client library.

from clients import Client

with Client("grpc://127.0.0.1:8001") as client:
    print(client.classify(Path("shoe.png").read_bytes()).label)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clients.errors import (
    AccessDeniedError,
    ClientError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    InvalidResponseError,
    ModelNotFoundError,
    OverloadedError,
    ServerUnavailableError,
)
from clients.settings import Retry, Tls, Transport
from clients.tasks import Prediction

if TYPE_CHECKING:
    from clients.aio import AsyncClient
    from clients.client import Client

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "Client",
    "ClientError",
    "DeadlineExceededError",
    "InferenceError",
    "InvalidInputError",
    "InvalidResponseError",
    "ModelNotFoundError",
    "OverloadedError",
    "Prediction",
    "Retry",
    "ServerUnavailableError",
    "Tls",
    "Transport",
]

_LAZY = {
    "AsyncClient": "clients.aio",
    "Client": "clients.client",
}  # they import gRPC, which takes longer than --help should


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
