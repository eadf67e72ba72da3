"""What is seen of requests: counts that are right across processes, log lines without secrets, traces that go on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import layout
from gateway.caller import Caller
from gateway.deadline import Deadline
from gateway.outcome import Asked, Outcome
from gateway.seen.metrics import MOST_KEYS, Metrics
from gateway.seen.traces import parent_of

_WORKER = """
import sys
from tests.gateway.seen.test_seen import outcome
from gateway.errors import Refusal
from gateway.seen.metrics import Metrics
metrics = Metrics()
for n in range(int(sys.argv[1])):
    metrics.finished(outcome(latency_s=0.02), 0.0003)
metrics.refused("raw", Refusal(429, "quota-exceeded", "t", "d"))
print(metrics.text().decode())
"""


def outcome(key: str | None = "k1", status: int = 200, latency_s: float = 0.02) -> Outcome:
    """A request of three rows that was answered."""
    asked = Asked("raw", "pixels", None, "infer", 3, None, Deadline.after(1), "r1")
    return Outcome(asked, Caller(key, "name"), "stable", "7", status=status, triton_s=0.01, latency_s=latency_s)


def value(text: str, name: str, **labels: str) -> float:
    """The value of a sample."""
    for line in text.splitlines():
        if line.startswith(name) and all(f'{key}="{is_}"' in line for key, is_ in labels.items()):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no {name} {labels} in\n{text}")


def test_counts_are_right_across_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = []
    for count in (10, 20, 30):  # those that have ended count, too
        command = [sys.executable, "-c", _WORKER, str(count)]
        done = subprocess.run(command, cwd=layout.ROOT, env=environment, capture_output=True, text=True, check=True)
        texts.append(done.stdout)
    arm = {"model": "pixels", "release": "7", "arm": "stable"}
    assert value(texts[2], "gateway_requests_total", **arm, door="raw", status="200") == 60
    assert value(texts[2], "gateway_rows_total", **arm) == 180
    assert value(texts[2], "gateway_request_seconds_count", **arm) == 60
    assert value(texts[2], "gateway_request_seconds_bucket", **arm, le="0.025") == 60
    assert value(texts[2], "gateway_request_seconds_bucket", **arm, le="0.01") == 0
    assert value(texts[2], "gateway_key_requests_total", key="k1") == 60
    assert value(texts[2], "gateway_refusals_total", reason="quota-exceeded", status="429") == 3


def test_keys_are_labels_of_counters_alone_and_of_so_many() -> None:
    metrics = Metrics()
    for number in range(MOST_KEYS + 20):
        metrics.finished(outcome(f"k{number}"), 0.001)
    text = metrics.text().decode()
    assert len(set(re.findall(r'gateway_key_requests_total\{key="([^"]+)"', text))) == MOST_KEYS + 1
    assert value(text, "gateway_key_requests_total", key="other") == 20
    assert not re.search(r"_bucket\{[^}]*key=", text)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "00-x", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "G" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01\n",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_none(header: str | None) -> None:
    assert parent_of(header) is None


def test_a_line_is_json_with_its_request_and_without_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "from gateway.seen import logs\n"
        "logs.configure()\n"
        "from gateway.seen.watching import Seen\n"
        "from gateway.errors import Refusal\n"
        "from tests.gateway.seen.test_seen import outcome\n"
        "import logging\n"
        "import asyncio\n"
        "seen = Seen()\n"
        "async def answered(): seen.finished(outcome())\n"
        "asyncio.run(answered())\n"
        "seen.refused('raw', Refusal(401, 'no-key', 'A key is needed', 'x'), 'r2')\n"
        "logs.request_id.set('r3')\n"
        "logging.getLogger('somebody').warning('careful')\n"
        "logs.logger().debug('not shown')\n"
        "logs.logger().error('shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=layout.ROOT, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["request_id"] for line in lines] == ["r1", "r2", "r3", "r3"]
    assert [line["event"] for line in lines] == ["answered", "refused", "careful", "shown"]
    assert [line["level"] for line in lines] == ["info", "info", "warning", "error"]
    assert all("timestamp" in line for line in lines)
    assert lines[0]["key"] == "k1" and lines[0]["model"] == "pixels" and "inputs" not in lines[0]


def test_the_gateways_own_share_is_what_is_left() -> None:
    seen = outcome()
    seen.queued_s = 0.005
    assert seen.own_s(seen.asked.arrived + 0.02) == pytest.approx(0.005)
    assert re.fullmatch(r"gateway;dur=-?[\d.]+, queue;dur=5\.00, triton;dur=10\.00", seen.timing())
