"""Golden requests for a server in a container, and how many of the answers are right."""

from pathlib import Path

from clients import Client
from contracts import golden
from tests.images.containers import Container


def right_answers(container: Container, repository: Path, model: str, rounds: int = 1) -> tuple[int, int]:
    """Send the golden requests of `model` over gRPC and HTTP; (how many were answered rightly, how many sent)."""
    requests = golden.find(repository, model)
    right = sent = 0
    for url in (f"grpc://{container.grpc}", f"http://{container.http}"):
        with Client(url, timeout_s=30) as client:
            for request in requests * rounds:
                sent += 1
                right += request.fault(client.infer(model, request.inputs)) is None
    return right, sent
