"""Which server is next, who waits for it, and how fast it is asked: without a network."""

import itertools
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor

from clients.core.servers import Server, Servers, Slot
from clients.settings import Address, Retry
from tests.clients.pool import acquired, servers, take


def test_an_overloaded_server_is_asked_again_later_and_later() -> None:
    pool = servers()
    [server] = pool.all
    queue = server.queue("")
    for refusals, longest_s in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, *[2.0] * 2000), start=1):
        slot = acquired(pool)
        assert pool.poll(slot) is server
        before = time.monotonic()
        pool.record_rejection(server)
        after = time.monotonic()
        pool.record_rejection(server)  # at the same time: it was told so already
        pool.release(slot)
        waiting = acquired(pool)
        assert pool.poll(waiting) is None
        assert queue.rejections == refusals
        assert before + longest_s / 2 <= waiting.recheck_at <= after + longest_s
        pool.release(waiting)
        queue.backoff_until = 0
    pool.record_success(server)
    assert queue.rejections == 0


def test_a_server_that_fails_fast_attracts_nothing_while_the_others_have_no_room() -> None:
    pool = servers(2)
    full, failing = pool.all
    pool.release(acquired(pool, "m"))
    pool.record_rejection(full, "m")
    pool.record_error(failing, "m")
    waiting = acquired(pool, "m")
    assert pool.poll(waiting) is None
    assert waiting.recheck_at == full.queue("m").backoff_until
    time.sleep(max(0, waiting.recheck_at - time.monotonic()))
    assert pool.poll(waiting) is full
    pool.release(waiting)
    pool.record_error(full, "m")  # where all fail, all are asked
    assert {acquired(pool, "m").server for _ in range(20)} == set(pool.all)


def test_a_slot_is_given_back_once_however_it_ended() -> None:
    """As where Ctrl-C comes between what takes a place and what would note it."""
    pool = servers()
    slot = Slot("m")
    pool.release(slot)  # which was never in line
    pool.acquire(slot)
    pool.release(slot)
    pool.release(slot)
    assert pool.all[0].in_flight == pool.all[0].queue("m").in_flight == 0


def test_a_server_that_refuses_gets_fewer_requests_at_once_until_it_answers_them() -> None:
    pool = servers()
    [server] = pool.all
    taken = [acquired(pool) for _ in range(10)]
    pool.record_rejection(server)
    assert server.queue("").limit == 8
    server.queue("").backoff_until = 0
    for slot in taken[:3]:
        pool.release(slot)
    assert take(pool)  # the eighth
    assert not take(pool)
    for _ in range(70):
        pool.record_success(server)
    assert not take(pool)  # not before all of them were answered ten times
    for _ in range(16):
        pool.record_success(server)
    assert take(pool)  # one more
    assert not take(pool)


def test_that_one_models_queue_is_full_says_nothing_of_another() -> None:
    pool = servers()
    [server] = pool.all
    acquired(pool, "busy")
    pool.record_rejection(server, "busy")
    assert not take(pool, "busy")
    assert take(pool, "idle")
    assert take(pool)


def test_a_server_that_comes_back_is_not_met_by_a_crowd() -> None:
    pool = servers()
    [server] = pool.all
    slot = acquired(pool, "m")
    pool.mark_down(server)
    pool.release(slot)
    slots = [acquired(pool, "m") for _ in range(20)]
    assert [slot.server for slot in slots] == [None] * 20
    pool.mark_up(server)
    assert [slot.server for slot in slots] == [server] * 8 + [None] * 12
    pool.record_success(server, "m")
    pool.release(slots[0])  # whose place the ninth gets, and the tenth one that its answer makes
    assert [slot.server for slot in slots] == [None] + [server] * 9 + [None] * 10


def test_if_nobody_can_watch_a_server_it_is_tried() -> None:
    def no_thread(server: Server) -> None:
        raise RuntimeError("can't start new thread")

    pool = servers(watch=no_thread)
    pool.mark_down(pool.all[0])
    assert take(pool)


def test_who_stands_in_line_is_served_in_the_order_of_coming_and_nobody_overtakes() -> None:
    pool = servers()
    [server] = pool.all
    server.queue("").limit = 1.9  # of which one is a whole one
    slots = [acquired(pool) for _ in range(4)]
    for slot, following in itertools.pairwise(slots):
        assert slot.server is server
        assert not pool.poll(following)
        pool.release(slot)
        assert following.wakeup.is_set()
        assert not take(pool)


def test_who_leaves_the_line_does_not_hold_it_up() -> None:
    pool = servers()
    [server] = pool.all
    server.queue("").limit = 1
    first, gives_up, gives_up_when_served, last = slots = [acquired(pool) for _ in range(4)]
    for slot in slots:
        pool.poll(slot)
    pool.release(gives_up)
    pool.release(first)
    assert gives_up_when_served.server is server
    pool.release(gives_up_when_served)
    assert last.wakeup.is_set()
    assert last.server is server


def test_who_is_first_in_line_knows_when_a_refusing_server_may_be_asked_again() -> None:
    pool = servers()
    [server] = pool.all
    server.queue("").limit = 1
    refused, first, second = [acquired(pool) for _ in range(3)]
    pool.poll(first)
    pool.poll(second)
    pool.record_rejection(server)
    pool.release(refused)
    assert first.wakeup.is_set()
    pool.poll(first)
    assert first.recheck_at == server.queue("").backoff_until
    pool.release(first)
    assert second.wakeup.is_set()
    pool.poll(second)
    assert second.recheck_at == server.queue("").backoff_until
    time.sleep(max(0, second.recheck_at - time.monotonic()))
    assert pool.poll(second) is server


def test_in_a_crowd_of_threads_of_which_some_give_up_nobody_is_forgotten() -> None:
    """Each waits until called, with no time to look again by itself: one call too few, and it would stand there."""
    retry = Retry(initial_backoff_s=1e-3, max_backoff_s=2e-3)
    pool = Servers([Address("grpc", "host", port) for port in (1, 2)], retry, lambda server: None)
    for server in pool.all:
        server.queue("m").limit = 2
    forgotten: list[int] = []

    def client(number: int) -> None:
        chance = random.Random(number)
        for request in range(200):
            slot = acquired(pool, "m")
            while not (server := pool.poll(slot)) and chance.random() < 0.95:
                if (
                    not slot.wakeup.wait(max(0, min(10, slot.recheck_at - time.monotonic())))
                    and slot.recheck_at == math.inf
                ):
                    forgotten.append(request)
            if server and chance.random() < 0.05:
                pool.record_rejection(server, "m")
            elif server:
                pool.record_success(server, "m")
            pool.release(slot)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(client, range(16)))
    assert not forgotten
    assert [server.in_flight for server in pool.all] == [0, 0]


def test_the_server_with_the_least_to_do_is_asked() -> None:
    pool = servers(3)
    slots = [acquired(pool) for _ in range(9)]
    assert [server.in_flight for server in pool.all] == [3, 3, 3]
    [one, *_] = [slot for slot in slots if slot.server is pool.all[1]]
    pool.release(one)
    assert acquired(pool).server is pool.all[1]
