"""A search from beginning to end: `python -m training sweep FAMILY`."""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna

from cli.progress import bar
from contracts import layout
from training import families
from training.errors import SweepError
from training.sweep import carrying_out, claims, findings, halving, space, storage
from training.sweep.carrying_out import InterruptedSearch, Outcome
from training.sweep.claims import Claim
from training.sweep.runs import Runs
from training.sweep.study import Search, open_study
from training.sweep.under_way import UnderWay, beating, end, given, given_up, show

_WAIT_S = 0.5


def run(options: argparse.Namespace, flags: list[str]) -> int:
    """Search, and say what was found; return the exit code.

    Raises:
        SweepError: the search cannot begin or go on.
    """
    search = _search(options, flags)
    address = options.storage or os.environ.get("SWEEP_STORAGE") or storage.default()
    name = options.study or f"{search.family}-{search.space.name}"
    study = open_study(name, search, address, families.spec(search.family))
    begun = time.monotonic()
    with storage.answers(address):
        opened = study.opened()
        runs = Runs(study, opened)
        status, files = "FAILED", list[Path]()
        try:
            with bar(f"Search {study.name}", options.trials, "trials") as shown:
                way = UnderWay(study, address, runs, options.trials, options.workers, shown)
                _carry_out(way, options)
            found = findings.of(study, opened)
            findings.write(found)
            status, files = "FINISHED", [found.picture, found.table]
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            print("\nStopped. The same command goes on.", file=sys.stderr)
            raise
        finally:
            runs.close(status, found.best_figures if files else {}, files)
    findings.tell(found, options.trials, time.monotonic() - begun, as_json=options.json)
    return 0


def _search(options: argparse.Namespace, flags: list[str]) -> Search:
    path = space.locate(options.family, options.preset, options.space)
    read = space.read(path)
    if options.objectives:
        try:
            chosen = space.objectives(options.objectives)
        except ValueError as error:
            raise SweepError(f"--objectives {' '.join(options.objectives)}", note=str(error)) from error
        read = replace(read, objectives=chosen)
    if both := sorted(read.search.keys() & {flag.partition("=")[0].removeprefix("--") for flag in flags}):
        raise SweepError(
            f"--{both[0]} is given, and searched", hint=f"leave it away, or take it out of {layout.shown(path)}"
        )
    return Search(options.family, options.preset, tuple(flags), read, options.seed)


def _carry_out(way: UnderWay, options: argparse.Namespace) -> None:
    if options.by == "ray":
        from training.sweep.by_ray import cluster

        cluster.carry_out(way, options.ray_address)
        return
    pool = ThreadPoolExecutor(way.workers, thread_name_prefix="worker")
    workers = [pool.submit(work, way, number) for number in range(way.workers)]
    try:
        for each in workers:
            each.result()  # raises what a worker raised
    finally:
        way.ended.set()
        pool.shutdown()


def work(way: UnderWay, number: int) -> None:
    """Carry out trials until none is left.

    Args:
        number: Of the worker.
    """
    opened = way.study.opened()
    try:
        while not way.ended.is_set():
            show(way, opened)
            with claims.claim(way.study, opened, way.trials) as claim:
                if claim is not None:
                    with given_up(way, claim):
                        end(way, opened, claim, _follow(way, opened, claim, number))
                    continue
            if claims.is_done(opened, way.trials):
                return
            way.ended.wait(_WAIT_S)  # others are at the last ones, and may be killed
    except InterruptedSearch:
        return
    except BaseException:
        way.ended.set()
        raise


def _follow(way: UnderWay, opened: optuna.Study, claim: Claim, worker: int) -> Outcome:
    judge = halving.Judge(opened, claim.trial, way.study.search.space.halving)
    folder, started = way.study.trial_folder(claim.number), given(way, claim, worker)
    return carrying_out.follow(folder, started, judge.is_worse, beating(claim), way.ended)
