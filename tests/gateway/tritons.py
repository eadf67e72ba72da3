"""Real Tritons behind a gateway, over TCP and a Unix socket, with models whose answers tell what they were asked."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.triton import environment
from gateway.triton.address import Address
from tests.conftest import wait_for
from tests.deploy.conftest import write_model
from tests.deploy.echoes import write_echoes
from tests.deploy.tiny_models import serving

# Fails where its input is below zero, else answers with it: a model that is broken for some requests.
FAILING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()) for request in requests]

    def respond(self, given):
        if given.min() < 0:
            raise RuntimeError("it is broken")
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", given)])
"""
# Answers with the sum of what came in the same sequence, by the id that Triton has of it.
SUMMING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        given, which = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("IN", "ID"))
        self.sums[which.flat[0]] = self.sums.get(which.flat[0], 0) + given
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", self.sums[which.flat[0]])])
"""
_SEQUENCES = """
sequence_batching {
  control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 } }
  oldest { max_candidate_sequences: 8 }
}
"""
_QUEUE = """
dynamic_batching { priority_levels: 3 default_priority_level: 2 default_queue_policy { allow_timeout_override: true } }
"""


@dataclass(frozen=True)
class Running:
    """A Triton that runs.

    Attributes:
        begun: A file that the sleeper makes when it has begun with a request.
    """

    address: Address
    process: psutil.Process
    repository: Path

    @property
    def begun(self) -> Path:
        return self.repository / "sleeper" / "begun"

    def kill(self) -> None:
        """As a crash does; its workers too, which would outlive it."""
        for each in [self.process, *self.process.children()]:
            each.kill()


def repository(folder: Path) -> Path:
    """A model repository: pixels and words echo, `sleeper` sleeps, `failing` fails, `queued` sleeps behind a queue,
    `summing` sums up what comes in a sequence."""
    write_echoes(folder)
    write_model(folder, "sleeper")
    write_model(folder, "failing", FAILING)
    write_model(folder, "queued", max_batch_size=1, more=_QUEUE)
    write_model(folder, "summing", SUMMING, max_batch_size=1, more=_SEQUENCES)
    return folder


@contextmanager
def triton(models: Path, http: str = "127.0.0.1", options: Sequence[str] = ()) -> Iterator[Running]:
    """One that serves this folder."""
    with serving(models, environment.pip_installed(print), *options, http=http) as server:
        [port] = [word.partition("=")[2] for word in server.process.cmdline() if word.startswith("--http-port=")]
        address = Address.of(http if http.startswith("unix:") else f"{http}:{port}")
        wait_for(lambda: _listens(address), 20)  # gRPC, which `serving` waits for, is there before HTTP
        yield Running(address, server.process, models)


def _listens(address: Address) -> bool:
    with socket.socket(socket.AF_UNIX if address.path else socket.AF_INET) as probe:
        return probe.connect_ex(address.path or (address.host, address.port)) == 0
