"""Where a Triton listens: over TCP, or on a Unix socket, where only who may enter its folder can reach it."""

from dataclasses import dataclass
from typing import Self

from contracts.errors import ProjectError

PORT = 8000


class AddressError(ProjectError):
    """What was given is no address of a Triton."""


@dataclass(frozen=True)
class Address:
    """Of a Triton's HTTP."""

    host: str = ""
    port: int = 0
    path: str = ""  # of a Unix socket; then there is no host

    @classmethod
    def of(cls, text: str) -> Self:
        """Read `HOST:PORT`, `http://HOST:PORT`, `[IPv6]:PORT` or `unix:/path`.

        Raises:
            AddressError: it is none of these.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path.startswith("/"):
                raise _error(text)
            return cls(path=path)
        given = text.removeprefix("http://").rstrip("/")
        host, separator, port = given.rpartition(":")
        if not separator or given.endswith("]"):
            host, port = given, str(PORT)
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if (
            not bare
            or not port.isdecimal()
            or not 0 < int(port) < 65536
            or set(host) & set("/@ ")
            or (":" in host) != (bare != host)
        ):
            raise _error(text)
        return cls(bare, int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """Return what HTTP's Host says."""
        return "localhost" if self.path else str(self)


def _error(text: str) -> AddressError:
    return AddressError(f"{text!r} is no address of a Triton", hint="HOST:PORT, http://HOST:PORT or unix:/path")
