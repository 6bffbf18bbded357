"""Family ``links``: where links lead, against what they show. What stands between is in ``link_services``, what kind of
page it is in ``link_pages``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from unicodedata import normalize
from urllib.parse import unquote

from mailmill.model import Finding
from mailmill.processing.threat.context import Link, ThreatContext
from mailmill.processing.threat.evidence.hosts import ends_in, ip_of, organisation_of, parse_url, split_host
from mailmill.processing.threat.evidence.impersonation import is_brands_own
from mailmill.processing.threat.evidence.lookalike import is_invisible, skeleton
from mailmill.processing.threat.evidence.targets import is_gateway, redirect_target
from mailmill.processing.threat.families import link_pages, link_services
from mailmill.processing.threat.knowledge.web_services import FREE_HOSTING
from mailmill.processing.threat.scoring import finding

_SHOWN_URL = re.compile(r"^(?:https?://)?((?:[\w-]{1,63}\.){1,8}[\w-]{2,24})(?:[/:?#]\S{0,2000})?$", re.IGNORECASE)
_DATA_PAGE = re.compile(r"^\s{0,10}(?:text/html|application/xhtml|image/svg|text/xml|application/xml)", re.IGNORECASE)
_FILE_ENDING_WORDS = "pdf doc docx xls xlsx txt jpg png gif zip html htm php asp aspx js py sh md"
_FILE_ENDINGS = frozenset(_FILE_ENDING_WORDS.split())
_SCRIPT_PAYLOAD = re.compile(r"document\.write|atob\(|eval\(|fromCharCode|location\s{0,3}=|<script", re.IGNORECASE)
_AUTHORITY = re.compile(r"^[a-z]{3,5}:([/\\]{0,5})([^/\\?#]{1,300})", re.IGNORECASE)
_MACHINE = re.compile(r"(?<![0-9])(?:[0-9]{1,3}[.-]){3}[0-9]{1,3}(?=[.-])")
_OVERRIDES = frozenset("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")
_TURNED = frozenset("\u202d\u202e")
_USUAL_PORTS = frozenset({80, 443})
_LEAVE = """
    unsubscribe unsubscribing optout opt preferences privacy abmelden abbestellen desabonner desinscrire desuscribirse
    cancelar disiscriviti uitschrijven wypisz
    """
_LEAVE_WORDS = frozenset(_LEAVE.split())
_SHORTEST_REPEAT = 3
_TRACKED_LINKS = 5


def text_differs_from_target(context: ThreatContext) -> Iterator[Finding]:
    """The link shows a domain and leads to another organisation. Click tracking is no trick: that of whoever is proven
    to send this, also above its own domain, and of a host that many links go through, each with an address of its own;
    no tracker shows a brand's domain in mail of others."""
    through = _trackers(context)
    for link in context.links:
        if link.element not in ("a", "area") or not link.url.host or link.hidden:
            continue
        shown = shown_host(link.text)
        if not shown:
            continue
        shown_organisation = organisation_of(shown)
        if shown_organisation in _leads_to(context, link) or is_gateway(link.url):
            continue
        if context.vouched and link.target is None and shown_organisation == context.sender.organisation:
            continue
        tracker = link.organisation in context.relations or link.url.host in through
        if tracker and link.target is None and not is_brands_own(shown):
            continue
        leads_to = link.url.host if link.target is None else f"{link.target.host} by way of {link.url.host}"
        yield finding("links.text_differs_from_target", f"shows {shown}, leads to {leads_to}")
        return


def ip_host(context: ThreatContext) -> Iterator[Finding]:
    """The host is a public address in any notation (``0x7f.1`` and ``2130706433`` too)."""
    for link in _followed(context):
        for url in link.destinations:
            address = ip_of(url.host)
            if address and not _is_private(address):
                yield finding("links.ip_host", f"{url.scheme}://{url.host} is {address}")
                return


def machine_name(context: ThreatContext) -> Iterator[Finding]:
    """A host named after its address, as hosters name machines without a name (``203-0-113-9.host.example``)."""
    for link in _followed(context):
        for url in link.destinations:
            if _MACHINE.search(url.host) and not ip_of(url.host) and context.is_foreign(url.organisation):
                yield finding("links.machine_name", url.host)
                return


def userinfo(context: ThreatContext) -> Iterator[Finding]:
    """``https://bank.example@evil.example``: what stands before the @ is no host."""
    for link in context.links:
        name = link.url.userinfo.partition(":")[0]
        if name and link.url.scheme in ("http", "https") and "." in unquote(name):
            yield finding("links.userinfo", f"{unquote(name)[:80]}@{link.url.host} leads to {link.url.host}")
            return


def port(context: ThreatContext) -> Iterator[Finding]:
    """A link to a port that no public site uses, at somebody else's."""
    for link in _followed(context):
        url = link.url
        if url.port is None or url.port in _USUAL_PORTS or not context.is_foreign(url.organisation):
            continue
        address = ip_of(url.host)
        if split_host(url.host)[2] or (address and not _is_private(address)):
            yield finding("links.port", f"{url.host}:{url.port}")
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


def invisible_characters(context: ThreatContext) -> Iterator[Finding]:
    """Characters that show nothing in a host, or turn the direction of a path or of what a link shows."""
    for link in context.links:
        if link.url.scheme not in ("http", "https", "ftp"):
            continue
        match = _AUTHORITY.match(link.raw.strip())
        authority = _percent_decoded(match.group(2)) if match else ""
        if any(is_invisible(one) for one in authority) and link.element != "text":
            yield finding("links.invisible_characters", f"in the host: {authority[:80]!r}")
            return
        if any(one in _OVERRIDES for one in _percent_decoded(link.raw)):
            yield finding("links.invisible_characters", f"in the address: {link.raw[:80]!r}")
            return
        if any(one in _TURNED for one in link.text):
            yield finding("links.invisible_characters", f"in the text: {link.text[:80]!r}")
            return


def disguised_address(context: ThreatContext) -> Iterator[Finding]:
    """An address written so that a browser finds its host and a filter or a reader does not: percent signs or wide
    letters in the host, backslashes, slashes too many or too few."""
    for link in context.links:
        if link.element == "text" or link.url.scheme not in ("http", "https") or not link.url.host:
            continue
        match = _AUTHORITY.match(link.raw.strip())
        if match is None:
            continue
        slashes, authority = match.groups()
        host = authority.rpartition("@")[2]
        wide = not host.isascii() and any(not one.isascii() and normalize("NFKC", one).isascii() for one in host)
        if wide or "%" in host or "\\" in slashes or len(slashes) != 2:
            yield finding("links.disguised_address", link.raw[:100])
            return


def one_link_for_all(context: ThreatContext) -> Iterator[Finding]:
    """One and the same address under several texts, "unsubscribe" among them. Honest mail has a page for each."""
    texts: dict[str, set[str]] = defaultdict(set)
    for link in context.links:
        if link.clickable and link.element != "form" and not link.hidden:
            texts[link.raw].add(" ".join(skeleton(link.text[:100]).split()))
    for raw, shown in texts.items():
        words = {word.strip("-.,!?:;()") for text in shown for word in text.replace("-", "").split()}
        if len(shown - {""}) >= _SHORTEST_REPEAT and words & _LEAVE_WORDS and len(texts) <= 2:
            url = parse_url(raw)
            if url is not None and len(url.path + url.query) > 1 and context.is_foreign(url.organisation):
                yield finding("links.one_link_for_all", f"{len(shown)} texts lead to {url.host}{url.path[:60]}")
                return


def hidden_target(context: ThreatContext) -> Iterator[Finding]:
    """A link that is not shown, to a host that no link shown leads to, from a sender that nothing proves."""
    if not context.unproven:
        return
    shown = {link.organisation for link in context.links if not link.hidden}
    for link in context.links:
        if link.hidden and link.clickable and link.organisation not in shown and context.is_foreign(link.organisation):
            yield finding("links.hidden_target", link.url.host)
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
    """Whether a host is where a page costs nothing and needs no name."""
    return bool(ends_in(host, FREE_HOSTING))


def _followed(context: ThreatContext) -> Iterator[Link]:
    """What is there to be followed. Colleagues write out the addresses of their machines: who is vouched for may."""
    return (link for link in context.followed if link.element != "text" or not context.vouched)


def _leads_to(context: ThreatContext, link: Link) -> set[str]:
    """Organisations that a link may show. That any host passes on to what its query says is believed of a sender that
    is proven, for whoever is not may write what he likes there."""
    if link.target is not None:
        return {link.target.organisation}
    target = redirect_target(link.url, generic=True) if context.authenticated or context.by_list else None
    return {link.organisation} if target is None else {link.organisation, target.organisation}


def _trackers(context: ThreatContext) -> frozenset[str]:
    addresses: dict[str, set[str]] = defaultdict(set)
    for link in context.links:
        if link.clickable:
            addresses[link.url.host].add(link.raw)
    return frozenset(host for host, all_of_it in addresses.items() if len(all_of_it) >= _TRACKED_LINKS)


def _percent_decoded(text: str) -> str:
    return unquote(text[:2_000]) if "%" in text else text[:2_000]


def _is_private(address: str) -> bool:
    return (
        address.startswith(("10.", "127.", "192.168.", "169.254.", "0."))
        or address == "::1"
        or (address.startswith("172.") and 16 <= int(address.split(".")[1]) <= 31)
    )


DETECTORS = (
    text_differs_from_target,
    ip_host,
    machine_name,
    userinfo,
    port,
    script_or_data,
    invisible_characters,
    disguised_address,
    one_link_for_all,
    hidden_target,
    *link_services.DETECTORS,
    *link_pages.DETECTORS,
)
