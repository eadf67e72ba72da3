"""A forward proxy that writes down what it is sent, and refuses."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class RefusingProxy:
    """One that listens."""

    address: str  # HOST:PORT
    seen: list[bytes] = field(default_factory=list)


@contextmanager
def refusing_proxy() -> Iterator[RefusingProxy]:
    """Listen, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = RefusingProxy(f"127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2)
                    found.seen.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)
