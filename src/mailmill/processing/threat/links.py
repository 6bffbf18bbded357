"""Family ``links``: where links lead, against what they show."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.parse import unquote

from mailmill.model import Finding
from mailmill.processing.threat.context import Link, ThreatContext
from mailmill.processing.threat.hosts import ip_of, organisation_of, parse_url, split_host
from mailmill.processing.threat.impersonation import is_brands_own
from mailmill.processing.threat.reference import FREE_HOSTING, LINK_WRAPPERS, SHORTENERS
from mailmill.processing.threat.scoring import finding

_SHOWN_URL = re.compile(r"^(?:https?://)?((?:[\w-]{1,63}\.){1,8}[\w-]{2,24})(?:[/:?#]\S{0,2000})?$", re.IGNORECASE)
_DATA_PAGE = re.compile(r"^\s{0,10}(?:text/html|application/xhtml|image/svg|text/xml|application/xml)", re.IGNORECASE)
_FILE_ENDING_WORDS = "pdf doc docx xls xlsx txt jpg png gif zip html htm php asp aspx js py sh md"
_FILE_ENDINGS = frozenset(_FILE_ENDING_WORDS.split())
_SCRIPT_PAYLOAD = re.compile(r"document\.write|atob\(|eval\(|fromCharCode|location\s{0,3}=|<script", re.IGNORECASE)
_BASE64_WORD = re.compile(r"[A-Za-z0-9+/_-]{12,200}={0,2}")


def text_differs_from_target(context: ThreatContext) -> Iterator[Finding]:
    """The link shows a domain and leads to another organisation. Click tracking of the sender's own sender is no
    trick."""
    for link in context.links:
        if link.element not in ("a", "area") or not link.url.host or link.hidden:
            continue
        shown = shown_host(link.text)
        if not shown:
            continue
        shown_organisation = organisation_of(shown)
        if shown_organisation == link.organisation:
            continue
        if link.organisation in context.relations and not is_brands_own(shown):
            continue
        if link.organisation in LINK_WRAPPERS or _unwrapped(link) == shown_organisation:
            continue
        yield finding("links.text_differs_from_target", f"shows {shown}, leads to {link.url.host}")
        return


def ip_host(context: ThreatContext) -> Iterator[Finding]:
    """The host is a public address in any notation (``0x7f.1`` and ``2130706433`` too)."""
    for link in context.links:
        address = ip_of(link.url.host) if link.url.host else ""
        if address and link.element != "text" and not _is_private(address):
            yield finding("links.ip_host", f"{link.url.scheme}://{link.url.host} is {address}")
            return


def userinfo(context: ThreatContext) -> Iterator[Finding]:
    """``https://bank.example@evil.example``: what stands before the @ is no host."""
    for link in context.links:
        name = link.url.userinfo.partition(":")[0]
        if name and link.url.scheme in ("http", "https") and "." in unquote(name):
            yield finding("links.userinfo", f"{unquote(name)[:80]}@{link.url.host} leads to {link.url.host}")
            return


def script_or_data(context: ThreatContext) -> Iterator[Finding]:
    """A ``data:`` page, ``vbscript:``, or a ``javascript:`` that builds a page or goes elsewhere, as a link's
    target."""
    for link in context.links:
        scheme = link.url.scheme
        if scheme == "vbscript" or (scheme == "javascript" and _SCRIPT_PAYLOAD.search(link.url.path)):
            yield finding("links.script_or_data", link.raw[:100])
            return
        if scheme == "data" and _DATA_PAGE.match(link.url.path):
            yield finding("links.script_or_data", link.raw[:100])
            return


def free_hosting(context: ThreatContext) -> Iterator[Finding]:
    """A link to a page that anybody can put up without a name, in a message from elsewhere."""
    for link in context.links:
        host = link.url.host
        if link.element != "text" and host and is_free_hosting(host) and link.organisation not in context.relations:
            yield finding("links.free_hosting", host)
            return


def shortener(context: ThreatContext) -> Iterator[Finding]:
    """A redirecting service: the target is not in the message."""
    for link in context.links:
        if link.element != "text" and link.organisation in SHORTENERS and len(link.url.path) > 1:
            yield finding("links.shortener", f"{link.url.host}{link.url.path[:60]}")
            return


def recipient_in_fragment(context: ThreatContext) -> Iterator[Finding]:
    """The account's address behind ``#``: a page reads it there to greet its victim; no server ever sees it."""
    if not context.own:
        return
    for link in context.links:
        if link.element == "text" or not link.url.fragment or link.url.scheme not in ("http", "https"):
            continue
        if context.own in _decoded(link.url.fragment):
            yield finding("links.recipient_in_fragment", f"{link.url.host}…#{link.url.fragment[:80]}")
            return


def shown_host(text: str) -> str:
    """The host that a link's text shows, if the text is a URL or a bare domain; "" otherwise."""
    text = text.strip(" \t\n<>()[]\"'.,;:»«→")[:2_000]
    match = _SHOWN_URL.match(text)
    if not match:
        return ""
    url = parse_url(text if "://" in text else f"http://{text}")
    host = url.host if url else ""
    _, label, suffix = split_host(host)
    if not suffix or not label or (suffix in _FILE_ENDINGS and "/" not in text and "www." not in text):
        return ""
    return host


def is_free_hosting(host: str) -> bool:
    labels = host.split(".")
    return any(".".join(labels[start:]) in FREE_HOSTING for start in range(max(0, len(labels) - 5), len(labels) - 1))


def _unwrapped(link: Link) -> str:
    """The organisation a scanner's wrapper (Safe Links, URL Defense …) leads on to, where its query says so."""
    for pair in link.url.query.split("&")[:20]:
        value = unquote(pair.partition("=")[2])
        inner = parse_url(value) if value.startswith("http") else None
        if inner is not None and inner.host:
            return inner.organisation
    return ""


def _decoded(fragment: str) -> str:
    text = unquote(fragment)[:1_000].lower()
    for word in _BASE64_WORD.findall(fragment[:1_000])[:5]:
        padded = word.rstrip("=") + "=" * (-len(word.rstrip("=")) % 4)
        try:
            text += " " + base64.b64decode(padded, altchars=b"-_").decode("ascii", "ignore").lower()
        except ValueError:
            continue
    return text


def _is_private(address: str) -> bool:
    return (
        address.startswith(("10.", "127.", "192.168.", "169.254.", "0."))
        or address == "::1"
        or (address.startswith("172.") and 16 <= int(address.split(".")[1]) <= 31)
    )


DETECTORS = (
    text_differs_from_target,
    ip_host,
    userinfo,
    script_or_data,
    free_hosting,
    shortener,
    recipient_in_fragment,
)
