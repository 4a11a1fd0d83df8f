from __future__ import annotations

import hmac
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_tokens import EC, ED, GOOD, HMAC, OF_KEYS, OF_SECRET, RSA, changed, part, signed
from hypothesis import given, settings
from hypothesis import strategies as st
from issuing import SECRET, Authority, Issuer, claims, key_pem, key_set

from unface.errors import InvalidOption, Unauthenticated
from unface.server.config import ServerConfig
from unface.server.rotation import CHECK_SECONDS, MAX_BYTES
from unface.server.tokens import Caller, Tokens

ISSUERS = {issuer.algorithm: issuer for issuer in (RSA, EC, ED)}
ALGORITHMS = list(ISSUERS)
EVERYTHING = frozenset({"detect", "anonymize", "admin"})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(config: ServerConfig, clock: Clock | None = None) -> Tokens:
    tokens = Tokens.from_config(config, clock or Clock())
    assert tokens is not None
    return tokens


def of_secret(folder: Path, secret: str | bytes = SECRET, **options: Any) -> Tokens:
    path = folder / "secret"
    path.write_bytes(secret if isinstance(secret, bytes) else secret.encode())
    return opened(ServerConfig(jwt_secret_file=str(path), **options))


def of_keys(folder: Path, content: str, **options: Any) -> Tokens:
    path = folder / "keys.json"
    path.write_text(content)
    return opened(ServerConfig(jwt_jwks_file=str(path), **options))


def test_without_a_file_there_are_no_tokens() -> None:
    assert Tokens.from_config(ServerConfig()) is None


def test_a_good_token_of_a_secret_names_its_caller(tmp_path: Path) -> None:
    caller = of_secret(tmp_path).check("Bearer " + HMAC.token())
    assert caller == Caller("alice", EVERYTHING)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_of_each_kind_of_key_passes(tmp_path: Path, algorithm: str) -> None:
    tokens = of_keys(tmp_path, key_set(RSA, EC, ED))
    assert tokens.check("Bearer " + ISSUERS[algorithm].token()).name == "alice"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_single_key_without_kid_takes_tokens_with_and_without(
    tmp_path: Path, algorithm: str
) -> None:
    issuer = Issuer(algorithm)
    tokens = of_keys(tmp_path, key_set(issuer))
    assert tokens.check("Bearer " + issuer.token())
    assert tokens.check("Bearer " + issuer.token({"kid": "some"}))


def test_a_token_without_kid_passes_where_there_is_one_key(tmp_path: Path) -> None:
    issuer = Issuer("ES256", "only")
    tokens = of_keys(tmp_path, key_set(issuer))
    issuer.kid = None
    assert tokens.check("Bearer " + issuer.token())


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({"scope": "detect"}, {"detect"}),
        ({"scope": "openid detect  anonymize"}, {"detect", "anonymize"}),
        ({"scope": None, "scp": "detect admin"}, {"detect", "admin"}),
        ({"scope": None, "scp": ["detect"]}, {"detect"}),
        ({"scope": ["anonymize", "email"]}, {"anonymize"}),
        ({"scope": "detect", "scp": "admin"}, {"detect"}),
        ({"scope": None}, set()),
        ({"scope": ""}, set()),
        ({"scope": "detect-all"}, set()),
        ({"scope": "Detect DETECT"}, set()),
        ({"scope": "detect\tadmin"}, set()),
        ({"scope": "detect\u00a0admin"}, set()),
        ({"scope": "detect,admin"}, set()),
        ({"scope": "*"}, set()),
    ],
)
def test_scopes_are_whole_words_that_we_know(
    tmp_path: Path, changes: dict[str, Any], scopes: set[str]
) -> None:
    assert of_secret(tmp_path).check("Bearer " + HMAC.token(**changes)).scopes == scopes


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["other", "unface"]},
        {"exp": 4e9},
        {"iat": None},
        {"iss": "https://issuer.example"},
        {"sub": "x" * 128},
        {"sub": "Zoë Q."},
    ],
)
def test_what_a_token_may_say(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert of_secret(tmp_path).check("Bearer " + HMAC.token(**changes))


@pytest.mark.parametrize(("claim", "shift"), [("exp", -10), ("nbf", 10), ("iat", 10)])
def test_clocks_may_differ_by_seconds(tmp_path: Path, claim: str, shift: int) -> None:
    token = HMAC.token(**{claim: time.time() + shift})
    assert of_secret(tmp_path).check("Bearer " + token)


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", ""])
def test_access_tokens_of_either_type_pass(tmp_path: Path, typ: str) -> None:
    assert of_secret(tmp_path).check("Bearer " + HMAC.token({"typ": typ}))


def test_the_scheme_may_be_in_any_case(tmp_path: Path) -> None:
    assert of_secret(tmp_path).check("bearer " + HMAC.token())


@pytest.mark.parametrize("case", OF_SECRET)
def test_a_bad_token_is_refused_in_words_that_quote_nothing(tmp_path: Path, case: str) -> None:
    authorization, words = OF_SECRET[case]
    with pytest.raises(Unauthenticated, match=words) as caught:
        of_secret(tmp_path).check(authorization)
    message = str(caught.value)
    assert caught.value.__cause__ is None  # nothing of the token for a log
    for piece in re.split(r"[\s.]", authorization or ""):
        assert len(piece) <= len("Bearer") or piece not in message


@pytest.mark.parametrize("case", OF_KEYS)
def test_a_bad_token_for_public_keys_is_refused(tmp_path: Path, case: str) -> None:
    token, words = OF_KEYS[case]
    with pytest.raises(Unauthenticated, match=words):
        of_keys(tmp_path, key_set(RSA, EC, ED)).check("Bearer " + token)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, "lacks iss"), ({"iss": "https://evil.example"}, "issuer"), ({"iss": ""}, "issuer")],
)
def test_the_issuer_is_checked_where_one_is_configured(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    tokens = of_secret(tmp_path, jwt_issuer="https://issuer.example")
    assert tokens.check("Bearer " + HMAC.token(iss="https://issuer.example"))
    with pytest.raises(Unauthenticated, match=words):
        tokens.check("Bearer " + HMAC.token(**changes))


@pytest.mark.parametrize("token", [HMAC.token(), EC.token()], ids=["HS256", "ES256"])
def test_no_single_character_can_be_changed(tmp_path: Path, token: str) -> None:
    tokens = of_secret(tmp_path) if token.startswith(GOOD[:20]) else of_keys(tmp_path, key_set(EC))
    assert tokens.check("Bearer " + token)
    for index, character in enumerate(token):
        other = token[:index] + ("A" if character != "A" else "B") + token[index + 1 :]
        with pytest.raises(Unauthenticated):
            tokens.check("Bearer " + other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=60)
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "cty", "jku"]), JSON),
    payload=JSON | st.dictionaries(st.sampled_from(["sub", "aud", "exp", "nbf", "scope"]), JSON),
)
def test_whatever_is_signed_is_refused_or_names_a_caller(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], payload: Any
) -> None:
    tokens = of_secret(tmp_path_factory.getbasetemp())
    for fields in (header, {**header, "alg": "HS256"}, {"alg": "HS256"}):
        body = {**claims(), **payload} if isinstance(payload, dict) else payload
        try:
            caller = tokens.check("Bearer " + signed(fields, body))
        except Unauthenticated:
            continue
        assert caller.name
        assert caller.scopes <= EVERYTHING


@given(st.text() | st.text().map("Bearer {}".format) | st.from_regex(r"Bearer [\w-]+\.[\w-]+\.\w+"))
def test_whatever_is_sent_is_refused(
    tmp_path_factory: pytest.TempPathFactory, authorization: str
) -> None:
    with pytest.raises(Unauthenticated):
        of_secret(tmp_path_factory.getbasetemp()).check(authorization)


def called(work: Callable[[], object]) -> set[str]:
    """Return the names of the C functions that are called."""
    names = set()

    def note(frame: object, event: str, function: Any) -> None:
        if event == "c_call":
            names.add(f"{function.__module__}.{function.__name__}")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return names


def test_signatures_of_a_secret_are_compared_in_constant_time(tmp_path: Path) -> None:
    tokens = of_secret(tmp_path)
    constant = f"{hmac.compare_digest.__module__}.{hmac.compare_digest.__name__}"

    def wrong() -> None:
        with pytest.raises(Unauthenticated, match="signature"):
            tokens.check("Bearer " + changed(GOOD, 2, part(b"\0" * 32)))

    assert constant in called(lambda: tokens.check("Bearer " + GOOD))
    assert constant in called(wrong)
    assert constant not in called(lambda: b"a" == b"b")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 31,
        b"x" * 31 + b"\n",
        b"x" * 31 + b"\r\n",
        RSA.public_pem(),
        key_pem(EC.key),
        Authority().pem,
        json.dumps(RSA.jwk()).encode(),
        key_set(RSA).encode(),
        b"x" * (MAX_BYTES + 1),
    ],
    ids=["empty", "31", "31 n", "31 rn", "PEM", "private PEM", "x509", "JWK", "JWKS", "large"],
)
def test_a_secret_that_is_none_is_refused_at_the_start(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidOption, match="jwt_secret_file"):
        of_secret(tmp_path, content)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_line_end_after_a_secret_is_no_part_of_it(tmp_path: Path, end: bytes) -> None:
    assert of_secret(tmp_path, SECRET.encode() + end).check("Bearer " + GOOD)


@pytest.mark.parametrize("option", ["jwt_secret_file", "jwt_jwks_file"])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path, option: str) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(InvalidOption, match=rf"{option}: cannot read {missing}: No such file"):
        Tokens.from_config(ServerConfig(**{option: missing}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no JWKS"),
        ("[]", "no JWKS"),
        ("{}", "no JWKS"),
        ('{"keys": 3}', "no JWKS"),
        ('{"keys": [3]}', "no JWKS"),
        ('{"keys": [{}]}', "no JWKS"),
        ("[" * 100_000, "no JWKS"),
        (RSA.public_pem().decode(), "no JWKS"),
        ('{"keys": []}', "has no key"),
        (key_set(RSA.jwk(use="enc")), "has no key"),
        (key_set(RSA.jwk(alg="RS512")), "has no key"),
        (key_set(RSA.jwk(key_ops=["encrypt"])), "has no key"),
        (key_set({"kty": "EC", "crv": "P-521", "x": "", "y": ""}), "has no key"),
        (key_set({"kty": "oct", "k": part(SECRET.encode())}), "secret key"),
        (key_set({**EC.jwk(), "d": "AAAA"}), "secret key"),
        (key_set(RSA, {**EC.jwk(), "kid": "rs256"}), "kid of its own"),
        (key_set(RSA, Issuer("ES256")), "kid of its own"),
        (key_set({**RSA.jwk(), "kid": 3}), "kid that is no text"),
        (key_set(Issuer("RS256", bits=1024)), "1024 bits; 2048"),
        (key_set({**RSA.jwk(), "n": "!"}), "cannot be read"),
        (key_set({"kty": "RSA"}), "cannot be read"),
        (key_set({**EC.jwk(), "x": part(b"\1" * 32)}), "cannot be read"),
        (key_set({**ED.jwk(), "x": "AA"}), "cannot be read"),
    ],
)
def test_a_bad_key_set_is_refused_at_the_start(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(InvalidOption, match=f"jwt_jwks_file: .*{words}"):
        of_keys(tmp_path, content)


def test_keys_for_other_uses_are_left_out(tmp_path: Path) -> None:
    encryption = {**Issuer("RS256", "e").jwk(), "use": "enc", "alg": "RSA-OAEP"}
    tokens = of_keys(tmp_path, key_set(encryption, {"kty": "XYZ"}, EC))
    assert tokens.check("Bearer " + EC.token())


def test_keys_rotate_without_a_restart(tmp_path: Path) -> None:
    old, new, clock = Issuer("EdDSA", "old"), Issuer("EdDSA", "new"), Clock()
    path = tmp_path / "keys.json"
    path.write_text(key_set(old))
    tokens = opened(ServerConfig(jwt_jwks_file=str(path)), clock)
    path.write_text(key_set(old, new))
    with pytest.raises(Unauthenticated):  # looks once a second at most
        tokens.check("Bearer " + new.token())
    clock.now += CHECK_SECONDS
    assert tokens.check("Bearer " + new.token())
    assert tokens.check("Bearer " + old.token())
    path.write_text(key_set(new))
    clock.now += CHECK_SECONDS
    with pytest.raises(Unauthenticated, match="kid"):
        tokens.check("Bearer " + old.token())


def test_a_file_put_in_place_of_another_is_seen_though_time_and_size_are_equal(
    tmp_path: Path,
) -> None:
    clock, path, new = Clock(), tmp_path / "secret", tmp_path / "new"
    path.write_text(SECRET)
    tokens = opened(ServerConfig(jwt_secret_file=str(path)), clock)
    new.write_text(SECRET[::-1])
    was = path.stat()
    os.utime(new, ns=(was.st_atime_ns, was.st_mtime_ns))
    new.replace(path)
    clock.now += CHECK_SECONDS
    with pytest.raises(Unauthenticated, match="signature"):
        tokens.check("Bearer " + GOOD)


@pytest.mark.parametrize("broken", ["", "{", None, key_set(Issuer("RS256", bits=1024))])
def test_a_broken_new_file_keeps_the_old_keys_and_is_logged_once(
    tmp_path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock, path = Clock(), tmp_path / "keys.json"
    path.write_text(key_set(EC))
    tokens = opened(ServerConfig(jwt_jwks_file=str(path)), clock)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with caplog.at_level(logging.ERROR, "unface.server"):
        for _ in range(3):
            clock.now += CHECK_SECONDS
            assert tokens.check("Bearer " + EC.token())
    assert len(caplog.messages) == 1
    assert "stays in use" in caplog.text
    path.write_text(key_set(ED, EC))
    clock.now += CHECK_SECONDS
    assert tokens.check("Bearer " + ED.token())


def test_the_tokens_of_the_manual_are_taken(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    secret, keys = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)
    for code, option, file in (
        (secret, "jwt_secret_file", "secret"),
        (keys, "jwt_jwks_file", "keys.json"),
    ):
        made = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        tokens = opened(ServerConfig(**{option: str(tmp_path / file)}))
        assert tokens.check(f"Bearer {made.stdout.strip()}") == ("camera-7", {"detect"})


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    code = (
        "import sys; sys.modules['jwt'] = None\n"
        "from unface.server.config import ServerConfig\n"
        "from unface.server.tokens import Tokens\n"
        f"Tokens.from_config(ServerConfig(jwt_secret_file={str(tmp_path / 'secret')!r}))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert "InvalidOption: jwt_secret_file needs unface[server]: pip install" in run.stderr


def test_tokens_load_no_library_until_they_are_configured() -> None:
    code = (
        "import sys, unface.server.tokens\n"
        "print([m for m in ('jwt', 'cryptography', 'pydantic') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert run.stdout.strip() == "[]", run.stderr
