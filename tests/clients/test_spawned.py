"""A client that is handed to a spawned process makes connections of its own there."""

import multiprocessing
import pickle

import pytest

from clients import AsyncClient, Client, ClientError, Transport
from tests.clients.http_server import OK, answering, server


def ready(client: Client) -> bool:
    """In the process that it was handed to, and here again with its answer."""
    with client:
        return client.ready()


def test_a_spawned_process_uses_a_client_and_leaves_its_parents_open() -> None:
    transport = Transport(headers={"x-who": "me"})
    with server(answering(OK)) as (port, _), Client(f"http://127.0.0.1:{port}", transport=transport) as client:
        assert client.ready()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(ready, [client]) is True
        assert client.ready()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_settings_come_along_and_what_is_closed_stays_closed(protocol: str) -> None:
    with Client(f"{protocol}://127.0.0.1:1", timeout_s=7, transport=Transport(admin_key="s3cret")) as client:
        copy = pickle.loads(pickle.dumps(client))
        assert copy._settings == client._settings and copy.timeout_s == 7
        copy.close()
    with pytest.raises(ClientError, match="the client is closed"):
        pickle.loads(pickle.dumps(client)).ready()


def test_one_for_asyncio_belongs_to_no_loop_until_it_is_used() -> None:
    client = AsyncClient("http://127.0.0.1:1", timeout_s=7, hedge_after_s=1)
    assert pickle.loads(pickle.dumps(client))._settings == client._settings
