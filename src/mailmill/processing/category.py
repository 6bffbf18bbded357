"""The category processor: what kind of mail this is, how soon it wants to be read, and by what signs.

Rules over the header first (RFC 2369, 2919, 3834, 8058, 5545; what bulk services add), words last and only a few. Each
rule that holds is a sign with points for a category; the category with most points wins, ties go to the earlier in
``CATEGORIES``. Pure and deterministic. A category says nothing about safety: that is the threat processor's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mailmill.message_parser import ParsedMessage
from mailmill.processing.html_text import read_html
from mailmill.processing.registry import JsonValue

MAX_TEXT_CHARS = 20_000
MAX_EVIDENCE_CHARS = 200


class Category(StrEnum):
    """The kinds, in the order in which ties are decided."""

    BOUNCE = "bounce"
    AUTO_REPLY = "autoReply"
    CALENDAR = "calendar"
    SECURITY = "security"
    RECEIPT = "receipt"
    SHIPPING = "shipping"
    SOCIAL = "social"
    FORUM = "forum"
    PROMOTION = "promotion"
    NEWSLETTER = "newsletter"
    NOTIFICATION = "notification"
    PERSONAL = "personal"


class Priority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing seen that speaks for a category. ``evidence`` is plain text, at most ``MAX_EVIDENCE_CHARS``."""

    category: Category
    points: float
    evidence: str


CATEGORIES = tuple(Category)

_BULK_PRECEDENCE = frozenset({"bulk", "list", "junk"})
_ROBOT_LOCAL = re.compile(
    r"^(?:no-?_?reply|do-?not-?reply|donotreply|notifications?|notify|alerts?|mailer|system|automailer|bounces?|robot"
    r"|bot"
    r"|nicht-?antworten|ne-?pas-?repondre|noresponder|nao-?responda|info|service|updates?)(?:[+._-]|$)",
    re.IGNORECASE,
)


def _word_in_local(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[._+-])(?:{words})(?:[._+-]|$)", re.IGNORECASE)


_LOCAL_HINTS: tuple[tuple[re.Pattern[str], Category, float], ...] = (
    (_word_in_local("newsletters?|news|digest|weekly|bulletin|editors?"), Category.NEWSLETTER, 3),
    (_word_in_local("offers?|deals?|promo(?:tions?)?|marketing|sales?|shop|store"), Category.PROMOTION, 3),
    (
        _word_in_local("billing|invoices?|receipts?|orders?|payments?|rechnung|facturation|facturas?|accounting"),
        Category.RECEIPT,
        3,
    ),
    (
        _word_in_local("security|account-security|verify|verification|login|signin|password|2fa|otp"),
        Category.SECURITY,
        3,
    ),
    (_word_in_local("calendar|invites?|invitations?|events?"), Category.CALENDAR, 2),
    (_word_in_local("shipping|shipments?|delivery|tracking|versand|paket"), Category.SHIPPING, 3),
)
_SOCIAL_DOMAINS = (
    "facebookmail.com", "linkedin.com", "twitter.com", "x.com", "instagram.com", "pinterest.com", "tiktok.com",
    "reddit.com", "redditmail.com", "quora.com", "xing.com", "snapchat.com", "mastodon.social", "meetup.com",
    "nextdoor.com", "discord.com",
)  # fmt: skip
_DEVELOPMENT_DOMAINS = ("github.com", "gitlab.com", "bitbucket.org", "atlassian.net", "atlassian.com", "sentry.io")
_BULK_SERVICE_HEADERS = (
    "Feedback-ID", "X-SG-EID", "X-Mailgun-Sid", "X-MC-User", "X-Mandrill-User", "X-SES-Outgoing", "X-Campaign-Id",
    "X-CampaignID", "X-PM-Message-Id", "X-Mailjet-Campaign", "X-CSA-Complaints", "X-Mailer-RecptId", "X-Report-Abuse",
    "X-SFMC-Stack", "X-HS-Cid", "X-Klaviyo-Message-ID", "X-Sib-Id",
)  # fmt: skip
_CAMPAIGN_MAILER = re.compile(
    r"mailchimp|campaign|sendinblue|brevo|klaviyo|hubspot|constant ?contact|mailjet|newsletter", re.I
)
# A letter between people has few pictures and links; a signature brings one or two.
_DESIGNED_IMAGES = 3
_DESIGNED_LINKS = 8
_REPLY = re.compile(r"^\s{0,5}(?:re|aw|sv|antw|rif|res|vs|odp|ref)\s?(?:\[\d{1,3}\])?\s?:", re.IGNORECASE)
_LIST_PREFIX = re.compile(r"^\s{0,5}(?:re:\s?)?\[[^\[\]]{1,60}\]", re.IGNORECASE)
_MONEY = re.compile(
    r"(?:[$€£¥₹]|\b(?:USD|EUR|GBP|CHF|BRL|R\$|JPY|INR))\s?\d{1,3}(?:[.,' ]?\d{3}){0,4}(?:[.,]\d{2})?"
    r"|\b\d{1,3}(?:[.,' ]?\d{3}){0,4}[.,]\d{2}\s?(?:[$€£¥]|EUR|USD|GBP|CHF|kr|zł)"
)
_DOCUMENT_NAME = re.compile(
    r"invoice|receipt|rechnung|facture|factura|fattura|fatura|quittung|beleg|bill|order", re.IGNORECASE
)
_HEADER_BREAK = re.compile(r"\s+")

_WORDS: tuple[tuple[re.Pattern[str], Category, float], ...] = (
    (
        re.compile(
            r"\b(?:receipt|invoice|payment (?:received|confirmation|failed|due)|order (?:confirmation|#|no)"
            r"|your order|purchase"
            r"|rechnung|bestellbestätigung|ihre bestellung|zahlungs\w{3,20}|facture|reçu|commande|factura|recibo"
            r"|pedido|fattura"
            r"|ricevuta|fatura|dunning|statement|refund|subscription renew\w{0,5})\b",
            re.IGNORECASE,
        ),
        Category.RECEIPT,
        2.5,
    ),
    (
        re.compile(
            r"\b(?:password|passwort|mot de passe|contraseña|senha|verification code|security (?:alert|code|notice)"
            r"|sign-?in|log-?in"
            r"|two-factor|2fa|one-time|otp|confirm your (?:e-?mail|account)|verify your|bestätigungscode"
            r"|sicherheits\w{2,20}"
            r"|new device|unusual activity|recovery)\b",
            re.IGNORECASE,
        ),
        Category.SECURITY,
        2.5,
    ),
    (
        re.compile(
            r"\b(?:shipped|out for delivery|tracking (?:number|code)|your (?:package|parcel|shipment)|delivered"
            r"|sendungs\w{2,20}"
            r"|versandt|colis|expédié|envío|spedizione)\b",
            re.IGNORECASE,
        ),
        Category.SHIPPING,
        2.5,
    ),
    (
        re.compile(
            r"(?:\b\d{1,2} ?% ?(?:off|rabatt|de réduction|de descuento|di sconto)|\b(?:sale|discount|coupon|voucher"
            r"|deals?|free shipping"
            r"|special offer|limited time|black friday|cyber monday|gutschein|rabatt|angebot|soldes|promo(?:tion)?"
            r"|oferta"
            r"|descuento|sconto|last chance|shop now)\b)",
            re.IGNORECASE,
        ),
        Category.PROMOTION,
        2.0,
    ),
    (
        re.compile(
            r"\b(?:invitation|invited you|meeting|appointment|rsvp|einladung|termin|rendez-vous|reunión|riunione)\b",
            re.IGNORECASE,
        ),
        Category.CALENDAR,
        1.0,
    ),
    (
        re.compile(r"\b(?:newsletter|digest|weekly|issue #?\d{1,4}|this week|monthly)\b", re.IGNORECASE),
        Category.NEWSLETTER,
        2.0,
    ),
    (
        re.compile(
            r"\b(?:comment(?:ed)?|mentioned you|assigned|notification|reminder|trial|welcome|status|build)\b",
            re.IGNORECASE,
        ),
        Category.NOTIFICATION,
        1.5,
    ),
)


def categorize(message: ParsedMessage) -> dict[str, JsonValue]:
    """The category processor's value: ``{"category", "priority", "evidence": [words]}``; evidence of the winner,
    strongest first."""
    signs = list(signs_of(message))
    totals = dict.fromkeys(CATEGORIES, 0.0)
    for sign in signs:
        totals[sign.category] += sign.points
    best = max(CATEGORIES, key=lambda category: totals[category])
    if totals[best] <= 0:
        best = Category.NOTIFICATION if _is_automatic(message) else Category.PERSONAL
    mine = sorted((sign for sign in signs if sign.category is best), key=lambda sign: -sign.points)
    evidence = list(dict.fromkeys(sign.evidence for sign in mine)) or ["no sign of a program or a list"]
    return {"category": best.value, "priority": priority_of(message, best).value, "evidence": evidence[:6]}


def signs_of(message: ParsedMessage) -> Iterator[Sign]:
    """Everything that speaks for a category, header evidence first."""
    yield from _structure(message)
    yield from _automation(message)
    yield from _lists(message)
    yield from _sender(message)
    yield from _words(message)
    yield from _person(message)


def priority_of(message: ParsedMessage, category: Category) -> Priority:
    """High for what waits for the reader (codes, meetings, a person who marks it so), low for what was sent to many.

    Importance fields are the sender's word: they raise only mail that a person or an account sent, never bulk.
    """
    if category in (Category.NEWSLETTER, Category.PROMOTION, Category.SOCIAL, Category.FORUM, Category.AUTO_REPLY):
        return Priority.LOW
    stated = _stated_importance(message)
    if category in (Category.SECURITY, Category.CALENDAR):
        return Priority.HIGH
    if category in (Category.PERSONAL, Category.RECEIPT, Category.NOTIFICATION, Category.BOUNCE) and stated == "high":
        return Priority.HIGH
    return Priority.LOW if stated == "low" else Priority.NORMAL


def _structure(message: ParsedMessage) -> Iterator[Sign]:
    """Parts that are the message's purpose: a calendar object (RFC 6047), a delivery report (RFC 3462)."""
    content_type = (message.header("Content-Type") or "").lower()[:500]
    if content_type.startswith("text/calendar") or "method=request" in content_type:
        yield _sign(Category.CALENDAR, 8, "the message is a calendar object")
    for attachment in message.attachments[:100]:
        kind = attachment.content_type.lower()
        name = attachment.filename[:200]
        if kind in ("text/calendar", "application/ics") or name.lower().endswith(".ics"):
            yield _sign(Category.CALENDAR, 6, f"a calendar object is attached ({name or kind})")
        elif kind in ("message/delivery-status", "message/global-delivery-status"):
            yield _sign(Category.BOUNCE, 8, f"part {kind}")
        elif not attachment.inline and kind == "application/pdf" and _DOCUMENT_NAME.search(name):
            yield _sign(Category.RECEIPT, 3, f"attached document {name}")
    if "report-type=delivery-status" in content_type.replace('"', "") or message.header("X-Failed-Recipients"):
        yield _sign(Category.BOUNCE, 8, "a delivery report")


def _automation(message: ParsedMessage) -> Iterator[Sign]:
    """RFC 3834 and what bulk services add."""
    automatic = (message.header("Auto-Submitted") or "").strip().lower()
    if automatic.startswith("auto-replied") or message.header("X-Autoreply") or message.header("X-Autorespond"):
        yield _sign(Category.AUTO_REPLY, 7, f"Auto-Submitted: {automatic}" if automatic else "an automatic reply")
    elif automatic.startswith("auto-generated"):
        yield _sign(Category.NOTIFICATION, 2.5, f"Auto-Submitted: {automatic}")
    precedence = (message.header("Precedence") or "").strip().lower()
    if precedence in ("bulk", "junk"):
        yield _sign(Category.NEWSLETTER, 1.5, f"Precedence: {precedence}")
    for name in _BULK_SERVICE_HEADERS:
        if message.header(name) is not None:
            yield _sign(Category.NEWSLETTER, 0.8, f"sent by a bulk service ({name})")
            break
    mailer = (message.header("X-Mailer") or "")[:200]
    if _CAMPAIGN_MAILER.search(mailer):
        yield _sign(Category.NEWSLETTER, 2, f"X-Mailer: {mailer}")
    local = message.summary.from_[0].address.partition("@")[0].lower() if message.summary.from_ else ""
    # RFC 5321 §4.5.5: a report has an empty reverse path; alone that says little, many servers lose the field.
    if local == "mailer-daemon" or (local == "postmaster" and (message.header("Return-Path") or "").strip() == "<>"):
        yield _sign(Category.BOUNCE, 4, f"From: {local}")


def _lists(message: ParsedMessage) -> Iterator[Sign]:
    """A list that one can post to is a forum; one that can only be left is a newsletter or a promotion (RFC 2369,
    8058)."""
    list_id = message.header("List-Id")
    post = (message.header("List-Post") or "").strip().lower()
    precedence = (message.header("Precedence") or "").strip().lower()
    open_list = (
        "mailto:" in post or "http" in post or precedence == "list" or message.header("Mailing-List") is not None
    )
    if open_list or (
        list_id is not None and (_LIST_PREFIX.match(message.summary.subject) or message.summary.in_reply_to)
    ):
        yield _sign(Category.FORUM, 5, f"a list to post to: {list_id or post or precedence}")
    elif message.header("List-Unsubscribe") is not None:
        yield _sign(Category.NEWSLETTER, 2.0, "List-Unsubscribe")
        if message.header("List-Unsubscribe-Post") is not None:
            yield _sign(Category.NEWSLETTER, 0.5, "one-click unsubscribe (List-Unsubscribe-Post)")
    elif list_id is not None:
        yield _sign(Category.NEWSLETTER, 1.5, f"List-Id: {list_id}")


def _sender(message: ParsedMessage) -> Iterator[Sign]:
    address = message.summary.from_[0].address.lower()[:320] if message.summary.from_ else ""
    local, _, domain = address.rpartition("@")
    for pattern, category, points in _LOCAL_HINTS:
        if pattern.search(local):
            yield _sign(category, points, f"From: {address}")
    if _ROBOT_LOCAL.match(local):
        yield _sign(Category.NOTIFICATION, 1.5, f"From: {address}")
    if _ends_in(domain, _SOCIAL_DOMAINS) and (
        _ROBOT_LOCAL.match(local) or message.header("List-Unsubscribe") is not None
    ):
        yield _sign(Category.SOCIAL, 5, f"from a social network ({domain})")
    if _ends_in(domain, _DEVELOPMENT_DOMAINS):
        yield _sign(Category.NOTIFICATION, 6, f"from a development service ({domain})")


def _words(message: ParsedMessage) -> Iterator[Sign]:
    """Words of the subject; the text only supports what the subject leaves open. Discussions on lists are left
    alone."""
    subject = message.summary.subject[:500]
    if _REPLY.match(subject) or not (_is_automatic(message) or message.text_html):
        return
    for pattern, category, points in _WORDS:
        match = pattern.search(subject)
        if match:
            yield _sign(category, points, f"subject: {_shown(match.group())}")
    text = (read_html(message.text_html).visible if message.text_html.strip() else message.text_plain)[:MAX_TEXT_CHARS]
    head = text[:1_500]
    for pattern, category, points in _WORDS:
        match = pattern.search(head)
        if match:
            yield _sign(category, points * 0.4, f"text: {_shown(match.group())}")
    amounts = len(_MONEY.findall(text[:5_000]))
    if amounts and any(
        pattern.search(subject + "\n" + head) for pattern, category, _ in _WORDS if category is Category.RECEIPT
    ):
        yield _sign(Category.RECEIPT, 1.0, f"{amounts} amounts of money")


def _person(message: ParsedMessage) -> Iterator[Sign]:
    """No sign of a program: a person wrote to few people, or answers."""
    if _is_automatic(message):
        return
    summary = message.summary
    if summary.in_reply_to and _REPLY.match(summary.subject[:50]):
        yield _sign(Category.PERSONAL, 4, "a reply in a conversation")
    html = read_html(message.text_html)
    if html.images >= _DESIGNED_IMAGES or len(html.links) >= _DESIGNED_LINKS:
        if not summary.in_reply_to:
            yield _sign(Category.NOTIFICATION, 1, f"a designed page ({html.images} pictures, {len(html.links)} links)")
        return
    local = summary.from_[0].address.partition("@")[0] if summary.from_ else ""
    if local and not _ROBOT_LOCAL.match(local) and len(summary.to) + len(summary.cc) <= 10:
        yield _sign(Category.PERSONAL, 2.2, "written to few people, no sign of a program")


def _is_automatic(message: ParsedMessage) -> bool:
    """Header evidence that a program sent this to one or to many."""
    automatic = (message.header("Auto-Submitted") or "no").strip().lower()
    local = message.summary.from_[0].address.partition("@")[0] if message.summary.from_ else ""
    return (
        not automatic.startswith("no")
        or (message.header("Precedence") or "").strip().lower() in _BULK_PRECEDENCE
        or any(message.header(name) is not None for name in ("List-Unsubscribe", "List-Id", *_BULK_SERVICE_HEADERS))
        or _ROBOT_LOCAL.match(local) is not None
        or any(pattern.search(local) for pattern, _, _ in _LOCAL_HINTS)
    )


def _stated_importance(message: ParsedMessage) -> str:
    """ "high", "low" or "" by Importance, Priority (RFC 2156) and X-Priority."""
    importance = (message.header("Importance") or "").strip().lower()
    urgency = (message.header("Priority") or "").strip().lower()
    number = (message.header("X-Priority") or "").strip()[:1]
    if importance == "high" or urgency == "urgent" or number in ("1", "2"):
        return "high"
    if importance == "low" or urgency == "non-urgent" or number in ("4", "5"):
        return "low"
    return ""


def _ends_in(domain: str, ends: tuple[str, ...]) -> bool:
    return any(domain == end or domain.endswith(f".{end}") for end in ends)


def _sign(category: Category, points: float, evidence: str) -> Sign:
    return Sign(category, points, _shown(evidence)[:MAX_EVIDENCE_CHARS])


def _shown(text: str) -> str:
    return _HEADER_BREAK.sub(" ", "".join(character if character.isprintable() else " " for character in text)).strip()
