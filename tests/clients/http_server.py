"""A server that sends what it is told, whether that is HTTP or not."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[socket.socket], object]


@contextmanager
def server(handle: Handler) -> Iterator[tuple[int, list[socket.socket]]]:
    """A port behind which each connection is handled so, and the connections."""
    connections: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            handle(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], connections
        listener.shutdown(socket.SHUT_RDWR)


def answering(*pieces: bytes, pause_s: float = 0.02) -> Handler:
    """The same to every request, in pieces that arrive one by one."""

    def handle(connection: socket.socket) -> None:
        while connection.recv(65536):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)

    return handle


def answer_of(status: int, body: bytes, *headers: bytes) -> bytes:
    head = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %d x\r\n%bContent-Length: %d\r\n\r\n%b" % (status, head, len(body), body)
