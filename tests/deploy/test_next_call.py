"""What `deploy up` says to type next fits what is served."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import manifest
from deploy.keeping import commands
from tests.ferries import released


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (("net", "ferries"), "python -m clients predict ferries"),  # net is a step of it
        (("boats",), "python -m clients infer boats"),
        ((), "python -m deploy status"),
    ],
)
def test_a_model_that_takes_entities_is_asked_of_those(tmp_path: Path, served: tuple[str, ...], said: str) -> None:
    released(tmp_path)
    (tmp_path / "ferries").mkdir()
    steps = 'platform: "ensemble" ensemble_scheduling { step [ { model_name: "net" model_version: -1 } ] }'
    (tmp_path / "ferries" / "config.pbtxt").write_text(steps)
    running: Any = SimpleNamespace(grpc_tls=False, served=str(tmp_path), repository=str(tmp_path))
    versions: Any = [SimpleNamespace(name=name, state="READY") for name in served]
    assert commands._call(versions, running) == said
    (tmp_path / "net" / "1" / manifest.FILE_NAME).write_text("{")
    assert commands._call(versions, running) == said.replace("predict", "infer")
