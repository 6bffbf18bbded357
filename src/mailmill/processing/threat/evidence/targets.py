"""Where a link really leads: gateways that rewrote it, and redirectors that pass on to what their query says. Pure.

A gateway (Safe Links, URL Defense …) stands on the reader's side: it rewrote what the sender wrote, so only the target
inside is judged. A redirector was chosen by the sender, who hides a target behind a good name: both are judged.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Set
from functools import lru_cache
from urllib.parse import unquote

from mailmill.processing.threat.evidence.hosts import Url, clean_host, ends_in, parse_url, split_host
from mailmill.processing.threat.knowledge.redirectors import (
    AMP_HOSTS,
    GATEWAYS,
    MAIL_TRACKERS,
    OPAQUE_GATEWAYS,
    REDIRECTORS,
    TARGET_PARAMETERS,
    TRANSLATED,
)

MAX_HOPS = 5
_MAX_PARAMETERS = 40
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_DEFENSE_V3 = re.compile(r"/v3/__(.{1,4000}?)__;([A-Za-z0-9_=-]{0,2000})")
_UNDERSCORED = re.compile(r"/v[12]/_{2,3}(.{1,4000}?)_{2,3}(?:\.|;|$)")
_WRAPPED = re.compile(r"/v[123]/__")
_STARS = re.compile(r"\*(?:\*([A-Za-z0-9_-]))?")
_INNER = re.compile(r"https?(?::|%3a)(?:/|%2f)", re.IGNORECASE)
_HOST_LIKE = re.compile(r"^[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}$")
_TRACKED_HOST = re.compile(r"^/\d{1,2}s?/([^/]{1,2000})/")
_BASE64 = re.compile(r"^[A-Za-z0-9+/_-]{8,4000}={0,2}$")


def is_gateway(url: Url) -> bool:
    """Whether a mail gateway's rewriting made this link, told or not where it leads."""
    return bool(ends_in(url.host, GATEWAYS) or ends_in(url.host, OPAQUE_GATEWAYS))


def is_mail_tracker(url: Url) -> bool:
    """Whether a mailing service counts the clicks on this link, and tells where it leads."""
    return bool(ends_in(url.host, MAIL_TRACKERS))


@lru_cache(maxsize=1_024)
def behind_gateways(url: Url) -> Url:
    """The target that gateways wrapped, or the same URL. Proofpoint's three ways, Safe Links, and those who name it in
    a parameter are read."""
    for _ in range(MAX_HOPS):
        if not url.host or not ends_in(url.host, GATEWAYS):
            return url
        inner = _behind_gateway(url)
        if inner is None:
            return url
        url = inner
    return url


@lru_cache(maxsize=1_024)
def redirect_target(url: Url, *, generic: bool = False) -> Url | None:
    """The last target that redirectors pass on to, or None if this is no redirector's link.

    ``generic``: any host counts as one that names a whole URL in a parameter such as ``url`` or ``redirect``.
    """
    target: Url | None = None
    current = url
    for _ in range(MAX_HOPS):
        step = _redirected(current, generic=generic)
        if step is None:
            break
        target = current = behind_gateways(step)
    return target


def _behind_gateway(url: Url) -> Url | None:
    whole = f"{url.path}?{url.query}" if url.query else url.path
    # From the first start only: where that one has no end, none has, and each would be read to the end.
    begins = _WRAPPED.search(whole)
    match = _DEFENSE_V3.match(whole, begins.start()) if begins else None
    if match:
        return _as_url(_starred(match.group(1), match.group(2)))
    match = _UNDERSCORED.match(whole, begins.start()) if begins else None
    if match:
        return _as_url(unquote(match.group(1)))
    if url.path.startswith("/v2/url"):
        # URL Defense v2 writes % as - and / as _.
        value = _parameter(url.query, frozenset({"u"}))
        return _as_url(unquote(value.replace("-", "%").replace("_", "/"))) if value else None
    found = _named_target(url)
    if found is not None:
        return found
    inner = _INNER.search(url.path)
    if inner:
        return _as_url(unquote(whole[inner.start() :]))
    domain = _parameter(url.query, frozenset({"domain", "d"}))
    return parse_url(f"http://{domain}/") if _HOST_LIKE.match(domain) else None


def _starred(text: str, replaced: str) -> str:
    """URL Defense v3: what is no plain character is a star, or two stars and a letter for a run; the characters follow
    in base64."""
    try:
        left = base64.urlsafe_b64decode(replaced.rstrip("=") + "=" * (-len(replaced.rstrip("=")) % 4)).decode("utf-8")
    except (ValueError, binascii.Error):
        return text
    taken = 0

    def fill(match: re.Match[str]) -> str:
        nonlocal taken
        length = _ALPHABET.index(match.group(1)) + 2 if match.group(1) else 1
        piece = left[taken : taken + length]
        taken += length
        return piece or match.group()

    return _STARS.sub(fill, text)


def _redirected(url: Url, *, generic: bool) -> Url | None:
    if not url.host or url.scheme not in ("http", "https"):
        return None
    if ends_in(url.host, TRANSLATED):
        return _translated(url)
    if is_mail_tracker(url):
        return _tracked(url)
    amp = _amp_target(url)
    if amp is not None:
        return amp
    known = _known_as(url.host, REDIRECTORS.keys())
    if known:
        prefixes, parameters = REDIRECTORS[known]
        if not url.path.lower().startswith(prefixes):
            return None
        value = _parameter(url.query, parameters)
        inner = _INNER.search(url.path)
        if not value and inner:
            value = url.path[inner.start() :] + (f"?{url.query}" if url.query else "")
        return _as_url(unquote(value)) if value else None
    return _named_target(url) if generic else None


def _tracked(url: Url) -> Url | None:
    """``/L0/https:%2F%2Fhost%2Fpage/…``, ``/3s/host%2Fpage/…``, or a URL in base64 as the last piece of the path."""
    inner = _INNER.search(url.path)
    if inner:
        return _as_url(unquote(url.path[inner.start() :].partition("/1/")[0]))
    match = _TRACKED_HOST.match(url.path)
    if match and "." in match.group(1):
        return _as_url(f"https://{unquote(match.group(1))}")
    return _as_url(url.path.rpartition("/")[2])


def _translated(url: Url) -> Url | None:
    """``a-b--c-example.translate.goog``: dots are hyphens, hyphens are doubled."""
    label = url.host.partition(".")[0]
    host = label.replace("--", "\0").replace("-", ".").replace("\0", "-")
    return parse_url(f"https://{host}{url.path}") if clean_host(host) and "." in host else None


def _amp_target(url: Url) -> Url | None:
    if not _known_as(url.host, AMP_HOSTS):
        return None
    for start in ("/amp/s/", "/c/s/", "/v/s/", "/amp/", "/c/", "/v/"):
        if url.path.startswith(start):
            rest = url.path[len(start) :]
            host = rest.partition("/")[0]
            return parse_url(f"https://{rest}") if _HOST_LIKE.match(host) else None
    return None


def _known_as(host: str, names: Set[str]) -> str:
    """The name that a host lies under; Google's countries are as ``google.com``."""
    return "google.com" if split_host(host)[1] == "google" else ends_in(host, names)


def _named_target(url: Url) -> Url | None:
    value = _parameter(url.query, TARGET_PARAMETERS)
    return _as_url(value) if value else None


def _parameter(query: str, names: frozenset[str]) -> str:
    """The first parameter of that name (case aside), percent-decoded; "" for none."""
    for pair in query.replace("&amp;", "&").split("&", _MAX_PARAMETERS)[:_MAX_PARAMETERS]:
        name, _, value = pair.partition("=")
        if name.lower() in names and value:
            return unquote(value)
    return ""


def _as_url(text: str) -> Url | None:
    """A URL with a host: as it stands, percent-encoded twice, with one slash, or in base64."""
    text = text.strip()
    if _INNER.match(text) and "%" in text[:14]:
        text = unquote(text)
    if not _INNER.match(text) and _BASE64.match(text):
        # Bing writes a1 before it.
        text = _from_base64(text) or _from_base64(text.removeprefix("a1"))
    if text.startswith(("http:/", "https:/", "//")):
        url = parse_url(text)
        return url if url is not None and url.host and "." in url.host else None
    return None


def _from_base64(text: str) -> str:
    plain = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        return ""
