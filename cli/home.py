"""A home and a user name for libraries that want them: in a container a user may have neither."""

import atexit
import getpass
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

# Where a home is read-only, caches go elsewhere; what else is in it, as settings of git and pip, is read all the same.
_CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR")


def settle() -> None:
    """Set what is missing in the environment, also for the processes that we start.

    MLflow does not import without a home (HOME is unset, and the uid has no account), and asks who the user is.
    Where nothing can be written at all it stays as it is: what has to be written says so.
    """
    with suppress(OSError):
        _set_home()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # before Python 3.13, and since
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def _set_home() -> None:
    try:
        home = Path.home()
    except RuntimeError:
        os.environ["HOME"] = _scratch()
    else:
        missing = [name for name in _CACHES if name not in os.environ]
        if missing and not os.access(home, os.W_OK):
            os.environ.update(dict.fromkeys(missing, _scratch()))


def _scratch() -> str:
    place = tempfile.mkdtemp(prefix="home-")
    atexit.register(_remove, place, os.getpid())
    return place


def _remove(place: str, owner: int) -> None:
    if os.getpid() == owner:  # not in what it has forked
        with suppress(OSError):
            shutil.rmtree(place)
