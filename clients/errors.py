"""Errors of a request.

ClientError
├── InvalidInputError        the request is wrong; sending it again will not help
├── ModelNotFoundError       the server does not serve the model, or not that version of it
├── AccessDeniedError        the server asks for a certificate or a key that it was not given
├── OverloadedError          the server sheds load: a queue is full, or a proxy says 429 or 503
├── DeadlineExceededError    the deadline passed before there was a response
├── ServerUnavailableError   no server could be reached
└── InferenceError           the server failed to run the request
    └── InvalidResponseError what came back is not a response to the request
"""

from contracts.errors import ProjectError


class ClientError(ProjectError):
    """A call did not end with a result.

    Attributes:
        attempts: How often the request was sent; 0 if it never was, or for a split batch whose deadline passed.
        elapsed_s: From the call to the error, in seconds.
        server: URL of the server that was asked last, or of all of them; "" where none was asked.
        server_message: What that server said, or where it did not respond, why not; "" if it was not asked.
    """

    attempts = 0
    elapsed_s = 0.0
    server = ""
    server_message = ""


class InvalidInputError(ClientError):
    """The request is wrong; sending it again will not help."""


class ModelNotFoundError(ClientError):
    """The server does not serve the model, or not that version of it."""


class AccessDeniedError(ClientError):
    """The server asks for a certificate or a key that it was not given."""


class OverloadedError(ClientError):
    """The server sheds load: a queue is full, or a proxy says 429 or 503."""


class DeadlineExceededError(ClientError):
    """The deadline passed before there was a response."""


class ServerUnavailableError(ClientError):
    """No server could be reached."""


class InferenceError(ClientError):
    """The server failed to run the request."""


class InvalidResponseError(InferenceError):
    """What came back is not a response to the request."""
