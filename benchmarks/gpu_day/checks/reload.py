"""Other versions of what is served: one without CUDA graphs, and one whose plan another TensorRT built."""

import re
import shutil
from pathlib import Path

from benchmarks.gpu_day.checks import answers, offline
from benchmarks.gpu_day.checks.answers import Alone
from benchmarks.gpu_day.checks.offline import Served
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record
from benchmarks.gpu_day.serving import Serving, serving
from contracts import bundle, model_config, repository
from deploy.drill.server_copy import next_version

_GRAPHS = re.compile(r"\bgraphs\s*:\s*true\b")
_VERSION_BYTE = 24  # of a plan: the first of major, minor, patch and build


def look(day: Day, record: Record) -> None:
    """Publish the same network without CUDA graphs, reload, roll back; compare answers and times."""
    release = offline.served(day)
    with serving(day, "reload") as server:
        asked = answers.requests(server, release)
        with offline.runner(day, release) as run:
            expected = {rows: run(request.inputs) for rows, request in asked.items()}
        before = answers.one_at_a_time(server, asked)
        with next_version(release.directory.parent) as staged:
            changed = without_graphs(staged.directory, release)
        record.figure(graphs_switched_off=changed)
        _step(server, record, "reload", "reload", release.model)
        without = answers.one_at_a_time(server, asked)
        answers.compare(record, without.answers, expected, "without CUDA graphs")
        _step(server, record, "roll back", "rollback", release.model)
        again = answers.one_at_a_time(server, asked)
        answers.compare(record, again.answers, expected, "after the roll back")
    record.figure(times=_beside(before, without, again))


def wrong_plan(day: Day, record: Record) -> None:
    """Publish a version whose plan says that another TensorRT built it: it is refused, and the old one goes on."""
    release = offline.served(day)
    with serving(day, "wrong-plan") as server:
        asked = answers.requests(server, release)
        before = answers.one_at_a_time(server, asked)
        with next_version(release.directory.parent) as staged:
            for plan in staged.directory.glob("*.plan"):
                plan.write_bytes(of_another_tensorrt(plan.read_bytes()))
        bad = repository.versions(release.directory.parent)[-1]
        try:
            code, said = server.deploy("reload", release.model)
            record.check("the reload refuses it", code != 0, said.strip().partition("\n")[0])
            record.check("and says which TensorRT", "TensorRT" in said, said.strip()[-300:])
            after = answers.one_at_a_time(server, asked)
            answers.compare(record, after.answers, before.answers, "the old version goes on")
        finally:
            shutil.rmtree(repository.directory(release.directory.parent, bad), ignore_errors=True)  # parked or not


def of_another_tensorrt(plan: bytes) -> bytes:
    """Return a plan with the major version in its header one lower."""
    changed = bytearray(plan)
    changed[_VERSION_BYTE] = (changed[_VERSION_BYTE] - 1) % 256
    return bytes(changed)


def without_graphs(version: Path, release: Served) -> bool:
    """Switch the CUDA graphs of a version's network off, in its bundle; tell whether they were on."""
    path = version / bundle.FOLDER / release.model / model_config.FILE_NAME
    text = path.read_text()
    path.write_text(_GRAPHS.sub("graphs: false", text))
    return bool(_GRAPHS.search(text))


def _step(server: Serving, record: Record, name: str, *arguments: str) -> None:
    code, said = server.deploy(*arguments)
    record.check(name, code == 0, said.strip().splitlines()[-1] if said.strip() else "")


def _beside(before: Alone, without: Alone, again: Alone) -> list[dict[str, float]]:
    rows = zip(before.rows, without.rows, again.rows, strict=True)
    return [
        {
            "rows": b["rows"],
            "as it is, ms": b["median ms"],
            "no graphs, ms": w["median ms"],
            "again, ms": a["median ms"],
        }
        for b, w, a in rows
    ]
