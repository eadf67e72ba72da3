"""Feature stores of made-up flights, filled and served by the commands that a user types."""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts import layout
from tests.conftest import free_ports, wait_for
from training.families.flights import departures

FAMILY = "flights"


@dataclass(frozen=True)
class Store:
    """A folder with data/ and artifacts/ of its own.

    Attributes:
        tools: The programs of the environment that has Feast.
    """

    root: Path
    tools: Path
    name: str = "sqlite"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def interim(self) -> Path:
        return self.data / "interim" / FAMILY

    @property
    def online(self) -> Path:
        return self.root / "artifacts" / "features" / FAMILY / "online.db"

    @property
    def variables(self) -> dict[str, str]:
        own = {"DATA_DIR": str(self.data), "ARTIFACTS_DIR": str(self.root / "artifacts"), "TZ": "UTC"}
        return {**os.environ, **own, "PYTHONPATH": str(layout.ROOT), **self.environment}

    def run(self, command: str, *options: object) -> "subprocess.CompletedProcess[str]":
        """Run a command of `training features` where Feast is."""
        return subprocess.run(
            self.words(command, *options),
            env=self.variables,
            cwd=layout.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def words(self, command: str, *options: object) -> list[str]:
        store = [] if command == "build" else ["--store", self.name]
        return [str(self.tools / "python"), "-m", "training.features", command, FAMILY, *store, *map(str, options)]

    def must(self, command: str, *options: object) -> Any:
        """Run a command with --json, and return what it says."""
        done = self.run(command, *options, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def here(self, program: str, *arguments: object) -> str:
        """Run a few lines in the environment of Feast."""
        words = [str(self.tools / "python"), "-W", "ignore", "-c", program, *map(str, arguments)]
        done = subprocess.run(words, env=self.variables, cwd=layout.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def served(self) -> Iterator[str]:
        """Start the feature server; its URL."""
        port = free_ports(1)[0]
        server = subprocess.Popen(
            self.words("serve", "--port", port), env=self.variables, cwd=layout.ROOT,
            stdout=subprocess.DEVNULL, stderr=(self.root / "serve.log").open("w"),
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: _is_up(url) or server.poll() is not None, 60)
            assert server.poll() is None, (self.root / "serve.log").read_text()
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def ingest(store: Store, raw: Path) -> None:
    """Write what the stages before make of the raw files."""
    store.interim.mkdir(parents=True)
    tables = departures.read(raw)
    departures.departures(tables).to_parquet(store.interim / "departures.parquet")
    departures.weather(tables).to_parquet(store.interim / "weather.parquet")


def post(url: str, body: Mapping[str, Any]) -> tuple[int, Any]:
    """Post JSON; return the status and the JSON that came back."""
    sent = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(sent) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, None


def names(values: Sequence[object]) -> list[str]:
    return [str(value) for value in values]


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health") as response:
            return bool(response.status == 200)
    except OSError:
        return False
