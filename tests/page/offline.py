"""Run a server where there is no network: a namespace that has a loopback interface and no other.

python tests/page/offline.py [FLAGS OF THE SERVER]
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000  # linux/sched.h
SIOCSIFFLAGS = 0x8914  # linux/sockios.h
IFF_UP = 1  # linux/if.h


def leave_the_network() -> None:
    """Move this process into an empty network namespace; raises `OSError` where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot leave the network")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


if __name__ == "__main__":
    leave_the_network()
    if sys.argv[1:] != ["--try"]:
        os.execv(sys.executable, [sys.executable, "-m", "unface.server", *sys.argv[1:]])  # noqa: S606
