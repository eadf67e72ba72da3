"""Many requests on few connections, sent without waiting for the answers to those before."""

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import grpc

from tests.deploy.echoes import LENGTH, Answer, Front, answer, call_at_once
from tests.deploy.mutants import Mutant

_AT_ONCE = 50
_SIZE = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADER_SIZE = re.compile(rb"\r\n" + LENGTH.encode() + rb": *(\d+)", re.IGNORECASE)


def over_http(front: Front, sent: Sequence[Mutant], *, tls: bool = True) -> Iterator[tuple[Mutant, Answer]]:
    """Yield each request with its answer. Where nginx closes the connection, the next ones go on another."""
    done = 0
    while done < len(sent):
        with _connection(front, tls) as connection:
            reader = connection.makefile("rb")
            while some := sent[done : done + _AT_ONCE]:
                connection.sendall(b"".join(map(_request, some)))
                for mutant in some:
                    if (told := _response(reader)) is None:
                        break
                    yield mutant, told[0]
                    done += 1
                    if told[1]:
                        break
                else:
                    continue
                break


def over_grpc(front: Front, sent: Sequence[Mutant]) -> Iterator[tuple[Mutant, Answer]]:
    """Yield each request with its answer."""
    trusted = grpc.ssl_channel_credentials(front.proxy.authority.certificate.read_bytes())
    with grpc.secure_channel(front.proxy.grpc, trusted) as channel:
        for start in range(0, len(sent), _AT_ONCE):
            some = sent[start : start + _AT_ONCE]
            yield from zip(some, call_at_once(channel, [mutant.body for mutant in some]), strict=True)


@contextmanager
def _connection(front: Front, tls: bool) -> Iterator[socket.socket]:
    with socket.create_connection(("localhost", front.proxy.https_port), 30) as plain:
        if not tls:
            yield plain
            return
        context = ssl.create_default_context(cafile=front.proxy.authority.certificate)
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            yield secure


def _request(mutant: Mutant) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in mutant.headers.items())
    line = f"POST /v2/models/{mutant.model}/infer HTTP/1.1\r\nHost: localhost\r\n"
    return f"{line}Content-Length: {len(mutant.body)}\r\n{headers}\r\n".encode() + mutant.body


def _response(reader: BinaryIO) -> tuple[Answer, bool] | None:
    """The next answer, and whether it is the last on this connection; None if there is none."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (line := reader.readline()):
            return None
        head += line
    size, header_size = _SIZE.search(head), _HEADER_SIZE.search(head)
    content = reader.read(int(size[1]) if size else 0)
    told = answer(int(head.split()[1]), content or b"", int(header_size[1]) if header_size else len(content or b""))
    return told, b"\r\nConnection: close" in head
