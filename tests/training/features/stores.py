"""Feature stores of made-up flights, filled and served by the commands that a user types."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts import layout
from tests.conftest import free_ports, wait_for
from training.families.flights.tables import departures

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
        own = {"DATA_DIR": str(self.data), "ARTIFACTS_DIR": str(self.root / "artifacts")}
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


# Does what the commands do, in one process: builds, serves, and does what it reads, a JSON object a line.
_PROGRAM = """
import json, sys, threading, time, warnings
warnings.simplefilter("ignore")
from datetime import datetime
from pathlib import Path
import pandas as pd, uvicorn
from training.features import building, declared, joining, materializing, serving, store
family, name, port, build = "flights", sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
features = declared.of(family)
quiet = lambda line: None
if build:
    building.build(family, features, quiet)
server = uvicorn.Server(uvicorn.Config(serving.app(store.opened(family, features, name)), port=port, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.01)

def materialize(to):
    materializing.materialize(family, features, name, to=datetime.fromisoformat(to), say=quiet)

def join(folder):
    with joining.joins(family, features) as opened:
        for lookup in features.declaration.views:
            rows = pd.read_parquet(Path(folder) / f"{lookup.view}.asked.parquet")
            found = opened.join(lookup, rows, "moment")
            pd.concat([rows, found], axis=1).to_parquet(Path(folder) / f"{lookup.view}.found.parquet")

print("up", flush=True)
for line in sys.stdin:
    command, argument = json.loads(line)
    {"materialize": materialize, "join": join}[command](argument)
    print("done", flush=True)
"""


class Running:
    """A store with its feature server, in one process that materialises and joins when it is told."""

    def __init__(self, store: Store, url: str, process: "subprocess.Popen[str]") -> None:
        self.store, self.url, self._process = store, url, process

    def materialize(self, to: str) -> None:
        """Do as the command, up to a moment in ISO 8601."""
        self._do("materialize", to)

    def join(self, folder: Path) -> None:
        """Join the rows in VIEW.asked.parquet as of their `moment`, into VIEW.found.parquet."""
        self._do("join", str(folder))

    def _do(self, command: str, argument: str) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([command, argument]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", (self.store.root / "running.log").read_text()


@contextmanager
def running(store: Store, *, build: bool) -> Iterator[Running]:
    """Start a store's process, build what it serves first if that is asked for, and stop it in the end."""
    port = free_ports(1)[0]
    program = store.root / "running.py"  # DuckDB takes `-c` for a person, and draws how far it is
    program.write_text(_PROGRAM)
    words = [str(store.tools / "python"), str(program), store.name, str(port), str(build)]
    with (store.root / "running.log").open("w") as log:
        process = subprocess.Popen(
            words, env=store.variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin and process.stdout
    try:
        said = process.stdout.readline()
        assert said == "up\n", said + (store.root / "running.log").read_text()
        yield Running(store, f"http://127.0.0.1:{port}", process)
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(30)


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


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health") as response:
            return bool(response.status == 200)
    except OSError:
        return False
