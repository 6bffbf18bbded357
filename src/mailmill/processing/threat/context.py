"""The prepared message that detectors look at: everything is computed once, bounded, and free of I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mailmill.message_parser import ParsedMessage
from mailmill.model import Address
from mailmill.processing.html_text import HtmlText, read_html, tidy_lines
from mailmill.processing.threat.attached_files import AttachedFile, inspect
from mailmill.processing.threat.authentication_results import Authentication, read_authentication
from mailmill.processing.threat.hosts import Url, clean_host, mail_domain, organisation_of, parse_url
from mailmill.processing.threat.reference import FREE_MAIL

MAX_LINKS = 300
MAX_ADDRESSES = 20
MAX_FILES = 100
MAX_TEXT_CHARS = 100_000

_TEXT_URL = re.compile(r"https?://[^\s<>\"'\u00a0]{1,2000}", re.IGNORECASE)
_ANY_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"@]{1,64}@[\w.-]{1,255}")
_LIST_ID_DOMAIN = re.compile(r"<([^<>\s]{1,255})>\s*$")


@dataclass(frozen=True, slots=True)
class Party:
    """An address of the message. ``domain`` is clean, ``organisation`` its organisational domain; "" where there is
    none."""

    name: str
    address: str
    domain: str
    organisation: str


@dataclass(frozen=True, slots=True)
class Link:
    """A way out of the message: ``raw`` as written, read as a browser would; ``text`` is what the reader sees of it.

    ``element`` is ``a``, ``area``, ``form``, or ``text`` for a URL in plain text. ``organisation`` is that of the host.
    """

    raw: str
    url: Url
    organisation: str
    text: str
    element: str
    image: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class ThreatContext:
    """One message, prepared. ``sender`` is the first From with an address; ``own`` and ``own_organisation`` are the
    account's.

    ``text`` is what the reader sees (HTML if there is any, else plain text). ``own_organisation`` is "" where the
    account itself lives at a free mail service, for there a shared domain means nothing. ``by_list`` says that the
    message comes from a mailing list whose own server is authenticated.
    """

    message: ParsedMessage
    sender: Party
    senders: tuple[Party, ...]
    from_fields: int
    reply_to: tuple[Party, ...]
    return_path: Party
    authentication: Authentication
    by_list: bool
    subject: str
    html: HtmlText
    text: str
    links: tuple[Link, ...]
    files: tuple[AttachedFile, ...]
    own: str
    own_organisation: str

    @property
    def authenticated(self) -> bool:
        """The account's own server proved that From's organisation sent this."""
        return self.authentication.aligned

    @property
    def relations(self) -> frozenset[str]:
        """Organisations that this message is proven to come from, and that of From if aligned."""
        return self.authentication.passed_for


def prepare(message: ParsedMessage, *, own_address: str = "", authserv_id: str | None = None) -> ThreatContext:
    """Prepare a message for the detectors. ``own_address`` is the account's; ``authserv_id`` names whose results we
    trust."""
    senders = _parties(message.summary.from_)
    sender = _sender(message, senders)
    authentication = read_authentication(message, authserv_id, sender.domain)
    html = read_html(message.text_html)
    plain = message.text_plain[:MAX_TEXT_CHARS]
    own = own_address.strip().lower()
    own_organisation = organisation_of(mail_domain(own)) if own else ""
    return ThreatContext(
        message=message,
        sender=sender,
        senders=senders,
        from_fields=len(message.header_all("From")),
        reply_to=_parties(message.summary.reply_to),
        return_path=_party(Address("", (message.header("Return-Path") or "")[:1_000].strip(" <>"))),
        authentication=authentication,
        by_list=_is_by_list(message, authentication),
        subject=message.summary.subject[:1_000],
        html=html,
        text=html.visible[:MAX_TEXT_CHARS] if message.text_html.strip() else tidy_lines(plain),
        links=tuple(_links(html, plain)),
        files=tuple(inspect(attachment) for attachment in message.attachments[:MAX_FILES]),
        own=own,
        own_organisation="" if own_organisation in FREE_MAIL else own_organisation,
    )


def _party(address: Address) -> Party:
    domain = mail_domain(address.address[:1_000])
    return Party(address.name[:1_000], address.address[:1_000].strip().lower(), domain, organisation_of(domain))


def _sender(message: ParsedMessage, senders: tuple[Party, ...]) -> Party:
    """The first From with an address; a phrase that stands alone before it is its name.

    ``From: Parcel Service, <x@y.example>`` is two addresses by RFC 5322, and one to the reader.
    """
    phrase = ""
    for party in senders:
        if party.domain:
            return replace(party, name=party.name or phrase)
        phrase = phrase or party.name or party.address
    stray = _ANY_ADDRESS.search((message.header("From") or "")[:2_000])
    return _party(Address(phrase, stray.group() if stray else ""))


def _parties(addresses: Iterable[Address]) -> tuple[Party, ...]:
    return tuple(_party(address) for address in tuple(addresses)[:MAX_ADDRESSES])


def _is_by_list(message: ParsedMessage, authentication: Authentication) -> bool:
    """A mailing list re-sends the mail of others, so From is not aligned; but the list's own domain passes.

    RFC 2919 §2: a List-Id lies under the domain of its owner. A List-Id nobody authenticated proves nothing.
    """
    field = message.header("List-Id")
    match = _LIST_ID_DOMAIN.search(field[:1_000]) if field else None
    if match is None:
        return False
    return organisation_of(clean_host(match.group(1))) in authentication.passed_for


def _links(html: HtmlText, plain: str) -> list[Link]:
    links: list[Link] = []
    for one in html.links[:MAX_LINKS]:
        url = parse_url(one.target)
        if url is not None:
            links.append(Link(one.target, url, url.organisation, one.text, one.element, one.image, one.hidden))
    seen = {link.raw for link in links}
    for match in _TEXT_URL.finditer(plain):
        if len(links) >= MAX_LINKS:
            break
        raw = match.group().rstrip(".,;:!?)]}*_")
        if raw in seen:
            continue
        seen.add(raw)
        url = parse_url(raw)
        if url is not None and url.host:
            links.append(Link(raw, url, url.organisation, raw, "text", image=False, hidden=False))
    return links
