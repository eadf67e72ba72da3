"""Errors of a request.

ClientError
├── ServerUnavailableError   nobody answers, or not in time
├── InvalidInputError        the server refused this input; sending it again will not help
└── InferenceError           the server failed on it, or does not serve the model
"""

from contracts.errors import ProjectError


class ClientError(ProjectError):
    """A request did not come back with a prediction."""


class ServerUnavailableError(ClientError):
    """Nobody answers at the address, or not in time."""


class InvalidInputError(ClientError):
    """The server refused this input; sending it again will not help."""


class InferenceError(ClientError):
    """The server failed on the request, or does not serve the model."""
