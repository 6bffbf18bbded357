"""Who may look: the token, browser sessions, one-time links, and the rules for Host and Origin. No I/O.

Laws: no secret is kept, only its SHA-256, and comparison takes the same time whatever differs. A link works once.
Whatever a caller can make us remember (sessions, links) is bounded. Time is counted in seconds that also pass while the
machine sleeps, so that a link does not outlive a night with the lid closed.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

SESSION_COOKIE = "mailmill_session"
SESSION_SECONDS = 30 * 24 * 3600
LINK_SECONDS = 15 * 60

_MAX_SESSIONS = 1000
_MAX_LINKS = 100
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")


def boot_seconds() -> float:
    """Seconds since the machine started, sleep included where the system tells (CLOCK_BOOTTIME)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def host_name(header: str) -> str | None:
    """The name in a Host header or in a URL's authority, lower-case and without port or brackets; None if malformed."""
    match = _HOST.fullmatch(header)
    if match is None:
        return None
    return match["name"].strip("[]").lower().removesuffix(".")


def is_loopback(address: str) -> bool:
    """Whether a peer's address (not a name) is this machine itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def same_origin(origin: str, host_header: str) -> bool:
    """Whether an Origin header (RFC 6454 §7) names the host that the request was sent to.

    The scheme is not compared: behind a proxy that ends TLS the browser says ``https`` and we see ``http``; both name
    the same host and port. ``null`` matches nothing.
    """
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host_header.lower()


class _Remembered:
    """Digests of secrets with an end, oldest first; at most ``limit`` of them."""

    def __init__(self, limit: int, lifetime_seconds: float, clock: Callable[[], float]) -> None:
        self._ends: dict[bytes, float] = {}
        self._limit = limit
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock

    def add(self) -> str:
        now = self._clock()
        self._ends = {digest: end for digest, end in self._ends.items() if end > now}
        while len(self._ends) >= self._limit:
            del self._ends[next(iter(self._ends))]
        secret = secrets.token_urlsafe(32)
        self._ends[_digest(secret)] = now + self._lifetime_seconds
        return secret

    def holds(self, secret: str) -> bool:
        end = self._ends.get(_digest(secret))
        return end is not None and end > self._clock()

    def take(self, secret: str) -> bool:
        end = self._ends.pop(_digest(secret), None)
        return end is not None and end > self._clock()


class Access:
    """The administrator's token and what it opens.

    ``allowed_hosts`` are names and addresses, besides those of loopback, under which the service may be asked for: the
    address it listens on and those the settings add. With a wildcard among them (``0.0.0.0`` or ``::``) any literal
    address will do: rebinding needs a name.
    """

    def __init__(
        self, token: str, allowed_hosts: frozenset[str] = frozenset(), *, clock: Callable[[], float] = boot_seconds
    ) -> None:
        if not token:
            raise ValueError("an empty token would let everybody in")
        self._token_digest = _digest(token)
        hosts = frozenset(host.strip("[]").lower() for host in allowed_hosts)
        self._any_literal = not hosts.isdisjoint({"0.0.0.0", "::"})  # noqa: S104  # compared, not bound to
        self._hosts = hosts | _LOOPBACK_NAMES
        self._links = _Remembered(_MAX_LINKS, LINK_SECONDS, clock)
        self._sessions = _Remembered(_MAX_SESSIONS, SESSION_SECONDS, clock)

    def token_matches(self, presented: str) -> bool:
        return hmac.compare_digest(_digest(presented), self._token_digest)

    def host_allowed(self, name: str) -> bool:
        """Whether ``name`` (as from ``host_name``) is one of ours; the guard against DNS rebinding."""
        if name in self._hosts:
            return True
        try:
            literal = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_literal or literal.is_loopback

    def new_link_code(self) -> str:
        """A code for ``/login?code=…``: 256 bits, good once and for 15 minutes."""
        return self._links.add()

    def redeem(self, code: str) -> str | None:
        """A new session for a link's code, or None if the code is unknown, used or too old."""
        return self._sessions.add() if self._links.take(code) else None

    def new_session(self) -> str:
        """A session for somebody who has shown the token: the cookie's value."""
        return self._sessions.add()

    def session_valid(self, session: str) -> bool:
        return self._sessions.holds(session)

    def end_session(self, session: str) -> None:
        self._sessions.take(session)
