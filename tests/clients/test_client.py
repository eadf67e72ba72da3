"""Both clients against a real Triton: values, splitting, threads and forks, cancellation, health, keys."""

import asyncio
import inspect
import pickle
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clients import (
    AccessDeniedError,
    Answer,
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    InvalidInputError,
    InvalidResponseError,
    ModelNotFoundError,
    OverloadedError,
    Prediction,
    Transport,
)
from clients.core.failures import Failure
from clients.core.request import Request
from clients.core.tasks import predictions
from contracts import layout
from tests.clients.conftest import CLASSIFIER
from tests.clients.small_models import Small
from tests.clients.tcp_proxy import tcp_proxy
from tests.conftest import wait_for
from tests.workspace import FAMILY


@pytest.fixture(params=["grpc", "http"])
def noting(small: Small, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """The address, over either protocol, of a slow model that notes its requests; and the notes, of this test alone."""
    file = small.served / "noting" / "notes"
    for old in (file, file.with_name("go")):
        old.unlink(missing_ok=True)
    yield small.urls[request.param], file
    file.with_name("go").touch()
    with Client(small.urls["grpc"], timeout_s=60) as client:
        client.infer("noting", wait(0))  # which is behind all that the test has left in the queue


def notes(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def wait(seconds: float) -> dict[str, np.ndarray]:
    """An input that takes so long; -1: until there is a file `go`."""
    return {"IN": np.array([[seconds]], np.float32)}


def test_both_clients_have_the_same_calls() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if name.startswith("_"):
            continue
        theirs = inspect.signature(getattr(AsyncClient, name)).parameters
        assert list(inspect.signature(method).parameters) == list(theirs), name


def test_a_batch_larger_than_the_model_takes_is_answered_whole_and_in_order(url: str, pixels: np.ndarray) -> None:
    with Client(url) as client:
        whole = client.infer(CLASSIFIER, {"pixels": pixels})["probabilities"]
        rows = [client.infer(CLASSIFIER, {"pixels": row[None]})["probabilities"][0] for row in pixels[::10]]

    async def ask() -> np.ndarray:
        async with AsyncClient(url) as client:
            return (await client.infer(CLASSIFIER, {"pixels": pixels}))["probabilities"]

    assert whole.shape == (150, 10)
    assert np.allclose(whole[::10], rows, atol=1e-4)
    assert np.allclose(asyncio.run(ask()), whole, atol=1e-4)


def test_only_the_outputs_that_were_asked_for_come_back(url: str, pixels: np.ndarray) -> None:
    with Client(url) as client:
        for outputs in (["logits"], (name for name in ["logits"])):
            assert set(client.infer(CLASSIFIER, {"pixels": pixels[:1]}, outputs=outputs)) == {"logits"}  # type: ignore[arg-type]
        assert set(client.infer(CLASSIFIER, {"pixels": pixels[:1]})) == {"logits", "probabilities"}


def test_a_name_that_is_none_is_refused(url: str) -> None:
    with Client(url) as client:
        for ask in (client.metadata, client.model_metadata, client.model_config, client.load_model):
            with pytest.raises(InvalidInputError, match="needs the name of a model"):
                ask("")
        for ask in (client.ready, client.statistics):
            with pytest.raises(InvalidInputError, match="needs the name of a model"):
                ask("", 1)
        for ask in (client.metadata, client.ready, client.statistics, client.unregister_shared_memory):
            with pytest.raises(InvalidInputError, match="cannot be sent as text"):
                ask("a\udcff")


def test_a_version_can_be_named_and_one_that_is_not_there_is_an_error(url: str, pixels: np.ndarray) -> None:
    with Client(url) as client:
        assert client.infer(CLASSIFIER, {"pixels": pixels[:1]}, version=1)
        with pytest.raises(ModelNotFoundError):
            client.infer(CLASSIFIER, {"pixels": pixels[:1]}, version=9)


def test_a_forked_process_has_connections_of_its_own(url: str, examples: Path, right: list[float]) -> None:
    program = f"""
import os, sys
from pathlib import Path
from clients import Client
images = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.png"))[:3]]

def tell(who, image):
    # In one write: both processes write to one pipe.
    sys.stdout.write(f"{{who}} {{client.classify(image).score}}\\n")
    sys.stdout.flush()

with Client("{url}") as client:
    tell("before", images[0])
    child = os.fork()
    if child == 0:
        tell("child", images[2])
        os._exit(0)
    tell("parent", images[1])
    assert os.waitpid(child, 0)[1] == 0
    tell("after", images[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, examples],
        cwd=layout.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {who: float(score) for who, score in map(str.split, done.stdout.splitlines())}
    expected = {"before": right[0], "child": right[2], "parent": right[1], "after": right[1]}
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_client_that_is_closed_says_so(url: str, images: list[bytes]) -> None:
    with Client(url) as client:
        client.classify(images[0])

    async def run() -> None:
        async with AsyncClient(url) as other:
            await other.classify(images[0])
        with pytest.raises(ClientError, match="the client is closed"):
            await other.classify(images[0])

    with pytest.raises(ClientError, match="the client is closed"):
        client.classify(images[0])
    asyncio.run(run())


def test_threads_share_a_client(url: str, images: list[bytes], right: list[float]) -> None:
    with Client(url) as client, ThreadPoolExecutor(16) as pool:
        scores = list(pool.map(lambda image: client.classify(image).score, images * 4))
    assert scores == pytest.approx(right * 4, abs=1e-4)


def test_many_images_are_read_only_as_they_are_sent(url: str, images: list[bytes]) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield images[read % len(images)]

    with Client(url, concurrency=2) as client:
        outcomes = client.classify_many(endless(), batch_size=4)
        assert all(isinstance(next(outcomes), Prediction) for _ in range(10))
        assert read <= 10 + 4 * (2 * 2 + 1)
        outcomes.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("of", ["threads", "coroutines"])
def test_images_that_cannot_be_read_cost_no_answer_to_those_before(url: str, images: list[bytes], of: str) -> None:
    def source() -> Iterator[bytes]:
        yield from images[:10]
        raise OSError("the disk is gone")

    found: list[Prediction | ClientError] = []

    async def collect() -> None:
        async with AsyncClient(url) as client:
            async for outcome in client.classify_many(source(), batch_size=4):
                found.append(outcome)

    with Client(url) as client, pytest.raises(OSError, match="the disk is gone"):
        if of == "coroutines":
            asyncio.run(collect())
        for outcome in client.classify_many(source(), batch_size=4):
            found.append(outcome)
    assert [type(outcome) for outcome in found] == [Prediction] * 10


def test_a_slow_source_does_not_hold_back_what_is_there(url: str, images: list[bytes]) -> None:
    window = images[:16]  # which is read ahead, if nothing comes back meanwhile

    def source() -> Iterator[bytes]:
        for image in window:
            time.sleep(0.04)
            known.append(len(found))
            yield image

    async def asynchronous() -> AsyncIterator[bytes]:
        for image in window:
            await asyncio.sleep(0.04)
            known.append(len(found))
            yield image

    async def collect() -> None:
        async with AsyncClient(url) as client:
            async for outcome in client.classify_many(asynchronous(), batch_size=1):
                found.append(outcome)

    def collect_by_thread() -> None:
        with Client(url) as client:
            for outcome in client.classify_many(source(), batch_size=1):
                found.append(outcome)

    for call in (collect_by_thread, lambda: asyncio.run(collect())):
        found, known = list[Prediction | ClientError](), list[int]()
        call()
        assert [type(outcome) for outcome in found] == [Prediction] * 16
        assert known[-1] > 0


def test_a_batch_of_images_may_be_larger_than_the_model_takes(
    url: str, images: list[bytes], right: list[float]
) -> None:
    with Client(url) as client:
        found = [o.score for o in client.classify_many(images * 3, batch_size=150) if isinstance(o, Prediction)]
    assert found == pytest.approx(right * 3, abs=1e-4)


@pytest.mark.parametrize("noting", ["grpc"], indirect=True)  # over HTTP Triton 2.51 computes it all the same
def test_a_call_that_is_cancelled_is_not_computed(noting: tuple[str, Path]) -> None:
    address, file = noting

    async def run() -> None:
        async with AsyncClient(address) as client:
            first = asyncio.create_task(client.infer("noting", wait(-1)))
            await asyncio.to_thread(wait_for, lambda: notes(file) == [-1])
            second = asyncio.create_task(client.infer("noting", wait(0.5)))
            await asyncio.sleep(0.3)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await asyncio.sleep(0.5)  # until Triton has heard of it
            file.with_name("go").touch()
            await first
            await client.infer("noting", wait(0.1))

    asyncio.run(run())
    assert notes(file) == pytest.approx([-1, 0.1])


def test_what_nobody_waits_for_any_more_is_not_computed(noting: tuple[str, Path]) -> None:
    address, file = noting
    with Client(address) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.infer, "noting", wait(-1))
        wait_for(lambda: notes(file) == [-1])
        began = time.monotonic()
        with pytest.raises((DeadlineExceededError, OverloadedError)):
            client.infer("noting", wait(0.5), timeout_s=0.4)
        assert time.monotonic() - began < 1
        file.with_name("go").touch()
        first.result()
        client.infer("noting", wait(0.1))
    assert notes(file) == pytest.approx([-1, 0.1])


def test_pieces_that_wait_for_each_other_have_the_calls_deadline(noting: tuple[str, Path]) -> None:
    address, _ = noting
    rows = np.full((6, 1), 0.4, np.float32)

    async def ask() -> None:
        async with AsyncClient(address, concurrency=2) as client:
            await client.infer("noting", {"IN": rows}, timeout_s=1)

    for call in (
        lambda: Client(address, concurrency=2).infer("noting", {"IN": rows}, timeout_s=1),
        lambda: asyncio.run(ask()),
    ):
        began = time.monotonic()
        with pytest.raises((DeadlineExceededError, OverloadedError)):
            call()
        assert time.monotonic() - began < 2


def test_what_must_not_be_repeated_is_not_to_find_out_which_image_was_bad(url: str, images: list[bytes]) -> None:
    with Client(url) as client:
        for idempotent, right in ((True, 3), (False, 0)):
            outcomes = list(client.classify_many([*images[:3], b"no image"], idempotent=idempotent))
            assert sum(isinstance(outcome, Prediction) for outcome in outcomes) == right


def test_a_hedged_call_is_sent_twice_only_if_it_is_late(noting: tuple[str, Path]) -> None:
    address, _ = noting
    scheme, _, host = address.partition("://")
    sent: list[bytes] = []

    async def run() -> None:
        async with AsyncClient(f"{scheme}://{between.address}", hedge_after_s=1) as client:
            for name, seconds in (("first-id", 0), ("second-id", 0.1), ("late-id", 1.5)):
                await client.infer("noting", wait(seconds), request_id=name)

    with tcp_proxy(host) as between:
        between.see = sent.append
        asyncio.run(run())
    assert [b"".join(sent).count(name) for name in (b"first-id", b"second-id", b"late-id")] == [1, 1, 2]


def test_a_server_without_the_ensemble_says_what_it_has_not(noting: tuple[str, Path]) -> None:
    address, _ = noting
    with (
        Client(address) as client,
        pytest.raises(ModelNotFoundError, match=rf"does not serve the model '{FAMILY}'(?s:.)*python -m clients models"),
    ):
        client.classify(b"image")


def test_admin_calls_need_the_key_and_have_it(url: str, admin_key: str) -> None:
    with Client(url) as client, pytest.raises(AccessDeniedError):
        client.repository_index()
    with Client(url, transport=Transport(admin_key=admin_key)) as client:
        assert {model["name"] for model in client.repository_index()} >= {FAMILY, CLASSIFIER}
        client.load_model(CLASSIFIER)
    assert admin_key not in repr(Transport(admin_key=admin_key))


def test_health_statistics_and_metadata_are_a_call_each(url: str) -> None:
    async def ask() -> tuple[bool, bool, bool]:
        async with AsyncClient(url) as client:
            return await client.live(), await client.ready(), await client.ready("nope")

    with Client(url) as client:
        assert client.live() and client.ready() and client.ready(FAMILY) and not client.ready("nope")
        assert client.server_metadata()["name"] == "triton"
        assert {model["name"] for model in client.statistics()} >= {FAMILY, CLASSIFIER}
        assert client.model_config(FAMILY)["max_batch_size"] == 64
        [statistics] = client.statistics(CLASSIFIER)
        assert statistics["version"] == "1" and type(statistics["inference_count"]) is int  # over gRPC, too
        assert type(statistics["inference_stats"]["success"]["count"]) is int
        assert client.model_metadata(CLASSIFIER)["inputs"][0]["shape"] == [-1, 1, 28, 28]
    assert asyncio.run(ask()) == (True, True, False)


def test_an_answer_with_fewer_rows_gives_no_image_the_label_of_another() -> None:
    rows = {"top_labels": np.array([[b"shoe"]], np.object_), "top_scores": np.array([[0.9]], np.float32)}
    answer = Answer(rows, "images", (3,))
    [prediction] = predictions(answer, 1)
    assert (prediction.label, prediction.model, prediction.version) == ("shoe", "images", 3)
    with pytest.raises(InvalidResponseError, match="labels for 1 images, and 2 were sent"):
        predictions(answer, 2)


def test_an_answer_to_another_request_is_none() -> None:
    request = Request("m", {}, outputs=("a",), id="1")
    with pytest.raises(Failure, match="the response to request '2', and not '1'"):
        request.verified(Answer({"a": np.zeros(1)}), "2")
    with pytest.raises(Failure, match="it lacks the output a"):
        request.verified(Answer({}), "1")


@pytest.mark.parametrize(
    ("said", "known"), [("3", 3), (3, 3), ("", None), (None, None), ("newest", None), ("-1", None), ("9" * 99, None)]
)
def test_an_answer_names_the_version_that_gave_it_if_the_server_does(said: object, known: int | None) -> None:
    answer = Answer.said({"a": np.zeros(1)}, "m", said)
    assert (answer.model, answer.version, list(answer)) == ("m", known, ["a"])
    copy = pickle.loads(pickle.dumps(answer))
    assert (copy.model, copy.version, list(copy)) == ("m", known, ["a"])


def test_a_split_batch_that_two_versions_answered_says_so() -> None:
    chunks = [Answer({"a": np.zeros((1, 2))}, "m", (version,)) for version in (4, 3, 4)]
    whole = Answer.of_chunks(chunks, [1, 1, 1])
    assert (whole["a"].shape, whole.versions, whole.version) == ((3, 2), (3, 4), None)
    assert Answer.of_chunks(chunks[::2], [1, 1]).version == 4


def test_every_call_says_which_version_of_which_model_answered(
    url: str, images: list[bytes], pixels: np.ndarray
) -> None:
    async def ask() -> tuple[Answer, Prediction]:
        async with AsyncClient(url) as client:
            return await client.infer(CLASSIFIER, {"pixels": pixels}), await client.classify(images[0])

    with Client(url) as client:
        answers = [client.infer(CLASSIFIER, {"pixels": pixels}), client.infer(CLASSIFIER, {"pixels": pixels[:1]})]
        predictions = [client.classify(images[0]), *client.classify_many(images[:3])]
    answer, prediction = asyncio.run(ask())
    assert {(a.model, a.version) for a in (*answers, answer)} == {(CLASSIFIER, 1)}
    found = [p for p in (*predictions, prediction) if isinstance(p, Prediction)]
    assert [(p.model, p.version) for p in found] == [(FAMILY, 1)] * 5
