"""Family ``links``, what kind of page it is: one that knows its victim, a program, a corner of a broken site."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import Link, ThreatContext
from mailmill.processing.threat.evidence.brand_index import owner_of
from mailmill.processing.threat.evidence.hosts import parse_url
from mailmill.processing.threat.evidence.impersonation import is_brands_own
from mailmill.processing.threat.evidence.lookalike import skeleton
from mailmill.processing.threat.evidence.recipient_marks import carries
from mailmill.processing.threat.evidence.stated_password import stated_password
from mailmill.processing.threat.families.language import own_words
from mailmill.processing.threat.families.link_services import is_anybodys_page
from mailmill.processing.threat.scoring import finding

MAX_RECIPIENTS = 3
_PROGRAM = re.compile(
    r"\.(?:exe|scr|pif|msi|msix|msixbundle|appx|appinstaller|bat|cmd|ps1|vbs|vbe|jse|wsf|hta|jar|apk|dmg|pkg|lnk|iso|img"
    r"|vhd|vhdx|xll|one|cpl|reg|docm|xlsm)$",
    re.IGNORECASE,
)
_ARCHIVE = re.compile(r"\.(?:zip|rar|7z|ace|cab|tgz|gz|xz|arj|lzh|z)$", re.IGNORECASE)
# Folders of WordPress and its like in which no page for visitors lives, and pages where files only should be.
_BROKEN_SITE = re.compile(
    r"^/(?:[\w.-]{1,60}/){0,4}(?:wp-includes/|wp-admin/(?:css|js|images|includes|maint)/|wp-content/(?:plugins|themes|cache"
    r"|upgrade|languages)/|wp-content/uploads/.{0,200}\.(?:php|html?)$|\.well-known/(?!acme|security|change)[\w.-]{1,60}/"
    r"|(?:components|modules|templates)/(?:com|mod)_\w{1,40}/.{0,100}\.html?$)",
    re.IGNORECASE,
)
_STATIC = re.compile(r"\.(?:png|jpe?g|gif|css|js|svg|webp|pdf|ico|woff2?)$", re.IGNORECASE)
_PATH_WORDS = re.compile(r"[a-z]{2,30}")
_CREDENTIALS = """
    login signin logon webscr verify verification verifyaccount validate validation password passwort owa webmail
    authenticate authorize auth secure account accounts myaccount banking ebanking onlinebanking wallet unlock
    reactivate reactivation suspended confirmidentity update billing credential credentials sso oauth adfs cmd
    """
_CREDENTIAL_WORDS = frozenset(_CREDENTIALS.split())
_UNSUBSCRIBING = re.compile(
    r"unsub|optout|opt-out|preference|abmeld|desab|desins|baja|remove|newsletter", re.IGNORECASE
)
_LOGO = re.compile(r"logo|brand|header|banner|masthead", re.IGNORECASE)
_BADGE = re.compile(r"badge|button|btn|icon|social|app-?store|google-?play|follow|share|pixel|spacer", re.IGNORECASE)
_SHORTEST_NAME = 4


def recipient_in_fragment(context: ThreatContext) -> Iterator[Finding]:
    """The account's address behind ``#``: a page reads it there to greet its victim; no server ever sees it."""
    recipients = _recipients(context)
    for link in context.followed if recipients else ():
        for url in link.destinations:
            if url.fragment and url.scheme in ("http", "https") and carries(url.fragment, recipients):
                yield finding("links.recipient_in_fragment", f"{url.host}…#{url.fragment[:80]}")
                return


def recipient_in_link(context: ThreatContext) -> Iterator[Finding]:
    """The account's address in the path or query of a link to a stranger's page. Honest senders do so to unsubscribe
    people, and are proven."""
    recipients = _recipients(context)
    if not recipients or context.authenticated or context.by_list:
        return
    for link in context.followed:
        url = link.url
        if not context.is_foreign(link.organisation) or _leaves(link):
            continue
        where = f"{url.path}?{url.query}"
        if carries(where, recipients):
            yield finding("links.recipient_in_link", f"{url.host}{where[:80]}")
            return


def recipient_on_free_page(context: ThreatContext) -> Iterator[Finding]:
    """The account's address in a link to a page that nobody stands behind: it greets its victim by name. Of the sender
    nothing is asked, for mail from a stolen account is proven, and no service takes its users to such a page."""
    recipients = _recipients(context)
    if not recipients or context.by_list:
        return
    for link in context.followed:
        url = link.url
        if context.is_foreign(link.organisation) and is_anybodys_page(url) and not _leaves(link):
            where = f"{url.path}?{url.query}#{url.fragment}"
            if carries(where, recipients):
                yield finding("links.recipient_on_free_page", f"{url.host}{where[:80]}")
                return


def program(context: ThreatContext) -> Iterator[Finding]:
    """A link that fetches a program or a disk image from a stranger."""
    if context.by_list:
        return
    for link in _strangers(context):
        path = link.url.path
        if _PROGRAM.search(path[-20:]):
            yield finding("links.program", f"{link.url.host}{path[-80:]}")
            return


def archive(context: ThreatContext) -> Iterator[Finding]:
    """A link that fetches an archive from a stranger, in a message that nothing proves; worse, whoever sent it, where
    the message gives its password."""
    if context.by_list:
        return
    for link in context.followed:
        path = link.url.path
        if not context.is_foreign(link.organisation) or not _ARCHIVE.search(path[-20:]):
            continue
        where = f"{link.url.host}{path[-80:]}"
        password = stated_password(context.subject, own_words(context))
        if password:
            yield finding("links.locked_archive", f'{where}, and the password "{password}"')
            return
        if context.unproven and not is_brands_own(link.url.host):
            yield finding("links.archive", where)
            return


def broken_site(context: ThreatContext) -> Iterator[Finding]:
    """A page in a folder where a site keeps its own works: somebody else put it there."""
    for link in context.followed:
        for url in link.destinations:
            if not _BROKEN_SITE.match(url.path[:600]) or _STATIC.search(url.path[-10:]):
                continue
            if context.is_foreign(url.organisation):
                yield finding("links.broken_site", f"{url.host}{url.path[:100]}")
                return


def credential_words(context: ThreatContext) -> Iterator[Finding]:
    """A page to sign in or to confirm something, at a host that has to do neither with the sender nor with a name we
    know, from a sender that nothing proves."""
    if not context.unproven:
        return
    for link in context.followed:
        for url in link.destinations:
            if not context.is_foreign(url.organisation) or is_brands_own(url.host) or _leaves(link):
                continue
            words = _PATH_WORDS.findall(f"{url.host}{url.path}"[:400].lower())
            found = sorted(_CREDENTIAL_WORDS.intersection(words))
            if found:
                yield finding("links.credential_words", f"{', '.join(found[:3])} in {url.host}{url.path[:80]}")
                return


def unrelated_to_sender(context: ThreatContext) -> Iterator[Finding]:
    """Every link goes to one organisation that is not the sender's, and nothing proves the sender."""
    summary = context.message.summary
    if not context.unproven or summary.in_reply_to or summary.references or context.message.header("List-Id"):
        return
    counted = Counter(url.organisation for link in context.links if link.clickable for url in link.destinations)
    if len(counted) == 1 and context.is_foreign(next(iter(counted))) and not is_brands_own(next(iter(counted))):
        yield finding("links.unrelated_to_sender", f"from {context.sender.domain}, all to {next(iter(counted))}")


def brand_pictures(context: ThreatContext) -> Iterator[Finding]:
    """A brand's own pictures, fetched from the brand, above links that lead elsewhere. Icons, badges and buttons that
    everybody shows do not count."""
    sources = context.html.image_sources[:100]
    if context.by_list or not sources:
        return
    clickable = [link for link in context.links if link.clickable and not link.hidden]
    for source in sources:
        url = parse_url(source)
        brand = owner_of(url.host) if url is not None and url.host else None
        if url is None or brand is None or brand.everywhere or _BADGE.search(source) or not _LOGO.search(url.path):
            continue
        if not context.is_foreign(url.organisation) or not any(
            context.is_foreign(link.organisation) and owner_of(link.url.host) is not brand for link in clickable
        ):
            continue
        said = skeleton(f"{context.sender.name[:100]} {context.subject[:150]}")
        if any(len(name) >= _SHORTEST_NAME and skeleton(name) in said for name in brand.names):
            yield finding("links.brand_pictures", f"a picture of {brand.name}'s from {url.host}")
            return


def _recipients(context: ThreatContext) -> tuple[str, ...]:
    """The account's address; without one, those that the message was sent to, if few."""
    if context.own:
        return (context.own,)
    addressed = [one.address.strip().lower() for one in context.message.summary.to[: MAX_RECIPIENTS + 1]]
    return tuple(addressed) if len(addressed) <= MAX_RECIPIENTS else ()


def _strangers(context: ThreatContext) -> Iterator[Link]:
    """Links to hosts that are neither the sender's, nor the account's own, nor a brand's."""
    for link in context.links:
        if link.clickable and context.is_foreign(link.organisation) and not is_brands_own(link.url.host):
            yield link


def _leaves(link: Link) -> bool:
    return bool(_UNSUBSCRIBING.search(link.raw[:500]) or _UNSUBSCRIBING.search(link.text[:200]))


DETECTORS = (
    recipient_in_fragment,
    recipient_in_link,
    recipient_on_free_page,
    program,
    archive,
    broken_site,
    credential_words,
    unrelated_to_sender,
    brand_pictures,
)
