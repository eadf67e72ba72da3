"""What the server answers is what the published graph computes, and bad input is a clear error."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from clients import Client, InvalidInputError, ModelNotFoundError, Prediction, ServerUnavailableError
from clients.settings import Protocol
from tests.clients.conftest import Run
from tests.conftest import RunningServer, free_ports, wait_for
from tests.workspace import FAMILY, MODEL
from training import families

PROTOCOLS: list[Protocol] = ["grpc", "http"]
SPEC = families.spec(FAMILY)


def url(server: RunningServer, protocol: Protocol) -> str:
    return f"{protocol}://{getattr(server, protocol)}"


@pytest.fixture(params=PROTOCOLS)
def client(server: RunningServer, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    with Client(url(server, request.param)) as connected:
        yield connected


@pytest.fixture(scope="module")
def offline(release: Path) -> np.ndarray:
    """What the published graph makes of the first 64 test images: probabilities [64, 10]."""
    session = ort.InferenceSession(release / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = families.load(FAMILY).data().split("test").first(64).groups[0].inputs["pixels"]
    return session.run(["probabilities"], {"pixels": pixels})[0]


def images_in(folder: Path) -> list[Path]:
    with (folder / "labels.csv").open() as stream:
        return [folder / row["file"] for row in csv.DictReader(stream)]


def test_served_values_are_the_graphs_values(client: Client, examples: Path, offline: np.ndarray) -> None:
    """Concurrently, so that the server batches; every answer must still be its own image's, in order."""
    answers = list(client.classify_many(path.read_bytes() for path in images_in(examples)))
    assert len(answers) == len(offline)
    for answer, probabilities in zip(answers, offline, strict=True):
        assert isinstance(answer, Prediction)
        best = np.argsort(-probabilities, kind="stable")[:3]
        assert answer.label == SPEC.labels[best[0]]
        assert [label for label, _ in answer.top] == [SPEC.labels[i] for i in best]
        assert [score for _, score in answer.top] == pytest.approx(probabilities[best], abs=1e-4)
        assert answer.score == answer.top[0][1]


def test_requests_were_really_batched(server: RunningServer, examples: Path) -> None:
    with Client(url(server, "grpc"), concurrency=64) as client:

        def counts() -> tuple[int, int]:
            [found] = client.statistics(FAMILY)
            return found["execution_count"], found["inference_count"]

        executions, inferences = counts()
        list(client.classify_many((path.read_bytes() for path in images_in(examples) * 10), batch_size=1))
        wait_for(lambda: counts()[1] >= inferences + 640)
        assert counts()[0] - executions < 640


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_jpeg_colour_and_other_sizes_are_the_same_picture(client: Client, examples: Path) -> None:
    path = images_in(examples)[1]
    expected = client.classify(path.read_bytes()).label
    original = Image.open(path)
    for image, kind in (
        (original, "JPEG"),
        (original.convert("RGB"), "PNG"),
        (original.resize((280, 280), Image.Resampling.NEAREST), "PNG"),
    ):
        assert client.classify(encoded(image, kind)).label == expected


BAD = {
    "empty": (b"", "the image is empty"),
    "text": (b"this is not an image", "not a readable PNG or JPEG image"),
    "truncated": (None, "image file is truncated"),
    "gif": (encoded(Image.new("L", (28, 28)), "GIF"), "not a readable PNG or JPEG image"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_bytes_are_the_callers_error_and_nobody_elses(client: Client, examples: Path, kind: str) -> None:
    good = images_in(examples)[0].read_bytes()
    bad, message = BAD[kind]
    expected = client.classify(good)
    bad = good[: len(good) // 2] if bad is None else bad
    answers = list(client.classify_many([good, bad] * 20))
    for answer in answers[1::2]:
        assert isinstance(answer, InvalidInputError)
        assert message in str(answer)
    for answer in answers[::2]:
        assert isinstance(answer, Prediction)
        assert (answer.label, answer.score) == (expected.label, pytest.approx(expected.score, abs=1e-4))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_down_is_named(protocol: Protocol) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with Client(f"{protocol}://{nobody}") as client, pytest.raises(ServerUnavailableError, match=nobody):
        client.classify(b"image")


def test_a_model_that_is_not_served_is_named(server: RunningServer) -> None:
    for protocol in PROTOCOLS:
        with (
            Client(url(server, protocol)) as client,
            pytest.raises(ModelNotFoundError, match="does not serve the model 'nope'"),
        ):
            client.classify(b"image", model="nope")


@pytest.mark.parametrize(
    ("array", "dtype", "message"),
    [
        (
            np.zeros((1, 1, 28, 28), np.float32),
            "FP32",
            f"data-type is 'FP32', but model '{MODEL}' expects 'UINT8'",
        ),
        (np.zeros((1, 1, 28, 27), np.uint8), "UINT8", "unexpected shape"),
        (np.zeros((65, 1, 28, 28), np.uint8), "UINT8", "batch-size must be <= 64"),
    ],
)
@pytest.mark.parametrize("triton", [tritonclient.grpc, tritonclient.http], ids=PROTOCOLS)
def test_a_wrong_dtype_or_shape_is_refused_by_the_server_which_goes_on(
    server: RunningServer,
    triton,
    array: np.ndarray,
    dtype: str,
    message: str,  # type: ignore[no-untyped-def]
) -> None:
    address = server.grpc if triton is tritonclient.grpc else server.http

    def infer(pixels: np.ndarray, name: str) -> np.ndarray:
        tensor = triton.InferInput("pixels", list(pixels.shape), name)
        tensor.set_data_from_numpy(pixels)
        with triton.InferenceServerClient(address) as client:
            return client.infer(MODEL, [tensor]).as_numpy("probabilities")

    with pytest.raises(InferenceServerException, match=message):
        infer(array, dtype)
    assert infer(np.zeros((2, 1, 28, 28), np.uint8), "UINT8").sum(axis=1) == pytest.approx(1, abs=1e-4)


# The command line


def test_files_and_folders_are_classified_in_order(run: Run, server: RunningServer, examples: Path) -> None:
    first = examples / "00003.png"
    for protocol in PROTOCOLS:
        done = run("classify", "--json", "--server", url(server, protocol), first, examples)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["path"] for row in rows] == [str(first), *map(str, sorted(examples.glob("*.png")))]
        assert rows[0] == rows[4], "the same image twice gets the same answer"
        assert all(row["label"] == row["top"][0]["label"] for row in rows)


def test_bad_files_are_named_the_good_ones_answered_and_the_exit_code_says_so(
    run: Run, server: RunningServer, examples: Path, tmp_path: Path
) -> None:
    good = (examples / "00000.png").read_bytes()
    for name, content in (
        ("good.png", good),
        ("truncated.png", good[:100]),
        ("empty.png", b""),
        ("text.png", b"hello"),
    ):
        (tmp_path / name).write_bytes(content)
    done = run("classify", "--server", server.grpc, tmp_path)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == [str(tmp_path / "good.png")]
    for name in ("truncated.png", "empty.png", "text.png"):
        assert f"{tmp_path / name}  error: " in done.stderr.decode()
    assert "1 classified, 3 failed" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_without_a_server_one_message_says_so(run: Run, tmp_path: Path) -> None:
    for number in range(64):
        (tmp_path / f"{number}.png").write_bytes(b"an image")
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    done = run("classify", "--server", nobody, tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode().count(f"error: {FAMILY}: cannot reach") == 1
    assert "python -m clients health" in done.stderr.decode()


@pytest.mark.parametrize(("name", "message"), [("nope.png", "No such file or directory"), ("", "has no .png")])
def test_a_path_with_nothing_to_send_is_an_error(run: Run, tmp_path: Path, name: str, message: str) -> None:
    done = run("classify", tmp_path / name)
    assert done.returncode == 1
    assert message in done.stderr.decode()
