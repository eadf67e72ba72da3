"""Errors of a request.

ClientError
├── InvalidInputError        what was sent is wrong; sending it again will not help
├── ModelNotFoundError       the server does not serve the model, or not that version of it
├── AccessError              the server asks for a certificate or a key that it was not given
├── OverloadedError          the server has too much to do; or a proxy says 503, which may mean that it has no server
├── DeadlineError            the time was up before there was an answer
├── ServerUnavailableError   nobody answers
└── InferenceError           the server failed on it
    └── BadAnswerError       what came back is no answer to it
"""

from contracts.errors import ProjectError


class ClientError(ProjectError):
    """A request did not come back with a right answer.

    Attributes:
        attempts: How often it was sent; 0 if it never was, or where that is not known.
        elapsed_s: From the call to the error.
    """

    attempts = 0
    elapsed_s = 0.0


class InvalidInputError(ClientError):
    """What was sent is wrong; sending it again will not help."""


class ModelNotFoundError(ClientError):
    """The server does not serve the model, or not that version of it."""


class AccessError(ClientError):
    """The server asks for a certificate or a key that it was not given."""


class OverloadedError(ClientError):
    """The server has too much to do; or a proxy says 503, which may mean that it has no server."""


class DeadlineError(ClientError):
    """The time was up before there was an answer."""


class ServerUnavailableError(ClientError):
    """Nobody answers at any of the addresses."""


class InferenceError(ClientError):
    """The server failed on the request."""


class BadAnswerError(InferenceError):
    """What came back is no answer to the request."""
