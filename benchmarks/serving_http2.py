"""Just enough HTTP/2 to misbehave: frames as RFC 9113 has them, headers as RFC 7541 has them.

A library would stop a client from sending half a request or from never reading an answer.
"""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, section 3.4
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0x0, 0x1, 0x3, 0x4, 0x6  # section 6
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW_SIZE = 0x4  # section 6.5.2
CANCEL = 0x8  # section 7
MOST_FRAME = 16_384  # SETTINGS_MAX_FRAME_SIZE until the server says more
MOST_REQUEST = 65_535  # the flow-control window until the server opens it


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame (section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening(window: int | None = None) -> bytes:
    """Return what a client says first; `window` 0 never takes a byte of an answer."""
    settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
    return PREFACE + frame(SETTINGS, payload=settings)


def headers(path: str, stream: int = 1) -> bytes:
    """Return the HEADERS frame of a gRPC call."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
        "te": "trailers", "content-type": "application/grpc",
    }  # fmt: skip
    return frame(HEADERS, END_HEADERS, stream, b"".join(map(_field, fields, fields.values())))


def body(message: bytes, stream: int = 1, end: bool = True) -> bytes:
    """Return the DATA frames of a serialized request, which must fit `MOST_REQUEST`."""
    prefixed = b"\0" + struct.pack(">I", len(message)) + message
    if len(prefixed) > MOST_REQUEST:
        raise ValueError(f"a request of {len(prefixed)} bytes; at most {MOST_REQUEST} fit")
    pieces = [prefixed[at : at + MOST_FRAME] for at in range(0, len(prefixed), MOST_FRAME)]
    flags = [0] * (len(pieces) - 1) + [END_STREAM if end else 0]
    return b"".join(frame(DATA, f, stream, p) for f, p in zip(flags, pieces, strict=True))


def _field(name: str, value: str) -> bytes:
    """Return a literal header field without indexing (RFC 7541, section 6.2.2); no Huffman code."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) > 126:
        raise ValueError(f"{text[:20]}... has {len(data)} bytes; a header here has at most 126")
    return bytes([len(data)]) + data
