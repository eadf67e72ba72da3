"""What a call does, step by step: without a network, and as threads and asyncio both do it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clients import Client, InvalidInputError, Prediction, Retry
from clients.core.answer import Answer
from clients.core.attempts import Send
from clients.core.calls import Calls, Hedge, Steps, Together
from clients.core.failures import Failure, Kind
from clients.core.request import Query, Request
from clients.settings import ClientSettings

METADATA = {"name": "m", "inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 1]}], "outputs": []}
IMAGES = {"name": "m", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}], "outputs": []}

Server = Callable[[Request | Query], Any]  # what it responds; a Failure is none


def calls_of(hedge_after_s: float | None = None) -> Calls:
    settings = ClientSettings.of(
        (), timeout_s=5, retry=Retry(), transport=None, concurrency=2, hedge_after_s=hedge_after_s
    )
    return Calls(settings, lambda server: None)


def drive(steps: Steps[Any], server: Server) -> Any:
    """Carry the steps out, one after the other."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Send):
                step = steps.send(server(step.message))
            else:
                assert isinstance(step, Together)
                step = steps.send([drive(call, server) for call in step.calls])
    except StopIteration as ended:
        return ended.value


class Doubling:
    """Describes its model, doubles the rows, and refuses more of them than it takes at once."""

    def __init__(self, limit: int = 4, *, tells: bool = True) -> None:
        self.limit, self.tells = limit, tells
        self.asked: list[str] = []
        self.rows: list[int] = []
        self.ids: list[str] = []

    def __call__(self, message: Request | Query) -> Any:
        if isinstance(message, Query):
            self.asked.append(message.endpoint)
            if message.endpoint == "model_metadata":
                return METADATA
            return {"max_batch_size": self.limit} if self.tells else Failure(Kind.ACCESS_DENIED, "not for you")
        rows = len(message.inputs["a"])
        self.rows.append(rows)
        self.ids.append(message.id)
        if rows > self.limit:
            return Failure(Kind.INVALID_INPUT, f"inference request batch-size must be <= {self.limit} for 'm'")
        return Answer({"b": message.inputs["a"] * 2}, "m", (1,))


def rows(count: int) -> dict[str, np.ndarray]:
    return {"a": np.arange(count, dtype=np.float32)[:, None]}


def test_a_model_is_described_once() -> None:
    calls, server = calls_of(), Doubling()
    for _ in range(3):
        assert np.array_equal(drive(calls.infer("m", rows(3)), server)["b"], rows(3)["a"] * 2)
    assert server.asked == ["model_metadata", "model_config"]


def test_a_batch_that_is_too_large_is_split_and_its_pieces_are_numbered() -> None:
    server = Doubling()
    whole = drive(calls_of().infer("m", rows(10), request_id="x"), server)["b"]
    assert np.array_equal(whole, rows(10)["a"] * 2)
    assert (server.rows, server.ids) == ([4, 4, 2], ["x-0", "x-1", "x-2"])


def test_a_limit_that_is_withheld_is_learned_from_the_first_refusal() -> None:
    calls, server = calls_of(), Doubling(tells=False)
    for _ in range(2):
        assert np.array_equal(drive(calls.infer("m", rows(10)), server)["b"], rows(10)["a"] * 2)
    assert server.rows == [10, 4, 4, 2, 4, 4, 2]


def test_what_is_one_request_is_not_split() -> None:
    for options in ({"parameters": {"sequence_id": 1}}, {"shared": {"a": object()}}):
        with pytest.raises(InvalidInputError, match="takes at most 4 rows"):
            drive(calls_of().infer("m", rows(5), **options), Doubling())  # type: ignore[arg-type]


def labelling(message: Request | Query) -> Any:
    """Labels images, and refuses a batch with one that is none."""
    if isinstance(message, Query):
        return IMAGES if message.endpoint == "model_metadata" else {"max_batch_size": 64}
    images = message.inputs["image"][:, 0]
    if any(image == b"no image" for image in images):
        return Failure(Kind.INVALID_INPUT, "not a readable PNG or JPEG image")
    labels = np.array([[image] for image in images], np.object_)
    return Answer({"top_labels": labels, "top_scores": np.ones((len(images), 1))}, "m", (1,))


@pytest.mark.parametrize(("idempotent", "right"), [(True, ["one", None, "two"]), (False, [None] * 3)])
def test_of_a_batch_with_a_bad_image_each_is_asked_by_itself_if_that_is_allowed(
    idempotent: bool, right: list[str | None]
) -> None:
    outcomes = drive(calls_of().outcomes([b"one", b"no image", b"two"], "m", {"idempotent": idempotent}), labelling)
    assert [one.label if isinstance(one, Prediction) else None for one in outcomes] == right


def test_a_request_is_hedged_only_where_it_may_be_repeated() -> None:
    for idempotent, hedged in ((True, True), (False, False)):
        calls, server = calls_of(hedge_after_s=0.1), Doubling()
        steps = calls.infer("m", rows(1), idempotent=idempotent)
        step = next(steps)
        while isinstance(step, Send) and isinstance(step.message, Query):
            step = steps.send(server(step.message))
        assert isinstance(step, Hedge) == hedged
        if isinstance(step, Hedge):
            assert not step.may_hedge()  # it waits for its turn
            [first, second] = step.attempt(), step.attempt()
            assert isinstance(next(first), Send) and step.may_hedge() and isinstance(next(second), Send)
        steps.close()


def test_a_call_that_is_given_up_leaves_no_place_taken() -> None:
    calls = calls_of()
    steps = calls.infer("m", rows(1))
    next(steps)
    assert calls.servers.all[0].in_flight == 1
    steps.close()
    assert calls.servers.all[0].in_flight == 0


def test_an_option_that_there_is_not_is_a_type_error() -> None:
    with (
        Client("grpc://127.0.0.1:1") as client,
        pytest.raises(TypeError, match="unexpected keyword argument 'timeout'"),
    ):
        client.infer("m", rows(1), timeout=1)  # type: ignore[call-arg]
