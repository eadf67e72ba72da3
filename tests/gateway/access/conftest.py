"""A Redis for the session."""

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, serving


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serving(tmp_path_factory.mktemp("redis")) as server:
        yield server
