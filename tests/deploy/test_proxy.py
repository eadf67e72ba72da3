"""What is open to the network behind the shipped nginx configuration: inference, metadata and health, and no more."""

import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from deploy.triton.settings import ADMIN_HEADER
from tests.conftest import MODEL, RunningServer
from tests.deploy.certificates import Authority
from tests.deploy.nginx import NOBODY_HOME, Proxy, ask, proxy
from tests.deploy.test_security import ATTEMPTS, GRPC_HEADER, key_of

PROTOCOLS = ["http", "grpc"]
NOT_OPEN = "this API is not open to the network: only health, metadata and infer are"
TOO_LARGE = "the request is too large, or its JSON is: tensors belong in binary, JSON may have 9999 bytes"
PIXELS = np.arange(784, dtype=np.uint8).reshape(1, 1, 28, 28)


@pytest.fixture(scope="module")
def front(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """nginx in front of the session's Triton."""
    with proxy(tmp_path_factory.mktemp("proxy"), server.http, server.grpc) as running:
        yield running


def client_of(front: Proxy, protocol: str, identity: tuple[Path, Path] | None = None) -> Any:
    certificate, key = identity or (None, None)
    if protocol == "http":
        tls: dict[str, Any] = {"ca_certs": front.authority.certificate}
        tls |= {"certfile": certificate, "keyfile": key} if identity else {}
        return tritonclient.http.InferenceServerClient(front.https, ssl=True, ssl_options=tls)
    files = {"root_certificates": front.authority.certificate, "certificate_chain": certificate, "private_key": key}
    return tritonclient.grpc.InferenceServerClient(front.grpc, ssl=True, **{k: str(v) for k, v in files.items() if v})


def infer(client: Any, pixels: np.ndarray[Any, Any] = PIXELS, **options: str) -> np.ndarray[Any, Any]:
    """The probabilities that the client's server gives."""
    triton = tritonclient.http if isinstance(client, tritonclient.http.InferenceServerClient) else tritonclient.grpc
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    answer: np.ndarray[Any, Any] = client.infer(MODEL, [tensor], **options).as_numpy("probabilities")
    return answer


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_inference_through_it_gives_tritons_own_answer(server: RunningServer, front: Proxy, protocol: str) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as direct, client_of(front, protocol) as client:
        expected = infer(direct)
        assert expected.shape == (1, 10)
        assert expected.sum() == pytest.approx(1, abs=1e-3)
        np.testing.assert_array_equal(infer(client), expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metadata_and_health_pass(front: Proxy, protocol: str) -> None:
    with client_of(front, protocol) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1")
        assert client.get_server_metadata() and client.get_model_metadata(MODEL, "1")


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_admin_apis_are_refused_even_with_the_admin_key(
    server: RunningServer, front: Proxy, protocol: str, attempt: str
) -> None:
    key = key_of(server.workspace)
    with client_of(front, protocol) as client, pytest.raises(InferenceServerException, match=NOT_OPEN):
        ATTEMPTS[attempt](client, {ADMIN_HEADER: key, GRPC_HEADER: key})


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/v2/models/stats",
        f"/v2/models/{MODEL}/stats",
        f"/v2/models/{MODEL}/config",
        f"/v2/models/{MODEL}/../../repository/index",
        "/v2/systemsharedmemory/region/..%2f..%2fmodels/status",
        "/v2/repository/models/..%2f..%2fmodels/load",
        f"//v2/models/{MODEL}",
        f"/v2/models/{MODEL}/generate",
        f"/v2/models/{MODEL}/trace/setting",
    ],
)
def test_whatever_else_is_asked_for_is_refused(front: Proxy, path: str) -> None:
    """A path that is one thing when decoded and another to Triton, too."""
    for method in ("GET", "POST"):
        assert ask(front.connect(), method=method, path=path) == (403, NOT_OPEN)


def test_no_other_method_of_tritons_grpc_service_is_open(server: RunningServer, front: Proxy) -> None:
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    is_open = {f"{what}{which}" for what in ("Server", "Model") for which in ("Live", "Ready", "Metadata")}
    closed = set(methods) - is_open - {"ModelInfer"}
    assert {"RepositoryModelLoad", "ModelStatistics", "ModelConfig", "LogSettings", "ModelStreamInfer"} <= closed
    trusted = grpc.ssl_channel_credentials(front.authority.certificate.read_bytes())
    with grpc.secure_channel(front.grpc, trusted) as channel:
        for name in closed:
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", metadata=[(GRPC_HEADER, key_of(server.workspace))], timeout=10)
            assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, NOT_OPEN)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_over_the_limit_is_refused_with_the_reason_and_the_next_one_answered(
    front: Proxy, protocol: str
) -> None:
    with client_of(front, protocol) as client:
        with pytest.raises(InferenceServerException, match=TOO_LARGE) as refused:
            infer(client, np.zeros((43_000, 1, 28, 28), np.uint8))
        assert refused.value.status() in ("413", "StatusCode.RESOURCE_EXHAUSTED")
        assert infer(client).shape == (1, 10)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_compressed_request_is_refused(front: Proxy, protocol: str) -> None:
    """Triton would inflate it without a limit."""
    option = "request_compression_algorithm" if protocol == "http" else "compression_algorithm"
    with client_of(front, protocol) as client:
        with pytest.raises(InferenceServerException, match="compressed requests are not accepted") as refused:
            infer(client, PIXELS, **{option: "gzip"})
        assert refused.value.status() in ("415", "StatusCode.UNIMPLEMENTED")


def test_a_request_that_would_end_triton_does_not_reach_it(server: RunningServer, front: Proxy) -> None:
    """Each of these, sent to Triton 2.51 itself, overflows its stack."""
    connection, chunked = front.connect(), {"Transfer-Encoding": "chunked"}
    brackets = (
        b'{"inputs":[{"name":"pixels","datatype":"UINT8","shape":[1,1,28,28],"data":' + b"[" * 50_000 + b"]" * 50_000
    )
    assert ask(connection, brackets) == (413, TOO_LARGE)
    assert ask(front.connect(), b"%x\r\n%s\r\n0\r\n\r\n" % (len(brackets), brackets), chunked) == (413, TOO_LARGE)
    claimed = {"Inference-Header-Content-Length": str(len(brackets))}
    assert ask(front.connect(), brackets, claimed) == (413, TOO_LARGE)
    crumbs = b"1\r\n \r\n" * 700_000 + b"0\r\n\r\n"
    crumbled = chunked | {"Inference-Header-Content-Length": "100"}
    assert ask(front.connect(), crumbs, crumbled) == (400, "the JSON of the request is not valid")
    assert psutil.Process(server.pid).is_running()
    with client_of(front, "http") as client:
        assert infer(client).shape == (1, 10)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_a_client_that_trusts_its_authority_is_served(front: Proxy, protocol: str, tmp_path: Path) -> None:
    stranger = Proxy(front.folder, Authority(tmp_path, "stranger"), front.https_port, front.grpc_port)
    with client_of(stranger, protocol) as client, pytest.raises((ssl.SSLError, InferenceServerException)):
        client.get_server_metadata()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_mutual_tls_only_a_client_with_a_certificate_is_served(
    server: RunningServer, protocol: str, tmp_path: Path
) -> None:
    changes = {"# ssl_client_certificate": "ssl_client_certificate", "# ssl_verify_client": "ssl_verify_client"}
    with proxy(tmp_path, server.http, server.grpc, changes) as front:
        with client_of(front, protocol, front.authority.issue("client")) as client:
            assert infer(client).shape == (1, 10)
        for identity in (None, Authority(tmp_path / "other", "other").issue("stranger")):
            with client_of(front, protocol, identity) as client:
                with pytest.raises(InferenceServerException, match="a client certificate") as refused:
                    infer(client)
                assert refused.value.status() in ("401", "StatusCode.UNAUTHENTICATED")


def test_tls_before_1_2_is_refused(front: Proxy) -> None:
    context = ssl.create_default_context(cafile=front.authority.certificate)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        http.client.HTTPSConnection("localhost", front.https_port, context=context).connect()


@pytest.mark.parametrize(("protocol", "status"), [("http", "502"), ("grpc", "StatusCode.UNAVAILABLE")])
def test_without_triton_the_answer_says_so(tmp_path: Path, protocol: str, status: str) -> None:
    with proxy(tmp_path, NOBODY_HOME) as front, client_of(front, protocol) as client:
        with pytest.raises(InferenceServerException, match="Triton does not answer") as refused:
            infer(client)
        assert refused.value.status() == status
