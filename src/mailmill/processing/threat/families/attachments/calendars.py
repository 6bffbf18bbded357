"""Calendar invitations (RFC 5545, 5546): many programs put them into the calendar before anybody has read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.attached_files import AttachedFile
from mailmill.processing.threat.evidence.hosts import mail_domain, organisation_of, parse_url
from mailmill.processing.threat.families.links import is_free_hosting
from mailmill.processing.threat.knowledge.reference import RISKY_SUFFIXES
from mailmill.processing.threat.knowledge.web_services import SHORTENERS
from mailmill.processing.threat.scoring import finding

MAX_BYTES = 512 << 10
"""Of all calendars of a message together; ``LEAST_BYTES`` of each: the first must not hide the rest."""
LEAST_BYTES = 4 << 10
MAX_VALUE_CHARS = 20_000
MAX_EVENTS = 200
MAX_URLS = 50

_FOLD = re.compile(r"\r?\n[ \t]")
_PROPERTY = re.compile(r"^([A-Za-z-]{1,40})(?:;[^\n]{0,4000}?)?:([^\n]*)$", re.MULTILINE)
_READ = frozenset({"METHOD", "ORGANIZER", "SUMMARY", "DESCRIPTION", "LOCATION", "URL", "ATTACH", "X-ALT-DESC"})
_URL = re.compile(r"https?://[^\s\"'<>\\]{3,1900}", re.IGNORECASE)
_PHONE = re.compile(r"(?<![\d/.=&?-])\+?\(?\d{1,4}\)?(?:[\s.()-]{1,3}\d{2,4}){2,4}(?!\d)")
_MONEY_TALK = re.compile(
    r"\b(?:charged|debited|auto-?renew(?:al|ed)?|renewed|refund|cancel(?:lation)?\s{1,5}(?:the\s{1,5})?(?:order|subscription)"
    r"|unauthori[sz]ed|invoice|payment\s{1,5}of|billed|subscription|abgebucht|r[uü]ckerstattung|rechnung|reembolso"
    r"|suscripci[oó]n|facture|pr[eé]lev[eé]|remboursement|support\s{1,5}team|help\s?line|toll[\s-]free)\b",
    re.IGNORECASE,
)
_ACCOUNT_TALK = re.compile(
    r"\b(?:verify|confirm|update|unlock|suspended|password|expire[sd]?|deactivat\w{1,5}|kennwort|passwort|mot\s{1,5}de"
    r"\s{1,5}passe|contrase[nñ]a|senha)\b",
    re.IGNORECASE,
)


def invitation(context: ThreatContext) -> Iterator[Finding]:
    """An organizer who did not send it; a description that wants to be called back about money, or leads to a page
    nobody answers for."""
    left = MAX_BYTES
    for file in context.files:
        if file.content_type != "text/calendar" and file.extension not in ("ics", "vcs"):
            continue
        fields = properties(file.content[: max(left, LEAST_BYTES)])
        left -= min(left, len(file.content))
        if not fields:
            continue
        yield from _organizer(context, file, fields)
        yield from _description(context, file, fields)


def properties(content: bytes) -> dict[str, str]:
    """The values of what is looked at, by name, those of several events joined; {} if it is no calendar."""
    text = _FOLD.sub("", content[:MAX_BYTES].decode("utf-8", "replace")).replace("\r", "")
    if "BEGIN:VCALENDAR" not in text[:1_000].upper():
        return {}
    values: dict[str, list[str]] = {}
    for match in _PROPERTY.finditer(text):
        name = match.group(1).upper()
        if name in _READ and len(values.setdefault(name, [])) < MAX_EVENTS:
            value = match.group(2)[:MAX_VALUE_CHARS]
            values[name].append(value.replace("\\n", "\n").replace("\\N", "\n").replace("\\", ""))
    return {name: "\n".join(several)[:MAX_VALUE_CHARS] for name, several in values.items()}


def _organizer(context: ThreatContext, file: AttachedFile, fields: Mapping[str, str]) -> Iterator[Finding]:
    first = fields.get("ORGANIZER", "").partition("\n")[0].strip()
    if fields.get("METHOD", "").strip().upper() != "REQUEST" or not first.lower().startswith("mailto:"):
        return
    organizer = first[7:327].lower()
    organisation = organisation_of(mail_domain(organizer))
    known = {context.sender.organisation, context.own_organisation, *(one.organisation for one in context.reply_to)}
    if organisation and organisation not in known and organisation not in context.relations and not context.by_list:
        yield finding(
            "attachments.invitation_of_another",
            f"{file.shown}: organizer {organizer}, sent by {context.sender.address}",
        )


def _description(context: ThreatContext, file: AttachedFile, fields: Mapping[str, str]) -> Iterator[Finding]:
    words = "\n".join(fields.get(name, "") for name in ("SUMMARY", "DESCRIPTION", "LOCATION", "X-ALT-DESC"))
    phone, talk = _PHONE.search(words), _MONEY_TALK.search(words)
    if phone is not None and talk is not None:
        yield finding("attachments.invitation_callback", f"{file.shown}: {talk.group()} … {phone.group()}")
    about_accounts = _ACCOUNT_TALK.search(words) is not None
    everything = words + "\n" + fields.get("URL", "") + "\n" + fields.get("ATTACH", "")
    for match in islice(_URL.finditer(everything), MAX_URLS):
        url = parse_url(match.group().rstrip(".,;:!?)]}"))
        if url is None or not url.host or url.organisation in {*context.relations, context.own_organisation}:
            continue
        doubtful = (
            is_free_hosting(url.host)
            or url.organisation in SHORTENERS
            or url.host.rpartition(".")[2] in RISKY_SUFFIXES
            or about_accounts
        )
        if doubtful and url.organisation != context.sender.organisation:
            yield finding("attachments.invitation_link", f"{file.shown} leads to {url.host}")
            return


DETECTORS = (invitation,)
