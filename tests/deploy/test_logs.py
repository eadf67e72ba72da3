"""The log is one JSON object a line, whatever the server, its models and its clients write."""

import io
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc, http

from deploy.running import logs
from tests.conftest import Workspace, free_ports, port_options
from tests.deploy.conftest import write_model

NOW = f"{datetime.now(UTC):%m%d %H:%M:%S.%f}"
# Logs its request's id in the project's way, and prints.
LOUD = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            pb_utils.Logger.log_warn(f"[request id: {request.request_id()}] heard")
            print("printed", flush=True)
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        return pb_utils.Tensor("OUT", pb_utils.get_input_tensor_by_name(request, "IN").as_numpy())
"""
HOSTILE = [
    f'a\n\nE{NOW} 1 forged.cc:1] "forged"',
    f'b"\nE{NOW} 1 forged.cc:1] forged',
    '", "level": "fatal", "message": "forged',
    "\x1b[2J\x1b[31mforged\r\x07",
    "\u202eforged\ud7ff é ✓",
]


def recorded(text: str | bytes, path: Path) -> list[dict[str, Any]]:
    logs.record(io.BytesIO(text.encode() if isinstance(text, str) else text), path)
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'W1123 17:28:52.851532 20787 pinned_memory_manager.cc:273] "Unable to allocate \\"pinned\\" memory"',
            {
                "level": "warning",
                "message": 'Unable to allocate "pinned" memory',
                "source": "pinned_memory_manager.cc:273",
                "process": 20787,
            },
        ),
        (
            'I1123 17:28:52.853541 20787 model_lifecycle.cc:472] "loading: scaler:12"',
            {"level": "info", "model": "scaler"},
        ),
        (
            "E1123 17:28:52.853541 1 model_lifecycle.cc:642] \"failed to load 'bad' version 1: a\\n\\nAt:\\n b\"",
            {"level": "error", "model": "bad", "message": "failed to load 'bad' version 1: a\n\nAt:\n b"},
        ),
        (
            "E1123 17:28:52.8 1 x",
            {"level": "info", "message": "E1123 17:28:52.8 1 x"},
        ),
        (
            'I1123 17:28:53.101087 7 python_be.cc:2249] "TRITONBACKEND_ModelInstanceInitialize: a_b_0_12 (CPU)"',
            {"model": "a_b"},
        ),
        (
            'I1123 17:30:29.565061 7 infer_request.cc:132] "[request id: abc 1] Setting state"',
            {"request_id": "abc 1"},
        ),
        (
            "I1123 17:30:06.985070 22315 pb_stub.cc:2145]  Non-graceful termination detected. ",
            {"level": "info", "message": "Non-graceful termination detected.", "source": "pb_stub.cc:2145"},
        ),
        (
            "E1123 12:29:42.415928380   22297 chttp2_server.cc:1060]                UNKNOWN:No address added",
            {"level": "error", "message": "UNKNOWN:No address added", "source": "chttp2_server.cc:1060"},
        ),
        (
            "[Warning] File: /tmp/a/batch_span_processor.cc:55 BatchSpanProcessor queue is full - dropping span.",
            {"level": "warning", "source": "batch_span_processor.cc:55"},
        ),
        ("Error: Failed to initialize NVML", {"level": "info", "message": "Error: Failed to initialize NVML"}),
        ("Signal (11) received.", {"level": "fatal"}),
        ("Signal (15) received.", {"level": "info"}),
    ],
)
def test_a_line_becomes_a_record(line: str, expected: dict[str, Any], tmp_path: Path) -> None:
    [record] = recorded(line, tmp_path / "log.jsonl")
    assert expected.items() <= record.items()
    assert "request_id" not in record or "request_id" in expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["time"])


def test_a_request_without_an_id_has_none_in_the_log(tmp_path: Path) -> None:
    [record] = recorded(f'I{NOW} 7 a.cc:1] "[request id: <id_unknown>] x"', tmp_path / "log.jsonl")
    assert "request_id" not in record


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=200), timedelta(days=360)])
def test_the_year_that_a_line_lacks_is_that_of_the_last_such_day(age: timedelta, tmp_path: Path) -> None:
    then = datetime.now(UTC) - age
    [record] = recorded(f'I{then:%m%d %H:%M:%S.%f} 7 a.cc:1] "x"', tmp_path / "log.jsonl")
    assert datetime.fromisoformat(record["time"]) == then


def test_a_line_with_an_impossible_date_keeps_its_text_and_gets_the_time_of_reading(tmp_path: Path) -> None:
    [record] = recorded('I1399 99:00:00.000000 7 a.cc:1] "x"', tmp_path / "log.jsonl")
    assert record["message"] == "x"
    assert datetime.fromisoformat(record["time"]) > datetime.now(UTC) - timedelta(minutes=1)


def test_a_table_is_one_record_and_empty_lines_are_none(tmp_path: Path) -> None:
    table = "+---+\n| a |\n+---+"
    lines = f"I{NOW} 7 server.cc:604] \n{table}\n\nI{NOW} 7 server.cc:631] \n{table}\nprinted\n"
    found = recorded(lines, tmp_path / "log.jsonl")
    assert [record["message"] for record in found] == [f"\n{table}", f"\n{table}", "printed"]


def test_what_a_model_prints_before_the_end_of_tritons_line_is_a_record_of_its_own(tmp_path: Path) -> None:
    found = recorded(f'I{NOW} 7 model.py:1] "said"printed\n\n', tmp_path / "log.jsonl")
    assert [record["message"] for record in found] == ["said", "printed"]
    assert "source" not in found[1]


def test_bytes_that_are_no_text_and_endless_lines_are_recorded(tmp_path: Path) -> None:
    found = recorded(b"\xff\x00\xfe\n" + b"x" * 100_000 + b"\nend", tmp_path / "log.jsonl")
    assert [len(record["message"]) for record in found] == [3, 64 * 1024, 100_000 - 64 * 1024, 3]


def test_spans_dropped_by_the_thousand_cost_one_record(tmp_path: Path) -> None:
    dropped = "[Warning] File: /a/batch_span_processor.cc:55 BatchSpanProcessor queue is full - dropping span.\n"
    found = recorded(dropped * 1000 + "end\n", tmp_path / "log.jsonl")
    assert len(found) == 2


def test_every_record_is_told_once_it_is_recorded(tmp_path: Path) -> None:
    path, told = tmp_path / "log.jsonl", list[tuple[str, int]]()

    def hear(entry: Mapping[str, Any]) -> None:
        told.append((entry["message"], len(path.read_text().splitlines())))

    logs.record(io.BytesIO(b"Signal (11) received.\nterminate called after\n"), path, hear)
    assert told == [("Signal (11) received.", 1), ("terminate called after", 2)]


def test_a_full_disk_does_not_stop_the_reading(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    stream = io.BytesIO(b"line\n" * 1000)
    logs.record(stream, tmp_path / "log.jsonl")
    assert not stream.read()


def test_the_files_stay_within_their_size_and_the_last_lines_reach_back_across_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "_FILE_BYTES", 2000)
    path = tmp_path / "log.jsonl"
    recorded("\n".join(map(str, range(200))), path)
    assert len(files := list(tmp_path.iterdir())) == 5
    assert all(file.stat().st_size <= 2000 for file in files)
    logs.show(path, 60, follow=False, as_json=True, alive=lambda: False)
    assert [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()] == [
        str(number) for number in range(140, 200)
    ]


def test_following_goes_on_across_files_and_ends_with_the_servers_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "_FILE_BYTES", 2000)
    path = tmp_path / "log.jsonl"
    logs.write(path, "info", "before")
    writes = iter([range(30), range(30, 60), range(60, 61)])  # each of the first two fills more than a file

    def alive() -> bool:
        """Writes, as a server would between two looks; ends with the last."""
        for number in (written := next(writes)):
            logs.write(path, "info", str(number))
        return len(written) > 1

    logs.show(path, 1, follow=True, as_json=True, alive=alive)
    messages = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert messages == ["before", *map(str, range(61))]
    assert len(list(tmp_path.iterdir())) > 2


def test_the_last_errors_are_this_servers_and_have_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert logs.last_errors(path, 5) == ""
    logs.write(path, "error", "of an earlier server")
    started = datetime.now(UTC)
    assert logs.last_errors(path, 5, started.timestamp()) == ""
    recorded(f'first\nsecond\nE{datetime.now(UTC):%m%d %H:%M:%S.%f} 7 a.cc:1] "one\\n\\nAt:\\n two"\nthird', path)
    assert logs.last_errors(path, 5, started.timestamp()) == "one"
    assert logs.last_errors(path, 5) == "of an earlier server\n  one"


def test_without_an_error_the_last_lines_tell(tmp_path: Path) -> None:
    recorded("tritonserver: unrecognized option\nUsage: tritonserver", tmp_path / "log.jsonl")
    assert logs.last_errors(tmp_path / "log.jsonl", 1) == "Usage: tritonserver"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace of a real server whose model has logged every hostile id; it has ended."""
    workspace = Workspace(tmp_path_factory.mktemp("logs"))
    write_model(workspace.repository, "loud", LOUD)
    ports = free_ports()
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *port_options(ports))
    try:
        for client, port in ((http, ports[0]), (grpc, ports[1])):
            tensor = client.InferInput("IN", [1], "FP32")
            tensor.set_data_from_numpy(np.ones(1, np.float32))
            with client.InferenceServerClient(f"127.0.0.1:{port}") as connection:
                for number, hostile in enumerate(HOSTILE):
                    connection.infer("loud", [tensor], request_id=f"{client.__name__}-{number}-{hostile}")
    finally:
        workspace.must("deploy", "down")
    return workspace


def test_no_request_id_forges_a_record(heard: Workspace) -> None:
    found = [json.loads(line) for line in heard.must("deploy", "logs", "--lines", "500", "--json").splitlines()]
    said = [record for record in found if record.get("source", "").startswith("model.py:")]
    ids = [f"{client.__name__}-{n}-{hostile}" for client in (http, grpc) for n, hostile in enumerate(HOSTILE)]
    assert [record["message"] for record in said] == [f"[request id: {sent}] heard" for sent in ids]
    assert all(sent.startswith(record["request_id"]) for sent, record in zip(ids, said, strict=True))
    assert {record["level"] for record in said} == {"warning"}
    assert [record["message"] for record in found].count("printed") == len(ids)
    assert not any("forged" in record["message"] for record in found if record not in said)


def test_no_request_id_reaches_the_terminal_as_more_than_text(heard: Workspace) -> None:
    shown = heard.must("deploy", "logs", "--lines", "500")
    assert set(shown) - {"\n"} == {character for character in shown if character.isprintable()}
    record, continuation = r"\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  (info|warning|error|fatal) +.*", r"    .*"
    assert all(re.fullmatch(f"{record}|{continuation}", line) for line in shown.splitlines())


def test_the_log_tells_of_models_levels_and_the_process(heard: Workspace) -> None:
    found = [json.loads(line) for line in heard.must("deploy", "logs", "--lines", "500", "--json").splitlines()]
    [loaded] = [record for record in found if record["message"] == "successfully loaded 'loud'"]
    assert loaded["level"] == "info" and loaded["model"] == "loud" and loaded["process"] > 1
    assert "Started GRPCInferenceService" in heard.must("deploy", "logs", "--lines", "500")
