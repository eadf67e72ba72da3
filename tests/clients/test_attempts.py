"""Which server is asked, how often, and when: without a network."""

import itertools
import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients.attempts import Budget, Pause, Send, plan
from clients.deadline import Deadline
from clients.errors import (
    ClientError,
    DeadlineError,
    InferenceError,
    InvalidInputError,
    OverloadedError,
    ServerUnavailableError,
)
from clients.failures import Failure, Kind, of_grpc, of_http
from clients.servers import Server, Servers, Turn
from clients.settings import Address, Retry

OVERLOADED = Failure(Kind.OVERLOADED, "Exceeds maximum queue size")
GONE = Failure(Kind.UNREACHABLE, "connection refused")


def servers(count: int = 1, watch: Callable[[Server], object] = lambda server: None) -> Servers:
    found = Servers([Address("grpc", "host", 8001 + i) for i in range(count)], Retry(), watch)
    for server in found.all:
        server.answers = 1
    return found


def take(pool: Servers, model: str = "") -> Turn | None:
    """A server for a request, if there is one now."""
    turn = pool.line_up(model)
    if pool.look(turn):
        return turn
    pool.leave(turn)
    return None


def follow(  # type: ignore[no-untyped-def]
    pool: Servers, answers: list[Failure | None], retry: Retry | None = None, *, budget: Budget | None = None, **options
) -> tuple[list[Server], list[float]]:
    """Whom the plan asked while it was answered so, and its pauses."""
    retry = retry or Retry()
    steps = plan("m", pool, retry, budget or Budget(retry), Deadline.after(options.pop("timeout_s", 5)), **options)
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
    assert pool.all[0].under_way == 0


def test_an_overloaded_server_is_asked_again_later_and_later() -> None:
    pool = servers()
    [server] = pool.all
    queue = server.queue("")
    for refusals, longest_s in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, *[2.0] * 2000), start=1):
        turn = pool.line_up()
        assert pool.look(turn) is server
        pool.refused(server)
        pool.refused(server)  # at the same time: it was told so already
        pool.leave(turn)
        waiting = pool.line_up()
        assert pool.look(waiting) is None
        assert queue.refusals == refusals
        assert longest_s / 2 - 0.05 < waiting.look_at - time.monotonic() <= longest_s
        pool.leave(waiting)
        queue.alone_until = 0
    pool.answered(server)
    assert queue.refusals == 0


def test_the_request_it_refused_waits_for_that() -> None:
    retry = Retry(first_pause_s=0.001, longest_pause_s=0.002)
    asked, pauses = follow(servers(), [OVERLOADED] * 2 + [None], retry)
    assert len(asked) == 3
    assert pauses


def test_another_server_is_asked_at_once() -> None:
    pool = servers(3)
    asked, pauses = follow(pool, [OVERLOADED, OVERLOADED, None])
    assert set(asked) == set(pool.all)
    assert pauses == []


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(Kind.INVALID, "no image"), InvalidInputError),
        (Failure(Kind.BROKEN, "division by zero"), InferenceError),
    ],
)
def test_what_would_fail_again_is_sent_once(failure: Failure, error: type[ClientError]) -> None:
    with pytest.raises(error) as caught:
        follow(servers(), [failure, None])
    assert caught.value.attempts == 1


def test_a_worker_that_is_being_replaced_is_worth_another_attempt() -> None:
    dead = of_grpc("INTERNAL", "Stub process 'fashion_preprocess_0_0' is not healthy.")
    assert len(follow(servers(), [dead, None])[0]) == 2


def test_what_must_not_be_repeated_is_sent_once() -> None:
    with pytest.raises(ServerUnavailableError):
        follow(servers(2), [GONE, None], repeatable=False)


def test_retries_of_the_overloaded_end_with_the_budget_and_answers_earn_it_back() -> None:
    retry = Retry(attempts=2, budget=0.5, burst=3)
    budget, pool = Budget(retry), servers()
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
    pool.recovered(asked[0])
    assert {follow(pool, [None])[0][0] for _ in range(50)} == set(pool.all)


def test_while_all_are_down_calls_wait_for_one_to_come_back() -> None:
    pool = servers()
    steps = plan("m", pool, Retry(), Budget(Retry()), Deadline.after(5))
    next(steps)
    assert isinstance(steps.send(GONE), Pause)
    assert isinstance(next(steps), Pause)
    pool.recovered(pool.all[0])
    assert isinstance(next(steps), Send)


def test_a_server_that_never_answered_is_not_waited_for() -> None:
    pool = servers()
    pool.all[0].answers = 0
    began = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="grpc://host:8001"):
        follow(pool, [GONE] * 9)
    assert time.monotonic() - began < 1


def test_at_the_deadline_the_error_is_what_went_wrong_until_then() -> None:
    steps = plan("m", servers(), Retry(), Budget(Retry()), Deadline.after(0.05))
    next(steps)
    steps.send(GONE)
    time.sleep(0.06)
    with pytest.raises(ServerUnavailableError, match="1 attempt in"):
        steps.send(None)
    with pytest.raises(DeadlineError):
        follow(servers(), [], timeout_s=0)


def test_a_pause_that_would_end_after_the_deadline_is_not_made() -> None:
    retry = Retry(first_pause_s=100, longest_pause_s=100)
    with pytest.raises(OverloadedError):
        follow(servers(), [OVERLOADED, None], retry, timeout_s=1e-3)


def test_a_server_that_refuses_gets_fewer_requests_at_once_until_it_answers_them() -> None:
    pool = servers()
    [server] = pool.all
    taken = [pool.line_up() for _ in range(10)]
    pool.refused(server)
    assert server.queue("").limit == 8
    server.queue("").alone_until = 0
    for turn in taken[:3]:
        pool.leave(turn)
    assert take(pool)  # the eighth
    assert not take(pool)
    for _ in range(70):
        pool.answered(server)
    assert not take(pool)  # not before all of them were answered ten times
    for _ in range(16):
        pool.answered(server)
    assert take(pool)  # one more
    assert not take(pool)


def test_who_has_to_wait_for_that_is_told_of_overload_at_the_deadline() -> None:
    pool = servers()
    pool.line_up()
    pool.refused(pool.all[0])
    with pytest.raises(OverloadedError, match="0 attempts"):
        follow(pool, [], timeout_s=0.01)


def test_that_one_models_queue_is_full_says_nothing_of_another() -> None:
    pool = servers()
    [server] = pool.all
    pool.line_up("busy")
    pool.refused(server, "busy")
    assert not take(pool, "busy")
    assert take(pool, "idle")
    assert take(pool)


def test_a_server_that_comes_back_is_not_met_by_a_crowd() -> None:
    pool = servers()
    [server] = pool.all
    turn = pool.line_up("m")
    pool.failed(server)
    pool.leave(turn)
    turns = [pool.line_up("m") for _ in range(20)]
    assert [turn.server for turn in turns] == [None] * 20
    pool.recovered(server)
    assert [turn.server for turn in turns] == [server] * 8 + [None] * 12
    pool.answered(server, "m")
    pool.leave(turns[0])  # whose place the ninth gets, and the tenth one that its answer makes
    assert [turn.server for turn in turns] == [server] * 10 + [None] * 10


def test_a_deadline_that_was_too_short_takes_no_server_down_a_probe_does() -> None:
    pool = servers()
    [server] = pool.all
    with pytest.raises(DeadlineError):
        follow(pool, [Failure(Kind.EXPIRED, "no answer in time")], timeout_s=0.5)
    assert pool.to_be_probed(server)
    assert take(pool)
    pool.failed(server)
    assert not take(pool)


def test_a_model_that_was_silent_for_as_long_as_a_probe_waits_gets_no_more_and_others_do() -> None:
    pool = servers()
    with pytest.raises(DeadlineError):
        follow(pool, [Failure(Kind.EXPIRED, "no answer in time")], timeout_s=5, queue="slow")
    assert not take(pool, "slow")
    assert take(pool, "fast")
    with pytest.raises(ServerUnavailableError, match="nor a probe since"):
        follow(pool, [], timeout_s=0.01, queue="slow")
    assert pool.to_be_probed(pool.all[0])


def test_somebody_who_is_there_and_passes_nothing_on_is_not_asked_five_times() -> None:
    pool, retry = servers(), Retry(burst=0, budget=0)
    steps = plan("m", pool, retry, Budget(retry), Deadline.after(5))
    next(steps)
    steps.send(GONE)
    pool.recovered(pool.all[0])  # as a load balancer does, whose servers are gone
    while not isinstance(next(steps), Send):
        pass
    with pytest.raises(ServerUnavailableError, match="2 attempts in"):
        steps.send(GONE)


def test_a_request_that_is_cut_twice_by_a_network_that_serves_others_in_between_costs_no_budget() -> None:
    pool, retry = servers(), Retry(burst=0, budget=0)
    steps = plan("m", pool, retry, Budget(retry), Deadline.after(5))
    next(steps)
    for _ in range(retry.attempts - 1):
        steps.send(GONE)
        pool.recovered(pool.all[0])
        assert follow(pool, [None])[0] == [pool.all[0]]
        while not isinstance(next(steps), Send):
            pass
    with pytest.raises(ServerUnavailableError, match="5 attempts in"):
        steps.send(GONE)


def test_a_server_that_is_down_does_not_spare_the_others_the_pause() -> None:
    dead = of_grpc("INTERNAL", "Stub process 'fashion_preprocess_0_0' is not healthy.")
    pool = servers(2)
    pool.failed(pool.all[1])
    asked, pauses = follow(pool, [dead, dead, None], Retry(first_pause_s=0.001))
    assert asked == [pool.all[0]] * 3
    assert len(pauses) == 2


def test_if_nobody_can_watch_a_server_it_is_tried() -> None:
    def no_thread(server: Server) -> None:
        raise RuntimeError("can't start new thread")

    pool = servers(watch=no_thread)
    pool.failed(pool.all[0])
    assert take(pool)


def test_who_stands_in_line_is_served_in_the_order_of_coming_and_nobody_overtakes() -> None:
    pool = servers()
    [server] = pool.all
    server.queue("").limit = 1.9  # of which one is a whole one
    turns = [pool.line_up() for _ in range(4)]
    for turn, following in itertools.pairwise(turns):
        assert turn.server is server
        assert not pool.look(following)
        pool.leave(turn)
        assert following.called.is_set()
        assert not take(pool)


def test_who_leaves_the_line_does_not_hold_it_up() -> None:
    pool = servers()
    [server] = pool.all
    server.queue("").limit = 1
    first, gives_up, gives_up_when_served, last = turns = [pool.line_up() for _ in range(4)]
    for turn in turns:
        pool.look(turn)
    pool.leave(gives_up)
    pool.leave(first)
    assert gives_up_when_served.server is server
    pool.leave(gives_up_when_served)
    assert last.called.is_set()
    assert last.server is server


def test_who_is_first_in_line_knows_when_a_refusing_server_may_be_asked_again() -> None:
    pool = servers()
    [server] = pool.all
    server.queue("").limit = 1
    refused, first, second = [pool.line_up() for _ in range(3)]
    pool.look(first)
    pool.look(second)
    pool.refused(server)
    pool.leave(refused)
    assert first.called.is_set()
    pool.look(first)
    assert first.look_at == server.queue("").alone_until
    pool.leave(first)
    assert second.called.is_set()
    pool.look(second)
    assert second.look_at == server.queue("").alone_until
    time.sleep(second.look_at - time.monotonic())
    assert pool.look(second) is server


def test_in_a_crowd_of_threads_of_which_some_give_up_nobody_is_forgotten() -> None:
    """Each waits until called, with no time to look again by itself: one call too few, and it would stand there."""
    retry = Retry(first_pause_s=1e-3, longest_pause_s=2e-3)
    pool = Servers([Address("grpc", "host", port) for port in (1, 2)], retry, lambda server: None)
    for server in pool.all:
        server.queue("m").limit = 2
    forgotten: list[int] = []

    def client(number: int) -> None:
        chance = random.Random(number)
        for request in range(200):
            turn = pool.line_up("m")
            while not (server := pool.look(turn)) and chance.random() < 0.95:
                if not turn.called.wait(max(0, min(10, turn.look_at - time.monotonic()))) and turn.look_at == math.inf:
                    forgotten.append(request)
            if server and chance.random() < 0.05:
                pool.refused(server, "m")
            elif server:
                pool.answered(server, "m")
            pool.leave(turn)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(client, range(16)))
    assert not forgotten
    assert [server.under_way for server in pool.all] == [0, 0]


def test_the_server_with_the_least_to_do_is_asked() -> None:
    pool = servers(3)
    turns = [pool.line_up() for _ in range(9)]
    assert [server.under_way for server in pool.all] == [3, 3, 3]
    [one, *_] = [turn for turn in turns if turn.server is pool.all[1]]
    pool.leave(one)
    assert pool.line_up().server is pool.all[1]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (of_grpc("UNAVAILABLE", "in ensemble 'fashion', Exceeds maximum queue size"), Kind.OVERLOADED),
        (of_grpc("UNAVAILABLE", "[request id: 1] Request timeout expired"), Kind.OVERLOADED),
        (of_grpc("UNAVAILABLE", "failed to connect to all addresses"), Kind.UNREACHABLE),
        (of_grpc("UNAVAILABLE", "This protocol is restricted, expecting header 'x'"), Kind.ACCESS),
        (of_grpc("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 8)"), Kind.INVALID),
        (of_grpc("RESOURCE_EXHAUSTED", "too many requests at once from this address"), Kind.OVERLOADED),
        (of_grpc("NOT_FOUND", "Request for unknown model: 'x' is not found"), Kind.NOT_FOUND),
        (of_grpc("UNKNOWN", "?"), Kind.BROKEN),
        (of_http(503, "Exceeds maximum queue size"), Kind.OVERLOADED),
        (of_http(503, "no backend"), Kind.OVERLOADED),
        (of_http(502, "no backend"), Kind.UNREACHABLE),
        (of_http(504, "the backend took too long"), Kind.UNREACHABLE),
        (of_http(429, "too many requests"), Kind.OVERLOADED),
        (of_http(413, "the request is too large"), Kind.INVALID),
        (of_http(400, "Request for unknown model: 'x' is not found"), Kind.NOT_FOUND),
        (of_http(500, "?"), Kind.BROKEN),
    ],
)
def test_what_a_failure_means_is_read_from_its_message_where_the_status_does_not_tell(
    failure: Failure, kind: Kind
) -> None:
    assert failure.kind is kind
