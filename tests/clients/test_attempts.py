"""Which server is asked, how often, and when: without a network."""

import itertools
import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients.attempts import Pause, RetryBudget, Send, plan
from clients.deadline import Deadline
from clients.errors import (
    ClientError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    OverloadedError,
    ServerUnavailableError,
)
from clients.failures import Failure, Kind, failure_of
from clients.servers import PROBE_S, Server, Servers, Slot
from clients.settings import Address, Retry

OVERLOADED = Failure(Kind.OVERLOADED, "Exceeds maximum queue size")
GONE = Failure(Kind.UNAVAILABLE, "connection refused")


def servers(count: int = 1, watch: Callable[[Server], object] = lambda server: None) -> Servers:
    found = Servers([Address("grpc", "host", 8001 + i) for i in range(count)], Retry(), watch)
    for server in found.all:
        server.responded = True
    return found


def acquired(pool: Servers, model: str = "") -> Slot:
    return pool.acquire(Slot(model))


def take(pool: Servers, model: str = "") -> Slot | None:
    """A server for a request, if there is one now."""
    slot = acquired(pool, model)
    if pool.poll(slot):
        return slot
    pool.release(slot)
    return None


def follow(  # type: ignore[no-untyped-def]
    pool: Servers,
    answers: list[Failure | None],
    retry: Retry | None = None,
    *,
    budget: RetryBudget | None = None,
    **options,
) -> tuple[list[Server], list[float]]:
    """Whom the plan asked while it was answered so, and its pauses."""
    retry = retry or Retry()
    steps = plan("m", pool, retry, budget or RetryBudget(retry), Deadline.after(options.pop("timeout_s", 5)), **options)
    asked: list[Server] = []
    pauses: list[float] = []
    try:
        step = next(steps)
        while True:
            if isinstance(step, Send):
                asked.append(step.server)
                step = steps.send(answers[len(asked) - 1])
            else:
                assert isinstance(step, Pause)
                pauses.append(step.seconds)
                step = steps.send(None)
    except StopIteration:
        return asked, pauses


def test_an_answer_ends_it() -> None:
    pool = servers()
    assert follow(pool, [None]) == ([pool.all[0]], [])
    assert pool.all[0].in_flight == 0


def test_an_overloaded_server_is_asked_again_later_and_later() -> None:
    pool = servers()
    [server] = pool.all
    queue = server.queue("")
    for refusals, longest_s in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, *[2.0] * 2000), start=1):
        slot = acquired(pool)
        assert pool.poll(slot) is server
        pool.record_rejection(server)
        pool.record_rejection(server)  # at the same time: it was told so already
        pool.release(slot)
        waiting = acquired(pool)
        assert pool.poll(waiting) is None
        assert queue.rejections == refusals
        assert longest_s / 2 - 0.05 < waiting.recheck_at - time.monotonic() <= longest_s
        pool.release(waiting)
        queue.backoff_until = 0
    pool.record_success(server)
    assert queue.rejections == 0


def test_the_request_it_refused_waits_for_that() -> None:
    retry = Retry(initial_backoff_s=0.001, max_backoff_s=0.002)
    asked, pauses = follow(servers(), [OVERLOADED] * 2 + [None], retry)
    assert len(asked) == 3
    assert pauses


def test_another_server_is_asked_at_once() -> None:
    pool = servers(3)
    asked, pauses = follow(pool, [OVERLOADED, OVERLOADED, None])
    assert set(asked) == set(pool.all)
    assert pauses == []


def test_a_server_that_a_caller_no_longer_waited_for_is_probed_if_a_probe_would_have_failed() -> None:
    """A caller's own timeout, a hedged request or a cancelled handler ends an attempt before its deadline does."""
    for waited_s, suspect in ((0.0, False), (PROBE_S, True)):
        pool = servers()
        steps = plan("m", pool, Retry(), RetryBudget(Retry()), Deadline.after(5), queue="m")
        next(steps)
        time.sleep(waited_s)
        steps.close()
        assert pool.all[0].suspect == pool.needs_probe(pool.all[0]) == suspect
        assert pool.all[0].in_flight == 0


@pytest.mark.parametrize("kind", [Kind.NOT_FOUND, Kind.ACCESS_DENIED, Kind.SERVER_ERROR])
def test_a_server_that_fails_fast_does_not_attract_the_requests(kind: Kind) -> None:
    """It has the fewest in flight: without a mark it would be asked next, and next, and next."""
    pool = servers(2)
    asked, pauses = follow(pool, [Failure(kind, "not here"), None], queue="m")
    assert asked[0] is not asked[1]
    assert pauses == []
    assert [follow(pool, [None], queue="m")[0][0] for _ in range(20)] == [asked[1]] * 20
    with pytest.raises(ClientError):  # and with one server it is what the caller is told
        follow(servers(), [Failure(kind, "not here"), None], queue="m")


def test_nor_while_the_others_have_no_room() -> None:
    pool = servers(2)
    full, failing = pool.all
    pool.release(acquired(pool, "m"))
    pool.record_rejection(full, "m")
    pool.record_error(failing, "m")
    waiting = acquired(pool, "m")
    assert pool.poll(waiting) is None
    assert waiting.recheck_at == full.queue("m").backoff_until
    time.sleep(waiting.recheck_at - time.monotonic())
    assert pool.poll(waiting) is full
    pool.release(waiting)
    pool.record_error(full, "m")  # where all fail, all are asked
    assert {acquired(pool, "m").server for _ in range(20)} == set(pool.all)


def test_a_server_that_responded_with_errors_only_is_worth_waiting_for() -> None:
    pool = Servers([Address("grpc", "host", 8001)], Retry(), lambda server: None)
    with pytest.raises(InvalidInputError):
        follow(pool, [Failure(Kind.INVALID_INPUT, "no image")])
    steps = plan("m", pool, Retry(), RetryBudget(Retry()), Deadline.after(5))
    next(steps)
    assert isinstance(steps.send(GONE), Pause)


def test_a_model_that_is_only_slow_is_not_stalled_while_the_server_serves_others() -> None:
    pool = servers()
    steps = plan("m", pool, Retry(), RetryBudget(Retry()), Deadline.after(5), queue="m")
    next(steps)
    follow(pool, [None], queue="m")
    time.sleep(PROBE_S)
    steps.close()  # its caller hangs up
    assert take(pool, "m")


def test_the_server_that_is_blamed_is_the_one_that_failed() -> None:
    pool, refused = servers(2), Failure(Kind.INVALID_INPUT, "no image")
    with pytest.raises(InvalidInputError) as one:
        follow(pool, [OVERLOADED, refused])
    assert one.value.server in {str(server.address) for server in pool.all}
    with pytest.raises(ServerUnavailableError, match="cannot reach grpc://host:8001, grpc://host:8002"):
        follow(servers(2), [OVERLOADED, GONE], Retry(max_attempts=2))


def test_a_hedged_request_avoids_the_server_that_it_is_hedged_against() -> None:
    pool, retry, tried = servers(2), Retry(), set[Server]()
    for _ in range(10):
        tried.clear()
        first, second = (
            plan("m", pool, retry, RetryBudget(retry), Deadline.after(5), queue="m", tried=tried) for _ in range(2)
        )
        step, other = next(first), next(second)
        assert isinstance(step, Send) and isinstance(other, Send)
        assert step.server is not other.server
        first.close()
        second.close()


def test_a_slot_is_given_back_once_however_it_ended() -> None:
    """As where Ctrl-C comes between what takes a place and what would note it."""
    pool = servers()
    slot = Slot("m")
    pool.release(slot)  # which was never in line
    pool.acquire(slot)
    pool.release(slot)
    pool.release(slot)
    assert pool.all[0].in_flight == pool.all[0].queue("m").in_flight == 0


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(Kind.INVALID_INPUT, "no image"), InvalidInputError),
        (Failure(Kind.SERVER_ERROR, "division by zero"), InferenceError),
    ],
)
def test_what_would_fail_again_is_sent_once(failure: Failure, error: type[ClientError]) -> None:
    with pytest.raises(error) as caught:
        follow(servers(), [failure, None])
    assert caught.value.attempts == 1


def test_a_worker_that_is_being_replaced_is_worth_another_attempt() -> None:
    dead = failure_of("INTERNAL", "Stub process 'fashion_preprocess_0_0' is not healthy.")
    assert len(follow(servers(), [dead, None])[0]) == 2


def test_what_must_not_be_repeated_is_sent_once() -> None:
    with pytest.raises(ServerUnavailableError):
        follow(servers(2), [GONE, None], idempotent=False)


def test_retries_of_the_overloaded_end_with_the_budget_and_answers_earn_it_back() -> None:
    retry = Retry(max_attempts=2, budget=0.5, burst=3)
    budget, pool = RetryBudget(retry), servers()
    for _ in range(5):  # of which each spends one, and its answer earns half of one
        follow(pool, [OVERLOADED, None], retry, budget=budget, timeout_s=60)
    with pytest.raises(OverloadedError) as caught:
        follow(pool, [OVERLOADED, None], retry, budget=budget, timeout_s=60)
    assert caught.value.attempts == 1


def test_a_dead_server_costs_no_budget_and_is_not_asked_until_it_is_back() -> None:
    recovering = threading.Event()
    pool = servers(2, lambda server: recovering.set())
    retry = Retry(burst=0, budget=0)
    asked, pauses = follow(pool, [GONE, None], retry)
    assert asked[0] is not asked[1]
    assert pauses == []
    assert recovering.is_set()
    assert [follow(pool, [None])[0][0] for _ in range(20)] == [asked[1]] * 20
    pool.mark_up(asked[0])
    assert {follow(pool, [None])[0][0] for _ in range(50)} == set(pool.all)


def test_while_all_are_down_calls_wait_for_one_to_come_back() -> None:
    pool = servers()
    steps = plan("m", pool, Retry(), RetryBudget(Retry()), Deadline.after(5))
    next(steps)
    assert isinstance(steps.send(GONE), Pause)
    assert isinstance(next(steps), Pause)
    pool.mark_up(pool.all[0])
    assert isinstance(next(steps), Send)


def test_a_server_that_never_answered_is_not_waited_for() -> None:
    pool = servers()
    pool.all[0].responded = False
    began = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="grpc://host:8001"):
        follow(pool, [GONE] * 9)
    assert time.monotonic() - began < 1


def test_at_the_deadline_the_error_is_what_went_wrong_until_then() -> None:
    steps = plan("m", servers(), Retry(), RetryBudget(Retry()), Deadline.after(0.05))
    next(steps)
    steps.send(GONE)
    time.sleep(0.06)
    with pytest.raises(ServerUnavailableError, match="1 attempt in"):
        steps.send(None)
    with pytest.raises(DeadlineExceededError):
        follow(servers(), [], timeout_s=0)


def test_a_pause_that_would_end_after_the_deadline_is_not_made() -> None:
    retry = Retry(initial_backoff_s=100, max_backoff_s=100)
    with pytest.raises(OverloadedError):
        follow(servers(), [OVERLOADED, None], retry, timeout_s=1e-3)


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


def test_who_has_to_wait_for_that_is_told_of_overload_at_the_deadline() -> None:
    pool = servers()
    acquired(pool)
    pool.record_rejection(pool.all[0])
    with pytest.raises(OverloadedError, match="0 attempts"):
        follow(pool, [], timeout_s=0.01)


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


def test_a_deadline_that_was_too_short_takes_no_server_down_a_probe_does() -> None:
    pool = servers()
    [server] = pool.all
    with pytest.raises(DeadlineExceededError):
        follow(pool, [Failure(Kind.DEADLINE_EXCEEDED, "no response in time")], timeout_s=0.5)
    assert pool.needs_probe(server)
    assert take(pool)
    pool.mark_down(server)
    assert not take(pool)


def test_a_model_that_was_silent_for_as_long_as_a_probe_waits_gets_no_more_and_others_do() -> None:
    pool = servers()
    steps = plan("m", pool, Retry(), RetryBudget(Retry()), Deadline.after(5), queue="slow")
    next(steps)
    time.sleep(PROBE_S)
    with pytest.raises(DeadlineExceededError):
        steps.send(Failure(Kind.DEADLINE_EXCEEDED, "no response in time"))
    assert not take(pool, "slow")
    assert take(pool, "fast")
    with pytest.raises(ServerUnavailableError, match="nor to a probe since"):
        follow(pool, [], timeout_s=0.01, queue="slow")
    assert pool.needs_probe(pool.all[0])


def test_somebody_who_is_there_and_passes_nothing_on_is_not_asked_five_times() -> None:
    pool, retry = servers(), Retry(burst=0, budget=0)
    steps = plan("m", pool, retry, RetryBudget(retry), Deadline.after(5))
    next(steps)
    steps.send(GONE)
    pool.mark_up(pool.all[0])  # as a load balancer does, whose servers are gone
    while not isinstance(next(steps), Send):
        pass
    with pytest.raises(ServerUnavailableError, match="2 attempts in"):
        steps.send(GONE)


def test_a_request_that_is_cut_twice_by_a_network_that_serves_others_in_between_costs_no_budget() -> None:
    pool, retry = servers(), Retry(burst=0, budget=0)
    steps = plan("m", pool, retry, RetryBudget(retry), Deadline.after(5))
    next(steps)
    for _ in range(retry.max_attempts - 1):
        steps.send(GONE)
        pool.mark_up(pool.all[0])
        assert follow(pool, [None])[0] == [pool.all[0]]
        while not isinstance(next(steps), Send):
            pass
    with pytest.raises(ServerUnavailableError, match="5 attempts in"):
        steps.send(GONE)


def test_a_server_that_is_down_does_not_spare_the_others_the_pause() -> None:
    dead = failure_of("INTERNAL", "Stub process 'fashion_preprocess_0_0' is not healthy.")
    pool = servers(2)
    pool.mark_down(pool.all[1])
    asked, pauses = follow(pool, [dead, dead, None], Retry(initial_backoff_s=0.001))
    assert asked == [pool.all[0]] * 3
    assert len(pauses) == 2


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
    time.sleep(second.recheck_at - time.monotonic())
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


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (failure_of("UNAVAILABLE", "in ensemble 'fashion', Exceeds maximum queue size"), Kind.OVERLOADED),
        (failure_of("UNAVAILABLE", "[request id: 1] Request timeout expired"), Kind.OVERLOADED),
        (failure_of("UNAVAILABLE", "failed to connect to all addresses"), Kind.UNAVAILABLE),
        (failure_of("UNAVAILABLE", "This protocol is restricted, expecting header 'x'"), Kind.ACCESS_DENIED),
        (failure_of("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 8)"), Kind.INVALID_INPUT),
        (failure_of("RESOURCE_EXHAUSTED", "too many requests at once from this address"), Kind.OVERLOADED),
        (failure_of("NOT_FOUND", "Request for unknown model: 'x' is not found"), Kind.NOT_FOUND),
        (failure_of("UNKNOWN", "?"), Kind.SERVER_ERROR),
        (failure_of(503, "Exceeds maximum queue size"), Kind.OVERLOADED),
        (failure_of(503, "no backend"), Kind.OVERLOADED),
        (failure_of(503, "Server exiting"), Kind.UNAVAILABLE),
        (failure_of("UNAVAILABLE", "timeout of the corresponding sequence has been expired"), Kind.OVERLOADED),
        (failure_of(502, "no backend"), Kind.UNAVAILABLE),
        (failure_of(504, "the backend took too long"), Kind.DEADLINE_EXCEEDED),
        (failure_of("UNAVAILABLE", "Received http2 header with status: 429"), Kind.OVERLOADED),
        (failure_of("UNAVAILABLE", "Received http2 header with status: 503"), Kind.OVERLOADED),
        (failure_of("UNAVAILABLE", "Received http2 header with status: 502"), Kind.UNAVAILABLE),
        (failure_of("UNAVAILABLE", "Received http2 header with status: 504"), Kind.DEADLINE_EXCEEDED),
        (failure_of("NOT_FOUND", "Unable to find shared memory region: 'x'"), Kind.INVALID_INPUT),
        (failure_of("INTERNAL", "the kernel's shape is too large"), Kind.SERVER_ERROR),
        (failure_of(500, "this is restricted by a policy"), Kind.SERVER_ERROR),
        (failure_of(429, "too many requests"), Kind.OVERLOADED),
        (failure_of(413, "the request is too large"), Kind.INVALID_INPUT),
        (failure_of(400, "Request for unknown model: 'x' is not found"), Kind.NOT_FOUND),
        (failure_of(500, "?"), Kind.SERVER_ERROR),
    ],
)
def test_what_a_failure_means_is_read_from_its_message_where_the_status_does_not_tell(
    failure: Failure, kind: Kind
) -> None:
    assert failure.kind is kind
