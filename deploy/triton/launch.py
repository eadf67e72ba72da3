"""Start a program that takes a secret as an argument, so that no process list ever shows it.

Triton has its admin key from `--http-restricted-api` alone, and any user of a machine can read any process's
arguments. /proc/PID/cmdline shows the memory that the arguments were put in, while a program reads them through
the pointers of argv. So the secret is put into the new process's environment, which only its own user can read,
and before its first instruction runs the pointer of that argument is set to it.

Linux on 64 bits; works under Docker's default seccomp profile (ptrace of one's own child, kernel 4.8 and later).
"""

import ctypes
import os
import signal
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from deploy.errors import StartError
from deploy.neighbours import confined
from deploy.neighbours.identity import Identity

_PREFIX = "LAUNCH_ARGUMENT_"
_TRACEME, _DETACH = 0, 17  # <sys/ptrace.h>
_SET_PDEATHSIG, _SET_NO_NEW_PRIVS = 1, 38  # <sys/prctl.h>
_START_STACK = 28  # its field in /proc/PID/stat: where argc lies; argv and the environment follow
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


@dataclass(frozen=True)
class Secret:
    """An argument that the program sees whole and a process list without its value."""

    flag: str  # "--option=name:"
    value: str

    @property
    def redacted(self) -> str:
        """The argument as a process list may show it."""
        return f"{self.flag}***"


def start(
    command: Sequence[str | Secret], environment: Mapping[str, str], user: Identity | None, output: IO[bytes] | int
) -> "subprocess.Popen[bytes]":
    """Start `command` as `user`, confined and without a way to gain privileges, to end when this process does.

    It gets SIGTERM when the thread that started it ends, however that happens: nothing runs on unwatched. It is
    in a session of its own, so that Ctrl-C is ours to pass on, once.

    Raises:
        StartError: it could not be started, or its arguments not be hidden.
    """
    secrets = {f"{_PREFIX}{i}": a.flag + a.value for i, a in enumerate(command) if isinstance(a, Secret)}
    try:
        process = subprocess.Popen(
            [a.redacted if isinstance(a, Secret) else a for a in command],
            env={**environment, **secrets},  # last: each has a neighbour before it
            # Triton's Python stub imports `model` from the working directory first: there may be a model.py of theirs.
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_in_child,  # calls into libc only
            **_identity(user),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"cannot start {command[0]}: {error}") from error
    try:
        os.waitpid(process.pid, os.WUNTRACED)  # it stops by itself, between exec and its first instruction
        _point_arguments_at_secrets(process.pid, {i for i, a in enumerate(command) if isinstance(a, Secret)})
        _checked(_LIBC.ptrace(_DETACH, process.pid, None, None))
    except BaseException as error:
        process.kill()
        process.wait()
        if isinstance(error, OSError):
            hint = "root needs SYS_PTRACE for that, which containers do not have: run it as another user, 1000:1000"
            raise StartError(
                f"cannot hide the admin key from the process list: {error}", hint=hint if os.geteuid() == 0 else None
            ) from error
        raise
    return process


def _in_child() -> None:
    _checked(_LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_LIBC.prctl(_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0))
    confined.confine()
    _checked(_LIBC.ptrace(_TRACEME, 0, None, None))


def _identity(user: Identity | None) -> dict[str, Any]:
    return {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}


def _point_arguments_at_secrets(pid: int, hidden: set[int]) -> None:
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # not a file of the file system
        start_stack = int(stat.read().rpartition(")")[2].split()[_START_STACK - 3])  # the first is field 3
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
        word = struct.calcsize("P")

        def pointer(address: int) -> int:
            memory.seek(address)
            return int(struct.unpack("P", memory.read(word))[0])

        def point(address: int, target: int) -> None:
            memory.seek(address)
            memory.write(struct.pack("P", target))

        argc = pointer(start_stack)
        argv = start_stack + word
        variable = argv + word * (argc + 1)  # the first one, behind argv's closing null
        while address := pointer(variable):
            memory.seek(address)
            name, equals, _ = memory.read(len(_PREFIX) + 4).partition(b"=")
            if equals and name.startswith(_PREFIX.encode()):
                index = int(name[len(_PREFIX) :])
                point(argv + word * index, address + len(name) + 1)
                point(variable, pointer(variable - word))  # its children shall not inherit the secret
                hidden.discard(index)
            variable += word
    if hidden:
        raise OSError("the arguments were not where Linux puts them")


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
