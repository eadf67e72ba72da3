"""The preprocessor by itself, on the real server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.conftest import RunningServer, Workspace, free_ports, port_options
from tests.workspace import PREPROCESS

Preprocess = Callable[..., NDArray[np.uint8]]


def preprocess_on(client: tritonclient.grpc.InferenceServerClient, *images: bytes, request_id: str = "") -> NDArray:
    """The pixels [N, 28, 28] of images that are sent as one request; again while a busy machine sheds it."""
    tensor = tritonclient.grpc.InferInput("image", [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
    while True:
        try:
            return client.infer(PREPROCESS, [tensor], request_id=request_id).as_numpy("pixels")[:, 0]
        except InferenceServerException as error:
            if "Request timeout expired" not in error.message():
                raise


def workers_of(server: RunningServer) -> set[psutil.Process]:
    """The processes that run the preprocessor."""
    processes = psutil.Process(server.pid).children(recursive=True)
    return {process for process in processes if PREPROCESS in " ".join(process.cmdline())}


@pytest.fixture(scope="session")
def server(shared: Workspace, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real Triton that serves the release with each step as a model of its own, as on a GPU."""
    own = Workspace(tmp_path_factory.mktemp("steps"))
    ports = ("--drain", "3", *port_options(free_ports()))
    own.must("deploy", "up", "--detach", "--ensembles", "--repository", shared.repository, *ports)
    status = json.loads(own.must("deploy", "status", "--json"))
    yield RunningServer(own, status["http"], status["grpc"], status["pid"])
    own.down()


@pytest.fixture(scope="module")
def preprocess(server: RunningServer) -> Iterator[Preprocess]:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        yield lambda *images, **options: preprocess_on(client, *images, **options)
