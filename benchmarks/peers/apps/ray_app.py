# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# What it imports is in an environment of its own.
"""Ray Serve: replicas behind its proxy, each with dynamic batching.

https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html and /performance.html
"""

import os
import signal
import sys
from tempfile import gettempdir

from work import Work, settings

SETTINGS = settings()
# What the performance guide has for throughput. Ray reads it when it is imported.
os.environ |= {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
if SETTINGS["haproxy"]:
    os.environ |= {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{gettempdir()}/haproxy/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{gettempdir()}/haproxy/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{gettempdir()}/haproxy",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{gettempdir()}/haproxy/server-state",
    }

import ray  # noqa: E402  # see above
from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402


@serve.deployment(
    num_replicas=SETTINGS["replicas"],
    max_ongoing_requests=SETTINGS["max_ongoing_requests"],
    ray_actor_options={"num_cpus": 0.1},
    logging_config={"enable_access_log": False, "log_level": "WARNING"},
)
class Task:
    """The task behind Ray Serve's batching."""

    def __init__(self) -> None:
        """Load the task in a replica."""
        self.work = Work.of_environment()

    @serve.batch(max_batch_size=SETTINGS["max_batch_size"], batch_wait_timeout_s=SETTINGS["batch_wait_timeout_s"])
    async def many(self, bodies: list[bytes]) -> list[bytes]:
        """Answer a batch."""
        return self.work.many(bodies)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        body = await request.body()
        answer = await self.many(body) if SETTINGS["max_batch_size"] > 1 else self.work.one(body)
        return Response(answer, media_type=self.work.media_type)


if __name__ == "__main__":
    ray.init(include_dashboard=False, logging_level="warning", configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Task.bind(), route_prefix="/predict")
    print("Ray Serve is started, all of it", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
