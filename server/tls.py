"""TLS, mutual TLS, and the rule that pixels do not cross a network without them."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl

import grpc

from unface.errors import InvalidOption
from unface.server.config import ServerConfig
from unface.server.rotation import Rotated, read_file

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
_STRENGTH = "DEFAULT:@SECLEVEL=2"  # OpenSSL's word for 112 bits and more: RSA keys of 2048


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """Return what gRPC needs to serve TLS, or None where no certificate is configured.

    With `tls_client_ca` a client needs a certificate signed by it. Files that change are read
    again within `CHECK_SECONDS`, for new connections; open ones go on as they are. A new pair that
    does not serve is logged and the old one stays. Raises `InvalidOption` for one at the start.
    """
    certificate, key, client_ca = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        return None
    found: Rotated[grpc.ServerCertificateConfiguration] = Rotated(
        lambda: _read(certificate, key, client_ca), *filter(None, (certificate, key, client_ca))
    )
    first = given = found.current

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        current = found.current
        if current is given:
            return None
        given = current
        return current

    return grpc.dynamic_ssl_server_credentials(
        first,
        changed,  # type: ignore[arg-type]  # None says: no change
        require_client_authentication=client_ca is not None,
    )


def server_context(config: ServerConfig) -> ssl.SSLContext | None:
    """Return the same for HTTP, or None; the rules of `server_credentials` hold here too."""
    certificate, key, client_ca = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        return None
    found = Rotated(
        lambda: _context(certificate, key, client_ca),
        *filter(None, (certificate, key, client_ca)),
    )
    first = found.current

    def choose(end: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        end.context = found.current

    first.sni_callback = choose  # called for every connection, also one that names no server
    return first


def check_exposure(config: ServerConfig) -> None:
    """Raise `InvalidOption` where other machines would be served without TLS and authentication.

    Either tokens or client certificates authenticate. `insecure` allows it all the same. The
    metrics' address is not looked at: it tells figures, never pixels or names.
    """
    has_callers = config.has_tokens or config.tls_client_ca is not None
    if config.insecure or (config.tls_certificate and has_callers):
        return
    hosts = {"host": config.host}
    if config.http_port is not None:
        hosts["http_host"] = config.http_host
    for option, host in hosts.items():
        if not is_local(host):
            raise InvalidOption(
                f"{option} {host} serves other machines, which needs TLS (tls_certificate and "
                "tls_key) and callers who say who they are (jwt_secret_file, jwt_jwks_file or "
                "tls_client_ca); or listen on 127.0.0.1, or set insecure where something else "
                "protects the server"
            )


def is_local(host: str) -> bool:
    """Tell whether only this machine reaches what listens on a host: loopback or a UNIX socket.

    A name is local where all its addresses are. Raises `InvalidOption` for one that has none.
    """
    if host.startswith(("unix:", "unix-abstract:")):
        return True
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidOption(f"host {host} is no address and no name of one: {error}") from error
    return all(_is_loopback(str(entry[4][0])) for entry in found)


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _read(certificate: str, key: str, client_ca: str | None) -> grpc.ServerCertificateConfiguration:
    """Read and check the files at these paths."""
    chain, secret = read_file("tls_certificate", certificate), read_file("tls_key", key)
    leaf = _certificates("tls_certificate", certificate, chain)[0]
    _check_pair(certificate, key, leaf)
    roots = None
    if client_ca is not None:
        roots = read_file("tls_client_ca", client_ca)
        _certificates("tls_client_ca", client_ca, roots)
    return grpc.ssl_server_certificate_configuration([(secret, chain)], roots)


def _context(certificate: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """Return what serves HTTP with these files; raises `InvalidOption` as `_read` does."""
    _read(certificate, key, client_ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Where certificates say who calls, TLS 1.3 alone: a session of TLS 1.2 is resumed out of
    # OpenSSL's cache without a look at the certificate, also when its authority is no more.
    mutual = client_ca is not None
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if mutual else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_STRENGTH)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0  # who comes again shows its certificate again
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
    except (OSError, ssl.SSLError) as error:  # it has just changed
        raise InvalidOption(f"tls_certificate: {certificate} cannot be read: {error}") from error
    return context


def _certificates(option: str, path: str, content: bytes) -> list[str]:
    """Return the certificates of a PEM file, each as PEM; raises `InvalidOption` for a bad one."""
    found = [pem.decode("ascii", "replace") for pem in _CERTIFICATE.findall(content)]
    if not found:
        raise InvalidOption(f"{option}: {path} has no certificate in PEM")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(found))
    except (ssl.SSLError, ValueError) as error:
        raise InvalidOption(f"{option}: a certificate in {path} is damaged") from error
    return found


def _check_pair(certificate: str, key: str, leaf: str) -> None:
    """Raise `InvalidOption` unless key and certificate belong together and serve today.

    They shake hands with a client, in memory, that trusts this one certificate: what would refuse
    a client's connection refuses the start.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.set_ciphers(_STRENGTH)
    client.check_hostname = False  # by which name clients reach it is not known here
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=leaf)
    try:
        server.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise InvalidOption(_words(error, certificate, key)) from error
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    try:
        for end in (*ends, *ends):
            _shake(end)
    except ssl.SSLCertVerificationError as error:
        raise InvalidOption(f"tls_certificate: {certificate}: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise InvalidOption(f"tls_certificate: {certificate} cannot serve: {error}") from error


def _shake(end: ssl.SSLObject) -> None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return  # the other end is next


def _no_password() -> str:
    raise ssl.SSLError("encrypted")


def _words(error: ssl.SSLError, certificate: str, key: str) -> str:
    if "encrypted" in str(error):
        return f"tls_key: {key} is encrypted; give it without a passphrase, readable by the server"
    if error.reason in _MISMATCHES:
        return f"tls_key: {key} does not belong to the certificate {certificate}"
    if error.reason and not error.reason.startswith("PEM"):
        return f"tls_certificate: {certificate} cannot serve: {error.reason}"
    return f"tls_key: {key} has no private key in PEM"
