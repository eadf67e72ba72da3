"""The gateway as a user has it: `python -m gateway up`, a store of its own, keys that commands made."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from contracts import layout
from gateway.triton.address import Address

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in small letters
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Whole:
    """A gateway in a process of its own."""

    folder: Path
    environment: Mapping[str, str]
    process: "subprocess.Popen[str]" = field(repr=False)
    port: int = 0
    _keys: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`python -m gateway WORDS`, on the same machine."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(layout.ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def admin(self) -> str:
        """A key that may do everything, made by the command."""
        if () not in self._keys:
            done = self.command("keys", "create", "admin", "--scope", "*:*", "--json")
            assert done.returncode == 0, done.stderr
            self._keys[()] = self._known(json.loads(done.stdout)["secret"])
        return self._keys[()]

    def key(self, *scopes: str, **limits: str | int) -> str:
        """A key with these scopes and limits, known to the gateway by now; without scopes, the usual ones."""
        name = (*scopes, *(f"{limit}={value}" for limit, value in limits.items()))
        if name not in self._keys:
            content: dict[str, Any] = {"name": "test", "limits": limits, **({"scopes": [*scopes]} if scopes else {})}
            made = self.ask("POST", "/v1/admin/keys", content)
            assert made.status == 201, made.body
            self._keys[name] = self._known(made.json["secret"])
        return self._keys[name]

    def _known(self, key: str) -> str:
        """Wait until every worker has read the key: each reads by itself, and any of them may be asked."""
        deadline, known = time.monotonic() + 20, 0
        enough = 1 if self.environment.get("GATEWAY_LISTEN__WORKERS", "1") == "1" else 20  # in a row
        while known < enough:
            if self.ask("GET", "/v1/models", key=key).status != 401:
                known += 1
                continue
            assert time.monotonic() < deadline
            known = 0
            time.sleep(0.03)
        return key

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = None,
    ) -> Answer:
        """Send a request, with a key that may do everything unless another is named; "" is none."""
        key = self.admin() if key is None else key
        sent = {**({"authorization": f"Bearer {key}"} if key else {}), **(JSON if headers is None else headers)}
        content = json.dumps(body) if isinstance(body, dict) else body
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, content, sent)
            response: HTTPResponse = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()


@contextmanager
def up(folder: Path, *tritons: Address | str, options: tuple[str, ...] = (), **settings: str) -> Iterator[Whole]:
    """Start one, with settings as the environment has them: listen__workers="2"."""
    folder.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    given = {
        "triton__endpoints": ",".join(map(str, tritons)),
        "keys__refresh_s": "0.1",
        "triton__repository": str(folder / "releases"),
        "limits__drain_s": "0",
        **settings,
    }
    environment = {
        **kept,
        "ARTIFACTS_DIR": str(folder / "artifacts"),
        **{f"GATEWAY_{name.upper()}": value for name, value in given.items() if value},
    }
    log = (folder / "gateway.log").open("w+")
    command = [sys.executable, "-m", "gateway", "up", "--port", "0", *options]
    process = subprocess.Popen(
        command, cwd=layout.ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
    )
    made = Whole(folder, environment, process)
    try:
        made.port = _port(process, folder / "gateway.log")
        yield made
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def _port(process: "subprocess.Popen[str]", log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = log.read_text()
        if found := re.search(r"Answering at https?://\S+?:(\d+)", said):
            port = int(found[1])
            connection = HTTPConnection("127.0.0.1", port, timeout=1)
            try:
                connection.request("GET", "/livez")
                if connection.getresponse().status == 200:
                    return port
            except OSError:
                pass
            finally:
                connection.close()
        assert process.poll() is None, said
        time.sleep(0.05)
    raise AssertionError(log.read_text())
