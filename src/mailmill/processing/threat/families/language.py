"""Family ``language``: what the words of a message are after.

A supporting family: never one of the two that ``malicious`` needs. A lure is told where phrases of several kinds stand
together (:mod:`~mailmill.processing.threat.knowledge.lures`). Mailing lists are left alone, for they talk about
everything; of people the account has long known only that is told which stolen mailboxes send.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.impersonation import belongs_to, brand_named, is_brands_own
from mailmill.processing.threat.evidence.lures import LureText, read_lure_text, told_of_known
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

FAMILY = "language"
MAX_FILES_READ = 3
_FEW_LINKS = 1
_NAMED_WITHIN_CHARS = 200
_GREETING_WITHIN_CHARS = 400

_APART = r"[ .\u00a0\u2010-\u2015-]"
PHONE = re.compile(
    rf"(?<![\w/=.-])\+?(?:\d{{1,3}}{_APART}{{1,2}})?\(?\d{{2,4}}(?:\){_APART}{{0,2}}|{_APART}{{1,3}})\d{{2,5}}"
    rf"(?:{_APART}{{1,3}}\d{{2,5}}){{1,4}}(?![\w/=-])"
)
_IN_FILES = frozenset({"credential_urgency", "mailbox_notice", "extortion", "advance_fee", "prize", "parcel_fee"})
_BY_LETTER = frozenset({"investment", "job_offer", "loan"})
_LONELY = 2  # words of longing; one, and "write to me", stand in letters between friends
# An IBAN (ISO 13616): country, check digits, 11 to 30 letters and digits, in groups or not.
_ACCOUNT_NUMBER = re.compile(r"\b[A-Z]{2}\d{2}(?:[ \u00a0]?[A-Z0-9]{4}){2,7}(?:[ \u00a0]?[A-Z0-9]{1,4})?\b")
_CALLS = frozenset({"callback", "renewal_call"})
READ_FOR_NUMBERS_CHARS = 20_000
_GREETING_WORDS = 2
_LINKS_OF_NEWSLETTERS = 3
_QUOTED_WITHIN_CHARS = 20_000
_ATTRIBUTION = re.compile(r":[ \t\u00a0]{0,5}\n(?:[ \t]{0,5}\n){0,2}>")
# What swindlers write as a person to a person.
_OF_PERSONS = frozenset({"advance_fee", "business_compromise", "extortion", "gift_cards", "romance", "stranger_deal"})
# What services say to their users; said by anybody else, it is said in the service's name.
OF_SERVICES = frozenset(
    {
        "account_notice", "credential_urgency", "crypto_wallet", "mailbox_notice", "parcel_fee", "payment_failed",
        "domain_ends", "points", "prize", "sign_in_to_see", "staff_notice", "tax_refund", "unexpected_balance",
        "verification_pressed", "voicemail",
    }
)  # fmt: skip


def lures(context: ThreatContext) -> Iterator[Finding]:
    """Every lure that the subject and text hold, or (of some kinds) a file attached."""
    for name, evidence in told(context).items():
        if name not in _CALLS and (name != "locked_file" or context.files):
            yield finding(f"language.{name}", evidence)


def callback(context: ThreatContext) -> Iterator[Finding]:
    """A payment nobody made, and a telephone number instead of a link: to undo it, or under the name of a service."""
    found = told(context)
    evidence = found.get("callback") or (found.get("renewal_call") if spoken_for(context) else None)
    if evidence is None or sum(1 for link in context.links if link.url.scheme.startswith("http")) > _FEW_LINKS:
        return
    for text in (context.subject, context.text[:READ_FOR_NUMBERS_CHARS], *_file_texts(context)):
        number = PHONE.search(text)
        if number:
            yield finding("language.callback", f"{evidence}, {number.group()}")
            return


def account_given(context: ThreatContext) -> Iterator[Finding]:
    """Payments are to go to another account from now on, and its number stands below. That the mailbox is genuine says
    nothing: this is what a stolen one sends."""
    evidence = told(context).get("bank_change")
    if evidence is not None:
        number = _ACCOUNT_NUMBER.search(own_words(context)[:20_000])
        if number:
            yield finding("language.account_given", f"{evidence}, {number.group()}")


def answer_wanted(context: ThreatContext) -> Iterator[Finding]:
    """A stranger's offer without a link, a file, or a way to unsubscribe: all that is left to do is to answer."""
    if context.links or context.files or context.message.header("List-Unsubscribe") is not None:
        return
    lonely = read_lure_text(FAMILY, context.subject, own_words(context)).counts.get("lonely", 0)
    for name, evidence in told(context).items():
        if name in _BY_LETTER or (name == "romance" and lonely >= _LONELY):
            yield finding("language.answer_wanted", evidence)
            return


def in_a_services_name(context: ThreatContext) -> Iterator[Finding]:
    """A lure that only the named service could mean honestly, from somebody else."""
    if told(context).keys() & (OF_SERVICES | _CALLS | {"document"}):
        name = spoken_for(context)
        if name:
            yield finding("language.in_a_services_name", f"{name}, from {context.sender.domain}")


def lure_from_free_mail(context: ThreatContext) -> Iterator[Finding]:
    """Services do not write from a mailbox that anybody gets for nothing, and strangers there deserve less trust."""
    found = told(context).keys()
    if context.sender.organisation in FREE_MAIL and found - _CALLS:
        kind = "service" if found & OF_SERVICES else "lure"
        yield finding(f"language.{kind}_from_free_mail", f"from {context.sender.address}")


def vague_greeting(context: ThreatContext) -> Iterator[Finding]:
    """A lure that does not know whom it speaks to: "Dear customer", or the bare address."""
    if not told(context).keys() - _CALLS:
        return
    head = context.text[:_GREETING_WITHIN_CHARS]
    if read_lure_text(FAMILY, "", head).counts.get("vague_greeting"):
        yield finding("language.vague_greeting", head.lstrip()[:80])
    elif context.own and any(_is_greeting(line, context.own) for line in head.lower().split("\n")):
        yield finding("language.vague_greeting", f"greets {context.own}")


def _is_greeting(line: str, address: str) -> bool:
    """The address stands for a name: alone on its line, or after a word or two ("hello", "dear user")."""
    before, found, after = line.partition(address)
    return bool(found) and len(before.split()) <= _GREETING_WORDS and not after.strip(" ,.:;!>)]*'\"")


def spoken_for(context: ThreatContext) -> str:
    """The service that the subject, the beginning or the end of the text names, if the sender does not belong to it;
    or "". What stands everywhere at the end of mail, such as where else to be found, does not count there."""
    if context.sender.organisation == context.own_organisation:
        return ""
    if context.vouched and is_brands_own(context.sender.domain):  # which browser, which card
        return ""
    end = context.text[-_NAMED_WITHIN_CHARS:]
    for text in (context.subject, context.text[:_NAMED_WITHIN_CHARS], end):
        claim = brand_named(text[:_NAMED_WITHIN_CHARS])
        if claim is not None and not (text is end and claim.brand.everywhere and not claim.whole):
            hosts = [host for host in (context.sender.domain, *context.relations) if host]
            return "" if any(belongs_to(claim.brand, host) for host in hosts) else claim.brand.name
    return ""


def told(context: ThreatContext) -> dict[str, str]:
    """The lures of a message, by name, with the words that make them."""
    own = context.authenticated and context.sender.organisation in context.own_domains
    if context.by_list or own:
        return {}
    text = own_words(context)
    read = read_lure_text(FAMILY, context.subject, text)
    if _is_about_fraud(context, read):
        return {}
    found = dict(read.told)
    if _is_newsletter(context):
        found = {name: evidence for name, evidence in found.items() if name not in _OF_PERSONS}
    for file_text in _file_texts(context):
        for name, evidence in read_lure_text(FAMILY, "", file_text).told.items():
            if name in _IN_FILES:
                found.setdefault(name, evidence)
    if context.familiar:
        return {name: evidence for name, evidence in found.items() if name in told_of_known(FAMILY)}
    return found


def own_words(context: ThreatContext) -> str:
    """The text without the lines that a reply quotes, unless nothing else is left. A reply names what it replies to, or
    whom it quotes ("… wrote:"), above the first such line."""
    summary = context.message.summary
    if ">" not in context.text:
        return context.text
    if not (summary.in_reply_to or summary.references or _ATTRIBUTION.search(context.text[:_QUOTED_WITHIN_CHARS])):
        return context.text
    lines = [line for line in context.text.split("\n") if not line.startswith(">")]
    return "\n".join(lines) if any(line.strip() for line in lines) else context.text


def _is_about_fraud(context: ThreatContext, read: LureText) -> bool:
    """News, warnings and courses name the thing; they come from somebody who has a name."""
    named = read.counts.get("about_fraud", 0)
    proven = context.authenticated or context.authentication.forwarded
    return named >= 2 and proven and context.sender.organisation not in FREE_MAIL


def _is_newsletter(context: ThreatContext) -> bool:
    """To be left, full of links, and nothing tells against its sender: what persons write to persons is told there,
    not done."""
    if context.unproven or context.sender.organisation in FREE_MAIL:
        return False
    if context.message.header("List-Unsubscribe") is None:
        return False
    return sum(1 for link in context.links if link.clickable) >= _LINKS_OF_NEWSLETTERS


def _file_texts(context: ThreatContext) -> list[str]:
    return [file.inside.text for file in context.files if file.inside.text][:MAX_FILES_READ]


DETECTORS = (lures, callback, account_given, answer_wanted, in_a_services_name, lure_from_free_mail, vague_greeting)
