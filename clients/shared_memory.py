"""Inputs in memory that a server on the same machine reads, instead of in the request.

Worth it for large tensors: what is saved is that bytes are copied into a request, through a socket and out of it again.
See docs/how-to/call.md for from what size on.
"""

import itertools
import os
import threading
import time
from collections.abc import Mapping
from multiprocessing import shared_memory
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from tritonclient.utils import serialize_byte_tensor

from clients.client import Client
from clients.errors import InvalidInputError
from clients.request import Place
from clients.tensors import Arrays

_PREFIX = "clients-"
_ALIGNED = 64  # bytes, as a cache line
_numbers = itertools.count()


class SharedMemory:
    """A region that a client's server maps for as long as the block runs. One request at a time goes through it.

    with Client(transport=Transport(admin_key=key)) as client, SharedMemory(client, 64 << 20) as region:
        answer = region.infer("fashion_classifier", {"pixels": pixels})

    A process that is killed leaves nothing in /dev/shm; that its server still maps it, the next region puts right.

    Args:
        client: With one server, on this machine, and its admin key: whoever may register memory may read it.
        size_bytes: For all inputs of a request.
        mode: Who may open it. A server of another user, as root's is nobody's, needs 0o666, which lets everybody on
            this machine read it.
    """

    def __init__(self, client: Client, size_bytes: int, mode: int = 0o600) -> None:
        self._client, self._size_bytes, self._mode = client, size_bytes, mode
        self._name = f"{_PREFIX}{os.getpid()}-{time.time_ns()}-{next(_numbers)}"
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._remove_stale()
        self._memory = shared_memory.SharedMemory(self._name, create=True, size=self._size_bytes)
        try:
            Path(f"/dev/shm/{self._name}").chmod(self._mode)  # noqa: S108
            self._client.share(self._name, f"/{self._name}", self._size_bytes)
        except BaseException:
            self._unlink()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._client.share(self._name, f"/{self._name}", 0)
        finally:
            self._unlink()

    def infer(self, model: str, inputs: Mapping[str, ArrayLike], **options: Any) -> Arrays:
        """As Client.infer, of at most `max_batch_size` rows.

        Raises:
            InvalidInputError: also if the inputs are larger than the region.
            ClientError: as there.
        """
        arrays = self._client.signature(model, options.get("version", "")).checked(inputs)
        memory = self._memory.buf
        assert memory is not None  # it is open
        with self._lock:
            places, offset = {}, 0
            for name, array in arrays.items():
                encoded = serialize_byte_tensor(array) if array.dtype == np.object_ else np.ascontiguousarray(array)
                content = encoded.item() if array.dtype == np.object_ else encoded.data.cast("B")
                end = offset + len(content)
                if end > self._size_bytes:
                    raise InvalidInputError(f"{model}: {name} ends at {end:,} of {self._size_bytes:,} bytes of memory")
                memory[offset:end] = content
                places[name] = Place(self._name, offset, len(content))
                offset = -(-end // _ALIGNED) * _ALIGNED
            return self._client.infer(model, arrays, places=places, **options)

    def _remove_stale(self) -> None:
        """Have the server forget regions of ours whose process is gone, and with it the memory."""
        for region in self._client.ask("shared"):
            name = region["name"]
            if name.startswith(_PREFIX) and not Path(f"/dev/shm/{name}").exists():  # noqa: S108
                self._client.share(name, f"/{name}", 0)

    def _unlink(self) -> None:
        self._memory.close()
        self._memory.unlink()
