"""The folder of a run is one process's at a time, with those that train together with it."""

import os
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.runs import folder


def test_one_that_was_to_train_with_a_process_that_has_ended_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look for it for half an hour; the kernel tells of an end only who asked before it."""
    read, write = os.pipe()
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    with folder.held("flights") as own:
        monkeypatch.setenv("LOCAL_RANK", "1")
        (own / "best.ckpt").touch()
        began, orphaned = os.environ["TRAINING_RUN_PROCESS"], str(os.getppid())
        for parent in (began, orphaned):  # as seen by a child of the one that began, and by one of another
            if (child := os.fork()) == 0:
                os.environ["TRAINING_RUN_PROCESS"] = parent
                try:
                    with folder.held("flights") as shared:
                        os.write(write, f"{shared == own} ".encode())
                except TrainingError as error:
                    os.write(write, str(error).encode())
                os._exit(0)
            os.waitpid(child, 0)
        monkeypatch.delenv("LOCAL_RANK")
    assert os.read(read, 1000).decode() == "True the process that this one was to train together with has ended"
