r"""Encryption at rest: AES-256-GCM (NIST SP 800-38D) for engines and for kept crops.

    sealed = b"UNFACE1\0" + nonce (12 bytes, random) + ciphertext + tag (16 bytes)

The first eight bytes and a context, which says what the data is for, are authenticated too: what
was sealed as one file cannot pass for another. One key is good for 2^32 seals (section 8.3 there).
This module imports no room and every room may import it.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode
from typing import TYPE_CHECKING

from unface.errors import InvalidOption, SealError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"UNFACE1\0"
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
MOST_KEY_FILE_BYTES = 1024  # enough for any form of a key; /dev/zero has no end


def new_key() -> bytes:
    """Return a new key, 32 random bytes."""
    return os.urandom(KEY_BYTES)


def read_key(file: str | os.PathLike[str] | None, variable: str) -> bytes | None:
    """Return the key in a file, else in an environment variable; None when neither is given.

    32 raw bytes (in a file alone), 64 hex digits or 44 base64 characters. Raises `InvalidOption`
    for anything else, and for a file that cannot be read or that others may read.
    """
    if file is not None:
        data = read_secret(os.fspath(file))
        return data if len(data) == KEY_BYTES else _key_from_text(data, os.fspath(file))
    text = os.environ.get(variable)
    return None if text is None else _key_from_text(os.fsencode(text), variable)


def seal(data: bytes, key: bytes, context: bytes) -> bytes:
    """Return the data encrypted; raises `SealError` without `cryptography`."""
    nonce = os.urandom(NONCE_BYTES)
    return MAGIC + nonce + _cipher(key).encrypt(nonce, data, MAGIC + context)


def unseal(data: bytes, key: bytes, context: bytes) -> bytes:
    """Return what `seal` was given.

    Raises `SealError` unless the key and the context are the same and every byte is as it was.
    """
    if not is_sealed(data):
        raise SealError("it is not encrypted")
    body = len(MAGIC) + NONCE_BYTES
    if len(data) < body + TAG_BYTES:
        raise SealError("it is cut short")
    cipher = _cipher(key)
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(data[len(MAGIC) : body], data[body:], MAGIC + context)
    except InvalidTag as error:
        raise SealError("the key is another one, or the data was altered or moved") from error


def is_sealed(data: bytes) -> bool:
    """Return whether data begins as what `seal` returns."""
    return data.startswith(MAGIC)


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:  # AESGCM takes 16 bytes too
        raise SealError(f"the key has {len(key)} bytes; AES-256 needs {KEY_BYTES}")
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise SealError("encryption needs unface[server]: pip install 'unface[server]'") from error
    return AESGCM(key)


def read_secret(file: str) -> bytes:
    """Return what is in a key's file; raises `InvalidOption` where others may read it too."""
    try:
        with open(file, "rb") as stream:
            status, data = os.fstat(stream.fileno()), stream.read(MOST_KEY_FILE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidOption(f"the key file {file} cannot be read: {why}") from error
    _check_mode(file, status)
    return data


def _check_mode(file: str, status: os.stat_result) -> None:
    """Raise `InvalidOption` for a file that others may read.

    As PostgreSQL has it for its key (`ssl_key_file`): the group of a file of root's may read it,
    which is how a secret reaches a container that does not run as root.
    """
    of_root = status.st_uid == 0 != os.geteuid()
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o037 if of_root else 0o077):
        right = "640" if of_root else "600"
        raise InvalidOption(f"the key file {file} has mode {mode:o}: chmod {right} {file}")


def _key_from_text(data: bytes, source: str) -> bytes:
    text = data.strip()
    try:
        is_hex = len(text) == 2 * KEY_BYTES
        key = bytes.fromhex(text.decode()) if is_hex else b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidOption(
            f"{source} holds no key: 64 hex digits, 44 base64 characters or, in a file, 32 bytes "
            "are needed; `unface engines new-key FILE` writes one"
        )
    return key
