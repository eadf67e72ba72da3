"""Load from Locust, over HTTP, with real images; an answer that is not a label of the model is a failure.

  locust -f benchmarks/locustfile.py --headless -u 16 -t 30s

The host is http://127.0.0.1:8000, where `deploy up` serves; --host http://HOST:PORT names another one. Without
--headless, Locust serves its page with live charts on http://localhost:8089.
"""

import csv
import itertools
from typing import Any

import numpy as np
from locust import FastHttpUser, constant, events, task
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from contracts import layout

MODEL = "fashion"


@events.init.add_listener  # type: ignore[untyped-decorator]  # locust has no types here
def prepare(environment: Any, **_: object) -> None:
    """Build every request body once, so that Locust's time goes into sending them."""
    directory = layout.examples() / MODEL
    if not (directory / "labels.csv").is_file():
        raise SystemExit("there are no images to send; write some: python -m training examples fashion")
    with (directory / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    Classify.labels = {row["label"] for row in rows}
    Classify.bodies = [_body((directory / row["file"]).read_bytes()) for row in rows]


def _body(image: bytes) -> tuple[bytes, int]:
    """Build a request in Triton's binary HTTP form; return it with the length of its JSON header."""
    source = InferInput("image", [1, 1], "BYTES")
    source.set_data_from_numpy(np.array([[image]], dtype=np.object_), binary_data=True)
    wanted = InferRequestedOutput("label", binary_data=True)
    body, header_length = InferenceServerClient.generate_request_body([source], outputs=[wanted])
    return body, header_length


class Classify(FastHttpUser):
    """Sends one image after the other, as fast as the answers come."""

    host = "http://127.0.0.1:8000"
    wait_time = constant(0)
    labels: set[str]
    bodies: list[tuple[bytes, int]]

    def on_start(self) -> None:
        self.turn = itertools.cycle(self.bodies)

    @task
    def classify(self) -> None:
        body, header_length = next(self.turn)
        with self.client.post(
            f"/v2/models/{MODEL}/infer",
            data=body,  # type: ignore[arg-type]  # bytes pass through, its annotation forgot them
            headers={"Inference-Header-Content-Length": str(header_length)},
            name=f"classify ({MODEL})",
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {response.text}")
                return
            try:
                length = int(response.headers["Inference-Header-Content-Length"])
                result = InferenceServerClient.parse_response_body(response.content, header_length=length)
                [[label]] = result.as_numpy("label")
            except (InferenceServerException, KeyError, ValueError, TypeError) as error:
                response.failure(f"not an answer: {error!r}")
                return
            if label.decode() not in self.labels:
                response.failure(f"not a label of the model: {label!r}")
