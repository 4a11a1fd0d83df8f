from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from unface.errors import InvalidOption, SealError
from unface.sealing import (
    KEY_BYTES,
    MAGIC,
    NONCE_BYTES,
    TAG_BYTES,
    is_sealed,
    new_key,
    read_key,
    seal,
    unseal,
)

KEY = bytes(range(KEY_BYTES))
VARIABLE = "UNFACE_TEST_KEY"
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


@given(st.binary(), keys, st.binary())
def test_what_is_sealed_opens_with_its_key_and_context(
    data: bytes, key: bytes, context: bytes
) -> None:
    sealed = seal(data, key, context)
    assert is_sealed(sealed)
    assert len(sealed) == len(MAGIC) + NONCE_BYTES + len(data) + TAG_BYTES
    assert unseal(sealed, key, context) == data


@given(keys, st.binary(), keys, st.binary())
def test_another_key_or_context_opens_nothing(
    key: bytes, context: bytes, other_key: bytes, other_context: bytes
) -> None:
    if (key, context) == (other_key, other_context):
        return
    with pytest.raises(SealError, match="key is another one, or the data was altered or moved"):
        unseal(seal(b"secret", key, context), other_key, other_context)


def test_every_changed_bit_is_seen() -> None:
    sealed = seal(b"small", KEY, b"c")
    for place in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[place // 8] ^= 1 << place % 8
        with pytest.raises(SealError):
            unseal(bytes(altered), KEY, b"c")


def test_every_cut_and_every_added_byte_is_seen() -> None:
    sealed = seal(b"small", KEY, b"c")
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            unseal(sealed[:length], KEY, b"c")
    with pytest.raises(SealError):
        unseal(sealed + b"\0", KEY, b"c")


def test_what_is_not_sealed_is_named_so() -> None:
    for data in (b"", b"plain", MAGIC[:-1]):
        assert not is_sealed(data)
        with pytest.raises(SealError, match="not encrypted"):
            unseal(data, KEY, b"")
    with pytest.raises(SealError, match="cut short"):
        unseal(MAGIC, KEY, b"")


def test_the_format_is_the_documented_one() -> None:
    sealed = seal(b"data", KEY, b"purpose")
    nonce, body = sealed[8:20], sealed[20:]
    assert sealed[:8] == b"UNFACE1\0"
    assert AESGCM(KEY).decrypt(nonce, body, b"UNFACE1\0purpose") == b"data"


def test_the_same_data_is_never_sealed_the_same_twice() -> None:
    assert len({seal(b"same", KEY, b"") for _ in range(100)}) == 100
    assert len({new_key() for _ in range(100)}) == 100


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_of_another_length_is_refused_also_where_aes_would_take_it(length: int) -> None:
    with pytest.raises(SealError, match=f"{length} bytes; AES-256 needs 32"):
        seal(b"", bytes(length), b"")
    with pytest.raises(SealError, match=f"{length} bytes"):
        unseal(seal(b"", KEY, b""), bytes(length), b"")


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@given(keys)
def test_a_key_is_read_in_each_of_its_forms(key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        hexadecimal, base = key.hex().encode(), base64.b64encode(key)
        for content in (key, hexadecimal, hexadecimal.upper() + b"\n", base, b" " + base + b"\r\n"):
            assert read_key(key_file(Path(folder), content), VARIABLE) == key
        for text in (key.hex(), base.decode()):
            patch.setenv(VARIABLE, text)
            assert read_key(None, VARIABLE) == key


def test_the_file_comes_before_the_environment_and_neither_is_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_key(None, VARIABLE) is None
    monkeypatch.setenv(VARIABLE, "7" * 64)
    assert read_key(str(key_file(tmp_path, KEY)), VARIABLE) == KEY


WRONG = [b"", b"\n", b"short", KEY + b"\n", KEY.hex().encode()[:-1], b"g" * 64, b"*" * 44]
WRONG += [base64.b64encode(KEY[:-1]), base64.b64encode(KEY + b"x"), b"\xff" * 64, b"0 " * 32]


@pytest.mark.parametrize("content", WRONG)
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    file = key_file(tmp_path, content)
    with pytest.raises(InvalidOption, match="64 hex digits, 44 base64") as refused:
        read_key(file, VARIABLE)
    assert str(file) in str(refused.value)
    assert len(content) < 5 or content.decode(errors="replace") not in str(refused.value)


@pytest.mark.parametrize("text", ["", "x" * 32, "0" * 63])
def test_the_environment_holds_text_and_no_raw_bytes(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InvalidOption, match=f"{VARIABLE} holds no key"):
        read_key(None, VARIABLE)


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"absent cannot be read: No such file"):
        read_key(tmp_path / "absent", VARIABLE)
    with pytest.raises(InvalidOption, match=r"cannot be read: Is a directory"):
        read_key(tmp_path, VARIABLE)
    with pytest.raises(InvalidOption, match="cannot be read"):
        read_key("a\0b", VARIABLE)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(InvalidOption):
        read_key("/dev/zero", VARIABLE)


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_a_key_that_others_may_reach_is_refused_and_the_remedy_works(
    tmp_path: Path, mode: int
) -> None:
    file = key_file(tmp_path, KEY, mode)
    with pytest.raises(InvalidOption, match=f"has mode {mode:o}: chmod 600 ") as refused:
        read_key(file, VARIABLE)
    subprocess.run(str(refused.value).rpartition(": ")[2].split(), check=True)
    assert read_key(file, VARIABLE) == KEY


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_for_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    assert read_key(key_file(tmp_path, KEY, mode), VARIABLE) == KEY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_group_may_read_a_key_of_roots_as_containers_need_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = key_file(Path(folder), KEY, 0o440)
        os.seteuid(65534)
        try:
            assert read_key(file, VARIABLE) == KEY
            os.seteuid(0)
            file.chmod(0o444)
            os.seteuid(65534)
            with pytest.raises(InvalidOption, match="mode 444: chmod 640"):
                read_key(file, VARIABLE)
        finally:
            os.seteuid(0)


def test_without_cryptography_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from unface.errors import SealError\nfrom unface.sealing import seal\n"
        "try: seal(b'', bytes(32), b'')\nexcept SealError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'unface[server]'" in said.stdout


def test_importing_sealing_loads_no_library() -> None:
    code = (
        "import sys, unface.sealing; print('cryptography' in sys.modules, 'numpy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
