"""Hosts, organisational domains and URLs, offline. Pure; every answer is cached, every input capped.

URLs are read as browsers read them (WHATWG URL), not as RFC 3986 wishes: tabs and line ends vanish, backslashes are
slashes, a host may be an IPv4 address written as one number. What a phisher writes is meant for a browser.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from publicsuffixlist import PublicSuffixList

MAX_HOST_CHARS = 255
MAX_URL_CHARS = 4_000
MAX_LABELS = 10

# The list that comes with the package: no network, no cache folder. Private suffixes (github.io, web.app) count as
# suffixes, as in DMARC: two customers of one hosting service are two organisations.
_suffixes = PublicSuffixList(accept_unknown=False)

_REGISTRY_LABELS = frozenset({"co", "com", "net", "org", "ac", "edu", "ne", "or", "gen", "web", "info", "biz"})

_STATE_LABELS = frozenset({"gov", "gob", "gouv", "gub", "govt", "gc", "go", "mil"})

_DROPPED = re.compile(r"[\t\r\n\u00ad\u200b-\u200f\u2060\ufeff]")
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE)
_HOST_CHARS = re.compile(r"^[^\s\"'<>()\[\]{}|^`\\,;@/?#:]+$")
_NUMBER = re.compile(r"^(?:0x[0-9a-f]{0,8}|[0-9]{1,11})$")
_PORT = re.compile(r"^[0-9]{1,5}$")
_DOTS = str.maketrans({"。": ".", "．": ".", "｡": "."})


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in parts. ``host`` is lower case, IDN labels in Unicode; ``userinfo`` stands before an ``@`` in it.

    ``port`` is None where none is written, or what is written is no port.
    """

    scheme: str
    userinfo: str
    host: str
    path: str
    query: str
    fragment: str
    port: int | None = None

    @property
    def organisation(self) -> str:
        """The registrable domain of the host, or the host itself where there is none (an address, ``localhost``)."""
        return organisation_of(self.host)


@lru_cache(maxsize=8_192)
def organisation_of(host: str) -> str:
    """The organisational domain of a host or mail domain (RFC 9989 relaxed alignment compares these); "" for none."""
    host = clean_host(host)
    if not host:
        return ""
    return _suffixes.privatesuffix(host) or host


def is_public_suffix(host: str) -> bool:
    """Whether a host is one under which a registry lets others have theirs: ``co.uk``; also ``com`` alone.

    Hosting services' own suffixes (``github.io``) are none here: the service sends mail from them. Nor are those of
    governments, which do too.
    """
    if not host or _suffixes.publicsuffix(host) != host:
        return False
    labels = host.split(".")
    return len(labels) == 1 or (len(labels) == 2 and labels[0] in _REGISTRY_LABELS and len(labels[1]) == 2)


@lru_cache(maxsize=8_192)
def split_host(host: str) -> tuple[str, str, str]:
    """(subdomain, registrable label, public suffix) of a host; ("", host, "") for addresses and bare names."""
    host = clean_host(host)
    registrable = _suffixes.privatesuffix(host)
    if not registrable:
        return ("", host, "")
    label, _, suffix = registrable.partition(".")
    return (host.removesuffix(registrable).removesuffix("."), label, suffix)


def state_suffix(host: str) -> str:
    """The suffix of a host if a state keeps it for its own bodies (``gov``, ``gouv.fr``, ``gov.br``); "" otherwise."""
    suffix = split_host(host)[2]
    return suffix if suffix.partition(".")[0] in _STATE_LABELS else ""


@lru_cache(maxsize=8_192)
def clean_host(host: str) -> str:
    """Lower case, trailing dot off, IDN labels decoded to Unicode, wide letters as plain ones (UTS #46); what is no
    host gives ""."""
    host = _DROPPED.sub("", host[:MAX_HOST_CHARS]).strip().strip(".").lower().translate(_DOTS)
    if not host.isascii():
        host = unicodedata.normalize("NFKC", host)[:MAX_HOST_CHARS]
    if not host or (not host.startswith("[") and not _HOST_CHARS.match(host)):
        return ""
    if "xn--" not in host:
        return host
    return ".".join(_decode_label(label) for label in host.split("."))


def _decode_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode").lower()
    except (UnicodeError, ValueError, OverflowError):
        return label


def mail_domain(address: str) -> str:
    """The domain of ``local@domain``, cleaned; "" if there is none."""
    return clean_host(address.rpartition("@")[2].strip(" <>\"'")) if "@" in address else ""


@lru_cache(maxsize=4_096)
def ip_of(host: str) -> str:
    """The address that a browser would connect to where the host is one in any notation, else "".

    ``0x7f.1``, ``2130706433`` and ``[::1]`` are addresses (WHATWG URL §3.5).
    """
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host.strip("[]")))
        except ValueError:
            return ""
    pieces = host.split(".")
    if not 1 <= len(pieces) <= 4 or not all(_NUMBER.match(piece) for piece in pieces):
        return ""
    numbers = [_number(piece) for piece in pieces]
    if any(number is None for number in numbers):
        return ""
    *heads, last = [number for number in numbers if number is not None]
    if any(number > 255 for number in heads) or last >= 256 ** (5 - len(pieces)):
        return ""
    value = last + sum(number << (8 * (3 - index)) for index, number in enumerate(heads))
    return str(ipaddress.IPv4Address(value))


def _number(text: str) -> int | None:
    try:
        if text.startswith("0x"):
            return int(text[2:] or "0", 16)
        return int(text, 8) if len(text) > 1 and text.startswith("0") else int(text)
    except ValueError:
        return None


@lru_cache(maxsize=4_096)
def parse_url(raw: str) -> Url | None:
    """A URL with a host (http, https, ftp, or ``//host``), or one with a scheme alone (``data:``, ``mailto:``); None
    for relative references and what is no URL."""
    text = _DROPPED.sub("", raw[:MAX_URL_CHARS]).strip()
    scheme_match = _SCHEME.match(text)
    if scheme_match:
        scheme = scheme_match.group(1).lower()
        rest = text[scheme_match.end() :]
    elif text.startswith(("//", "\\\\")):
        scheme, rest = "http", text
    else:
        return None
    if scheme not in ("http", "https", "ftp"):
        return Url(scheme, "", "", rest, "", "")
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    rest = rest.replace("\\", "/").lstrip("/")
    authority, slash, path = rest.partition("/")
    userinfo, at, host_port = authority.rpartition("@")
    bracketed = host_port.startswith("[")
    host, _, port = host_port.partition("]" if bracketed else ":")
    host = clean_host(unquote(host + "]" if bracketed else host))
    if not host:
        return None
    return Url(scheme, userinfo if at else "", host, slash + path, query, fragment, _port(port.lstrip(":")))


def _port(text: str) -> int | None:
    return int(text) if _PORT.match(text) and int(text) <= 65_535 else None


def ends_in(host: str, ends: Set[str]) -> str:
    """The longest of ``ends`` that the host is, or lies under (``a.b.example`` under ``b.example``); "" for none."""
    labels = host.split(".")[-MAX_LABELS:]
    for start in range(len(labels)):
        end = ".".join(labels[start:])
        if end in ends:
            return end
    return ""
