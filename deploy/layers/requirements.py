"""requirements.txt of a model, as its author writes it, and requirements.lock beside it, which says the same exactly.

model_repository/MODEL/requirements.txt    soundfile==0.13.1
model_repository/MODEL/requirements.lock   soundfile==0.13.1 and all that it needs
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from contracts import layout
from deploy.errors import RequirementsError
from deploy.triton import environment

TEXT, LOCK = "requirements.txt", "requirements.lock"
# Triton hands tensors over in this one, and its version is the server's to choose: see deploy/server.lock.
SERVERS = "numpy"
_LOCKED_FROM = "# sha256 of requirements.txt: "
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Options of pip that hold for every entry. Files that are included would not be seen to change.
_OPTIONS = frozenset(
    {
        *("--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--no-index", "--trusted-host"),
        *("--pre", "--prefer-binary", "--only-binary", "--no-binary"),
    }
)


@dataclass(frozen=True)
class Requirements:
    """What a model asks for beyond what the server has."""

    directory: Path  # the model's, in the repository
    entries: tuple[str, ...]  # of requirements.txt, a line each, options among them
    locked: tuple[str, ...] | None  # of requirements.lock, if there is one
    locked_from: str = ""  # the digest of the requirements.txt that it was made from; "" of one that nobody made

    @property
    def model(self) -> str:
        """The model's name."""
        return self.directory.name

    @property
    def is_locked(self) -> bool:
        """Whether the lock is there, and of the requirements.txt that is."""
        if self.locked is None:
            return not self.entries
        return not self.entries or self.locked_from == digest(self.entries)

    @property
    def is_hashed(self) -> bool:
        """Whether the lock names the hashes of files, as one does not that has something from version control."""
        return any("--hash" in line for line in self.locked or ())

    @property
    def layer(self) -> str | None:
        """The name of the folder with what is locked, for the Python of models; None where nothing is."""
        if not self.locked:
            return None
        return f"{digest(self.locked)[:16]}-{environment.models_python().version}"


def read(directory: Path) -> Requirements | None:
    """Read what the model in `directory` asks for; None where that is nothing.

    Raises:
        RequirementsError: a file is not where it is looked for, or has what cannot be locked.
    """
    for misplaced in sorted([*directory.glob(f"[0-9]*/{TEXT}"), *directory.glob(f"[0-9]*/{LOCK}")]):
        raise RequirementsError(
            f"{layout.shown(misplaced)} is not looked at",
            hint=f"it belongs beside config.pbtxt: mv {layout.shown(misplaced)} {layout.shown(directory)}/",
        )
    entries, lock = _entries(directory / TEXT), directory / LOCK
    if not entries and not lock.is_file():
        return None
    if "EXECUTION_ENV_PATH" in _text(directory / "config.pbtxt"):
        raise RequirementsError(
            f"{directory.name} has both an EXECUTION_ENV_PATH in config.pbtxt and a {TEXT}",
            note="an environment of Triton's kind looks into none of ours",
            hint="remove one of them",
        )
    for entry in entries:
        _check(directory / TEXT, entry)
    made = re.search(f"^{re.escape(_LOCKED_FROM)}(.*)$", _text(lock), re.MULTILINE) if lock.is_file() else None
    locked = _lines(_text(lock)) if lock.is_file() else None
    if own := [line for line in locked or () if name_of(line) == SERVERS]:
        raise RequirementsError(
            f"{layout.shown(lock)} names {own[0]}, of which the server has its own", hint="remove that line"
        )
    return Requirements(directory, entries, locked, made[1].strip() if made else "")


def in_repository(root: Path, models: Collection[str] = ()) -> list[Requirements]:
    """Read what the models of a repository ask for.

    Args:
        models: Their names; none for all.

    Raises:
        RequirementsError: as `read`; or there is no such model, or it asks for nothing.
    """
    if (root / TEXT).is_file():
        raise RequirementsError(
            f"{layout.shown(root / TEXT)} is not looked at", hint="each model has its own, beside its config.pbtxt"
        )
    named = [root / name for name in models] or [path.parent for path in sorted(root.glob("*/config.pbtxt"))]
    found = {directory: read(directory) for directory in named if directory.is_dir()}
    if models and (without := [directory.name for directory in named if found.get(directory) is None]):
        raise RequirementsError(
            f"{', '.join(without)} has no {TEXT} in {layout.shown(root)}", hint="python -m deploy environments"
        )
    return [each for each in found.values() if each is not None]


def write_lock(requirements: Requirements, lines: Collection[str]) -> None:
    """Write requirements.lock beside requirements.txt."""
    head = (
        "# Made by python -m deploy environments lock. Keep it in git: what it names is what is installed.",
        f"{_LOCKED_FROM}{digest(requirements.entries)}",
    )
    (requirements.directory / LOCK).write_text("\n".join([*head, *lines]) + "\n")


def digest(lines: Collection[str]) -> str:
    """Return the digest of lines, which neither comments nor the ends of lines change."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def name_of(entry: str) -> str | None:
    """Return the name of the package that a line is about, as pip compares names; None for an option."""
    found = _NAME.match(entry)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else None


def is_option(entry: str) -> bool:
    """Tell whether a line is an option of pip that holds for all others."""
    return entry.startswith("-")


def _check(path: Path, entry: str) -> None:
    if is_option(entry):
        if re.split(r"[ =]", entry)[0] not in _OPTIONS:
            raise RequirementsError(
                f"{layout.shown(path)}: {entry}",
                note="what another file or a folder says cannot be locked here",
                hint="write the packages themselves, each with its version",
            )
        return
    if re.match(r"\.{0,2}/|file:", entry) or re.search(r"@\s*(file:|\.{0,2}/)", entry):
        raise RequirementsError(
            f"{layout.shown(path)}: {entry} is a place on this machine, which a container has not",
            hint="put the wheel into a folder beside it, and write --find-links FOLDER and its name and version",
        )
    if name_of(entry) is None:
        raise RequirementsError(f"{layout.shown(path)}: {entry!r} names no package")


def _entries(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    joined = re.sub(r"\\\r?\n", " ", _text(path))
    lines = _lines(joined)
    return tuple(re.sub(r"\s+", " ", re.sub(r"\s#.*$", "", line)).strip() for line in lines)


def _lines(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines()]
    return tuple(line for line in lines if line and line[0] != "#")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        # Editors and shells on Windows write UTF-16, and `pip freeze >` there does.
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequirementsError(f"{layout.shown(path)} is not UTF-8: {error}") from error
