"""What is not a whole and small enough PNG or JPEG is the caller's error, says why, and harms nobody else."""

import json
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.conftest import RunningServer, Workspace, free_ports, port_options, wait_for
from tests.model_repository.conftest import Preprocess, preprocess_on, workers_of
from tests.model_repository.files import END, SIGNATURE, chunk, header, jpeg, png, saved, segment, with_segment
from tests.workspace import PREPROCESS

ZEROS = np.zeros((28, 28, 1), int)
SHADES = np.arange(28 * 28).reshape(28, 28, 1) % 256
GOOD = png(SHADES, 0)
GREY = jpeg(SHADES[..., 0].astype(np.uint8), "L")
PROGRESSIVE = saved(Image.linear_gradient("L"), "JPEG", progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
FRAME_AT = GREY.index(b"\xff\xc0")
EMPTY_DATA = chunk(b"IDAT", zlib.compress(b""))


def idat(size: int) -> bytes:
    return chunk(b"IDAT", zlib.compress(bytes(size), 9))


def changed(encoded: bytes, at: int, to: bytes) -> bytes:
    return encoded[:at] + to + encoded[at + len(to) :]


def frame(bits: int = 8, height: int = 28, width: int = 28, components: int = 1) -> bytes:
    return segment(0xC0, struct.pack(">BHHB", bits, height, width, components) + b"\1\x11\0" * components)


def with_frame(new: bytes) -> bytes:
    """GREY with another frame."""
    return GREY[:FRAME_AT] + new + GREY[FRAME_AT + len(frame()) :]


UNREADABLE = "not a readable PNG or JPEG image"
TRUNCATED = "the image file is truncated"
BOMB = zlib.compress(bytes(200_000_000), 9)
BAD = {
    # neither format
    "nothing": (b"", UNREADABLE),
    "text": (b"hello\n", UNREADABLE),
    "GIF": (saved(Image.new("L", (28, 28)), "GIF"), UNREADABLE),
    "BMP": (saved(Image.new("L", (28, 28)), "BMP"), UNREADABLE),
    "TIFF": (saved(Image.new("L", (28, 28)), "TIFF"), UNREADABLE),
    "WebP": (saved(Image.new("L", (28, 28)), "WEBP"), UNREADABLE),
    "PNG behind a PDF header": (b"%PDF-1.7\n" + GOOD, UNREADABLE),
    # over a limit
    "too many bytes": (GOOD + bytes(1 << 20), r"has 1,04\d,\d{3} bytes, at most 1,048,576 .*max_encoded_bytes"),
    "PNG, too many pixels": (png(np.zeros((1025, 1024, 1), int), 0), "1,024 x 1,025 pixels.*1,048,576.*max_pixels"),
    "PNG of 16 exapixels": (SIGNATURE + header(2**32 - 1, 2**32 - 1, 16, 6) + idat(9) + END, "exceeds limit"),
    "JPEG of 4 gigapixels": (with_frame(frame(height=65535, width=65535)), "exceeds limit"),
    "PNG without pixels": (SIGNATURE + header(0, 28, 8, 0) + EMPTY_DATA + END, UNREADABLE),
    "JPEG without pixels": (with_frame(frame(height=0)), UNREADABLE),
    "JPEG with 101 scans": (
        PROGRESSIVE[:-2] + LAST_SCAN * 100 + PROGRESSIVE[-2:],
        "a second colour profile, or more than 100 scans",
    ),
    "a text of 200 MB": (png(ZEROS, 0, more=chunk(b"zTXt", b"Comment\0\0" + BOMB)), "too large"),
    "an international text of 200 MB": (png(ZEROS, 0, more=chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB)), "too large"),
    "two colour profiles": (png(ZEROS, 0, more=chunk(b"iCCP", b"a\0\0" + BOMB) * 2), "a second colour profile"),
    "a colour profile of 200 MB": (png(ZEROS, 0, more=chunk(b"iCCP", b"Profile\0\0" + BOMB)), "too large"),
    # PNG
    "PNG, last byte missing": (GOOD[:-1], TRUNCATED),
    "PNG, last chunk missing": (GOOD[:-12], TRUNCATED),
    "PNG, half": (GOOD[: len(GOOD) // 2], TRUNCATED),
    "PNG, signature only": (SIGNATURE, TRUNCATED),
    "PNG, one bit of the data": (changed(GOOD, 60, bytes([GOOD[60] ^ 1])), UNREADABLE),
    "PNG, one bit of the header": (changed(GOOD, 19, b"\x1d"), UNREADABLE),
    "PNG, one bit of a text": (png(ZEROS, 0, more=changed(chunk(b"tEXt", b"a\0b"), 8, b"c")), UNREADABLE),
    "PNG, no header": (SIGNATURE + idat(812) + END, UNREADABLE),
    "PNG, a long header": (SIGNATURE + chunk(b"IHDR", bytes(14)) + idat(812) + END, UNREADABLE),
    "PNG, an unknown chunk of control characters": (png(ZEROS, 0, more=chunk(b"\n\x1b[2", b"")), UNREADABLE),
    "PNG, unknown colour type": (SIGNATURE + header(28, 28, 8, 5) + idat(812) + END, UNREADABLE),
    "PNG, impossible depth": (SIGNATURE + header(28, 28, 4, 2) + idat(1204) + END, UNREADABLE),
    "PNG, unknown interlacing": (
        SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 2)) + idat(812) + END,
        UNREADABLE,
    ),
    "PNG, no data": (SIGNATURE + header(28, 28, 8, 0) + END, UNREADABLE),
    "PNG, data that is not deflated": (SIGNATURE + header(28, 28, 8, 0) + chunk(b"IDAT", b"data") + END, UNREADABLE),
    "PNG, data without its own checksum": (
        SIGNATURE + header(28, 28, 8, 0) + chunk(b"IDAT", zlib.compress(bytes(812))[:-4]) + END,
        UNREADABLE,
    ),
    "PNG, unknown filter": (
        SIGNATURE + header(28, 28, 8, 0) + chunk(b"IDAT", zlib.compress(b"\x07" * 812)) + END,
        UNREADABLE,
    ),
    "PNG, a short transparent colour": (png(ZEROS, 0, more=chunk(b"tRNS", b"\1")), UNREADABLE),
    "PNG, grey of 16 bits with a transparent colour": (
        png(np.zeros((28, 28, 1), int), 0, 16, chunk(b"tRNS", bytes(2))),
        "use an alpha channel",
    ),
    # JPEG
    "JPEG, last byte missing": (GREY[:-1], TRUNCATED),
    "JPEG, end marker missing": (GREY[:-2], TRUNCATED),
    "JPEG, half": (GREY[: len(GREY) // 2], TRUNCATED),
    "JPEG, start marker only": (b"\xff\xd8\xff", TRUNCATED),
    "JPEG, no frame": (with_frame(b""), UNREADABLE),
    "JPEG, a short frame": (with_frame(segment(0xC0, b"\x08\0\x1c")), UNREADABLE),
    "JPEG, two frames of different sizes": (with_frame(frame() + frame(height=2800)), UNREADABLE),
    "JPEG, a hierarchical frame": (with_segment(GREY, 0xDE, frame()[4:]), UNREADABLE),
    "JPEG, lossless": (changed(GREY, FRAME_AT, b"\xff\xc3"), UNREADABLE),
    "JPEG, 12 bits": (with_frame(frame(bits=12)), UNREADABLE),
    "JPEG, two components": (with_frame(frame(components=2)), UNREADABLE),
    "JPEG, a segment without a length": (
        with_segment(GREY, 0xDB, b"").replace(b"\xff\xdb\0\2", b"\xff\xdb\0\0"),
        UNREADABLE,
    ),
    "JPEG, no tables": (GREY[:2] + GREY[FRAME_AT:], UNREADABLE),
    "JPEG, no data": (GREY[: GREY.index(b"\xff\xda")] + b"\xff\xd9", UNREADABLE),
    "JPEG, a broken table": (with_segment(GREY, 0xC4, bytes([0, *[255] * 16])), UNREADABLE),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_the_callers_error_with_the_reason(preprocess: Preprocess, kind: str) -> None:
    image, reason = BAD[kind]
    with pytest.raises(InferenceServerException, match=reason) as failure:
        preprocess(image)
    assert failure.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_every_truncation_is_noticed(preprocess: Preprocess) -> None:
    for whole in (GOOD, GREY):
        for length in range(len(whole)):
            with pytest.raises(InferenceServerException, match=f"{TRUNCATED}|{UNREADABLE}"):
                preprocess(whole[:length])


def test_over_http_it_is_status_400(server: RunningServer) -> None:
    tensor = tritonclient.http.InferInput("image", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[GOOD[:-1]]], dtype=np.object_))
    with (
        tritonclient.http.InferenceServerClient(server.http) as client,
        pytest.raises(InferenceServerException, match=TRUNCATED) as failure,
    ):
        client.infer(PREPROCESS, [tensor])
    assert failure.value.status() == "400"


def test_of_several_images_the_bad_one_is_named(preprocess: Preprocess) -> None:
    with pytest.raises(InferenceServerException, match=f"image 2 of 4, from 0: {TRUNCATED}"):
        preprocess(GOOD, GOOD, GOOD[:-1], GOOD)
    np.testing.assert_array_equal(preprocess(GOOD, png(ZEROS, 0)), np.stack([SHADES, ZEROS])[..., 0])


def test_bad_requests_leave_their_neighbours_alone(server: RunningServer) -> None:
    """Sixteen at a time, so that the server batches good ones with bad ones."""
    bad = [image for image, _ in BAD.values() if len(image) < 100_000]
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client, ThreadPoolExecutor(16) as pool:
        ends = [
            (pool.submit(preprocess_on, client, wrong), pool.submit(preprocess_on, client, GOOD)) for wrong in bad * 3
        ]
        for refused, answered in ends:
            assert "INVALID_ARGUMENT" in str(refused.exception())
            np.testing.assert_array_equal(answered.result()[0], SHADES[..., 0])


def lines_about(workspace: Workspace, text: str) -> list[str]:
    return [line for line in workspace.must("deploy", "logs", "--lines", "100000").splitlines() if text in line]


def test_a_refusal_is_one_line_in_the_log_whatever_the_request_id(
    server: RunningServer, preprocess: Preprocess
) -> None:
    forged = "forged\nE0101 00:00:00.000000 1 x.cc:1] \x1b[31mit is on fire\r\n"

    def logged() -> list[str]:
        with pytest.raises(InferenceServerException):
            preprocess(b"", request_id=forged)
        return lines_about(server.workspace, "forged")

    wait_for(logged)  # those before may have used up this second's lines
    assert lines_about(server.workspace, "it is on fire") == lines_about(server.workspace, "forged")
    for line in lines_about(server.workspace, "forged"):
        assert f"refused: {UNREADABLE} (0 bytes)" in line
        assert "\x1b" not in line


def test_many_refusals_are_few_lines_in_the_log(server: RunningServer, preprocess: Preprocess) -> None:
    before = len(lines_about(server.workspace, "refused:"))
    started = time.monotonic()
    for _ in range(500):
        with pytest.raises(InferenceServerException):
            preprocess(b"flood")
    seconds = int(time.monotonic() - started) + 2  # begun ones
    written = lines_about(server.workspace, "refused:")[before:]
    assert 0 < len(written) <= 10 * seconds * len(workers_of(server))


@pytest.fixture
def changed_server(released: Workspace, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A server whose preprocessor has smaller limits and a planted bug."""
    model = released.model / "1" / "release" / PREPROCESS
    with (model / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "max_encoded_bytes" value { string_value: "2000" } }\n')
        config.write('parameters { key: "max_pixels" value { string_value: "784" } }\n')
    with (model / "1" / "images.py").open("a") as code:
        code.write("\n_sound = decode\n\n\ndef decode(encoded, limits):\n")
        code.write('    return _sound(encoded, limits) if encoded != b"bug" else 1 // 0\n')
    released.seal()
    ports = port_options(free_ports())
    released.must("deploy", "up", "--detach", "--ensembles", "--repository", released.repository, *ports)
    status = json.loads(released.must("deploy", "status", "--json"))
    yield RunningServer(released, status["http"], status["grpc"], status["pid"])
    released.must("deploy", "down")


def test_limits_are_configured_and_a_bug_fails_one_request_and_is_logged(changed_server: RunningServer) -> None:
    with tritonclient.grpc.InferenceServerClient(changed_server.grpc) as client, ThreadPoolExecutor(16) as pool:
        for image, reason in (
            (png(np.zeros((28, 29, 1), int), 0), r"29 x 28 pixels, at most 784"),
            (GOOD + bytes(2000), "at most 2,000 are allowed"),
        ):
            with pytest.raises(InferenceServerException, match=reason):
                preprocess_on(client, image)
        sent = [(image, pool.submit(preprocess_on, client, image)) for image in [GOOD, b"bug"] * 50]
        for image, answer in sent:
            if image == GOOD:
                np.testing.assert_array_equal(answer.result()[0], SHADES[..., 0])
            else:
                assert "[StatusCode.INTERNAL] the preprocessor failed: ZeroDivisionError" in str(answer.exception())
    assert lines_about(changed_server.workspace, "1 // 0"), "the traceback shows where"


def test_a_limit_that_is_no_number_keeps_the_model_from_loading(released: Workspace) -> None:
    with (released.model / "1" / "release" / PREPROCESS / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "max_pixels" value { string_value: "1e6" } }\n')
    released.seal()
    done = released.run("deploy", "up", "--detach", "--repository", released.repository, *port_options(free_ports()))
    assert done.returncode == 3
    assert "max_pixels must be a whole number, not '1e6'" in done.stdout
    released.down()
