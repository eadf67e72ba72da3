"""Whether the server that is up here is ready: what the images' HEALTHCHECK asks, wherever that server listens.

  python -m deploy.triton.health     exits with 0 if it is, else with 1, and says why

A curl of localhost:8000 would ask the wrong one after `up --http-port`, a proxy where one is set for all containers,
and nobody in an image that has no curl.
"""

import sys
from pathlib import Path

from deploy.errors import AccessError
from deploy.neighbours import direct
from deploy.triton import state

_TIMEOUT_S = 2


def main() -> int:
    """Ask the server that was written down last; return 0 only if it is ready."""
    try:
        running = state.recorded()
    except AccessError as error:
        print(error)
        return 1
    if running is None:
        print("no server was started, or it has been stopped")
        return 1
    url = f"{running.http_url}/v2/health/ready"
    try:
        if running.http_socket:
            _ask(Path(running.http_socket))
        else:
            direct.open_url(url, _TIMEOUT_S).close()
    except OSError as error:  # HTTPError, with Triton's 400, is one
        print(f"{url}: {error} ({running.phase})")
        return 1
    print(f"{url}: ready")
    return 0


def _ask(path: Path) -> None:
    connection = direct.UnixConnection(path, _TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/ready")
        if (status := connection.getresponse().status) != 200:
            raise OSError(f"HTTP status {status}")
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
