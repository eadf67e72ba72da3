"""Inputs in memory that a server on the same machine reads, instead of in the request.

Worth it for large tensors: it saves copying them into a request, through a socket, and out of it again. From which size
on is measured in docs/how-to/call.md.
"""

import fcntl
import operator
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import shared_memory
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import numpy as np
from numpy.typing import ArrayLike

from clients.client import Client
from clients.core.deadline import Deadline
from clients.core.failures import is_unknown_region
from clients.core.request import SharedTensor
from clients.core.servers import log
from clients.core.tensors import Arrays, datatype_of, encoded_strings
from clients.errors import ClientError, DeadlineExceededError, InvalidInputError
from clients.settings import InferOptions

_FOLDER = Path("/dev/shm")  # noqa: S108
# What Triton 26.04 and later say where they were not told to map clients' memory.
_DISABLED = "Client shared memory is disabled"
_ALLOW = "start it with it: python -m deploy up --allow-client-shm, or tritonserver --allow-client-shm=true"
_PREFIX = "clients-"
_NEW_S = 10  # a file this young may not be locked yet
_UNREGISTER_S = 2.0  # a server that does not respond is not waited for longer
_ALIGNMENT = 64  # bytes: a cache line


class SharedMemory:
    """A region that a client's server maps for as long as the block runs. One request at a time uses it.

    with Client(transport=TransportOptions(admin_key=key)) as client, SharedMemory(client, 64 << 20) as region:
        outputs = region.infer("router", {"tokens": tokens})

    The region's name cannot be guessed, and is not the file's, which everybody on this machine sees: to a server that
    asks for a key before it registers memory or lists it, only this process can name it.

    What a killed process left behind, in /dev/shm or mapped by the server, is removed by the next region. A restarted
    server is told of the region again.

    Args:
        client: With one server, on this machine, and its admin key: whoever may register memory may read it.
        size_bytes: For all inputs of a request.
        mode: Permissions of the file in /dev/shm. A server of another user needs 0o666 (`deploy up` by root runs Triton
            as uid 65524), with which every user of this machine may read and write it.
    """

    def __init__(self, client: Client, size_bytes: int, mode: int = 0o600) -> None:
        try:
            self._size_bytes = operator.index(size_bytes)  # numpy's are, too
        except TypeError:
            self._size_bytes = 0
        if self._size_bytes < 1:
            raise InvalidInputError(f"size_bytes must be a whole number from 1, and is {size_bytes!r}")
        self._client, self._mode = client, mode
        # Whoever knows the name of a region may have the server read it, without a key. Everybody sees the file's.
        self._name, self._region = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}", _PREFIX + secrets.token_hex(16)
        self._lock, self._pid = threading.Lock(), os.getpid()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._memory = opened.enter_context(self._locked_memory())
            opened.callback(self._unregister)  # also if it is registered and the response is lost
            self._register()
            self._remove_stale()  # not before the server is known to share the folder
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._pid:  # in a child it is the parent's
            self._opened.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] = (),
        **options: Unpack[InferOptions],
    ) -> Arrays:
        """As Client.infer, of at most `max_batch_size` rows.

        Raises:
            InvalidInputError: also if the inputs are larger than the region.
            ClientError: as there.
        """
        if os.getpid() != self._pid:
            raise InvalidInputError("this region is the parent process's", hint="make one of its own here")
        timeout_s = options.get("timeout_s")
        deadline = Deadline.after(self._client.timeout_s if timeout_s is None else timeout_s)
        version = options.get("version", "")
        arrays = self._client.validate(model, inputs, version=version, timeout_s=deadline.remaining_s)
        memory = self._memory.buf
        assert memory is not None  # it is open
        if not self._lock.acquire(timeout=deadline.remaining_s):
            raise DeadlineExceededError(f"{model}: another request used the region for {deadline.elapsed_s:.3g} s")
        try:
            shared, offset = {}, 0
            for name, array in arrays.items():
                strings = encoded_strings(array) if datatype_of(array.dtype) == "BYTES" else None
                size_bytes = array.nbytes if strings is None else len(strings)
                if (end := offset + size_bytes) > self._size_bytes:
                    raise InvalidInputError(f"{model}: {name} ends at {end:,} of {self._size_bytes:,} bytes of memory")
                if strings is None:
                    np.ndarray(array.shape, array.dtype, memory, offset)[...] = array
                else:
                    memory[offset:end] = strings
                shared[name] = SharedTensor(self._region, offset, size_bytes)
                offset = -(-end // _ALIGNMENT) * _ALIGNMENT
            options["timeout_s"] = deadline.remaining_s
            try:
                return self._client.infer(model, arrays, outputs=outputs, shared=shared, **options)
            except InvalidInputError as error:
                if not is_unknown_region(error):
                    raise
                self._register(deadline.remaining_s)  # the server was restarted
                options["timeout_s"] = deadline.remaining_s
                return self._client.infer(model, arrays, outputs=outputs, shared=shared, **options)
        finally:
            self._lock.release()

    @contextmanager
    def _locked_memory(self) -> Iterator[shared_memory.SharedMemory]:
        """Locked for as long as this process lives: what is not may be removed by others."""
        folder = os.statvfs(_FOLDER)
        if 0 < folder.f_blocks * folder.f_frsize < self._size_bytes:
            raise self._no_room("it is smaller")
        try:
            memory = shared_memory.SharedMemory(self._name, create=True, size=self._size_bytes)
        except OSError as error:
            raise InvalidInputError(f"cannot make a file in {_FOLDER}: {error.strerror}") from error
        file = -1
        try:
            file = os.open(_FOLDER / self._name, os.O_RDWR)
            fcntl.flock(file, fcntl.LOCK_EX)
            os.fchmod(file, self._mode)
            try:
                os.posix_fallocate(file, 0, self._size_bytes)  # memory that is not there would kill with SIGBUS
            except OSError as error:
                raise self._no_room(str(error.strerror)) from error
            yield memory
        finally:
            memory.close()
            memory.unlink()
            if file >= 0:
                os.close(file)  # last, as it holds the lock

    def _no_room(self, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"{_FOLDER} has no room for {self._size_bytes:,} bytes: {why}",
            hint="a container has 64 MB of it, unless it is given more: --shm-size",
        )

    def _register(self, timeout_s: float | None = None) -> None:
        try:
            self._client.register_shared_memory(self._region, f"/{self._name}", self._size_bytes, timeout_s=timeout_s)
        except ClientError as error:
            if _DISABLED in str(error):
                raise InvalidInputError(
                    "the server maps no memory of its clients", note=str(error), hint=_ALLOW
                ) from error
            raise

    def _unregister(self) -> None:
        try:
            self._client.unregister_shared_memory(self._region, timeout_s=min(_UNREGISTER_S, self._client.timeout_s))
        except ClientError as error:  # of a server that is gone, say, and its mapping with it
            log.warning("%s could not be unregistered; the next region does it: %s", self._name, error)

    def _remove_stale(self) -> None:
        """Have the server forget regions of ours whose process is gone, and with it the memory."""
        for path in _FOLDER.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # somebody else's, or just gone
                if _is_abandoned(path):
                    path.unlink()
        for region in self._client.shared_memory_status():
            file = region["key"].removeprefix("/")
            if file.startswith(_PREFIX) and "/" not in file and not (_FOLDER / file).exists():
                self._client.unregister_shared_memory(region["name"])


def _is_abandoned(path: Path) -> bool:
    """Nobody has it locked. A process number would not tell: containers that share memory have their own."""
    # Everybody may write in this folder: opening another's FIFO would wait for its writer.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < _NEW_S:
            return False
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True
