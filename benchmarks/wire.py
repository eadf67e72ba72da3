"""Requests and answers in Triton's binary form over HTTP: a header in JSON, then the tensors' bytes.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

from contracts.golden import GoldenRequest
from deploy.triton.payload import Tensors

HEADER_LENGTH = "Inference-Header-Content-Length"


def body(request: GoldenRequest, priority: int = 0) -> tuple[bytes, int]:
    """Build the body of a request, for the outputs whose answers are known, else for all; and its header's length."""
    inputs = []
    for name, values in request.inputs.items():
        inputs.append(InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        inputs[-1].set_data_from_numpy(values, binary_data=True)
    outputs = [InferRequestedOutput(name, binary_data=True) for name in request.answers] or None
    made, header_length = InferenceServerClient.generate_request_body(inputs, outputs=outputs, priority=priority)
    return made, len(made) if header_length is None else header_length


def answer(content: bytes, header_length: int | None) -> Tensors:
    """Read the body of a response that is an answer.

    Args:
        header_length: As its header says; None where that does not, and all of it is JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        result = InferenceServerClient.parse_response_body(content, header_length=header_length)
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}
    except Exception as error:  # tritonclient has no error of its own for this
        raise ValueError(f"not an answer: {error!r}") from error
