# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# What it imports is in an environment of its own.
"""LitServe: requests are read, batched and computed in workers, apart from the processes that speak HTTP.

https://lightning.ai/docs/litserve/features/batching and /features/performance
"""

import sys
from typing import Annotated, Any

import litserve as ls
from fastapi import Body, Response
from work import BINARY, Work, settings

SETTINGS = settings()


class Api(ls.LitAPI):
    """The task behind LitServe's four steps."""

    def setup(self, device: str) -> None:
        """Load the task in a worker."""
        self.work = Work.of_environment()

    def decode_request(self, request: Annotated[bytes, Body(media_type=BINARY)]) -> Any:
        """Read one request."""
        return self.work.kind.read(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Leave stacking to the task, which pads, too."""
        return inputs

    def predict(self, x: Any) -> Any:
        """Answer one row, or a batch of them."""
        return self.work.run(x) if self.max_batch_size > 1 else self.work.run([x])[0]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Give each request its answer."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Put an answer into HTTP."""
        return Response(output, media_type=self.work.media_type)


if __name__ == "__main__":
    server = ls.LitServer(
        Api(max_batch_size=SETTINGS["max_batch_size"], batch_timeout=SETTINGS["batch_timeout"]),
        accelerator="cpu",
        workers_per_device=SETTINGS["workers_per_device"],
        fast_queue=SETTINGS["fast_queue"],
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=SETTINGS["num_api_servers"],
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
