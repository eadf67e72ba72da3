"""Request to prediction: `python -m clients`, and a small typed library.

from clients import Client

with Client("grpc://127.0.0.1:8001") as client:
    print(client.classify(Path("shoe.png").read_bytes()).label)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clients.errors import (
    AccessError,
    BadAnswerError,
    ClientError,
    DeadlineError,
    InferenceError,
    InvalidInputError,
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
    "AccessError",
    "AsyncClient",
    "BadAnswerError",
    "Client",
    "ClientError",
    "DeadlineError",
    "InferenceError",
    "InvalidInputError",
    "ModelNotFoundError",
    "OverloadedError",
    "Prediction",
    "Retry",
    "ServerUnavailableError",
    "Tls",
    "Transport",
]

_HEAVY = {"AsyncClient": "clients.aio", "Client": "clients.client"}  # they import gRPC, for which --help does not wait


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        return getattr(import_module(_HEAVY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
