"""Keys, tokens and certificates for tests, as an identity provider and an authority issue them."""

from __future__ import annotations

import datetime
import ipaddress
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SECRET = "a secret for tests, of 32 bytes or more"  # noqa: S105
AUDIENCE = "unface"
DAY = datetime.timedelta(days=1)


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a good token with every scope; a claim given as None is left out."""
    now = int(time.time())
    good = {"sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 86_400}
    good["scope"] = "detect anonymize admin"
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


class Issuer:
    """Signs tokens with one key: "HS256", "RS256", "ES256" or "EdDSA"."""

    def __init__(self, algorithm: str = "HS256", kid: str | None = None, bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key: Any = {
            "HS256": lambda: SECRET,
            "RS256": lambda: rsa.generate_private_key(65537, bits),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[algorithm]()

    def token(self, headers: dict[str, Any] | None = None, **changed: Any) -> str:
        """Return a good token but for these header fields and claims; None leaves one out."""
        fields = {"kid": self.kid, **(headers or {})}
        fields = {name: value for name, value in fields.items() if value is not None}
        return jwt.encode(claims(**changed), self.key, self.algorithm, fields)

    def jwk(self, **changed: Any) -> dict[str, Any]:
        """Return the public key as a JWK."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        entry = dict(algorithm.to_jwk(self.key.public_key(), as_dict=True), **changed)
        return entry if self.kid is None else {**entry, "kid": self.kid}

    def public_pem(self) -> bytes:
        """Return the public key as PEM."""
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        pem: bytes = self.key.public_key().public_bytes(serialization.Encoding.PEM, kind)
        return pem


def key_set(*entries: Issuer | dict[str, Any]) -> str:
    """Return a JWKS file's content."""
    return json.dumps({"keys": [e.jwk() if isinstance(e, Issuer) else e for e in entries]})


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Write both and return their paths."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return str(certificate), str(key)


class Authority:
    """Signs certificates; `pem` is its own."""

    def __init__(self, name: str = "unface test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(basic, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str = "localhost",
        *,
        days: tuple[float, float] = (-1, 1),
        key: Any = None,
        server: bool = True,
    ) -> Pair:
        """Return a certificate for localhost and clients, valid between these days from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        purposes += [ExtendedKeyUsageOID.SERVER_AUTH] * server
        certificate = (
            _builder(subject, self._name, key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), key_pem(key))


def key_pem(key: Any, passphrase: bytes | None = None) -> bytes:
    """Return a private key as PEM."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    kind = serialization.PrivateFormat.PKCS8
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, kind, encryption)
    return pem


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, days: tuple[float, float] = (-1, 1)
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
    )
