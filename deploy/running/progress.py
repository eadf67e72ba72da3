"""What a starting server says of the models that it loads: a hint, for its workers write into the same log."""

import threading
import time
from collections.abc import Mapping, Set
from typing import Any

_SOURCE = "model_lifecycle.cc:"
_BEGUN, _DONE = "loading: ", ("successfully loaded ", "failed to load ")


class Progress:
    """The models that a server has said it is loading, and for how long. May be asked from any thread."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # on the monotonic clock
        self._lock = threading.Lock()

    def hear(self, entry: Mapping[str, Any]) -> None:
        """Take note of a record of the server's log."""
        model, message = entry.get("model"), entry["message"]
        if model is None or not entry.get("source", "").startswith(_SOURCE):
            return
        with self._lock:
            if message.startswith(_BEGUN):
                self._since[model] = time.monotonic()
            elif message.startswith(_DONE) and self._since.pop(model, None) is not None:
                self._start_anew()

    def loading(self) -> Set[str]:
        """Return the models that were begun and are not done."""
        with self._lock:
            return set(self._since)

    def slower_than(self, limit_s: float) -> Set[str]:
        """Return those that have taken longer, since they were begun or another was done: few load at once."""
        with self._lock:
            now = time.monotonic()
            return {model for model, since in self._since.items() if now - since > limit_s}

    def drop(self, models: Set[str]) -> None:
        """Wait for these no longer; the others get their time anew."""
        with self._lock:
            for model in models:
                self._since.pop(model, None)
            self._start_anew()

    def _start_anew(self) -> None:
        now = time.monotonic()
        self._since = dict.fromkeys(self._since, now)
