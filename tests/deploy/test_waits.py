"""A wait for a server that cannot succeed ends with what the log has, not when its time is up."""

import io
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.errors import StartError
from deploy.keeping import commands, loading
from deploy.running import logs, server
from deploy.running.progress import Progress
from deploy.triton import state

REASON = "Poll failed for model directory 'echo': failed to open text file for read"


class Empty:
    """The admin side of a server that answers, or does not, and knows no model."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    def __call__(self, *_: Any) -> "Empty":
        return self

    def __enter__(self) -> "Empty":
        return self

    def __exit__(self, *_: object) -> None: ...

    def live(self) -> bool:
        return self._answers

    def models(self) -> list[Any]:
        return []


@pytest.fixture
def started(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that has said why it loads nothing, and goes on."""
    place = tmp_path_factory.mktemp("artifacts")
    monkeypatch.setenv("ARTIFACTS_DIR", str(place))
    state.directory().mkdir(parents=True)
    logs.write(state.log_file(), "error", REASON)
    logs.write(state.log_file(), "info", "Started HTTPService")
    process = SimpleNamespace(pid=1, poll=lambda: None, kill=lambda: None)
    made = {
        "state": SimpleNamespace(served=place),
        "left_out": [],
        "later": [],
        "started": time.time() - 1,
        "end": lambda: None,
    }
    return SimpleNamespace(**made, process=process, progress=Progress())


WAITS: list[Callable[[Any, Any, float], object]] = [
    lambda up, control, timeout_s: server.wait_until_ready(up, timeout_s),
    lambda up, control, timeout_s: loading._wait_for_the_ports(up, control, timeout_s),
]


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize(("answers", "timeout_s", "fact"), [(True, 600, "has loaded no model"), (False, 0.2, "")])
def test_a_wait_ends_with_the_reason(
    answers: bool, timeout_s: float, fact: str, wait: Any, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Empty(answers)
    monkeypatch.setattr(server, "Control", control)
    monkeypatch.setattr(loading, "ended", lambda up: None)
    begun = time.monotonic()
    with pytest.raises(StartError) as told:
        wait(started, control, timeout_s)
    assert time.monotonic() - begun < 60
    assert fact in str(told.value) and f"\nNote: {REASON}\n" in str(told.value)


def test_what_is_installed_before_a_start_in_the_background_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = io.StringIO("Making it (once)\nStarting tritonserver (process 7) …\n  net 1 READY\nwarning: be careful\n")
    assert commands.wait_until_ready(SimpleNamespace(pid=7, poll=lambda: 1), said) is None  # type: ignore[arg-type]
    assert capsys.readouterr().out == "Making it (once)\nwarning: be careful\n"
