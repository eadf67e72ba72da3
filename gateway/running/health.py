"""Whether the gateway of this container answers, where its settings say it listens: its image's health check.

python -m gateway.running.health
"""

import ssl
import sys
import urllib.request

from contracts.errors import ProjectError
from contracts.running.record import asked_at
from gateway.settings import sources

_TIMEOUT_S = 4


def main() -> int:
    """Return 0 if it is live."""
    try:
        listen = sources.read().settings.listen
    except ProjectError as error:
        print(error)
        return 1
    scheme = "https" if listen.certificate else "http"
    url = f"{scheme}://{asked_at(listen.host)}:{listen.port}/livez"
    # Of itself it knows the certificate: it is nobody else's to be checked.
    context = ssl._create_unverified_context() if listen.certificate else None  # noqa: S323
    handlers = [urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])]
    try:
        urllib.request.build_opener(*handlers).open(url, timeout=_TIMEOUT_S).close()
    except OSError as error:
        print(f"{url}: {error}")
        return 1
    print(f"{url}: live")
    return 0


if __name__ == "__main__":
    sys.exit(main())
