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
from clients.settings import Retry, Tls, TransportOptions

if TYPE_CHECKING:
    from clients.aio import AsyncClient
    from clients.client import Client
    from clients.core.answer import Answer
    from clients.core.tasks import Prediction
    from clients.filling.entities import AsyncEntities, Entities
    from clients.filling.feature_server import AsyncFeatureServer, FeatureServer

Transport = TransportOptions  # its name before there were classes of that name inside; both stay

__all__ = [
    "AccessDeniedError",
    "Answer",
    "AsyncClient",
    "AsyncEntities",
    "AsyncFeatureServer",
    "Client",
    "ClientError",
    "DeadlineExceededError",
    "Entities",
    "FeatureServer",
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
    "TransportOptions",
]

# They import NumPy and gRPC, which takes longer than --help should.
_LAZY = {
    "Answer": "clients.core.answer",
    "AsyncClient": "clients.aio",
    "AsyncEntities": "clients.filling.entities",
    "AsyncFeatureServer": "clients.filling.feature_server",
    "Client": "clients.client",
    "Entities": "clients.filling.entities",
    "FeatureServer": "clients.filling.feature_server",
    "Prediction": "clients.core.tasks",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
