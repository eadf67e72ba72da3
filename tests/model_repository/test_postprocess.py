"""Labels and scores, best first; a request without an answer fails alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.conftest import RunningServer
from tests.workspace import FAMILY, POSTPROCESS
from training import families

LABELS = families.spec(FAMILY).labels


def top(client: tritonclient.grpc.InferenceServerClient, probabilities: NDArray[np.float32]) -> NDArray[np.object_]:
    tensor = tritonclient.grpc.InferInput("probabilities", list(probabilities.shape), "FP32")
    tensor.set_data_from_numpy(probabilities)
    return client.infer(POSTPROCESS, [tensor]).as_numpy("top_labels")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_the_networks_failure_and_fails_no_neighbour(server: RunningServer, value: float) -> None:
    """An INTERNAL error: the image that was sent may be a good one."""
    good = np.roll(np.linspace(0, 0.2, 10, dtype=np.float32), 3)[None]
    bad = np.repeat(good, 2, axis=0)
    bad[1, 4] = value
    best = [LABELS[i].encode() for i in np.argsort(-good[0])[:3]]
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client, ThreadPoolExecutor(16) as pool:
        sent = [(pool.submit(top, client, bad), pool.submit(top, client, good)) for _ in range(50)]
        for failed, answered in sent:
            error = failed.exception()
            assert isinstance(error, InferenceServerException)
            assert error.status() == "StatusCode.INTERNAL"
            assert "image 1 of 2, from 0: the network gave no finite numbers" in error.message()
            assert answered.result()[0].tolist() == best
