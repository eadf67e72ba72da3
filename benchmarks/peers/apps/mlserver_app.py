# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# What it imports is in an environment of its own.
"""MLServer: a runtime of one's own behind its adaptive batching and its pool of inference workers.

https://mlserver.readthedocs.io/en/latest/user-guide/adaptive-batching.html and /parallel-inference.html
Its REST interface takes JSON alone, so bytes travel in base64.
"""

import asyncio
import base64
import socket
import sys
from pathlib import Path
from tempfile import gettempdir

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import install_uvloop_event_loop
from work import BINARY, Work, settings

SETTINGS = settings()


class Task(MLModel):
    """The task as a runtime."""

    async def load(self) -> bool:
        """Load the task in a worker."""
        self.work = Work.of_environment()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer the samples of a request, or of several that were put together."""
        given = payload.inputs[0].data
        answers = self.work.many([base64.b64decode(body) for body in getattr(given, "root", given)])
        if self.work.media_type == BINARY:
            answers = [base64.b64encode(answer) for answer in answers]
        output = ResponseOutput(
            name="answer", shape=[len(answers), 1], datatype="BYTES", data=[answer.decode() for answer in answers]
        )
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _serve(port: int) -> None:
    server = MLServer(
        Settings(
            host="127.0.0.1",
            http_port=port,
            grpc_port=_free_port(),
            metrics_endpoint=None,
            metrics_dir=str(Path(gettempdir(), "metrics")),
            parallel_workers=SETTINGS["parallel_workers"],
            debug=False,
        )
    )
    await server.start(
        [
            ModelSettings(
                name="task",
                implementation=Task,
                max_batch_size=SETTINGS["max_batch_size"],
                max_batch_time=SETTINGS["max_batch_time"],
            )
        ]
    )


if __name__ == "__main__":
    import mlserver_app  # its class is imported by the workers under this name

    install_uvloop_event_loop()
    asyncio.run(mlserver_app._serve(int(sys.argv[1])))
