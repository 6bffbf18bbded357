"""Family ``links``, what stands between: services that hide where a link leads, or put up anybody's page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.hosts import Url, ends_in
from mailmill.processing.threat.evidence.impersonation import is_brands_own
from mailmill.processing.threat.evidence.targets import is_mail_tracker, redirect_target
from mailmill.processing.threat.knowledge.web_services import (
    DYNAMIC_DNS,
    FREE_HOSTING,
    IPFS_GATEWAYS,
    SHARED_PAGES,
    SHORTENERS,
    TUNNELS,
)
from mailmill.processing.threat.scoring import finding

# A content identifier of IPFS, version 0 or 1, as a path or as a label.
_IPFS_PATH = re.compile(r"^/ip[fn]s/(?:Qm[1-9A-HJ-NP-Za-km-z]{44}|[bk][a-z2-7]{50,70})")
_IPFS_LABEL = re.compile(r"^(?:baf[a-z2-7]{50,70}|k51[a-z0-9]{50,70})[.-]")

_ANYBODYS = FREE_HOSTING | IPFS_GATEWAYS | TUNNELS | DYNAMIC_DNS

# Pages of well-known sites that take a URL to show or to post it, and lead nowhere.
_SHARING = re.compile(
    r"share|intent|pin/create|submit|compose|dialog|calendar|maps|subscribe|validat|feed|embed|render"
)


def free_hosting(context: ThreatContext) -> Iterator[Finding]:
    """A link to a page that anybody can put up without a name, in a message from elsewhere."""
    for url in _foreign_pages(context):
        if ends_in(url.host, FREE_HOSTING):
            yield finding("links.free_hosting", url.host)
            return


def shared_page(context: ThreatContext) -> Iterator[Finding]:
    """A link to a form or a file at a service for everybody. People share so every day: it says little."""
    for url in _foreign_pages(context):
        if is_shared_page(url):
            yield finding("links.shared_page", f"{url.host}{url.path[:60]}")
            return


def tunnel(context: ThreatContext) -> Iterator[Finding]:
    """A link into a machine behind a tunnel."""
    yield from _at(context, TUNNELS, "links.tunnel")


def dynamic_address(context: ThreatContext) -> Iterator[Finding]:
    """A link to a name that follows a changing address."""
    yield from _at(context, DYNAMIC_DNS, "links.dynamic_address")


def ipfs(context: ThreatContext) -> Iterator[Finding]:
    """A link to a page in IPFS, from which nobody can take it down."""
    for url in _foreign_pages(context):
        if ends_in(url.host, IPFS_GATEWAYS) or _IPFS_PATH.match(url.path) or _IPFS_LABEL.match(url.host):
            yield finding("links.ipfs", f"{url.host}{url.path[:60]}")
            return


def shortener(context: ThreatContext) -> Iterator[Finding]:
    """A redirecting service: the target is not in the message."""
    for link in context.followed:
        for url in link.destinations:
            if is_shortened(url):
                yield finding("links.shortener", f"{url.host}{url.path[:60]}")
                return


def open_redirect(context: ThreatContext) -> Iterator[Finding]:
    """A link to a well-known site that passes on to another one. Its own mail does so; somebody else hides there."""
    for link in context.links:
        if not link.clickable or not context.is_foreign(link.organisation):
            continue
        target = link.target
        if target is None and is_brands_own(link.url.host) and not _SHARING.search(link.url.path[:200]):
            target = redirect_target(link.url, generic=True)
        if is_mail_tracker(link.url):
            continue
        if target is None or target.organisation == link.organisation or not context.is_foreign(target.organisation):
            continue
        if not is_brands_own(target.host):
            yield finding("links.open_redirect", f"{link.url.host} passes on to {target.host}")
            return


def is_anybodys_page(url: Url) -> bool:
    """Whether a page stands where nobody is asked for a name: free hosting, IPFS, a tunnel, a changing address."""
    return bool(ends_in(url.host, _ANYBODYS) or _IPFS_PATH.match(url.path) or _IPFS_LABEL.match(url.host))


def is_shortened(url: Url) -> bool:
    """Whether a redirecting service hides where the link leads."""
    return url.organisation in SHORTENERS and len(url.path) > 1


def is_shared_page(url: Url) -> bool:
    """Whether a page is a form or a file at a service for everybody."""
    return bool(ends_in(url.host, SHARED_PAGES)) and len(url.path) > 1


def _at(context: ThreatContext, hosts: Set[str], finding_id: str) -> Iterator[Finding]:
    for url in _foreign_pages(context):
        if ends_in(url.host, hosts):
            yield finding(finding_id, url.host)
            return


def _foreign_pages(context: ThreatContext) -> Iterator[Url]:
    for link in context.followed:
        for url in link.destinations:
            if url.host and url.organisation not in context.relations:
                yield url


DETECTORS = (free_hosting, shared_page, tunnel, dynamic_address, ipfs, shortener, open_redirect)
