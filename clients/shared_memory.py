"""Inputs in memory that a server on the same machine reads, instead of in the request.

Worth it for large tensors: what is saved is that bytes are copied into a request, through a socket and out of it again.
See docs/how-to/call.md for from what size on.
"""

import fcntl
import itertools
import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from multiprocessing import shared_memory
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from clients.client import Client
from clients.deadline import Deadline
from clients.errors import DeadlineError, InvalidInputError
from clients.failures import FORGOTTEN_REGION
from clients.request import Place
from clients.tensors import Arrays, datatype_of, strings_content

_FOLDER = Path("/dev/shm")  # noqa: S108
_PREFIX = "clients-"
_NEW_S = 10  # a file this young may be about to be locked
_ALIGNED = 64  # bytes, as a cache line
_numbers = itertools.count()


class SharedMemory:
    """A region that a client's server maps for as long as the block runs. One request at a time goes through it.

    with Client(transport=Transport(admin_key=key)) as client, SharedMemory(client, 64 << 20) as region:
        answer = region.infer("fashion_classifier", {"pixels": pixels})

    What a process that was killed left behind, in /dev/shm or mapped by the server, the next region takes away. A
    server that was started anew is told of the region again.

    Args:
        client: With one server, on this machine, and its admin key: whoever may register memory may read it.
        size_bytes: For all inputs of a request.
        mode: Who may open it. A server that runs as another user, as `deploy up` by root runs as nobody, needs 0o666,
            which lets every user of this machine read it.
    """

    def __init__(self, client: Client, size_bytes: int, mode: int = 0o600) -> None:
        self._client, self._size_bytes, self._mode = client, size_bytes, mode
        self._name = f"{_PREFIX}{os.getpid()}-{time.time_ns()}-{next(_numbers)}"
        self._lock, self._pid = threading.Lock(), os.getpid()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._memory = shared_memory.SharedMemory(self._name, create=True, size=self._size_bytes)
            opened.callback(self._memory.unlink)
            opened.callback(self._memory.close)
            file = os.open(_FOLDER / self._name, os.O_RDWR)
            inner = opened.pop_all()
            opened.callback(os.close, file)  # last: what is not locked may be taken away
            opened.push(inner)
            fcntl.flock(file, fcntl.LOCK_EX)  # for as long as this process lives
            os.fchmod(file, self._mode)
            try:
                os.posix_fallocate(file, 0, self._size_bytes)  # memory that is not there would kill with SIGBUS
            except OSError as error:
                raise InvalidInputError(
                    f"{_FOLDER} has no room for {self._size_bytes:,} bytes: {error.strerror}",
                    hint="a container has 64 MB of it, unless it is given more: --shm-size",
                ) from error
            self._share(self._size_bytes)
            opened.callback(self._share, 0)
            self._remove_stale()  # not before the server is known to share the folder
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._pid:  # in a child it is the parent's
            self._opened.close()

    def infer(self, model: str, inputs: Mapping[str, ArrayLike], **options: Any) -> Arrays:
        """As Client.infer, of at most `max_batch_size` rows.

        Raises:
            InvalidInputError: also if the inputs are larger than the region.
            ClientError: as there.
        """
        if os.getpid() != self._pid:
            raise InvalidInputError("this region is the parent process's", hint="make one of its own here")
        timeout_s = options.pop("timeout_s", None)
        deadline = Deadline.after(self._client.timeout_s if timeout_s is None else timeout_s)
        signature = self._client.signature(model, options.get("version", ""), timeout_s=deadline.remaining_s)
        arrays = signature.checked(inputs)
        memory = self._memory.buf
        assert memory is not None  # it is open
        if not self._lock.acquire(timeout=deadline.remaining_s):
            raise DeadlineError(f"{model}: another request was in the region for {deadline.elapsed_s:.3g} s")
        try:
            places, offset = {}, 0
            for name, array in arrays.items():
                strings = strings_content(array) if datatype_of(array.dtype) == "BYTES" else None
                size_bytes = array.nbytes if strings is None else len(strings)
                if (end := offset + size_bytes) > self._size_bytes:
                    raise InvalidInputError(f"{model}: {name} ends at {end:,} of {self._size_bytes:,} bytes of memory")
                if strings is None:
                    np.ndarray(array.shape, array.dtype, memory, offset)[...] = array
                else:
                    memory[offset:end] = strings
                places[name] = Place(self._name, offset, size_bytes)
                offset = -(-end // _ALIGNED) * _ALIGNED
            try:
                return self._client.infer(model, arrays, places=places, timeout_s=deadline.remaining_s, **options)
            except InvalidInputError as error:
                if FORGOTTEN_REGION not in str(error):
                    raise
                self._share(self._size_bytes)  # the server was started anew
                return self._client.infer(model, arrays, places=places, timeout_s=deadline.remaining_s, **options)
        finally:
            self._lock.release()

    def _share(self, size_bytes: int) -> None:
        self._client.share(self._name, f"/{self._name}", size_bytes)

    def _remove_stale(self) -> None:
        """Have the server forget regions of ours whose process is gone, and with it the memory."""
        for path in _FOLDER.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # somebody else's, or just gone
                if _is_abandoned(path):
                    path.unlink()
        for region in self._client.ask("shared"):
            name = region["name"]
            if name.startswith(_PREFIX) and not (_FOLDER / name).exists():
                self._client.share(name, f"/{name}", 0)


def _is_abandoned(path: Path) -> bool:
    """Nobody has it locked. A process number would not tell: containers that share memory have their own."""
    with path.open("rb") as file:
        if time.time() - os.fstat(file.fileno()).st_mtime < _NEW_S:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
