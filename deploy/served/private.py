"""The private directory of one running server: the repository that Triton sees, and nobody else can change.

  artifacts/server/served/<unique>/    mode 0700, of the user whom the server runs as; MODEL_SERVED names another home
    repository/                        assembled from verified copies: what Triton is given

It lives as long as the server does. Of a keeper that was killed it is left behind, until the next server starts.
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import SettingsError
from deploy.installed.plain_paths import plain
from deploy.neighbours import own
from deploy.neighbours.identity import Identity
from deploy.served import held
from deploy.triton.settings import SERVED_VARIABLE, served_home

_REPOSITORY, _SCRATCH = "repository", "new-"


@dataclass
class PrivateDirectory:
    """A directory that this process made, and holds as its own until it ends or removes it."""

    place: Path
    lock: int | None  # a descriptor: the kernel gives the lock back, also when this process is killed

    @property
    def repository(self) -> Path:
        """What Triton is given."""
        return self.place / _REPOSITORY

    def empty(self) -> None:
        """Remove what a server before was given: the next one gets what lies in the repository then."""
        shutil.rmtree(self.repository, ignore_errors=True)
        for left in self.place.glob(f"{_SCRATCH}*"):
            held.remove_if_abandoned(left)
        _make_readable(self.repository)

    def remove(self) -> None:
        """Remove it with all that is in it. A second time does nothing."""
        if self.lock is not None:
            shutil.rmtree(self.place, ignore_errors=True)
            os.close(self.lock)
            self.lock = None


def make(user: Identity | None) -> PrivateDirectory:
    """Make a private directory for a server, and remove those that no process holds any more.

    Args:
        user: Whom a server of root's runs as; None: as this process.

    Raises:
        SettingsError: it cannot be made.
        AccessError: others may write there.
    """
    place = served_home()
    try:
        made, lock = held.make(plain(own.made(place)), "*")
        directory = PrivateDirectory(made, lock)
        _make_readable(directory.repository)
        if user is not None:
            os.fchown(lock, user.uid, user.gid)  # not by its name, which may lead elsewhere by now
    except OSError as error:
        raise SettingsError(
            f"the models that are served cannot be copied to {place}: {error.strerror}",
            hint=f"set {SERVED_VARIABLE} to a folder that can be written",
        ) from error
    return directory


def remove_left(repository: Path) -> None:
    """Remove the private directory with this `repository`, if the process that made it has ended."""
    if repository.name == _REPOSITORY and repository.parent.is_dir():
        held.remove_if_abandoned(repository.parent)


@contextmanager
def scratch(repository: Path) -> Iterator[Path]:
    """Make a folder beside `repository`, in the same private directory, for as long as the block runs.

    What a killed process left there is removed.
    """
    made, lock = held.make(repository.parent, f"{_SCRATCH}*", _SCRATCH)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


class Replaced:
    """Models of a private repository that were replaced or removed, and what stood in their place before.

    Args:
        scratch: A folder for the latter, in the same private directory.
    """

    def __init__(self, repository: Path, scratch: Path) -> None:
        self._repository = repository
        self._before = Path(tempfile.mkdtemp(prefix="before-", dir=scratch))
        self.names: list[str] = []  # in the order in which they were

    def put(self, name: str, folder: Path) -> None:
        """Put `folder` into the place of the model `name`; Triton takes it for changed whenever it was made."""
        place = self._repository / name
        if name in self.names:
            shutil.rmtree(place)
        else:
            self.names.append(name)
            if place.is_dir():
                place.rename(self._before / name)
        folder.rename(place)
        _touch(place)

    def remove(self, name: str) -> None:
        """Take the model `name` out, in whose place nothing comes."""
        if name not in self.names:
            self.names.append(name)
            (self._repository / name).rename(self._before / name)

    def was_there(self, name: str) -> bool:
        """Tell whether something stood in the place of the model before."""
        return (self._before / name).is_dir()

    def take_back(self, but: Collection[str] = ()) -> None:
        """Put everything back that stood there; what is new is removed. Without the repository nothing is done.

        Args:
            but: What stays as it is.
        """
        if not self._repository.is_dir():
            return
        for name in [name for name in self.names if name not in but]:
            place = self._repository / name
            shutil.rmtree(place, ignore_errors=True)
            if (self._before / name).is_dir():
                (self._before / name).rename(place)
                _touch(place)


def _make_readable(place: Path) -> None:
    place.mkdir()
    place.chmod(0o755)


def _touch(model: Path) -> None:
    """Make Triton see that a model changed: it compares the newest time of the files with that of its last load."""
    for path in (model, *model.iterdir()):
        os.utime(path)
