"""Tokens: who calls, and what the caller may do. JSON Web Tokens, RFC 7519 and RFC 8725.

The algorithm is the key's, never the token's: a secret takes HS256, a key of a JWKS file what fits
its type. Nothing that a token says leads to another key, file or address.
"""

from __future__ import annotations

import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unface.errors import InvalidOption, Unauthenticated
from unface.server.rotation import Rotated, read_file

if TYPE_CHECKING:  # jwt comes with unface[server]; a client that knows our errors needs neither
    from jwt import PyJWK

    from unface.server.config import ServerConfig

SCOPES = frozenset({"detect", "anonymize", "admin"})
LEEWAY_SECONDS = 30  # clocks of two machines differ
MAX_TOKEN_BYTES = 8 << 10
MAX_NAME = 128  # characters of `sub`
SECRET_BYTES = 32  # RFC 7518 3.2: a key as long as the hash, or longer
RSA_BITS = 2048  # RFC 7518 3.3

# JWS compact form, RFC 7515 7.1: three parts of base64url without padding, none of them empty.
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Header fields that name a key of the sender's own or ask for more than we do: RFC 7515 4.1.
_REFUSED_FIELDS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})  # RFC 9068 2.1; not a "logout+jwt"
# By kty and crv: RFC 7518 6.1, RFC 8037 2.
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


class Caller(NamedTuple):
    """Who calls, and what for. `name` is what fairness and limits go by; never shown or logged."""

    name: str
    scopes: frozenset[str]


Keys = Mapping[str | None, "PyJWK"]  # by kid; None: the one key there is


class Tokens:
    """Checks tokens against a secret or public keys, and against audience and issuer.

    `issuer` None takes any. For one thread or several.
    """

    def __init__(self, keys: Rotated[Keys], audience: str, issuer: str | None = None) -> None:
        self._keys = keys
        self._audience = audience
        self._issuer = issuer

    @classmethod
    def from_config(
        cls, config: ServerConfig, clock: Callable[[], float] = time.monotonic
    ) -> Tokens | None:
        """Return what checks the configured tokens, or None where calls need none.

        Raises `InvalidOption` for a missing or unusable file of keys and without unface[server].
        """
        path, read = config.jwt_secret_file, _keys_of_secret
        if path is None:
            path, read = config.jwt_jwks_file, _keys_of_jwks
        if path is None:
            return None
        keys: Rotated[Keys] = Rotated(lambda: read(path), path, clock=clock)
        return cls(keys, config.jwt_audience, config.jwt_issuer)

    def check(self, authorization: str | None) -> Caller:
        """Return whose token `authorization` carries ("Bearer " and a JWT, RFC 6750 2.1).

        The signature is checked before what the token claims: PyJWT compares that of HS256 by
        `hmac.compare_digest`, in constant time. Raises `Unauthenticated` saying what is wrong,
        never with a part of the token.
        """
        import jwt

        if not authorization:
            raise Unauthenticated("there is no token; send `authorization: Bearer TOKEN`")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":  # RFC 9110 11.1: in any case
            raise Unauthenticated("authorization is of another kind; send `Bearer TOKEN`")
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        if not _TOKEN.fullmatch(token):
            raise Unauthenticated("the token is not a signed JWT of three parts")
        try:
            key = _chosen(self._keys.current, jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_words(error)) from None
        _check_times(claims)
        return Caller(_name(claims["sub"]), _scopes(claims))


def _keys_of_secret(path: str) -> Keys:
    """Read a secret for HS256."""
    jwt = _pyjwt("jwt_secret_file")
    secret = re.sub(rb"\r?\n\Z", b"", read_file("jwt_secret_file", path))
    if len(secret) < SECRET_BYTES:
        raise InvalidOption(
            f"jwt_secret_file: {path} has {len(secret)} bytes; HS256 needs {SECRET_BYTES} random "
            "bytes or more"
        )
    try:
        # PyJWT knows public keys by their looks: everybody could sign with one.
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
        encoded = urlsafe_b64encode(secret).decode()
        return {None: jwt.PyJWK({"kty": "oct", "k": encoded}, "HS256")}
    except jwt.PyJWTError as error:
        raise InvalidOption(
            f"jwt_secret_file: {path} is a key of another kind, not a secret: put a set of public "
            "keys into jwt_jwks_file"
        ) from error


def _keys_of_jwks(path: str) -> Keys:
    """Read the public keys of a JWK Set, RFC 7517 5; keys that are not for us are left out."""
    where = f"jwt_jwks_file: {path}"
    jwt = _pyjwt("jwt_jwks_file")
    content = read_file("jwt_jwks_file", path)
    try:
        found = [(e.get("kid"), e) for e in json.loads(content)["keys"] if _is_ours(e, where)]
    except InvalidOption:  # is a ValueError too
        raise
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InvalidOption(f'{where} is no JWKS: JSON such as {{"keys": [...]}}') from error
    kids = [kid for kid, _ in found]
    if not found:
        raise InvalidOption(f"{where} has no key for RS256, ES256 or EdDSA signatures")
    if not all(kid is None or isinstance(kid, str) for kid in kids):
        raise InvalidOption(f"{where} has a kid that is no text")
    if len(found) > 1 and (None in kids or len({*kids}) < len(kids)):
        raise InvalidOption(f"{where} has several keys; each needs a kid of its own")
    try:
        return {kid: _key(entry, where) for kid, entry in found}
    except InvalidOption:
        raise
    except jwt.exceptions.MissingCryptographyError as error:
        raise InvalidOption(_missing("jwt_jwks_file")) from error
    except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
        raise InvalidOption(f"{where} has a key that cannot be read") from error


def _is_ours(entry: Mapping[str, Any], where: str) -> bool:
    """Tell whether a JWK can check signatures here; raises `InvalidOption` for a secret one."""
    if entry["kty"] == "oct" or "d" in entry:
        raise InvalidOption(f"{where} has a secret key; it takes public ones alone")
    algorithm = _ALGORITHMS.get((entry["kty"], entry.get("crv")))
    return (
        algorithm is not None
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and "verify" in entry.get("key_ops", ("verify",))
    )


def _key(entry: Mapping[str, Any], where: str) -> PyJWK:
    jwt = _pyjwt("jwt_jwks_file")
    key: PyJWK = jwt.PyJWK(dict(entry), _ALGORITHMS[entry["kty"], entry.get("crv")])
    bits = getattr(key.key, "key_size", RSA_BITS) if entry["kty"] == "RSA" else RSA_BITS
    if bits < RSA_BITS:
        raise InvalidOption(f"{where} has an RSA key of {bits} bits; {RSA_BITS} is the least")
    return key


def _chosen(keys: Keys, header: Mapping[str, Any]) -> PyJWK:
    """Return the key that the token's header names; its word is taken for nothing else."""
    if _REFUSED_FIELDS & header.keys():
        raise Unauthenticated("the token's header names keys or extensions; these are refused")
    if str(header.get("typ", "JWT")).lower() not in _TYPES:
        raise Unauthenticated("the token is not an access token: its typ is neither JWT nor at+jwt")
    kid = header.get("kid")
    if None in keys or (kid is None and len(keys) == 1):
        return next(iter(keys.values()))
    if kid not in keys:
        raise Unauthenticated("the token's kid is none of this server's keys")
    return keys[kid]


def _check_times(claims: Mapping[str, Any]) -> None:
    """Refuse times that are no numbers (RFC 7519 2); PyJWT would take "123" for one."""
    for claim in ("exp", "nbf", "iat"):
        value = claims.get(claim, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Unauthenticated(f"the token's {claim} is no number")


def _name(subject: str) -> str:
    if not subject.strip() or len(subject) > MAX_NAME or not subject.isprintable():
        raise Unauthenticated(f"the token's sub is not 1 to {MAX_NAME} printable characters")
    return subject


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes we know: `scope` (RFC 8693 4.2) or else `scp`, as a text or a list."""
    claim = claims.get("scope", claims.get("scp", ""))
    words = claim.split(" ") if isinstance(claim, str) else claim  # not split(): RFC 6749 3.3
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Unauthenticated("the token's scope is no text and no list of texts")
    return SCOPES & set(words)


def _words(error: Exception) -> str:
    """Return what a client is told of one of PyJWT's errors; its own words quote the token."""
    from jwt import exceptions as wrong

    if isinstance(error, wrong.MissingRequiredClaimError):
        return f"the token lacks {error.claim}"
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (wrong.ExpiredSignatureError, "the token has expired"),
        (wrong.ImmatureSignatureError, "the token is not valid yet"),
        (wrong.InvalidAudienceError, "the token is for another audience"),
        (wrong.InvalidIssuerError, "the token is from another issuer"),
        (wrong.InvalidSubjectError, "the token's sub is no text"),
        (wrong.InvalidAlgorithmError, "the token's algorithm is not that of the key"),
        (wrong.InvalidSignatureError, "the token's signature does not fit"),
    )
    return next((words for kind, words in kinds if isinstance(error, kind)), "the token is damaged")


def _pyjwt(option: str) -> Any:
    try:
        import jwt
    except ImportError as error:
        raise InvalidOption(_missing(option)) from error
    return jwt


def _missing(option: str) -> str:
    return f"{option} needs unface[server]: pip install 'unface[server]'"
