"""Messages between the server and its workers: a JSON header, and bytes that may be many.

Both ends hold one half of a pair of UNIX sockets that keep message boundaries (`SOCK_SEQPACKET`).
Long bodies go through memory that has no name and no file (memfd_create(2)): written once, mapped
by the other end, gone when nobody maps it. Nothing is pickled.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

INLINE = 32 << 10  # bytes of a body that travels in the packet itself
MAX_PACKET = 200 << 10  # below the kernel's usual limit for one message, 208 KiB
_SEALS = 0x0002 | 0x0004 | 0x0008  # F_SEAL_SHRINK, _GROW, _WRITE of <linux/fcntl.h>
_ADD_SEALS = 1033  # F_ADD_SEALS

Buffer = bytes | memoryview | mmap.mmap


class Packet(NamedTuple):
    """A message; `body` is the sender's bytes, mapped for as long as a view of it lives."""

    header: dict[str, Any]
    body: memoryview


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, header: dict[str, Any], parts: Sequence[Buffer] = ()) -> None:
    """Send a header and a body given in parts.

    Raises `OSError` when the other end has gone, `BlockingIOError` when a non-blocking one is full.
    """
    size = sum(map(len, parts))
    head = json.dumps({**header, "size": size}).encode()
    start = len(head).to_bytes(4, "little") + head
    if size <= INLINE:
        end.sendmsg([start, *parts])
        return
    memory = _filled(parts, size)
    try:
        socket.send_fds(end, [start], [memory])
    finally:
        os.close(memory)


def receive(end: socket.socket) -> Packet | None:
    """Wait for the next message; None when the other end has gone.

    Raises `BlockingIOError` when a non-blocking end has none.
    """
    try:
        data, memories, _, _ = socket.recv_fds(end, MAX_PACKET, 1)
    except ConnectionResetError:
        return None
    if not data:
        return None
    begin = 4 + int.from_bytes(data[:4], "little")
    header = json.loads(data[4:begin])
    if not memories:
        return Packet(header, memoryview(data)[begin:])
    try:
        mapped = mmap.mmap(memories[0], header["size"], access=mmap.ACCESS_READ)
    finally:
        os.close(memories[0])
    return Packet(header, memoryview(mapped))


def _filled(parts: Sequence[Buffer], size: int) -> int:
    """Return the descriptor of new memory that holds the parts and can change no more."""
    memory = os.memfd_create("unface", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            view = memoryview(part)
            while len(view):
                view = view[os.write(memory, view) :]
        # Nor can the sender make it shorter: reading beyond its end would kill the reader.
        fcntl.fcntl(memory, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(memory)
        raise
    return memory
