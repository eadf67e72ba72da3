"""Made-up requests, almost right: none ends Triton, and what it answers is what was asked for."""

import os
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.deploy import echoes, mutants, pipelined
from tests.deploy.echoes import Answer, Front
from tests.deploy.mutants import Mutant

SHORT = 1_000  # requests over each protocol in `make test`
LONG = int(os.environ.get("MUTANTS", "500_000"))
_BLOCK = 2_000
_PLAIN = {"listen 8443 ssl http2": "listen 8443"}  # TLS is half of the time, and the same for all
_GROWTH_BYTES = 128 << 20  # of Triton, its workers and nginx together, over all requests


def test_what_triton_answers_is_what_was_asked_for(echoing: Front) -> None:
    chance = random.Random(2_026)  # the same each time; others, and many more, are the next test's
    sent = [mutants.over_http(chance) for _ in range(SHORT)], [mutants.over_grpc(chance) for _ in range(SHORT)]
    for counted in (_counted(pipelined.over_http(echoing, sent[0])), _counted(pipelined.over_grpc(echoing, sent[1]))):
        assert counted.total() == SHORT
        assert counted["answered"] > SHORT / 10 and counted["refused"] > SHORT / 10, counted
    assert echoing.is_alive()
    assert not echoing.passed_on_in_vain()


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_a_million_made_up_requests(tmp_path: Path) -> None:
    """Every 2,000 the memory is looked at, which stays what it was after the first, and Triton's answers."""
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10**9)))
    print(f"seed: {seed}")
    chance, counted, sizes = random.Random(seed), Counter[str](), list[int]()
    with echoes.front(tmp_path, _PLAIN) as front:
        for _ in range(0, LONG, _BLOCK):
            http = [mutants.over_http(chance) for _ in range(_BLOCK)]
            counted += _counted(pipelined.over_http(front, http, tls=False))
            counted += _counted(pipelined.over_grpc(front, [mutants.over_grpc(chance) for _ in range(_BLOCK)]))
            assert front.triton.process.is_running()
            vain = front.passed_on_in_vain()
            assert not vain, vain
            (front.proxy.folder / "access.log").write_bytes(b"")  # nginx appends
            sizes.append(_memory(front))
    print(f"{counted}; memory in MiB: {[size >> 20 for size in sizes[:: max(1, len(sizes) // 10)]]}")
    assert max(sizes) - sizes[0] < _GROWTH_BYTES


def _counted(answered: Iterable[tuple[Mutant, Answer]]) -> "Counter[str]":
    return Counter(_checked(mutant, answer) for mutant, answer in answered)


def _checked(mutant: Mutant, answer: Answer) -> str:
    """Whether it was answered; fails unless the answer is to what a reader of ours takes the request for."""
    what = f"{mutant}\n{answer}\n{mutant.read()}"
    if answer.status in (200, "OK"):
        asked = mutant.read()
        assert asked is not None, what
        assert mutant.wants_classes or answer.is_echo_of(asked), what
        return "answered"
    assert not mutant.is_valid and answer.reason, what
    return "refused"


def _memory(front: Front) -> int:
    """Resident bytes of Triton, its workers and nginx."""
    processes = [front.triton.process, *front.triton.process.children(), *front.proxy.processes()]
    return sum(process.memory_info().rss for process in processes if process.is_running())
