"""The load generator: wrk, in C. It shares the machine with what it measures, so what it costs counts.

Every answer is kept and judged: `wrk.lua` counts equal ones, `Judge` tells of each different one whether it is right.
"""

import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import numpy as np

from benchmarks.errors import MeasurementError, ToolError
from benchmarks.peers.task import Question
from benchmarks.peers.wire import Wire
from cli.installing import debian
from contracts import layout

THREADS = 4  # of wrk, each with a request of its own
_PACKAGES = ("wrk", "libluajit-5.1-2")
_SCRIPT = Path(__file__).with_name("wrk.lua")
_TIMEOUT_S = 20
_END_S = 60  # behind the load's own seconds


@dataclass(frozen=True)
class Load:
    """What one measurement gave."""

    per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    most_ms: float
    answers: int
    different: int  # among them
    generator_us: float  # of CPU, an answer
    latency_us: dict[int, int]  # {µs: answers that took so long}


def program() -> tuple[str, dict[str, str]]:
    """Return wrk and what its environment needs: that of PATH, else Debian's, which is unpacked and not installed.

    Raises:
        ToolError: there is none, and Debian's cannot be had.
    """
    if found := shutil.which("wrk"):
        return found, {}
    tools = layout.artifacts() / "tools"
    unpacked = tools / "wrk"
    if not unpacked.is_dir():
        tools.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tools) as scratch:
            try:
                (made := Path(scratch, "wrk")).mkdir()
                debian.unpack(_PACKAGES, made)
            except OSError as error:
                hint = "install wrk, so that it is in PATH: apt-get install wrk"
                raise ToolError("there is no wrk, the load generator", note=str(error), hint=hint) from error
            if not unpacked.is_dir():  # another run may have been faster
                made.rename(unpacked)
    libraries = next(unpacked.glob("usr/lib/*/libluajit*")).parent
    return str(unpacked / "usr" / "bin" / "wrk"), {"LD_LIBRARY_PATH": str(libraries)}


class Generator:
    """wrk with the requests of one task in one protocol, in files below `scratch`."""

    def __init__(self, questions: Sequence[Question], wire: Wire, scratch: Path) -> None:
        self._questions, self._wire, self._scratch = questions, wire, scratch
        self._program, self._variables = program()
        self._right: set[tuple[int, bytes]] = set()
        self._turn = 0
        scratch.mkdir()
        for number, question in enumerate(questions, 1):
            (scratch / f"{number}.request").write_bytes(wire.request(question))

    def closed_loop(self, address: str, connections: int, seconds: float) -> Load:
        """Keep a request under way on each connection; judge every answer.

        Raises:
            MeasurementError: an answer is wrong, or a request got none.
        """
        threads = min(THREADS, connections)
        found = self._scratch / "found"
        found.unlink(missing_ok=True)
        first, self._turn = self._turn % len(self._questions) + 1, self._turn + threads
        command = [self._program, "-t", str(threads), "-c", str(connections), "-d", f"{max(1, round(seconds))}s"]
        command += ["--timeout", f"{_TIMEOUT_S}s", "-s", str(_SCRIPT), f"http://{address}/", "--"]
        in_turn = {"IN_TURN": "1" if connections == 1 else "0", "FOUND": str(found)}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run(
                [*command, str(self._scratch), str(first)],
                env={**os.environ, **self._variables, **in_turn},
                capture_output=True,
                text=True,
                timeout=seconds + _END_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"wrk against {address} did not end within {error.timeout:.0f} s") from error
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode or not found.exists():
            raise MeasurementError(f"wrk failed against {address}", note=(done.stderr + done.stdout).strip()[-500:])
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        load = self._read(found, cpu_s, connections)
        self._settle(address)
        return load

    def wait_until_ready(self, address: str, seconds: float, alive: "subprocess.Popen[bytes] | None" = None) -> None:
        """Ask until the first answer is right.

        Raises:
            MeasurementError: it is not in that time, or the process ended.
        """
        deadline, said = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            if alive is not None and alive.poll() is not None:
                raise MeasurementError(f"it ended with exit code {alive.returncode} before it was ready")
            try:
                self.ask_once(address)
                return
            except MeasurementError as error:
                said = str(error)
                time.sleep(0.3)
        raise MeasurementError(f"it gave no right answer within {seconds:.0f} s", note=said)

    def ask_once(self, address: str) -> None:
        """Send every request once, alone; judge the answers.

        Raises:
            MeasurementError: one is wrong, or there is none.
        """
        for place in range(len(self._questions)):
            status, body = self._ask(address, place)
            if status != HTTPStatus.OK:
                raise MeasurementError(f"{address} answered {status}: {body[:300].decode(errors='replace')}")
            self._judge(place, body)

    def _ask(self, address: str, place: int) -> tuple[int, bytes]:
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as connection:
                connection.sendall(self._wire.request(self._questions[place]))
                response = HTTPResponse(connection, method="POST")
                response.begin()
                return response.status, response.read()
        except (OSError, HTTPException) as error:
            raise MeasurementError(f"no answer from {address}: {error}") from error

    def _settle(self, address: str) -> None:
        """Wait until what wrk left under way is done: the next load finds no queue, and what is halted is idle."""
        deadline = time.monotonic() + _TIMEOUT_S
        while (status := self._ask(address, 0)[0]) != HTTPStatus.OK:
            if time.monotonic() > deadline:
                raise MeasurementError(f"{address} answers {status} to a single request")
            time.sleep(0.01)

    def _read(self, found: Path, cpu_s: float, connections: int) -> Load:
        answers, different, latency_us, summary = 0, 0, dict[int, int](), list[int]()
        for line in found.read_text().splitlines():
            kind, *told = line.split(" ")
            if kind == "answer":
                answers += int(told[1])
                different += 1
                self._judge(int(told[0]) - 1, bytes.fromhex(told[2]))
            elif kind == "latency":
                latency_us[int(told[0])] = int(told[1])
            elif kind == "summary":
                summary = [*map(int, told)]
            else:
                said = bytes.fromhex(told[1])[:300].decode(errors="replace")
                raise MeasurementError(f"a request was refused with status {told[0]}: {said}")
        duration_us, requests, *errors = summary
        if any(errors) or not requests:
            kinds = ("connecting", "reading", "writing", "waiting", "status")
            told = [f"{count} while {kind}" for kind, count in zip(kinds, errors, strict=True) if count]
            raise MeasurementError(f"requests got no answer: {', '.join(told) or 'not one was made'}")
        latency_us = as_measured(latency_us, duration_us, requests, connections)
        values, counts = np.array([*latency_us]), np.array([*latency_us.values()])
        p50, p90, p99 = (1e-3 * values[np.searchsorted(counts.cumsum(), q * counts.sum())] for q in (0.5, 0.9, 0.99))
        return Load(
            per_s=1e6 * requests / duration_us,
            p50_ms=float(p50),
            p90_ms=float(p90),
            p99_ms=float(p99),
            most_ms=float(values.max()) / 1e3,
            answers=answers,
            different=different,
            generator_us=1e6 * cpu_s / requests,
            latency_us=latency_us,
        )

    def _judge(self, place: int, body: bytes) -> None:
        if (place, body) in self._right:
            return
        question = self._questions[place]
        try:
            told = question.fault(self._wire.answer(question, body))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            told = f"not an answer: {error!r}"
        if told:
            raise MeasurementError(f"request {place} got {told}", note=body[:200].decode(errors="replace"))
        self._right.add((place, body))


def as_measured(corrected: dict[int, int], duration_us: int, requests: int, connections: int) -> dict[int, int]:
    """Take out of wrk's latencies what it put in for requests that were not sent while one was slow.

    wrk 4 corrects for "coordinated omission": of a latency n it also counts n - e, n - 2e … down to e, where e is the
    mean time between two requests of a connection (`stats_correct` in its stats.c). In a closed loop that is the
    question whether each caller waits, and there are so many callers; so latencies here are those of requests.
    """
    expected = duration_us // max(1, requests // connections)
    found = dict(corrected)
    for latency in sorted(found, reverse=True):
        count = found[latency]
        if latency < 2 * expected or count <= 0:
            continue
        for other in range(latency - expected, expected, -expected):
            found[other] = found.get(other, 0) - count
    return {latency: count for latency, count in sorted(found.items()) if count > 0}


def described() -> dict[str, str]:
    """Return what the generator is, for a result."""
    path, variables = program()
    said = subprocess.run([path, "-v"], env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    name = next(iter((said.stdout + said.stderr).splitlines()), "wrk")
    return {
        "program": name.partition(" [")[0],
        "threads": f"{THREADS}, one at one connection",
        "checked": "every answer, by its bytes: each different one is compared with the reference's",
    }
