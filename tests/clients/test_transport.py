"""How bytes travel to a real Triton: compression, limits, TLS, proxies, several servers, spans."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from clients import (
    AccessDeniedError,
    AsyncClient,
    Client,
    InvalidInputError,
    Prediction,
    ServerUnavailableError,
    Tls,
    Transport,
)
from tests.clients.conftest import CLASSIFIER
from tests.clients.tcp_proxy import tcp_proxy
from tests.conftest import RunningServer, free_ports, wait_for
from tests.deploy.certificates import Authority
from tests.deploy.nginx import proxy as nginx
from tests.deploy.test_tls import secured
from tests.workspace import FAMILY


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_requests_may_be_compressed(url: str, pixels: np.ndarray, compression: str) -> None:
    with Client(url) as client, Client(url, transport=Transport(compression=compression)) as small:  # type: ignore[arg-type]
        plain = client.infer(CLASSIFIER, {"pixels": pixels[:8]})["probabilities"]
        assert np.allclose(small.infer(CLASSIFIER, {"pixels": pixels[:8]})["probabilities"], plain, atol=1e-4)


def test_a_request_above_the_limit_is_not_sent(url: str, pixels: np.ndarray) -> None:
    with Client(url, transport=Transport(max_message_bytes=10_000)) as client:
        assert client.infer(CLASSIFIER, {"pixels": pixels[:1]})
        with pytest.raises(InvalidInputError, match=r"larger than max|more than 10,000"):
            client.infer(CLASSIFIER, {"pixels": pixels[:64]})


@pytest.mark.heavy
def test_tls_and_mutual_tls(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours", "clients")
    certificate, key = ours.issue("client")
    with secured(tmp_path / "server", "--grpc-client-ca", ours.certificate) as server:
        address, known = f"grpcs://{server.address}", server.authority.certificate
        with Client(address, transport=Transport(tls=Tls(known, certificate, key))) as client:
            assert client.infer("sleeper", {"IN": np.array([0.25], np.float32)})["OUT"] == pytest.approx(0.5)
        both = tmp_path / "both.pem"
        both.write_bytes(Path(certificate).read_bytes() + Path(key).read_bytes())
        with Client(address, transport=Transport(tls=Tls(known, both))) as client:
            assert client.live()
        for stranger in (Tls(known), Tls(ours.certificate, certificate, key)):
            with Client(address, transport=Transport(tls=stranger)) as client, pytest.raises(ServerUnavailableError):
                client.infer("sleeper", {"IN": np.array([0.25], np.float32)})


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_files_that_are_no_certificates_are_refused(tmp_path: Path, scheme: str) -> None:
    ours = Authority(tmp_path / "ours", "clients")
    certificate, key = ours.issue("client")
    text, encrypted = tmp_path / "text.pem", tmp_path / "encrypted.pem"
    text.write_text("no certificate")
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    async def ask(transport: Transport) -> None:
        client = AsyncClient(f"{scheme}://localhost:1", transport=transport)
        for _ in range(2):  # nor does the second call find anything else
            with pytest.raises(InvalidInputError, match="certificate"):
                await client.live()
        await client.close()

    for tls in (
        Tls(tmp_path / "nothing.pem"),
        Tls(text),
        Tls(certificate=certificate),
        Tls(certificate=text, key=key),
        Tls(certificate=certificate, key=encrypted),
        Tls(key=key),
    ):
        with pytest.raises(InvalidInputError, match="certificate"):
            Client(f"{scheme}://localhost:1", transport=Transport(tls=tls))
        asyncio.run(ask(Transport(tls=tls)))


def test_behind_the_proxy_that_comes_along(
    server: RunningServer, tmp_path: Path, pixels: np.ndarray, images: list[bytes], right: list[float]
) -> None:
    """It keeps back the configuration: the largest batch is learned from a refusal."""
    with nginx(tmp_path, server.http, server.grpc) as front:
        for address in (f"https://{front.https}", f"grpcs://{front.grpc}"):
            with Client(address, transport=Transport(tls=Tls(front.authority.certificate))) as client:
                assert client.classify(images[0]).score == pytest.approx(right[0], abs=1e-4)
                assert client.infer(CLASSIFIER, {"pixels": pixels})["probabilities"].shape == (150, 10)
                assert client.metadata(CLASSIFIER).max_batch_size == 64
                with pytest.raises(AccessDeniedError):
                    client.statistics()

            async def ask(address: str = address) -> float:
                async with AsyncClient(address, transport=Transport(tls=Tls(front.authority.certificate))) as client:
                    return (await client.classify(images[0])).score

            assert asyncio.run(ask()) == pytest.approx(right[0], abs=1e-4)


@contextmanager
def forward_proxy(folder: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """A real forward proxy: its address, and its log."""
    port, log = folder / "port", folder / "proxy.log"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", port),
            *("--num-workers", "1", "--num-acceptors", "1", "--log-file", log, "--log-format", "%(message)s", *options),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: port.exists() and port.read_text().strip().isdigit(), 20)
        yield f"127.0.0.1:{port.read_text().strip()}", log
    finally:
        process.terminate()
        process.wait(10)


def test_through_a_forward_proxy(
    server: RunningServer, tmp_path: Path, images: list[bytes], right: list[float]
) -> None:
    """With and without TLS, with a password or without, which is refused."""

    async def ask(url: str, transport: Transport) -> float:
        async with AsyncClient(url, transport=transport) as client:
            return (await client.classify(images[0])).score

    with (
        forward_proxy(tmp_path, "--basic-auth", "somebody:s3cret/") as (proxy, log),
        nginx(tmp_path / "nginx", server.http, server.grpc) as front,
    ):
        hosts = {"http": server.http, "grpc": server.grpc, "https": front.https, "grpcs": front.grpc}
        for scheme, host in hosts.items():
            url = f"{scheme}://{host}"
            tls = Tls(front.authority.certificate) if scheme.endswith("s") else Tls()
            known = Transport(tls=tls, proxy=f"http://somebody:s3cret%2F@{proxy}")
            with Client(url, transport=known) as client:
                assert client.classify(images[0]).score == pytest.approx(right[0], abs=1e-4)
                assert client.classify(images[1]).score == pytest.approx(right[1], abs=1e-4)
            assert asyncio.run(ask(url, known)) == pytest.approx(right[0], abs=1e-4)
            wait_for(lambda host=host: log.read_text().count(host) == 2)  # type: ignore[misc]
            stranger, refused = Transport(tls=tls, proxy=f"http://{proxy}"), r"407|Proxy Authentication Required"
            with Client(url, transport=stranger) as client, pytest.raises(AccessDeniedError, match=refused):
                client.classify(images[0])
            with pytest.raises(AccessDeniedError, match=refused):
                asyncio.run(ask(url, stranger))


def test_the_environments_proxy_is_not_asked_for_a_server_on_this_machine(
    server: RunningServer, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any other it is, but for what `no_proxy` names: tests/deploy/test_direct.py."""
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("no_proxy", "")
    with Client(f"http://{server.http}") as client:
        assert client.classify(images[0])
    with pytest.raises(InvalidInputError, match="invalid proxy URL"):
        Client(f"http://{server.http}", transport=Transport(proxy="socks5://localhost:1080"))


def test_a_call_is_a_span_and_the_server_hears_of_its_trace(
    server: RunningServer, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    sent: list[bytes] = []
    with tcp_proxy(server.http) as between, Client(f"http://{between.address}") as client:
        between.see = sent.append
        client.classify(images[0])
    [span] = exporter.get_finished_spans()
    assert (span.name, span.kind) == (f"infer {FAMILY}", trace.SpanKind.CLIENT)
    assert f"traceparent: 00-{span.context.trace_id:032x}-{span.context.span_id:016x}-".encode() in b"".join(sent)


def test_servers_share_the_load_and_one_that_is_gone_costs_nothing(
    server: RunningServer, images: list[bytes], right: list[float]
) -> None:
    with tcp_proxy(server.grpc) as one, tcp_proxy(server.http) as other:
        nobody = f"grpc://127.0.0.1:{free_ports(1)[0]}"
        with Client(nobody, f"grpc://{one.address}", f"http://{other.address}") as client:
            outcomes = list(client.classify_many(images * 4, batch_size=1))
        scores = [outcome.score for outcome in outcomes if isinstance(outcome, Prediction)]
        assert scores == pytest.approx(right * 4, abs=1e-4)
        assert one.connections and other.connections
