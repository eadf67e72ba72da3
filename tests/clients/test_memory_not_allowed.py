"""A Triton of 26.04 or later that was not told to map its clients' memory."""

import pytest

from clients import Client, InvalidInputError
from clients.shared_memory import SharedMemory
from tests.clients.http_server import answer_of, answering, server

# As 2.71's sources have it.
REFUSED = b"Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."


def test_the_error_says_what_starts_it_with_that() -> None:
    refusal = answer_of(400, b'{"error":"%b"}' % REFUSED, b"Content-Type: application/json")
    with (
        server(answering(refusal, pause_s=0)) as (port, _),
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(InvalidInputError, match="the server maps no memory of its clients") as error,
        SharedMemory(client, 4096),
    ):
        pass
    assert "python -m deploy up --allow-client-shm" in str(error.value) and REFUSED.decode() in str(error.value)
