"""When we may talk at all, and under which certificates. Decided before the first byte is sent."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from functools import lru_cache
from pathlib import Path

from mailmill.errors import CertificateError, ConfigurationError, ConnectError, InsecureError
from mailmill.model import Endpoint, Tls


def refuse_plain_text(endpoint: Endpoint) -> None:
    """Raises InsecureError where ``endpoint`` would have us log in unencrypted on a network."""
    if endpoint.tls is not Tls.NONE or endpoint.allow_insecure or is_loopback(endpoint.host):
        return
    raise InsecureError(
        f"{endpoint}: refusing to send a password over an unencrypted connection",
        hint="set tls to 'implicit' (port 993) or 'starttls' (port 143); allow_insecure = true overrides this",
    )


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine by definition (RFC 6761 §6.3)."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


async def client_context(ca_file: str | None) -> ssl.SSLContext:
    """The context for a connection: the system's roots, and ``ca_file`` besides. Shared, and read off the loop.

    Raises ConfigurationError where ``ca_file`` cannot be read.
    """
    try:
        return await asyncio.to_thread(_load_context, ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"cannot read the certificates in {ca_file}: {error}", hint="ca_file must be a PEM file", key="ca_file"
        ) from error


def _load_context(ca_file: str | None) -> ssl.SSLContext:
    # The system's roots are renewed as well, by an update, while the service goes on.
    system = ssl.get_default_verify_paths()
    return _make_context(ca_file, tuple(_version(path) for path in (system.cafile, system.capath)), _version(ca_file))


def _version(path: str | None) -> tuple[int, ...]:
    """What changes with a file's content, also where another file takes its name with an older date."""
    if path is None:
        return ()
    stat = Path(path).stat()
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=32)
def _make_context(ca_file: str | None, system: tuple[tuple[int, ...], ...], version: tuple[int, ...]) -> ssl.SSLContext:
    # Reading the system's roots takes milliseconds and half a megabyte: once, not for each connection.
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def connect_failure(endpoint: Endpoint, error: OSError) -> ConnectError:
    """The error to raise for a connection attempt that failed with ``error``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateError(
            f"{endpoint}: the server's certificate is not trusted: {error.verify_message}",
            hint="if it is the server's own authority, name its PEM file in ca_file; else check the host name",
        )
    if isinstance(error, ssl.SSLError):
        return ConnectError(
            f"{endpoint}: no TLS connection: {getattr(error, 'reason', None) or 'handshake failed'}",
            hint="port 993 wants tls = 'implicit', port 143 tls = 'starttls'",
        )
    reason = error.strerror or str(error) or type(error).__name__
    return ConnectError(f"cannot reach {endpoint}: {reason}", hint="check host, port and network")
