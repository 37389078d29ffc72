"""What a process gives up before it opens what somebody else made: network, other programs, and rights that it does not have.

In: nothing. Out: whether the kernel keeps it. Needs no right of its own, and works in containers. Source: Linux, seccomp(2),
"SECCOMP_SET_MODE_FILTER", and prctl(2), "PR_SET_NO_NEW_PRIVS".
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # a word of the call; jumps; the answer
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER, _MACHINE = 0, 4  # where they lie in seccomp_data
# Per machine its audit number, and the calls that are refused: socket, socketpair, connect, execve, execveat, ptrace,
# process_vm_writev; and io_uring_setup, which would do the same past the filter.
_CALLS = {
    "x86_64": (0xC000003E, (41, 53, 42, 59, 322, 101, 311, 425)),
    "aarch64": (0xC00000B7, (198, 199, 203, 221, 281, 117, 271, 425)),
}
_OTHER_CALLS = 0x40000000  # of x86_64's second set of numbers (x32)


def confine() -> bool:
    """From now on, for this process and its children: no sockets, no other programs, no new privileges; they get EPERM. False on
    a machine or kernel without such filters: then only the privileges are given up, as far as that goes."""
    if platform.system() != "Linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero):
        return False
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    code = ctypes.create_string_buffer(_program(*known))
    about = ctypes.create_string_buffer(struct.pack("@HP", len(code.raw) // 8, ctypes.addressof(code)))
    return int(libc.prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER), about, zero, zero)) == 0


def _program(machine: int, refused: tuple[int, ...]) -> bytes:
    """A classic BPF program, 8 bytes a step: operation, steps to jump if so, if not, value."""
    checks = [(_AT_LEAST, _OTHER_CALLS), *((_EQUAL, number) for number in refused)]
    steps = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 0, len(checks) + 2, machine),
        (_LOAD, 0, 0, _NUMBER),
        *((operation, len(checks) - at, 0, value) for at, (operation, value) in enumerate(checks)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)
