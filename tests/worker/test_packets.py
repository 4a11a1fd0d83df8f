import fcntl
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.worker import packets
from unface.worker.packets import INLINE


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = packets.pair()
    with near, far:
        yield near, far


def fill(end: socket.socket) -> None:
    for _ in range(10_000):
        packets.send(end, {}, (bytes(INLINE),))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=3 * INLINE), max_size=4), st.text())
def test_what_was_sent_arrives(parts: list[bytes], text: str) -> None:
    near, far = packets.pair()
    with near, far:
        packets.send(near, {"kind": "batch", "text": text}, parts)
        packet = packets.receive(far)
        assert packet is not None
        assert (packet.header["kind"], packet.header["text"]) == ("batch", text)
        assert bytes(packet.body) == b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, INLINE - 1, INLINE, INLINE + 1, 5_000_000])
def test_the_border_between_short_and_long_bodies_is_not_seen(
    ends: tuple[socket.socket, socket.socket], size: int
) -> None:
    body = os.urandom(size)
    for _ in range(3):
        packets.send(ends[0], {}, (body,))
    for _ in range(3):
        packet = packets.receive(ends[1])
        assert packet is not None
        assert bytes(packet.body) == body


def test_who_has_gone_sends_no_more(ends: tuple[socket.socket, socket.socket]) -> None:
    packets.send(ends[0], {"last": 1})
    ends[0].close()
    assert packets.receive(ends[1]) is not None
    assert packets.receive(ends[1]) is None
    with pytest.raises(OSError, match="pipe"):
        packets.send(ends[1], {})


def test_an_end_that_does_not_wait_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        packets.receive(ends[1])
    ends[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        fill(ends[0])


def test_long_bodies_leave_no_descriptor_and_no_memory_behind(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    before = descriptors()
    for _ in range(20):
        packets.send(ends[0], {}, (bytes(1_000_000),))
        packet = packets.receive(ends[1])
        assert packet is not None
        assert len(packet.body) == 1_000_000
        assert "memfd:unface" in Path("/proc/self/maps").read_text()
        del packet
    gc.collect()
    assert descriptors() == before
    assert "memfd:unface" not in Path("/proc/self/maps").read_text()


def test_a_body_that_waits_in_the_socket_is_freed_with_it() -> None:
    before = descriptors()
    near, far = packets.pair()
    packets.send(near, {}, (bytes(1_000_000),))
    near.close()
    far.close()
    assert descriptors() == before


def test_nobody_can_change_or_shorten_what_was_sent(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    packets.send(ends[0], {}, (bytes(100_000),))
    _, (memory,), _, _ = socket.recv_fds(ends[1], packets.MAX_PACKET, 1)
    try:
        for change in (
            lambda: os.ftruncate(memory, 10),
            lambda: os.ftruncate(memory, 1_000_000),
            lambda: os.write(memory, b"x"),
        ):
            with pytest.raises(PermissionError):
                change()
        assert fcntl.fcntl(memory, 1034) & 0x000E == 0x000E  # F_GET_SEALS
    finally:
        os.close(memory)
