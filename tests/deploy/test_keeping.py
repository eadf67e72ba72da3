"""What the supervisor goes by: who crashed, who is loading, how long to wait, who is left out, how much memory."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from contracts import repository
from deploy.keeping import loading
from deploy.keeping.backoff import Backoff
from deploy.keeping.holds import Holds
from deploy.keeping.quarantine import Quarantine
from deploy.running import memory, pulse
from deploy.running.memory import Limit
from deploy.running.progress import Progress
from deploy.running.workers import Worker, WorkerWatch
from tests.conftest import wait_for

# Its handler of a crash never ends, as Triton's may; another thread goes on.
_HANGS = """
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None)
handler = ctypes.cast(libc.pause, ctypes.c_void_p)
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal(int(sys.argv[1]), handler)
threading.Thread(target=lambda: time.sleep(60), daemon=True).start()
print("started", flush=True)
sys.stdin.readline()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_process_that_hangs_in_the_handler_of_a_crash_has_crashed(number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _HANGS, str(int(number))]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        assert pulse.crash(process.pid) is None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for(lambda: pulse.crash(process.pid) == number, timeout_s=10)
        process.kill()
    assert pulse.crash(process.pid) is None, "it has ended"


def test_a_thread_that_blocks_every_signal_has_not_crashed() -> None:
    program = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert pulse.crash(process.pid) is None
        process.kill()


def heard(progress: Progress, message: str, model: str = "one", source: str = "model_lifecycle.cc:472") -> None:
    progress.hear({"message": message, "source": source, "model": model})


def test_what_is_loading_is_what_was_begun_and_is_not_done() -> None:
    progress = Progress()
    for name in ("one", "two", "three"):
        heard(progress, f"loading: {name}:1", name)
    heard(progress, "successfully loaded 'one'", "one")
    heard(progress, "failed to load 'two' version 1: no", "two")
    heard(progress, "loading: printed:1", "printed", source="model.py:3")
    progress.hear({"message": "loading: printed:1"})
    assert progress.loading() == {"three"}


def test_a_model_that_waits_for_its_turn_is_not_slow() -> None:
    progress = Progress()
    for name in ("one", "two"):
        heard(progress, f"loading: {name}:1", name)
    time.sleep(0.05)
    assert progress.slower_than(0.04) == {"one", "two"}
    heard(progress, "successfully loaded 'one'", "one")
    assert progress.slower_than(0.04) == set()
    time.sleep(0.05)
    assert progress.slower_than(0.04) == {"two"}
    progress.drop({"two"})
    assert progress.loading() == set()


def test_pauses_double_up_to_the_longest_and_a_quiet_time_makes_them_short_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    crashes = Backoff(longest_pause_s=3)
    loops = []
    pauses = []
    for _ in range(6):
        pauses.append(crashes.pause_s())
        loops.append(crashes.is_loop)
        assert not crashes.due
        now[0] += pauses[-1]
        assert crashes.due
    assert pauses == [0.5, 1, 2, 3, 3, 3]
    assert loops == [False, False, False, True, True, True]
    now[0] += 301
    assert crashes.pause_s() == 0.5 and not crashes.is_loop


def test_a_case_is_forgotten_once_the_model_serves_or_its_files_have_changed(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.py").write_text(name)
    quarantine = Quarantine(tmp_path)
    quarantine.add("one", "no")
    quarantine.add("two", "no")
    quarantine.add("three", "for now", passing=True)
    assert quarantine.reasons() == {"one": "no", "two": "no", "three": "for now"}
    assert quarantine.release({"one", "other"}) and not quarantine.release({"other"})
    (tmp_path / "two" / "1" / "__pycache__").mkdir()
    (tmp_path / "two" / "1" / "__pycache__" / "model.pyc").touch()
    (tmp_path / "two" / ".parked-2").mkdir()
    (tmp_path / "two" / ".parked-2" / "model.py").touch()
    quarantine.review()
    assert quarantine.reasons() == {"two": "no"}
    (tmp_path / "two" / "1" / "model.py").write_text("mended")
    quarantine.review()
    assert quarantine.reasons() == {}


def test_a_process_beyond_its_limit_is_ended_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "print(flush=True); input()\ntry: kept = b'x' * 2**29\nexcept MemoryError: raise SystemExit(7)"
    for places, ends in ((memory._places, {-9, 7}), (lambda: iter(()), {7})):
        monkeypatch.setattr(memory, "_places", places)
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            limit = Limit.of(process.pid, 2**28)
            process.stdout.readline()
            process.stdin.write(b"\n")
            process.stdin.close()
            process.wait(timeout=30)
        assert process.returncode in ends, limit
        assert (limit.kills() == 1) == (process.returncode == -9)
        assert "256 MiB" in str(limit)
        limit.remove()
        assert limit.cgroup is None or not limit.cgroup.exists()
    assert not psutil.pid_exists(process.pid)


def test_what_a_server_has_is_held_in_the_repository_and_nothing_else(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        (tmp_path / "net" / str(version)).mkdir(parents=True)
    holds = Holds(tmp_path)

    def held() -> list[int]:
        return [v for v in (1, 2, 3) if repository.is_held(repository.directory(tmp_path / "net", v))]

    holds.keep({"net": {1, 2}, "net.r7": {7}, "step": {2}})
    assert held() == [1, 2]
    with repository.locked(tmp_path / "net"):
        repository.park(tmp_path / "net", 1)
        assert not repository.remove(tmp_path / "net", 1)
    holds.keep({"net": {1, 3}})
    assert held() == [1, 3]
    holds.close()
    assert held() == []


_SHARED_MEMORY = "triton_of_a_test_"


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[int, str], "subprocess.Popen[bytes]"]]:
    """Begins a process with the arguments of a worker of `model`: of a version, and an instance."""
    with ExitStack() as stack:

        def worker(version: int, instance: str) -> "subprocess.Popen[bytes]":
            code = tmp_path / "model" / str(version) / "model.py"
            code.parent.mkdir(parents=True, exist_ok=True)
            code.write_text("read line\n")
            process = stack.enter_context(
                subprocess.Popen(
                    ["triton_python_backend_stub", str(code), f"{_SHARED_MEMORY}{version}", instance, "backends"],
                    executable="/bin/bash",
                    stdin=subprocess.PIPE,
                )
            )
            stack.callback(process.kill)
            return process

        yield worker


def serving(*versions: int, instances: int = 1, backend: str = "python") -> Any:
    """What a server with these versions of `model` says of itself."""
    config = {"backend": backend, "instance_group": [{"kind": "KIND_CPU", "count": instances}]}
    ready = [SimpleNamespace(name="model", version=version, state="READY") for version in versions]
    return SimpleNamespace(models=lambda: ready, config=lambda _: config)


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def test_a_worker_that_a_reload_started_and_that_died_unseen_is_missed(
    begin: Callable[[int, str], "subprocess.Popen[bytes]"],
) -> None:
    old = begin(1, "model_0_0")
    watch = WorkerWatch(_SHARED_MEMORY)
    new = begin(2, "model_0_0")
    end(new)  # before anybody has looked at the processes again
    end(old)  # unloaded
    watch.learn({("model", 2)})
    assert {(w.model, w.version) for w in watch.dead(serving(2))} == {("model", 2)}
    assert watch.dead(serving(2)) == set(), "it is told once: whoever hears it replaces it"


def test_one_of_several_that_died_unseen_is_missed_and_none_where_all_are_there(
    begin: Callable[[int, str], "subprocess.Popen[bytes]"],
) -> None:
    watch = WorkerWatch(_SHARED_MEMORY)
    begin(2, "model_0_0")
    watch.learn({("model", 2)})
    assert watch.dead(serving(2)) == set()
    watch.learn({("model", 2)})
    assert watch.dead(serving(2, instances=2)) != set()
    watch.learn({("model", 2)})
    assert watch.dead(serving(instances=2)) == set(), "it is not served any more"
    watch.learn({("model", 3)})
    assert watch.dead(serving(3, backend="onnxruntime")) == set(), "it may have no workers of its own"


def test_a_worker_that_dies_just_before_all_processes_are_looked_at_is_still_missed(
    begin: Callable[[int, str], "subprocess.Popen[bytes]"],
) -> None:
    process = begin(1, "model_0_0")
    watch = WorkerWatch(_SHARED_MEMORY)
    end(process)
    watch.refresh()
    assert watch.dead(serving(1)) == {Worker("model", 1, "model_0_0")}


def test_fewer_instances_of_the_same_version_are_no_deaths(
    begin: Callable[[int, str], "subprocess.Popen[bytes]"],
) -> None:
    begin(1, "model_0_0")
    other = begin(1, "model_0_1")
    watch = WorkerWatch(_SHARED_MEMORY)
    end(other)  # a reload after its configuration was changed
    assert watch.dead(serving(1, instances=1)) == set()


@pytest.mark.parametrize(("name", "file"), [(None, "config.pbtxt"), ("cpu", "configs/cpu.pbtxt")])
def test_a_broken_configuration_is_told_by_line_and_column_and_without_the_servers_paths(
    tmp_path: Path, name: str | None, file: str
) -> None:
    server = SimpleNamespace(state=SimpleNamespace(served=str(tmp_path), config_name=name), started=0.0)
    (tmp_path / "typo" / file).parent.mkdir(parents=True)
    (tmp_path / "typo" / file).write_text('max_batch_size: 8\ninput [ { name: "X" data_type: TYPE_FLOAT } ]')
    told = loading._from_the_log(server, "typo")  # type: ignore[arg-type]
    assert told.startswith(f"typo/{file} is no model configuration: line 2, column 32: ")
    assert "no value named TYPE_FLOAT" in told
