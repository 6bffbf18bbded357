"""The prepared message that detectors look at: everything is computed once, bounded, and free of I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from mailmill.message_parser import ParsedMessage
from mailmill.model import NO_HISTORY, Address, SenderHistory
from mailmill.processing.html_text import HtmlText, read_html
from mailmill.processing.text_lines import tidy_lines
from mailmill.processing.threat.evidence.attached_files import AttachedFile, inspect
from mailmill.processing.threat.evidence.authentication_results import (
    Authentication,
    read_authentication,
    with_signatures,
)
from mailmill.processing.threat.evidence.drawn_pictures import pictures_in
from mailmill.processing.threat.evidence.file_order import most_dangerous
from mailmill.processing.threat.evidence.hosts import (
    Url,
    clean_host,
    mail_domain,
    organisation_of,
    parse_url,
    split_host,
)
from mailmill.processing.threat.evidence.inside import ReadInsides, read_nothing
from mailmill.processing.threat.evidence.targets import behind_gateways, redirect_target
from mailmill.processing.threat.knowledge.reference import FREE_MAIL

MAX_LINKS = 300
MAX_ADDRESSES = 20
MAX_FILES = 100
MAX_FILE_LINKS = 100
MAX_WRITTEN_LINKS = 4
MAX_TEXT_CHARS = 100_000

SHORTEST_LABEL = 5
"""Letters of a registrable label that is hardly two houses' own."""

FAMILIAR_FROM = 5
"""Messages after which a proven sender is a known one."""

_TEXT_URL = re.compile(r"https?://[^\s<>\"'\u00a0]{1,2000}", re.IGNORECASE)
_ANY_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"@]{1,64}@[\w.-]{1,255}")
_FILE_ELEMENTS = {"qr": "qr", "pdf_link": "pdf", "office_link": "office"}
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
    """A way out of the message: ``raw`` as written; ``text`` is what the reader sees of it.

    ``url`` is ``raw`` read as a browser would, and as it was before a mail gateway wrapped it; ``target`` is where
    redirectors that we know pass on to from there, None where there is none.

    ``element`` is ``a``, ``area``, ``form``, ``text`` for a URL in plain text, or how an attached file leads there:
    ``qr``, ``pdf``, ``office``. ``organisation`` is that of the host.
    """

    raw: str
    url: Url
    organisation: str
    text: str
    element: str
    image: bool
    hidden: bool
    target: Url | None = None

    @property
    def clickable(self) -> bool:
        """Whether it leads to a host, and the sender made it a link rather than wrote it out."""
        return self.element != "text" and bool(self.url.host)

    @property
    def destinations(self) -> tuple[Url, ...]:
        """Every page that following it asks for: the first, and the one that a redirector passes on to."""
        return (self.url,) if self.target is None else (self.url, self.target)


@dataclass(frozen=True, slots=True)
class ThreatContext:
    """One message, prepared. ``sender`` is the first From with an address; ``own`` and ``own_organisation`` are the
    account's.

    ``text`` is what the reader sees (HTML if there is any, else plain text). ``own_organisation`` is "" where the
    account itself lives at a free mail service, for there a shared domain means nothing. ``by_list`` says that the
    message comes from a mailing list whose own server is authenticated.

    ``people`` are those of the account's own house who may be impersonated, one entry for each address of theirs (""
    where none was told). ``own_domains`` are the organisational domains that are its own: ``own_organisation``, if any,
    and those that were configured.
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
    history: SenderHistory
    people: tuple[Address, ...] = ()
    own_domains: frozenset[str] = frozenset()

    @property
    def authenticated(self) -> bool:
        """The account's own server proved that From's organisation sent this."""
        return self.authentication.aligned

    @property
    def vouched(self) -> bool:
        """Authentication speaks for the sender: proven, and not by a service where anybody gets an address, unless
        this one is known."""
        return self.authenticated and (self.sender.organisation not in FREE_MAIL or self.familiar)

    @property
    def familiar(self) -> bool:
        """A proven sender whom the account has written to, or had mail from often."""
        return self.authenticated and (self.history.sent > 0 or self.history.received >= FAMILIAR_FROM)

    @property
    def relays_members(self) -> bool:
        """A proven service whose members write to one another under its address, as a code forge does: its list
        (RFC 2919 §2) lies under the sender's own domain, and the message stands in a thread or an archive."""
        summary = self.message.summary
        named = list_domain(self.message)
        return (
            self.authenticated
            and bool(summary.in_reply_to or summary.references or self.message.header("List-Archive"))
            and organisation_of(named) == self.sender.organisation
        )

    @property
    def relations(self) -> frozenset[str]:
        """Organisations that this message is proven to come from, and that of From if aligned."""
        return self.authentication.passed_for

    @property
    def unproven(self) -> bool:
        """The account's own server looked, and nothing proves the sender; no mailing list or forwarder explains it."""
        explained = self.authenticated or self.by_list or self.authentication.forwarded
        return self.authentication.known and not explained

    @property
    def followed(self) -> tuple[Link, ...]:
        """The links that are there to be followed: what is clickable, and of a letter in plain text alone the few
        addresses that it writes out, for programs make links of them. Answers and lists quote and mention many."""
        summary = self.message.summary
        clickable = tuple(link for link in self.links if link.clickable)
        listed = self.by_list or any(self.message.header(field) is not None for field in ("List-Id", "List-Post"))
        if self.message.text_html.strip() or listed or summary.in_reply_to or summary.references:
            return clickable
        written = tuple(link for link in self.links if link.element == "text" and link.url.host)
        return clickable + written if len(written) <= MAX_WRITTEN_LINKS else clickable

    def is_foreign(self, organisation: str) -> bool:
        """Whether a host's organisation is neither the sender's (said or proven) nor the account's own. A proven sender
        has the same name under other suffixes, too (``inn.com``, ``inn.co.uk``)."""
        known = (self.sender.organisation, self.own_organisation)
        if not organisation or organisation in known or organisation in self.relations:
            return False
        label = split_host(organisation)[1]
        return not (
            self.authenticated
            and len(label) >= SHORTEST_LABEL
            and label == split_host(self.sender.organisation)[1]
            and self.sender.organisation not in FREE_MAIL
        )


def prepare(
    message: ParsedMessage,
    *,
    own_address: str = "",
    authserv_id: str | None = None,
    history: SenderHistory = NO_HISTORY,
    read_insides: ReadInsides = read_nothing,
    people: Iterable[Address] = (),
    own_domains: Iterable[str] = (),
    signatures: Iterable[str] = (),
) -> ThreatContext:
    """Prepare a message for the detectors. ``own_address`` is the account's; ``authserv_id`` names whose results we
    trust; ``read_insides`` reads attached files and is all that may take long here. ``people`` and ``own_domains`` are
    as configured; ``signatures`` are the domains whose DKIM signatures were found to hold."""
    senders = _parties(message.summary.from_)
    sender = _sender(message, senders)
    authentication = read_authentication(message, authserv_id, sender.domain)
    authentication = with_signatures(authentication, signatures, sender.domain)
    html = read_html(message.text_html)
    plain = message.text_plain[:MAX_TEXT_CHARS]
    own = own_address.strip().lower()
    own_organisation = organisation_of(mail_domain(own)) if own else ""
    own_organisation = "" if own_organisation in FREE_MAIL else own_organisation
    attached = (*most_dangerous(message.attachments, MAX_FILES), *pictures_in(html.data_images))
    files = tuple(map(inspect, attached, read_insides(attached)))
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
        links=(*_links(html, plain), *_file_links(files)),
        files=files,
        own=own,
        own_organisation=own_organisation,
        history=history,
        people=tuple(people),
        own_domains=frozenset(filter(None, (own_organisation, *map(organisation_of, map(clean_host, own_domains))))),
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

    RFC 2919 §2: a List-Id lies under the domain of its owner. A List-Id nobody authenticated proves nothing, and where
    From is aligned itself it explains nothing: newsletters have one too. A list that writes itself into From so that
    DMARC passes says where its members write to (RFC 2369 §3.4).
    """
    named = list_domain(message)
    if not named:
        return False
    if authentication.aligned and "<mailto:" not in (message.header("List-Post") or "")[:1_000].lower():
        return False
    return organisation_of(named) in authentication.passed_for


def list_domain(message: ParsedMessage) -> str:
    """The clean domain under which the List-Id of a message lies; "" without one."""
    match = _LIST_ID_DOMAIN.search((message.header("List-Id") or "")[:1_000])
    return clean_host(match.group(1)) if match else ""


def _links(html: HtmlText, plain: str) -> list[Link]:
    links: list[Link] = []
    # What somebody sees first: a heap of other links would keep it out.
    for one in sorted(html.links, key=lambda one: one.hidden or not (one.text or one.image))[:MAX_LINKS]:
        link = _link(one.target, one.text, one.element, image=one.image, hidden=one.hidden)
        if link is not None:
            links.append(link)
    seen = {link.raw for link in links}
    for match in _TEXT_URL.finditer(plain):
        if len(links) >= MAX_LINKS:
            break
        raw = match.group().rstrip(".,;:!?)]}*_")
        if raw in seen:
            continue
        seen.add(raw)
        link = _link(raw, raw, "text")
        if link is not None and link.url.host:
            links.append(link)
    return links


def _link(raw: str, text: str, element: str, *, image: bool = False, hidden: bool = False) -> Link | None:
    url = parse_url(raw)
    if url is None:
        return None
    url = behind_gateways(url)
    return Link(raw, url, url.organisation, text, element, image, hidden, redirect_target(url))


def _file_links(files: Iterable[AttachedFile]) -> list[Link]:
    """Where attached files lead; a URL that merely stands in a file's text is ``text``, as in a message."""
    links: dict[tuple[str, str], Link] = {}
    for target in islice((target for file in files for target in file.inside.targets), MAX_FILE_LINKS):
        element = _FILE_ELEMENTS.get(target.origin, "text")
        link = _link(target.url, "", element, image=target.origin == "qr")
        if link is not None and link.url.host:
            links.setdefault((element, target.url), link)
    return list(links.values())
