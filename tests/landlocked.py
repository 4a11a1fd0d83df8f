"""`python landlocked.py [--may-write FOLDER] COMMAND...`: the command can write to no file system.

Nothing can be opened for writing, made, renamed, linked or removed by it and all its children: the
kernel sees to it (Landlock, Linux 6.2 or newer). Memory remains: pipes, sockets, memfds. So does
/dev/null. FOLDER, which may be given again, is for programs that need a pid file.

ABI: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls
VERSION = 1  # flag of CREATE_RULESET: only tell the ABI's version
PATH_BENEATH = 1  # type of rule
NO_NEW_PRIVS = 38  # of prctl
WITH_TRUNCATE = 3  # the ABI that has all of these
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
# Remove and make of every kind, and refer: bits 4 to 13.
WRITING = WRITE_FILE | TRUNCATE | sum(1 << bit for bit in range(4, 14))

_libc = ctypes.CDLL(None, use_errno=True)


def is_possible() -> bool:
    """Tell whether this kernel can."""
    return int(_libc.syscall(CREATE_RULESET, None, 0, VERSION)) >= WITH_TRUNCATE


def restrict(*folders: str) -> None:
    """Take from this process, for good, what writes to files that are not in these folders."""
    access = struct.pack("=Q", WRITING)
    rules = _called(CREATE_RULESET, access, len(access), 0)
    for path, allowed in (("/dev/null", WRITE_FILE | TRUNCATE), *((f, WRITING) for f in folders)):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _called(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    if _libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    _called(RESTRICT_SELF, rules, 0)
    os.close(rules)


def _called(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    command = sys.argv[1:]
    writable = []
    while command[:1] == ["--may-write"]:
        writable.append(command[1])
        command = command[2:]
    restrict(*writable)
    os.execvp(command[0], command)  # noqa: S606 - the command line's  # noqa: S606 - no shell is the point
