"""A server's processes: what is halted takes no CPU, what all below it take is counted, and none is left behind."""

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.peers.process import Tree, guarded
from contracts import layout

BUSY = """
import os, sys, time
if os.fork() == 0:
    while True: pass
time.sleep(100)
"""
IGNORES_TERM = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    os.write(1, b"up\\n")
time.sleep(100)
"""

# Starts one process with another below it, halts both, and says who they are.
STARTER = f"""
import subprocess, sys, time
from benchmarks.peers.process import Tree, guarded
process = subprocess.Popen([sys.executable, "-c", {BUSY!r}], start_new_session=True)
tree = Tree(process.pid)
with guarded(tree):
    while len(tree.processes()) < 2:
        time.sleep(0.01)
    tree.halt()
    print(*(one.pid for one in tree.processes()), flush=True)
    sys.stdin.read()
tree.end()
"""


def started(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)


@pytest.fixture
def busy() -> Iterator[Tree]:
    """A process that sleeps, and one below it that never does."""
    process = started(BUSY)
    tree = Tree(process.pid)
    while len(tree.processes()) < 2:
        time.sleep(0.01)
    yield tree
    tree.end()
    process.wait()


def test_what_all_processes_take_is_counted_and_what_is_halted_takes_nothing(busy: Tree) -> None:
    deadline = time.monotonic() + 30
    while busy.cpu_s() < 0.2:  # a process below it; the first one sleeps
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert busy.memory_mb() > 1
    busy.halt()
    time.sleep(0.1)
    before_s = busy.cpu_s()
    time.sleep(0.3)
    assert busy.cpu_s() == before_s
    with busy.running():
        while busy.cpu_s() == before_s:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while {process.status() for process in busy.processes()} != {psutil.STATUS_STOPPED}:  # soon, not at once
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_does_not_end_when_it_is_told_to_is_killed_also_below_and_halted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.process._END_S", 0.3)
    process = started(IGNORES_TERM)
    tree = Tree(process.pid)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    while len(processes := tree.processes()) < 2:
        time.sleep(0.01)
    tree.halt()
    tree.end()
    process.wait(10)
    process.stdout.close()
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def test_nothing_is_left_of_what_was_halted_by_a_benchmark_that_is_killed() -> None:
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=layout.ROOT) as starter:
        assert starter.stdout is not None
        halted = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
        assert len(halted) == 2 and all(process.is_running() for process in halted)
        starter.kill()
    _, left = psutil.wait_procs(halted, timeout=30)
    for process in left:
        process.kill()
    assert not left


def test_a_guard_ends_with_its_block_and_harms_nobody() -> None:
    with started("import sys; sys.stdout.close(); import time; time.sleep(100)") as process:
        me = psutil.Process()
        before = {*me.children()}
        with guarded(Tree(process.pid)):
            [guard] = {*me.children()} - before
        assert not guard.is_running()
        assert process.poll() is None
        process.kill()


def test_a_process_that_is_gone_takes_nothing() -> None:
    process = started("")
    process.communicate()
    tree = Tree(process.pid)
    assert (tree.processes(), tree.cpu_s(), tree.memory_mb()) == ([], 0.0, 0.0)
    tree.end()
