"""How the shipped nginx configuration treats requests, its limits and its certificate, before a stand-in for Triton."""

import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploy.triton.settings import ADMIN_HEADER
from tests.conftest import wait_for
from tests.deploy.nginx import (
    INFER,
    MODULE,
    REQUEST,
    SIZED,
    ask,
    command,
    executable,
    install,
    modules,
    proxy,
    upstream,
)

TAKEN = REQUEST + b"abc"


def test_requests_share_a_connection_on_both_sides(tmp_path: Path) -> None:
    with upstream() as triton, proxy(tmp_path, triton.address) as front:
        connection = front.connect()
        connection.connect()
        socket_before = connection.sock
        assert [ask(connection, TAKEN, SIZED) for _ in range(20)] == [(200, "")] * 20
        assert connection.sock is socket_before
        assert triton.connections <= 2  # one more for the configuration of the model


@pytest.mark.parametrize(
    ("sent", "used"), [("order-17", "order-17"), (None, "[0-9a-f]{32}"), ('","forged":"', "[0-9a-f]{32}")]
)
def test_triton_the_client_and_the_log_agree_on_the_id_of_a_request(
    tmp_path: Path, sent: str | None, used: str
) -> None:
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with upstream() as triton, proxy(tmp_path, triton.address) as front:
        connection = front.connect()
        connection.request("POST", INFER, TAKEN, SIZED | headers | ({"X-Request-ID": sent} if sent else {}))
        answer = connection.getresponse()
        wait_for(lambda: front.log)
        [entry], [(received, _)] = map(json.loads, front.log), triton.received
    assert re.fullmatch(used, entry["request_id"])
    assert received["X-Request-ID"] == answer.headers["X-Request-ID"] == entry["request_id"]
    assert received["traceparent"] == entry["traceparent"] == headers["traceparent"]
    assert (entry["request"], entry["status"]) == (f"POST {INFER}", 200)
    assert entry["received_bytes"] > 0 and entry["sent_bytes"] > 0 and float(entry["upstream_s"]) >= 0


def test_triton_gets_a_whole_body_of_known_length_and_no_key(tmp_path: Path) -> None:
    with upstream() as triton, proxy(tmp_path, triton.address) as front:
        headers = {"Transfer-Encoding": "chunked", **SIZED, ADMIN_HEADER: "k" * 16, "Cookie": "crumbs"}
        chunks = b"%x\r\n%s\r\n3\r\nabc\r\n0\r\n\r\n" % (len(REQUEST), REQUEST)
        assert ask(front.connect(), chunks, headers) == (200, "")
        [(received, body)] = triton.received
    assert body == TAKEN
    assert received["Content-Length"] == str(len(TAKEN))
    assert received["Inference-Header-Content-Length"] == str(len(REQUEST))
    assert "Transfer-Encoding" not in received and ADMIN_HEADER not in received and "Cookie" not in received


def test_while_the_model_is_not_known_nothing_is_passed_on_and_once_it_is_all_is(tmp_path: Path) -> None:
    with upstream() as triton, proxy(tmp_path, triton.address) as front:
        known, triton.configured = triton.configured, None
        for _ in range(2):
            status, reason = ask(front.connect(), TAKEN, SIZED)
            assert status == 400 and reason.startswith("Request for unknown model")
        assert not triton.received
        triton.configured = known
        assert ask(front.connect(), TAKEN, SIZED) == (200, "")


def test_a_changed_configuration_holds_within_seconds_and_is_not_asked_for_with_every_request(tmp_path: Path) -> None:
    with upstream() as triton, proxy(tmp_path, triton.address) as front:
        connection = front.connect()
        assert [ask(connection, TAKEN, SIZED) for _ in range(50)] == [(200, "")] * 50
        assert len(triton.asked) <= 5
        triton.configured = {"input": [{"name": "IN", "data_type": "TYPE_UINT8", "dims": [2]}]}
        wait_for(lambda: ask(connection, TAKEN, SIZED)[0] == 400, 10)


def test_an_answer_that_takes_too_long_is_not_waited_for_nor_is_the_request_sent_again(tmp_path: Path) -> None:
    with (
        upstream() as triton,
        proxy(tmp_path, triton.address, changes={"proxy_read_timeout 60s": "proxy_read_timeout 1s"}) as front,
    ):
        triton.answers.clear()
        assert ask(front.connect(), TAKEN, SIZED) == (504, "Triton did not answer in time")
        assert len(triton.received) == 1


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        pytest.param(
            {"limit_conn clients 256": "limit_conn clients 4"},
            (429, "too many requests at once from this address"),
            id="from one address",
        ),
        pytest.param({"max_conns=256": "max_conns=4"}, (502, "Triton does not answer"), id="from all"),
    ],
)
def test_so_many_requests_are_under_way_and_no_more(
    tmp_path: Path, changes: dict[str, str], refusal: tuple[int, str]
) -> None:
    with (
        upstream() as triton,
        proxy(tmp_path, triton.address, changes=changes) as front,
        ThreadPoolExecutor() as pool,
    ):
        triton.answers.clear()
        under_way = [pool.submit(ask, front.connect(), TAKEN, SIZED) for _ in range(4)]
        wait_for(lambda: len(triton.received) == 4)
        assert ask(front.connect(), TAKEN, SIZED) == refusal
        triton.answers.set()
        assert [request.result() for request in under_way] == [(200, "")] * 4


def test_a_renewed_certificate_is_taken_up_without_losing_a_request(tmp_path: Path) -> None:
    with upstream() as triton, proxy(tmp_path, triton.address) as front, ThreadPoolExecutor() as pool:
        triton.answers.clear()
        under_way = pool.submit(ask, front.connect(), TAKEN, SIZED)
        wait_for(lambda: triton.received)
        front.authority.issue("server")
        subprocess.run([*command(front.folder), "-s", "reload"], check=True)
        expected = ssl.PEM_cert_to_DER_cert((front.folder / "certs" / "server.pem").read_text())

        def served() -> bytes | None:
            connection = front.connect()
            connection.connect()
            return connection.sock.getpeercert(binary_form=True)

        wait_for(lambda: served() == expected)
        triton.answers.set()
        assert under_way.result() == (200, "")


def test_the_shipped_configuration_is_valid_as_it_is_and_needs_no_root() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder, {})
        own_nginx = shutil.copy2(executable(), folder)  # anyone may run it there
        own_module = shutil.copy2(modules() / MODULE, folder)
        configuration = folder / "nginx.conf"
        configuration.write_text(configuration.read_text().replace(str(modules() / MODULE), str(own_module)))
        if os.geteuid() == 0:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, 65534, 65534)
        unprivileged: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        test = [own_nginx, *command(folder)[1:], "-t"]
        done = subprocess.run(test, capture_output=True, text=True, check=False, **unprivileged)
        assert done.returncode == 0, done.stderr
