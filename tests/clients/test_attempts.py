"""Which server is asked, how often, and when: without a network."""

import threading
import time

import pytest

from clients.core import attempts as of_attempts
from clients.core import servers as of_servers
from clients.core.attempts import Attempts, Pause, RetryBudget, Send, attempts
from clients.core.deadline import Deadline
from clients.core.failures import Failure, Kind, failure_of
from clients.core.request import Query, Request
from clients.core.servers import Server, Servers
from clients.errors import (
    ClientError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    OverloadedError,
    ServerUnavailableError,
)
from clients.settings import Address, Retry
from tests.clients.pool import acquired, servers, take

OVERLOADED = Failure(Kind.OVERLOADED, "Exceeds maximum queue size")
GONE = Failure(Kind.UNAVAILABLE, "connection refused")
MOVED = failure_of(307, "HTTP status 307, moved to http://elsewhere/")
QUERY, REQUEST = Query("model_metadata", "m"), Request("m", {})


@pytest.fixture
def probe_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """For how long a probe waits: a tenth of what it is."""
    for module in (of_attempts, of_servers):
        monkeypatch.setattr(module, "PROBE_S", 0.1)
    return 0.1


def begun(pool: Servers, message: Query | Request = QUERY, retry: Retry | None = None) -> Attempts:
    """Attempts that have begun: they wait to be told what came of the first."""
    retry = retry or Retry()
    steps = attempts(message, pool, retry, RetryBudget(retry), Deadline.after(5))
    next(steps)
    return steps


def follow(
    pool: Servers,
    answers: list[Failure | None],
    retry: Retry | None = None,
    *,
    message: Query | Request = QUERY,
    budget: RetryBudget | None = None,
    timeout_s: float = 5,
) -> tuple[list[Server], list[float]]:
    """Whom a message was sent to while it was answered so, and its pauses."""
    retry = retry or Retry()
    steps = attempts(message, pool, retry, budget or RetryBudget(retry), Deadline.after(timeout_s))
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


def test_a_server_that_a_caller_no_longer_waited_for_is_probed_if_a_probe_would_have_failed(probe_s: float) -> None:
    """A caller's own timeout, a hedged request or a cancelled handler ends an attempt before its deadline does."""
    for waited_s, suspect in ((0.0, False), (probe_s, True)):
        pool = servers()
        steps = begun(pool, REQUEST)
        time.sleep(waited_s)
        steps.close()
        assert pool.all[0].suspect == pool.needs_probe(pool.all[0]) == suspect
        assert pool.all[0].in_flight == 0


@pytest.mark.parametrize("kind", [Kind.NOT_FOUND, Kind.ACCESS_DENIED, Kind.SERVER_ERROR])
def test_a_server_that_fails_fast_does_not_attract_the_requests(kind: Kind) -> None:
    """It has the fewest in flight: without a mark it would be asked next, and next, and next."""
    pool = servers(2)
    asked, pauses = follow(pool, [Failure(kind, "not here"), None], message=REQUEST)
    assert asked[0] is not asked[1]
    assert pauses == []
    assert [follow(pool, [None], message=REQUEST)[0][0] for _ in range(20)] == [asked[1]] * 20
    with pytest.raises(ClientError):  # and with one server it is what the caller is told
        follow(servers(), [Failure(kind, "not here"), None], message=REQUEST)


def test_a_server_that_responded_with_errors_only_is_worth_waiting_for() -> None:
    pool = Servers([Address("grpc", "host", 8001)], Retry(), lambda server: None)
    with pytest.raises(InvalidInputError):
        follow(pool, [Failure(Kind.INVALID_INPUT, "no image")])
    steps = begun(pool)
    assert isinstance(steps.send(GONE), Pause)


def test_a_model_that_is_only_slow_is_not_stalled_while_the_server_serves_others(probe_s: float) -> None:
    pool = servers()
    steps = begun(pool, REQUEST)
    follow(pool, [None], message=REQUEST)
    time.sleep(probe_s)
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
        first, second = (attempts(REQUEST, pool, retry, RetryBudget(retry), Deadline.after(5), tried) for _ in range(2))
        step, other = next(first), next(second)
        assert isinstance(step, Send) and isinstance(other, Send)
        assert step.server is not other.server
        first.close()
        second.close()


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
    dead = failure_of("INTERNAL", "Stub process 'scaler_0_0' is not healthy.")
    assert len(follow(servers(), [dead, None])[0]) == 2


def test_what_must_not_be_repeated_is_sent_once() -> None:
    with pytest.raises(ServerUnavailableError):
        follow(servers(2), [GONE, None], message=Request("m", {}, idempotent=False))


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
    steps = begun(pool)
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
    steps = attempts(QUERY, servers(), Retry(), RetryBudget(Retry()), Deadline.after(0.05))
    next(steps)
    steps.send(GONE)
    time.sleep(0.06)
    with pytest.raises(ServerUnavailableError, match="1 attempt in"):
        steps.send(None)
    with pytest.raises(DeadlineExceededError):
        follow(servers(), [], timeout_s=0)


def test_retries_may_have_to_be_earned_first() -> None:
    retry = Retry(burst=0, budget=0.5)
    budget = RetryBudget(retry)
    assert not budget.spend()
    budget.earn()
    budget.earn()
    assert budget.spend() and not budget.spend()


def test_a_pause_that_would_end_after_the_deadline_is_not_made() -> None:
    retry = Retry(initial_backoff_s=1e6, max_backoff_s=1e6)
    with pytest.raises(OverloadedError):
        follow(servers(), [OVERLOADED, None], retry, timeout_s=5)


def test_who_has_to_wait_for_that_is_told_of_overload_at_the_deadline() -> None:
    pool = servers()
    acquired(pool)
    pool.record_rejection(pool.all[0])
    with pytest.raises(OverloadedError, match="0 attempts"):
        follow(pool, [], timeout_s=0.2)


def test_a_deadline_that_was_too_short_takes_no_server_down_a_probe_does() -> None:
    pool = servers()
    [server] = pool.all
    with pytest.raises(DeadlineExceededError):
        follow(pool, [Failure(Kind.DEADLINE_EXCEEDED, "no response in time")], timeout_s=0.5)
    assert pool.needs_probe(server)
    assert take(pool)
    pool.mark_down(server)
    assert not take(pool)


def test_a_model_that_was_silent_for_as_long_as_a_probe_waits_gets_no_more_and_others_do(probe_s: float) -> None:
    pool = servers()
    steps = begun(pool, Request("slow", {}))
    time.sleep(probe_s)
    with pytest.raises(DeadlineExceededError):
        steps.send(Failure(Kind.DEADLINE_EXCEEDED, "no response in time"))
    assert not take(pool, "slow")
    assert take(pool, "fast")
    with pytest.raises(ServerUnavailableError, match="nor to a probe since"):
        follow(pool, [], timeout_s=0.01, message=Request("slow", {}))
    assert pool.needs_probe(pool.all[0])


def test_somebody_who_is_there_and_passes_nothing_on_is_not_asked_five_times() -> None:
    pool, retry = servers(), Retry(burst=0, budget=0)
    steps = begun(pool, retry=retry)
    steps.send(GONE)
    pool.mark_up(pool.all[0])  # as a load balancer does, whose servers are gone
    while not isinstance(next(steps), Send):
        pass
    with pytest.raises(ServerUnavailableError, match="2 attempts in"):
        steps.send(GONE)


def test_a_request_that_is_cut_twice_by_a_network_that_serves_others_in_between_costs_no_budget() -> None:
    pool, retry = servers(), Retry(burst=0, budget=0)
    steps = begun(pool, retry=retry)
    for _ in range(retry.max_attempts - 1):
        steps.send(GONE)
        pool.mark_up(pool.all[0])
        assert follow(pool, [None])[0] == [pool.all[0]]
        while not isinstance(next(steps), Send):
            pass
    with pytest.raises(ServerUnavailableError, match="5 attempts in"):
        steps.send(GONE)


def test_a_server_that_is_down_does_not_spare_the_others_the_pause() -> None:
    dead = failure_of("INTERNAL", "Stub process 'scaler_0_0' is not healthy.")
    pool = servers(2)
    pool.mark_down(pool.all[1])
    asked, pauses = follow(pool, [dead, dead, None], Retry(initial_backoff_s=0.001))
    assert asked == [pool.all[0]] * 3
    assert len(pauses) == 2


def test_a_server_that_redirects_is_not_asked_again_and_costs_neither_budget_nor_pause() -> None:
    pool = servers(2)
    asked, pauses = follow(pool, [MOVED, None], Retry(burst=0, budget=0))
    assert asked[0] is not asked[1]
    assert pauses == []
    for message in (QUERY, REQUEST, Request("another", {})):  # of whatever model
        assert [follow(pool, [None], message=message)[0] for _ in range(10)] == [[asked[1]]] * 10


def test_where_all_redirect_the_caller_is_told_and_each_is_asked() -> None:
    pool = servers(2)
    with pytest.raises(InferenceError, match="moved to http://elsewhere/") as caught:
        follow(pool, [MOVED, MOVED])
    assert caught.value.attempts == 2
    with pytest.raises(InferenceError, match="Hint: redirects are not followed"):
        follow(pool, [MOVED, MOVED])
    assert follow(pool, [None])[0][0] in pool.all


def test_a_server_that_redirects_is_not_asked_while_the_right_one_is_down_either() -> None:
    pool = servers(2)
    [wrong, right], _ = follow(pool, [MOVED, None])
    pool.mark_down(right)
    steps = attempts(QUERY, pool, Retry(), RetryBudget(Retry()), Deadline.after(5))
    assert isinstance(next(steps), Pause)
    pool.mark_up(right)
    step = next(steps)
    assert isinstance(step, Send) and step.server is right
    steps.close()
    wrong.redirecting_until = 0.0  # a minute later
    assert {follow(pool, [None])[0][0] for _ in range(50)} == {wrong, right}


def test_what_must_not_be_repeated_is_not_sent_elsewhere_either() -> None:
    with pytest.raises(InferenceError):
        follow(servers(2), [MOVED, None], message=Request("m", {}, idempotent=False))
