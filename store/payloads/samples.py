"""Which requests' whole inputs are kept, and where they wait. What answers requests uses this, and nothing else of it.

samples = Samples(spool_folder, rate=0.01, rates={"faces": 0})       # 1 %, of faces none
if samples.chosen(model, request_id):
    record["payload"] = samples.keep(model, request_id, record["time"], body)
"""

import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from contracts.files import whole
from contracts.names import is_model_name
from store.errors import PayloadError

WAITING = "payloads"  # the folder in the spool

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Samples:
    """Which requests' inputs are kept, and where they wait. Used by what answers; never raises.

    Attributes:
        kept, lost: How many; lost ones found no room on the disk or in `limit_bytes`.
    """

    def __init__(
        self, folder: Path, rate: float = 0.0, rates: Mapping[str, float] | None = None, *,
        limit_bytes: int = 1 << 30, free_bytes: int = 256 << 20,
    ) -> None:  # fmt: skip
        """Keep a share of all requests, or that of `rates` for the models in it; 0 is off."""
        self._folder, self._rate, self._rates = folder / WAITING, rate, dict(rates or {})
        self._limit_bytes, self._free_bytes = limit_bytes, free_bytes
        self.kept = self.lost = 0
        self._used_bytes, self._look_at = 0, 0.0

    def chosen(self, model: str, request_id: str) -> bool:
        """Tell whether a request is in the sample; the same for the same id, whoever asks."""
        rate = self._rates.get(model, self._rate)
        return rate > 0 and zlib.crc32(request_id.encode(errors="replace")) < rate * (1 << 32)

    def keep(self, model: str, request_id: str, time_ns: int, content: bytes) -> str | None:
        """Write the inputs to the spool: their name for the record, None if they could not be kept.

        It writes a file as large as the inputs: large ones are better kept from a thread.
        """
        try:
            name = f"{model}/{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).date()}/{request_id}"
            if not (is_model_name(model) and _ID.fullmatch(request_id)):
                raise PayloadError(f"{name!r} is no name")
            self._make_room(len(content))
            path = self._folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole.write(path, content, mode=0o600)
        except Exception:  # nothing may happen here that costs a request
            self.lost += 1
            return None
        self.kept += 1
        return name

    def _make_room(self, size: int) -> None:
        if time.monotonic() >= self._look_at:
            self._used_bytes = sum(path.stat().st_size for path in files(self._folder))
            self._look_at = time.monotonic() + 5
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (
            self._used_bytes + size > self._limit_bytes
            or shutil.disk_usage(self._folder).free - size < self._free_bytes
        ):
            raise PayloadError("there is no room")
        self._used_bytes += size


def files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, without hidden ones, which are being written."""
    for directory, _, names in os.walk(folder):
        yield from (Path(directory) / name for name in names if name[0] != ".")
