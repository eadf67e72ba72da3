"""Request to prediction: `python -m clients`, and a small typed library.

from clients import Client

with Client("grpc://127.0.0.1:8001") as client:
    print(client.classify(Path("shoe.png").read_bytes()).label)
"""

from clients.aio import AsyncClient
from clients.client import Client
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
