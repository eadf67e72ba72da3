"""What can go wrong in a Python-based backend, by whose fault it is.

ModelError    the model cannot be loaded or run: Triton's INTERNAL
RequestError  a request asks for what the model cannot do: Triton's INVALID_ARG

Their messages are seen by clients: no paths of the server in them. Anything else that is raised is a bug; the
client is told no more than its type, and the log has the traceback.
"""


class ModelError(Exception):
    """The model, or the machine, is at fault."""


class RequestError(Exception):
    """The request is at fault: its values, its shapes or its text."""
