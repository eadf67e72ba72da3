"""A scenario with k6, from an environment of its own: the requests as files, the run, and what became of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import target, wire, workload
from benchmarks.errors import MeasurementError, ToolError
from benchmarks.releases import child
from benchmarks.scenarios.scenario import ALL, URGENT, Scenario
from benchmarks.scenarios.tally import Outcome
from benchmarks.serving import load
from cli.installing import environments, tool_environments
from contracts.golden import GoldenRequest

SCRIPT = Path(__file__).with_name("k6.js")
_MOST_BYTES = 1 << 20  # of requests: every connection of k6 holds all of them
_THRESHOLDS_CROSSED = 99


def run(http: str, scenario: Scenario, models: Sequence[str], connections: int, folder: Path) -> list[Outcome]:
    """Run a scenario.

    Args:
        http: host:port.
        folder: A new one, for the plan.

    Raises:
        ToolError: k6 cannot be had.
        MeasurementError: there is nothing to send, an answer of the idle server is wrong, or k6 failed.
    """
    found = [r for m in models for r in workload.find(f"http://{http}", m, target.repository()).of_rows(1)]
    write(http, scenario, found, connections, folder)
    summary = folder / "summary.json"
    summary.unlink(missing_ok=True)  # of an earlier run
    try:
        k6 = tool_environments.programs("k6") / "k6"
    except environments.InstallError as error:
        raise ToolError("k6 cannot be had", note=str(error), hint="--with locust") from error
    command = [str(k6), "run", "--quiet", "--no-usage-report", "--no-color"]
    command += ["--env", f"PLAN={(folder / 'plan.json').resolve()}", str(SCRIPT)]
    done = child.run(command, folder)
    if done.returncode not in (0, _THRESHOLDS_CROSSED) or not summary.is_file():
        raise MeasurementError(f"k6 failed with {done.returncode}", note=(done.stderr or done.stdout).strip()[-2000:])
    return outcomes(json.loads(summary.read_text()), scenario)


def write(http: str, scenario: Scenario, requests: Sequence[GoldenRequest], connections: int, folder: Path) -> None:
    """Write the plan, and the bodies of requests and of the idle server's answers beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    most = max(1, _MOST_BYTES // max(request.size_bytes for request in requests))
    built = [load.build(request, priority) for priority in _priorities(scenario) for request in requests[:most]]
    described = []
    for number, known in enumerate(load.with_answers(http, built)):
        body, header_length = wire.body(known.of, known.priority)
        head, _, answer = known.answer.partition(b"\r\n\r\n")
        files = {"body": folder / f"{number}.request", "idle": folder / f"{number}.answer"}
        files["body"].write_bytes(body)
        files["idle"].write_bytes(answer)
        described.append(
            {
                "url": f"http://{http}/v2/models/{known.of.model}/infer",
                "priority": known.priority,
                "header_length": header_length,
                "idle_header_length": load.header_length(head) or len(answer),
                **{name: str(path.resolve()) for name, path in files.items()},
            }
        )
    plan = {**asdict(scenario), "calls": described, "connections": connections, "classes": _classes(scenario)}
    plan["summary"] = str((folder / "summary.json").resolve())
    (folder / "plan.json").write_text(json.dumps(plan, indent=1))


def outcomes(metrics: Mapping[str, Any], scenario: Scenario) -> list[Outcome]:
    """Read k6's summary, a class each; what was dropped belongs to none, and so counts for all."""
    dropped = int(metrics.get("dropped_iterations", {"values": {"count": 0}})["values"]["count"])
    return [_outcome(metrics, of, dropped, scenario.seconds) for of in _classes(scenario)]


def _outcome(metrics: Mapping[str, Any], of: str, dropped: int, seconds: float) -> Outcome:
    def values(name: str) -> Mapping[str, float]:
        found: Mapping[str, float] = metrics.get(f"{name}{{of:{of}}}", {"values": {}})["values"]
        return found

    latency, right = values("latency"), int(values("latency").get("count", 0))
    errors = {
        "no free caller": dropped,
        "a wrong answer": int(values("wrong").get("count", 0)),
        "refused, or no answer": int(values("refused").get("count", 0)),
    }
    p50_ms, p95_ms, p99_ms = (float(latency.get(name, float("nan"))) for name in ("med", "p(95)", "p(99)"))
    kept = {error: count for error, count in errors.items() if count}
    return Outcome(of, right + sum(kept.values()), right / seconds, p50_ms, p95_ms, p99_ms, dropped, kept)


def _classes(scenario: Scenario) -> list[str]:
    return [URGENT, "default priority"] if scenario.urgent else [ALL]


def _priorities(scenario: Scenario) -> tuple[int, ...]:
    return (0, 1) if scenario.urgent else (0,)
