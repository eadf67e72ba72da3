"""What a server's processes may not do or leave behind. Inherited by its workers, whatever they start.

Called between fork and exec, so: no imports, no locks, little but calls into libc.

Triton's Python backend makes its regions in /dev/shm through Boost, which sets their mode by fchmod to 0644, whatever
the umask: tensors of every request, for anybody to read. A filter answers that one call with "done"; the umask has made
the regions 0600. No privilege is needed, and a private /dev/shm would take shared memory from clients.
"""

import ctypes
import os
import platform
import resource
import struct

_MODE = 0o644  # boost/interprocess/permissions.hpp, set_default
_FILTER, _SPEC_ALLOW = 1, 1 << 2  # <linux/seccomp.h>; the latter: no mitigation that costs speed for it
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # the latter with error 0: done, and nothing was
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # <linux/bpf_common.h>: LD|W|ABS, JMP|JEQ|K, RET|K
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # offsets in struct seccomp_data, little-endian
# {machine: (AUDIT_ARCH, number of seccomp, number of fchmod)}
_CALLS = {"x86_64": (0xC000003E, 317, 91), "aarch64": (0xC00000B7, 277, 52)}
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _program(architecture: int, fchmod: int) -> bytes:
    """Assemble: if it is fchmod(…, 0644) of this architecture return 0, else let it happen."""
    instructions = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_EQUAL, 0, 3, fchmod),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        (_IF_EQUAL, 0, 1, _MODE),
        (_RETURN, 0, 0, _ERRNO),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


_KNOWN = _CALLS.get(platform.machine())
_CODE = _program(_KNOWN[0], _KNOWN[2]) if _KNOWN else b""
_ASSEMBLED = _Program(len(_CODE) // 8, _CODE)


def confine() -> None:
    """Confine this process and its children. It has to have no new privileges already.

    Raises:
        OSError: the kernel has no filters of system calls.
    """
    os.umask(0o077)
    # No core files: they hold the key and everybody's tensors. A limit of 1 byte, unlike 0, also keeps the kernel from
    # piping one into a program (fs/coredump.c, do_coredump).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    if _KNOWN and _LIBC.syscall(_KNOWN[1], _FILTER, _SPEC_ALLOW, ctypes.byref(_ASSEMBLED)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
