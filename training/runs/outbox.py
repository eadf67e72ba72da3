"""What MLflow is told of a run: at once, or kept in a file of the run's folder until MLflow answers.

A fit of days shall not end because the tracking server does. Nothing that is told is dropped, and it arrives in order.
`python -m training send FOLDER` sends what was kept when the fit ended.
"""

import json
import posixpath
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import layout
from training import tracking
from training.errors import TrainingError

if TYPE_CHECKING:  # it takes seconds to import
    from mlflow import MlflowClient

FILE = "unsent.jsonl"  # in the run's folder: a line with the run's id, then one for each thing to tell
_AGAIN_S = 30.0  # how long a MLflow that did not answer is left alone
_A_CALL = 100  # parameters, at most
_ACCOUNT = re.compile(r"//[^/@\s]*:[^/@\s]*@")
_LONGEST, _NAMED = 6000, 250  # characters of a parameter, and of a name

Entry = dict[str, Any]  # {"what": "metrics", …}, as JSON has it


class Outbox:
    """What a run has to tell. Not for several threads.

    Args:
        folder: The run's, where the file is; what an earlier fit left in it comes first.
        say: Told when MLflow stops to answer, and when it does again.
    """

    def __init__(self, client: "MlflowClient", run_id: str, folder: Path, say: Callable[[str], None]) -> None:
        self.run_id = run_id
        self._client, self._path, self._say = client, folder / FILE, say
        self._waiting = found[1] if (found := waiting(folder)) and found[0] == run_id else []
        self._kept = len(self._waiting)  # in the file
        self._not_before = 0.0  # on the monotonic clock
        self.reason = ""  # why it was not taken, when it was not

    @property
    def waiting(self) -> int:
        """How much is not sent yet."""
        return len(self._waiting)

    def metrics(self, figures: Mapping[str, float], step: int) -> None:
        """Tell the figures of a step."""
        self._put({"what": "metrics", "figures": dict(figures), "step": step, "at_ms": round(time.time() * 1000)})

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Tell what the run was called with. What a resumed one changes, which MLflow refuses, becomes a tag."""
        self._put({"what": "parameters", "values": {key: str(value) for key, value in values.items()}})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Tag the run."""
        self._put({"what": "tags", "values": {key: str(value) for key, value in values.items()}})

    def file(self, path: Path, folder: str) -> None:
        """Upload a file into a folder of the run's artifacts. One of its own folder is found if that is moved."""
        home = self._path.parent
        where = path.relative_to(home) if path.is_relative_to(home) else path.resolve()
        self._put({"what": "file", "path": str(where), "folder": folder})

    def status(self, name: str) -> None:
        """Tell how it is with the run: RUNNING, FINISHED, FAILED or KILLED."""
        self._put({"what": "status", "name": name, "at_ms": round(time.time() * 1000)})

    def send(self) -> bool:
        """Send what waits; return whether all of it is sent."""
        self._not_before = 0.0
        sent = self._send()
        if not sent:
            self._keep()
        return sent

    def _put(self, entry: Entry) -> None:
        self._waiting.append(entry)
        if not self._send():
            self._keep()

    def _send(self) -> bool:
        if time.monotonic() < self._not_before:
            return False
        was_late, before = bool(self._kept), len(self._waiting)
        try:
            while self._waiting:
                _tell(self._client, self.run_id, self._path.parent, self._waiting[0])
                self._waiting.pop(0)
        except Exception as error:  # whatever the client of a store raises: a fit is not lost for what it reports
            self.reason = first_line(error)
            if not was_late:
                self._say(
                    f"MLflow did not take what it was told: {self.reason}\n"
                    f"Training goes on. What is to be told is kept in {layout.shown(self._path)}"
                )
            self._not_before = time.monotonic() + _AGAIN_S
            return False
        if was_late:
            self._say(f"MLflow answers again, and was told the {before} things that had waited")
            self._path.unlink(missing_ok=True)
            self._kept = 0
        return True

    def _keep(self) -> None:
        """Have the file hold what waits: a line more, or all anew where some of it was sent since."""
        if self._kept == len(self._waiting):
            return
        try:
            if self._kept == len(self._waiting) - 1 and self._kept:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(self._waiting[-1]) + "\n")
            else:
                lines = [{"run_id": self.run_id}, *self._waiting]
                aside = self._path.with_suffix(".partial")
                aside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
                aside.replace(self._path)
            self._kept = len(self._waiting)
        except OSError as error:  # a full disk: it waits in memory, and ends the fit where a checkpoint is written
            self._say(f"{layout.shown(self._path)} cannot be written: {error.strerror}")


def waiting(folder: Path) -> tuple[str, list[Entry]] | None:
    """Read what a run has still to tell: its id, and the entries; None: nothing. A line that was cut off is left out.

    A fit that was killed may have told the first of them already.
    """
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    entries: list[Entry] = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:  # the last one: a process was killed as it wrote
            break
    return (str(entries[0]["run_id"]), entries[1:]) if entries else None


def send(folder: Path) -> int:
    """Tell MLflow what a run that has ended has still to tell; return how many things that were.

    Raises:
        TrainingError: MLflow does not take them; they are kept.
    """
    from mlflow import MlflowClient

    found = waiting(folder)
    if found is None:
        return 0
    client, run_id = MlflowClient(tracking.open_store()), found[0]
    outbox = Outbox(client, run_id, folder, lambda line: None)
    if not outbox.send():
        raise TrainingError(
            f"MLflow did not take what run {run_id} has to tell",
            note=outbox.reason,
            hint=f"MLFLOW_TRACKING_URI names the one it was begun in; {layout.shown(folder / FILE)} is kept",
        )
    return len(found[1])


def first_line(error: BaseException) -> str:
    """Return what an error says first, without the password of an address in it."""
    return without_passwords((str(error).strip().splitlines() or [type(error).__name__])[0])


def without_passwords(text: str) -> str:
    """Return a text with addresses in it, without their accounts: http://host of http://me:secret@host."""
    return _ACCOUNT.sub("//", text)


def admitted(name: str) -> str:
    """Return a name as MLflow admits it, "recall_5" for "recall@5": it would refuse the other now, and ever after."""
    plain = re.sub(r"[^-_.: /a-zA-Z0-9]+", "_", name)[:_NAMED]
    is_path = plain == posixpath.normpath(plain) and plain[0] not in "./"  # that leads nowhere else
    return plain if is_path else f"_{plain.replace('/', '_').lstrip('._')}"[:_NAMED]


def _tell(client: "MlflowClient", run_id: str, home: Path, entry: Entry) -> None:
    from mlflow.entities import Metric, RunTag

    match entry:
        case {"what": "metrics", "figures": figures, "step": step, "at_ms": at_ms}:
            metrics = [Metric(admitted(key), value, at_ms, step) for key, value in figures.items()]
            client.log_batch(run_id, metrics=metrics)
        case {"what": "tags", "values": values}:
            client.log_batch(run_id, tags=[RunTag(admitted(key), value) for key, value in values.items()])
        case {"what": "parameters", "values": values}:
            _tell_parameters(client, run_id, {admitted(key): value for key, value in values.items()})
        case {"what": "file", "path": path, "folder": folder}:
            if (home / path).is_file():  # else it was removed since, and there is nothing to tell
                tracking.upload(client, run_id, home / path, folder)
        case {"what": "status", "name": "RUNNING"}:
            client.update_run(run_id, status="RUNNING")
        case {"what": "status", "name": name, "at_ms": at_ms}:
            client.set_terminated(run_id, name, at_ms)


def _tell_parameters(client: "MlflowClient", run_id: str, values: Mapping[str, str]) -> None:
    """Log those that are new; MLflow never changes one, so what differs is told by a tag, `resumed_with.lr`."""
    from mlflow.entities import Param, RunTag

    known = client.get_run(run_id).data.params
    new = [Param(key, value[:_LONGEST]) for key, value in values.items() if key not in known]
    for start in range(0, len(new), _A_CALL):
        client.log_batch(run_id, params=new[start : start + _A_CALL])
    changed = {key: value for key, value in values.items() if known.get(key, value[:_LONGEST]) != value[:_LONGEST]}
    if changed:
        client.log_batch(run_id, tags=[RunTag(f"resumed_with.{key}", value) for key, value in changed.items()])
