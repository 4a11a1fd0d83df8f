"""Tokens that no server may take: of one that knows `SECRET`, and of one with three public keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from issuing import SECRET, Issuer, claims

MAX_TOKEN_BYTES = 8 << 10

RSA, EC, ED = (Issuer(algorithm, algorithm.lower()) for algorithm in ("RS256", "ES256", "EdDSA"))
HMAC = Issuer()


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(header: Any, payload: Any, secret: bytes = SECRET.encode()) -> str:
    """Return a token signed with HMAC, whatever it says."""
    text = f"{part(header)}.{part(payload)}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def changed(token: str, index: int, value: str) -> str:
    parts = token.split(".")
    parts[index] = value
    return ".".join(parts)


NOW = int(time.time())
GOOD = HMAC.token()

# By name: what is sent, and words of the answer.
OF_SECRET: dict[str, tuple[str | None, str]] = {
    "none": (None, "no token"),
    "empty": ("", "no token"),
    "no scheme": (GOOD, "another kind"),
    "basic": ("Basic YWxpY2U6c2VjcmV0", "another kind"),
    "bearer without token": ("Bearer ", "three parts"),
    "bearer alone": ("Bearer", "three parts"),
    "two spaces": ("Bearer  " + GOOD, "three parts"),
    "a tab": ("Bearer\t" + GOOD, "another kind"),
    "a line feed": (f"Bearer {GOOD}\n", "three parts"),
    "two tokens": (f"Bearer {GOOD}, Bearer {GOOD}", "three parts"),
    "garbage": ("Bearer \x00\x01\xff!", "three parts"),
    "three parts of garbage": ("Bearer abc.def.ghi", "damaged"),
    "dots": ("Bearer ..", "three parts"),
    "oversized": ("Bearer " + "a" * MAX_TOKEN_BYTES + ".b.c", "longer"),
    "two parts": ("Bearer " + GOOD.rpartition(".")[0], "three parts"),
    "no signature": ("Bearer " + GOOD.rpartition(".")[0] + ".", "three parts"),
    "five parts, as of JWE": (f"Bearer {GOOD}.a.b", "three parts"),
    "padded": (f"Bearer {GOOD}=", "three parts"),
    "a full-width letter": (f"Bearer {GOOD[:-1]}\uff21", "three parts"),
    "a zero-width space": (f"Bearer {GOOD[:9]}\u200b{GOOD[9:]}", "three parts"),
    "truncated": (f"Bearer {GOOD[:-4]}", "signature|damaged"),
    "tampered payload": ("Bearer " + changed(GOOD, 1, part(claims(sub="mallory"))), "signature"),
    "tampered signature": ("Bearer " + changed(GOOD, 2, part(b"\0" * 32)), "signature"),
    "another token's signature": (
        "Bearer " + changed(GOOD, 2, HMAC.token(sub="bob").split(".")[2]),
        "signature",
    ),
    "wrong secret": (
        "Bearer " + signed({"alg": "HS256"}, claims(), b"another secret of 32 bytes and more"),
        "signature",
    ),
    "empty secret": ("Bearer " + signed({"alg": "HS256"}, claims(), b""), "signature"),
    **{
        f"alg {alg!r}": ("Bearer " + signed({"alg": alg}, claims()), "algorithm")
        for alg in ("none", "None", "NONE", "nOnE", "", None, "hs256", "HS512", "RS256", "HS256 ")
    },
    "alg none, unsigned": (f"Bearer {part({'alg': 'none'})}.{part(claims())}.", "three parts"),
    "no alg": ("Bearer " + signed({}, claims()), "algorithm"),
    "alg a list": ("Bearer " + signed({"alg": ["HS256"]}, claims()), "algorithm"),
    "header no object": ("Bearer " + signed(["HS256"], claims()), "damaged"),
    "header deep": ("Bearer " + signed(b"[" * 4000, claims()), "damaged"),
    "crit": ("Bearer " + HMAC.token({"crit": ["exp"], "exp": 1}), "damaged|header"),
    "b64": ("Bearer " + signed({"alg": "HS256", "b64": False}, b"x"), "damaged|header"),
    "zip": ("Bearer " + HMAC.token({"zip": "DEF"}), "header"),
    "jku": ("Bearer " + HMAC.token({"jku": "https://evil.example/keys"}), "header"),
    "x5u": ("Bearer " + HMAC.token({"x5u": "https://evil.example/pem"}), "header"),
    "x5c": ("Bearer " + HMAC.token({"x5c": ["MIIB"]}), "header"),
    "embedded jwk": ("Bearer " + EC.token({"jwk": EC.jwk()}), "header"),
    "kid a number": ("Bearer " + signed({"alg": "HS256", "kid": 1}, claims()), "damaged"),
    "a logout token": ("Bearer " + HMAC.token({"typ": "logout+jwt"}), "access token"),
    "typ a list": ("Bearer " + HMAC.token({"typ": ["JWT"]}), "access token"),
    "nested": ("Bearer " + signed({"alg": "HS256", "cty": "JWT"}, GOOD.encode()), "damaged"),
    "payload no object": ("Bearer " + signed({"alg": "HS256"}, [claims()]), "damaged"),
    "payload not UTF-8": ("Bearer " + signed({"alg": "HS256"}, b"{\xff}"), "damaged"),
    "payload deep": ("Bearer " + signed({"alg": "HS256"}, b'{"a":' * 900), "damaged"),
    "expired": ("Bearer " + HMAC.token(exp=NOW - 40), "expired"),
    "expired long ago": ("Bearer " + HMAC.token(exp=0), "expired"),
    "no exp": ("Bearer " + HMAC.token(exp=None), "lacks exp"),
    "exp null": ("Bearer " + signed({"alg": "HS256"}, {**claims(), "exp": None}), "lacks exp"),
    "exp a text": ("Bearer " + HMAC.token(exp=str(NOW + 86_400)), "exp is no number"),
    "exp true": ("Bearer " + HMAC.token(exp=True), "expired"),
    "exp infinite": ("Bearer " + HMAC.token(exp=float("inf")), "damaged"),
    "exp not a number": ("Bearer " + HMAC.token(exp=float("nan")), "damaged"),
    "not yet valid": ("Bearer " + HMAC.token(nbf=NOW + 86_400), "not valid yet"),
    "nbf a text": ("Bearer " + HMAC.token(nbf="1"), "nbf is no number"),
    "nbf true": ("Bearer " + HMAC.token(nbf=True), "nbf is no number"),
    "from the future": ("Bearer " + HMAC.token(iat=NOW + 86_400), "not valid yet"),
    "wrong aud": ("Bearer " + HMAC.token(aud="other"), "audience"),
    "aud a prefix": ("Bearer " + HMAC.token(aud="unface-admin"), "audience"),
    "aud in other case": ("Bearer " + HMAC.token(aud="Unface"), "audience"),
    "aud a list without ours": ("Bearer " + HMAC.token(aud=["a", "b"]), "audience"),
    "aud an object": ("Bearer " + HMAC.token(aud={"unface": 1}), "audience"),
    "aud empty": ("Bearer " + HMAC.token(aud=[]), "lacks aud"),
    "no aud": ("Bearer " + HMAC.token(aud=None), "lacks aud"),
    "no sub": ("Bearer " + HMAC.token(sub=None), "lacks sub"),
    "sub empty": ("Bearer " + HMAC.token(sub=""), "sub is not"),
    "sub blank": ("Bearer " + HMAC.token(sub="  "), "sub is not"),
    "sub a number": ("Bearer " + HMAC.token(sub=7), "sub is no text"),
    "sub too long": ("Bearer " + HMAC.token(sub="x" * 129), "sub is not"),
    "sub with a line feed": ("Bearer " + HMAC.token(sub="alice\nroot"), "sub is not"),
    "sub turned around": ("Bearer " + HMAC.token(sub="\u202eecila"), "sub is not"),
    "sub with a zero-width space": ("Bearer " + HMAC.token(sub="ali\u200bce"), "sub is not"),
    "sub half a character": ("Bearer " + HMAC.token(sub="\ud800"), "sub is not"),
    "scope a number": ("Bearer " + HMAC.token(scope=1), "scope is no text"),
    "scope an object": ("Bearer " + HMAC.token(scope={"detect": True}), "scope is no text"),
    "scope a list of numbers": ("Bearer " + HMAC.token(scope=["detect", 1]), "scope is no text"),
}  # fmt: skip

# The same, the token alone, for a server that knows the public keys of RSA, EC and ED.
OF_KEYS: dict[str, tuple[str, str]] = {
    "HS256 with the public PEM": (
        signed({"alg": "HS256", "kid": "rs256"}, claims(), RSA.public_pem()),
        "algorithm",
    ),
    "HS256 with the JWK": (
        signed({"alg": "HS256", "kid": "rs256"}, claims(), json.dumps(RSA.jwk()).encode()),
        "algorithm",
    ),
    "HS256 with the modulus": (
        signed({"alg": "HS256", "kid": "rs256"}, claims(), RSA.jwk()["n"].encode()),
        "algorithm",
    ),
    "HS256 with an empty secret": (
        signed({"alg": "HS256", "kid": "rs256"}, claims(), b""),
        "algorithm",
    ),
    "missing kid": (Issuer("RS256").token(), "kid"),
    "missing kid, signed well": (EC.token({"kid": None}), "kid"),
    "unknown kid": (EC.token({"kid": "es257"}), "kid"),
    "kid of another key of the set": (EC.token({"kid": "rs256"}), "algorithm"),
    "kid of a key of the same kind": (Issuer("EdDSA", "eddsa").token(), "signature"),
    "kid a path": (EC.token({"kid": "../../dev/null"}), "kid"),
    "kid an injection": (EC.token({"kid": "x' UNION SELECT 'k"}), "kid"),
    "a stranger's RSA key": (Issuer("RS256", "rs256").token(), "signature"),
    "a stranger's EC key": (Issuer("ES256", "es256").token(), "signature"),
    "RSA-PSS": (RSA.token({"alg": "PS256"}), "algorithm"),
    "RS512": (RSA.token({"alg": "RS512"}), "algorithm"),
    "EC signature of zeros": (changed(EC.token(), 2, part(b"\0" * 64)), "signature"),
    "EC signature empty": (changed(EC.token(), 2, "AA"), "signature"),
    "Ed25519 signature of zeros": (changed(ED.token(), 2, part(b"\0" * 64)), "signature"),
    "Ed25519 signature too short": (changed(ED.token(), 2, part(b"\0" * 8)), "signature"),
    "expired": (ED.token(exp=NOW - 40), "expired"),
}
