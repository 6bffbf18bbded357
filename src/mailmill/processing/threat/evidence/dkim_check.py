"""DKIM signatures checked by ourselves (RFC 6376), for accounts whose server says nothing of them. Asks the DNS.

Laws:

- Only what passes is told. A key may be gone from the DNS long before the message is looked at, and mailing lists break
  signatures: that one does not hold says nothing.
- A signature that covers a part of the body (``l=``) or does not cover From holds for no message that is shown.
- Bounded by numbers, bytes and seconds: a sender chooses how many signatures there are, which servers are asked for
  their keys, and how large a key is.

Wants the extra ``dkim`` (dkimpy, dnspython), imported at the first use.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mailmill.errors import ConfigurationError
from mailmill.processing.threat.evidence.hosts import clean_host

if TYPE_CHECKING:
    from types import ModuleType

Resolve = Callable[[str, float], str]
"""``(name, seconds)`` → the TXT record at a name, "" where there is none. Raises OSError where that cannot be told."""

MAX_SIGNATURES: Final = 4
MAX_BYTES: Final = 5 << 20
MAX_HEADER_BYTES: Final = 64 << 10
MAX_KEY_CHARS: Final = 1_100
"""An RSA key of 4,096 bits takes about 740; what is larger costs more to use than it is worth."""

QUERY_SECONDS: Final = 2.0
TOTAL_SECONDS: Final = 5.0
CACHE_SECONDS: Final = 3_600.0
MISS_SECONDS: Final = 60.0
_MAX_CACHED: Final = 2_000

_LONGEST_RUN: Final = 100

_SIGNATURE = re.compile(rb"^dkim-signature:", re.IGNORECASE | re.MULTILINE)


class DkimCheck:
    """Checks signatures; remembers keys. For any number of threads.

    Raises ConfigurationError where the extra is not installed.
    """

    def __init__(self, resolve: Resolve | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._dkim = _library()
        self._keys = KeyCache(resolve or _resolver(), clock)
        self._clock = clock

    def verify(self, raw: bytes) -> tuple[str, ...]:
        """The domains whose signatures on ``raw``, a whole message, hold; in the message's order, each once."""
        if not _is_bounded(raw):
            return ()
        ends_at = self._clock() + TOTAL_SECONDS
        passed = []
        for index in range(min(MAX_SIGNATURES, len(_SIGNATURE.findall(raw[:MAX_HEADER_BYTES])))):
            if self._clock() >= ends_at:
                break
            passed.append(self._domain_of(raw, index, ends_at))
        return tuple(dict.fromkeys(domain for domain in passed if domain))

    def _domain_of(self, raw: bytes, index: int, ends_at: float) -> str:
        """The domain of the signature at ``index`` if it holds, else ""."""

        def key(name: bytes, timeout: float = QUERY_SECONDS) -> bytes:
            left = ends_at - self._clock()
            if left <= 0:
                return b""
            return self._keys.get(name.decode("ascii", "replace"), min(timeout, QUERY_SECONDS, left)).encode()

        try:
            signature = self._dkim.DKIM(raw)
            if not signature.verify(idx=index, dnsfunc=key):
                return ""
            # As the library read them, or they could be another signature's.
            if b"l" in signature.signature_fields or b"from" not in signature.include_headers:
                return ""
            return clean_host(signature.domain.decode("ascii", "replace"))
        except Exception:  # noqa: BLE001 - a library's way with what a stranger wrote: it does not hold
            return ""


def _is_bounded(raw: bytes) -> bool:
    """Whether the library reads it in a time that grows as its size does: it adds up folded lines one by one, and its
    patterns for trailing blanks and lines begin anew at each of them."""
    if len(raw) > MAX_BYTES:
        return False
    lines = raw.replace(b"\r", b"")
    if not 0 <= lines.find(b"\n\n") <= MAX_HEADER_BYTES or b"\n" * _LONGEST_RUN in lines:
        return False
    return b" " * _LONGEST_RUN not in raw.replace(b"\t", b" ")


class KeyCache:
    """Keys by name, for a while; that there is none, for a short one."""

    def __init__(self, resolve: Resolve, clock: Callable[[], float]) -> None:
        self._resolve = resolve
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def get(self, name: str, seconds: float) -> str:
        name = name.rstrip(".").lower()
        with self._lock:
            until, text = self._kept.get(name, (0.0, ""))
            if self._clock() < until:
                return text
        try:
            text = self._resolve(name, seconds)
        except OSError:
            text = ""
        if len(text) > MAX_KEY_CHARS or not text.isascii():
            text = ""
        with self._lock:
            self._kept[name] = (self._clock() + (CACHE_SECONDS if text else MISS_SECONDS), text)
            self._kept.move_to_end(name)
            while len(self._kept) > _MAX_CACHED:
                self._kept.popitem(last=False)
        return text


def _library() -> ModuleType:
    try:
        import dkim
    except ImportError as error:
        raise ConfigurationError(
            "DKIM signatures cannot be checked: dkimpy is not installed",
            hint="pip install 'mailmill[dkim]', or leave threat.verify_dkim off",
            key="threat.verify_dkim",
        ) from error
    module: ModuleType = dkim
    return module


def _resolver() -> Resolve:
    import dns.exception
    import dns.resolver

    try:
        resolver: Any = dns.resolver.Resolver()
    except dns.exception.DNSException as error:
        raise ConfigurationError(
            f"DKIM signatures cannot be checked: the DNS cannot be asked for keys ({error})",
            hint="name a server in /etc/resolv.conf, or leave threat.verify_dkim off",
            key="threat.verify_dkim",
        ) from error

    def resolve(name: str, seconds: float) -> str:
        try:
            answer = resolver.resolve(name, "TXT", lifetime=seconds, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ""
        except (dns.exception.DNSException, ValueError) as error:
            raise OSError(f"{name}: {error}") from error
        return b"".join(next(iter(answer)).strings).decode("ascii", "replace")

    return resolve
