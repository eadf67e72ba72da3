"""Connections that ask `switch` all the time, and tell of each answer which release gave it."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, Self

from benchmarks.errors import MeasurementError
from benchmarks.releases.two_releases import ENSEMBLE, INPUT, KINDS

_TIMEOUT_S = 10.0
_PAUSE_S = 0.02  # after a failure: a dead server refuses thousands of requests a second
_STARVED_S = 60.0  # without an answer
MIXED = "a mixture: "  # what the error of an answer begins with that no release gives


@dataclass(frozen=True)
class Asked:
    """One request; times in seconds since the asking began."""

    connection: int
    start_s: float
    end_s: float
    release: int  # that answered; 0: none did
    error: str  # "": the right answer of that release

    @property
    def latency_ms(self) -> float:
        return 1e3 * (self.end_s - self.start_s)


class Asking:
    """A closed loop of requests on every connection over HTTP, for as long as the block runs.

    Connection i asks with 1 to 4 rows, as many as either release takes, of numbers of its own.
    """

    def __init__(self, address: str, connections: int) -> None:
        self._address = address
        self._asked: list[list[Asked]] = [[] for _ in range(connections)]  # by connection
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(connections)]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def now_s(self) -> float:
        """Return the seconds since the asking began."""
        return time.monotonic() - self._began

    def asked(self) -> list[Asked]:
        """Return the requests that have ended so far, in the order they did."""
        return sorted((one for own in self._asked for one in own.copy()), key=lambda one: one.end_s)

    def count(self) -> int:
        """Return how many requests have ended so far."""
        return sum(map(len, self._asked))

    def wait_until_answered(self) -> None:
        """Wait until every connection has a right answer to a request that it sends from now on.

        Raises:
            MeasurementError: one has none for a minute.
        """
        now_s = self.now_s()
        while not all(own and own[-1].start_s > now_s and not own[-1].error for own in self._asked):
            if self.now_s() > now_s + _STARVED_S:
                errors = [one.error for one in self.asked() if one.error]
                raise MeasurementError(
                    f"not every connection is answered after {_STARVED_S:.0f} s", note=errors[-1] if errors else None
                )
            time.sleep(0.01)

    def _ask(self, number: int) -> None:
        numbers = [1 + number + 100 * row for row in range(number % KINDS[0].rows + 1)]
        body, judge = _body(numbers), _Judge(numbers)
        host, _, port = self._address.rpartition(":")
        connection = HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        while not self._over.is_set():
            start_s, release = self.now_s(), 0
            try:
                connection.request("POST", f"/v2/models/{ENSEMBLE}/infer", body)
                response = connection.getresponse()
                release, error = judge.judged(response.status, response.read())
            except (OSError, HTTPException) as failure:
                connection.close()  # the next request opens it again
                error = str(failure) or type(failure).__name__
            self._asked[number].append(Asked(number, start_s, self.now_s(), release, error))
            if error:
                self._over.wait(_PAUSE_S)
        connection.close()


class _Judge:
    """Tells which release gives an answer to these numbers."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._right = {
            (str(kind.number), kind.output, *map(kind.answer, numbers)): kind.number for kind in KINDS
        }  # {(version, output, answers): the release}
        self._known: dict[bytes, int] = {}  # a response is the same each time

    def judged(self, status: int, body: bytes) -> tuple[int, str]:
        """Return the release, 0 for none, and what is wrong."""
        if status != 200:
            return 0, f"status {status}: {body.decode(errors='replace')}"
        if body not in self._known:
            said: Mapping[str, Any] = json.loads(body)
            tensors = [word for output in said["outputs"] for word in (output["name"], *output["data"])]
            self._known[body] = self._right.get((said["model_version"], *tensors), 0)
        release = self._known[body]
        return release, "" if release else f"{MIXED}{body.decode(errors='replace')}"


def _body(numbers: Sequence[int]) -> bytes:
    tensor = {"name": INPUT, "shape": [len(numbers), 1], "datatype": "FP32", "data": numbers}
    return json.dumps({"inputs": [tensor]}).encode()
