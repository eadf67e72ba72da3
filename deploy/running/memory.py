"""How much memory a server and its workers may take: a cgroup's limit where one can be made, else one on each process.

In a cgroup the kernel ends the process that takes most, the one that eats memory, and the others go on. Without
one, each process has a limit of its own (RLIMIT_DATA): what asks for more is refused it, in Python as a MemoryError.
"""

import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_MOUNTS, _OWN = Path("/proc/self/mounts"), Path("/proc/self/cgroup")
_LIMIT_FILES = {"cgroup2": ("memory.max", "memory.swap.max"), "cgroup": ("memory.limit_in_bytes",)}
_KILL_FILES = {"cgroup2": "memory.events", "cgroup": "memory.oom_control"}


@dataclass(frozen=True)
class Limit:
    """A limit that is in force."""

    size_bytes: int
    cgroup: Path | None  # None: each process has it for itself
    kind: str = "cgroup2"  # or "cgroup", which is version 1

    @classmethod
    def of(cls, pid: int, size_bytes: int) -> Self:
        """Limit a process, and all that it starts from now on.

        Raises:
            OSError, ValueError: it can be limited in no way.
        """
        for kind, parent in _places():
            with suppress(OSError):
                return cls(size_bytes, _make(kind, parent / f"triton-{pid}", pid, size_bytes), kind)
        resource.prlimit(pid, resource.RLIMIT_DATA, (size_bytes, size_bytes))
        return cls(size_bytes, None)

    def __str__(self) -> str:
        size = f"{self.size_bytes / 2**20:,.0f} MiB"
        if self.cgroup:
            return f"{size} for the server and its workers together (cgroup {self.cgroup})"
        return f"{size} for each process of the server (RLIMIT_DATA): no cgroup can be made here"

    def kills(self) -> int:
        """Return how many processes the kernel has ended at this limit."""
        if self.cgroup is None:
            return 0
        with suppress(OSError, ValueError):
            lines = (line.split() for line in (self.cgroup / _KILL_FILES[self.kind]).read_text().splitlines())
            return sum(int(value) for name, value in lines if name == "oom_kill")
        return 0

    def remove(self) -> None:
        """Remove the cgroup, whose processes have ended."""
        if self.cgroup:
            with suppress(OSError):  # one has not: the kernel removes nothing that is in use
                self.cgroup.rmdir()


def _places() -> Iterator[tuple[str, Path]]:
    """Yield where a cgroup may be made: below our own, or below the mount, where a container sees only that."""
    own = {}
    for line in _OWN.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    for line in _MOUNTS.read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        controllers = "memory" if kind == "cgroup" else ""
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            mount = Path(place)
            for parent in dict.fromkeys((mount / own.get(controllers, ""), mount)):
                if parent.is_dir():
                    yield kind, parent


def _make(kind: str, cgroup: Path, pid: int, size_bytes: int) -> Path:
    cgroup.mkdir()
    try:
        limit, *swap = _LIMIT_FILES[kind]
        if not (cgroup / limit).exists():  # version 2 has it once the cgroup above hands it on
            (cgroup.parent / "cgroup.subtree_control").write_text("+memory")
        (cgroup / limit).write_text(str(size_bytes))
        for file in swap:
            with suppress(OSError):  # a kernel without swap
                (cgroup / file).write_text("0")
        (cgroup / "cgroup.procs").write_text(str(pid))
    except OSError:
        cgroup.rmdir()
        raise
    return cgroup
