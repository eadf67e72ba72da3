"""Triton's own TLS and mutual TLS on the gRPC port, as `deploy up` starts it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tests.conftest import Workspace, free_ports, port_options
from tests.deploy.certificates import Authority
from tests.deploy.conftest import write_model


@dataclass(frozen=True)
class Secured:
    """A server with TLS, and who issued its certificate."""

    address: str
    authority: Authority


@contextmanager
def secured(folder: Path, *options: str | Path) -> Iterator[Secured]:
    workspace, authority = Workspace(folder), Authority(folder / "certs")
    write_model(workspace.repository, "sleeper")
    certificate, key = authority.issue("server")
    tls = ("--grpc-tls-cert", certificate, "--grpc-tls-key", key, *options)
    ports = port_options(free_ports())
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *ports, *tls)
    try:
        _, port = json.loads(workspace.must("deploy", "status", "--json"))["grpc"].split(":")
        yield Secured(f"localhost:{port}", authority)
    finally:
        workspace.down()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who issues the certificates of clients."""
    return Authority(tmp_path_factory.mktemp("clients"), "clients")


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, clients: Authority) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("mutual"), "--grpc-client-ca", clients.certificate) as server:
        yield server


def doubled(server: Secured, trusted: Authority | None, identity: tuple[Path, Path] | None = None) -> float:
    """What the server answers to 0.001, which its model doubles, over TLS unless nobody is `trusted`."""
    files = {"root_certificates": str(trusted.certificate)} if trusted else {}
    if identity:
        files |= {"certificate_chain": str(identity[0]), "private_key": str(identity[1])}
    tensor = InferInput("IN", [1], "FP32")
    tensor.set_data_from_numpy(np.array([0.001], np.float32))
    with InferenceServerClient(server.address, ssl=trusted is not None, **files) as client:
        return float(client.infer("sleeper", [tensor], client_timeout=10).as_numpy("OUT")[0])


def test_a_client_that_trusts_the_authority_gets_the_right_answer(tls: Secured) -> None:
    assert doubled(tls, tls.authority) == pytest.approx(0.002)


def test_plain_text_is_refused(tls: Secured) -> None:
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        doubled(tls, None)


def test_a_client_that_trusts_another_authority_refuses_the_server(tls: Secured, clients: Authority) -> None:
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        doubled(tls, clients)


def test_with_mutual_tls_a_client_with_a_certificate_gets_the_right_answer(mutual: Secured, clients: Authority) -> None:
    assert doubled(mutual, mutual.authority, clients.issue("client")) == pytest.approx(0.002)


def test_with_mutual_tls_no_other_client_is_served(mutual: Secured) -> None:
    """One without a certificate, one with the server's own authority's, and one without TLS."""
    for trusted, identity in (
        (mutual.authority, None),
        (mutual.authority, mutual.authority.issue("stranger")),
        (None, None),
    ):
        with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
            doubled(mutual, trusted, identity)


@pytest.mark.heavy
def test_a_key_that_is_not_the_certificates_is_named_as_the_reason(tmp_path: Path) -> None:
    workspace, authority = Workspace(tmp_path), Authority(tmp_path / "certs")
    write_model(workspace.repository, "sleeper")
    (certificate, _), (_, key) = authority.issue("server"), authority.issue("other")
    tls = ("--grpc-tls-cert", certificate, "--grpc-tls-key", key)
    done = workspace.run("deploy", "up", "--repository", workspace.repository, *port_options(free_ports()), *tls)
    assert done.returncode == 1
    assert "Invalid private key" in done.stderr
