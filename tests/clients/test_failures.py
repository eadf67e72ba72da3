"""What a failure means."""

import pytest

from clients.core.failures import Failure, Kind, failure_of


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (failure_of("UNAVAILABLE", "in ensemble 'shirts', Exceeds maximum queue size"), Kind.OVERLOADED),
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


@pytest.mark.parametrize(
    ("message", "transient"),
    [
        ("Stub process 'steps_0_0' is not healthy.", True),
        ("Cannot unregister shared memory region 'clients-1', it is currently in use.", True),
        ("Cannot unregister shared memory region 'clients-1': no such device", False),
        ("?", False),
    ],
)
@pytest.mark.parametrize("status", ["INTERNAL", 500, 400])
def test_what_passes_by_itself_may_be_asked_for_again(status: str | int, message: str, transient: bool) -> None:
    assert failure_of(status, message).transient is transient
