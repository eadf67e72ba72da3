"""`python -m deploy drill` on this machine: upgrade, roll back, kill a worker and the server, under load."""

import json

from benchmarks.gpu_day import command
from benchmarks.gpu_day.checks import offline
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record

# What differs on a GPU, in a minute. A whole drill, with bad models and a crash loop, takes three.
EVENTS = ("new version", "bad version", "roll back", "stub killed", "server killed")


def look(day: Day, record: Record) -> None:
    """Run it on the network that the day has published; each of its events is a check."""
    release = offline.served(day)
    code, said = command.run(
        day, "deploy", "drill", "--json", "--model", release.model, "--repository", day.repository,
        "--device", day.device, "--requests", str(day.drill_requests),
        *(word for event in EVENTS for word in ("--only", event)),
    )  # fmt: skip
    found = next((line for line in reversed(said.splitlines()) if line.startswith("{")), None)
    if found is None:
        record.check("the drill was done", False, said.strip()[-300:])
        return
    result = json.loads(found)
    record.figure(requests=result["requests"], failures=result["failures"], sent=result["sent"])
    for event in result["events"]:
        recovered = event["recovery_s"]
        told = event["problem"] or f"{event['detail']}; back after {recovered:.2f} s, {event['failures']} failed"
        record.check(event["event"], not event["problem"], told)
    record.check("the drill passed", code == 0)
