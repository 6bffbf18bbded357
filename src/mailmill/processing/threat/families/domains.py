"""Family ``domains``: domains made to be mistaken for others, in the sender's address and in links."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.hosts import (
    ends_in,
    ip_of,
    organisation_of,
    split_host,
)
from mailmill.processing.threat.evidence.impersonation import (
    brand_inside,
    brand_under_other_suffix,
    imitated,
    imitates,
    mixed_script_label,
    near_miss,
)
from mailmill.processing.threat.knowledge.reference import RISKY_SUFFIXES
from mailmill.processing.threat.knowledge.web_services import DYNAMIC_DNS, FREE_HOSTING, TENANTS, TUNNELS
from mailmill.processing.threat.scoring import finding

_THROWAWAY = FREE_HOSTING | DYNAMIC_DNS | TUNNELS | TENANTS
_SHORTEST_OWN = 5
_MANY_LABELS = 5
_LONG_HOST = 90
_SHORTEST_RANDOM = 12
_SUFFIX_LABELS = frozenset({"com", "net", "org", "gov", "co", "www"})
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6}")
_LETTER_THEN_DIGIT = re.compile(r"[a-z](?=[0-9])")


def lookalike(context: ThreatContext) -> Iterator[Finding]:
    """A registrable label that passes for a brand's or the account's own: look-alike letters, digits for letters."""
    for finding_id, hosts in (
        ("domains.lookalike_sender", _sender_hosts(context)),
        ("domains.lookalike_link", _link_hosts(context)),
    ):
        for host in hosts:
            shown = _imitation(context, host)
            if shown:
                yield finding(finding_id, shown)
                break


def one_letter_off(context: ThreatContext) -> Iterator[Finding]:
    """A registrable label an edit or two from a brand's. There are honest names so near, so it counts less than a
    disguise."""
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        found = near_miss(host) if imitated(host) is None else None
        if found is not None:
            yield finding("domains.one_letter_off", f"{host} is nearly {found}")
            return


def brand_in_foreign_domain(context: ThreatContext) -> Iterator[Finding]:
    """A brand's name as subdomain, beside bait words in a label, or under another suffix, in a domain that is not the
    brand's."""
    for finding_id, hosts in (
        ("domains.brand_in_sender", _sender_hosts(context)),
        ("domains.brand_in_link", _link_hosts(context)),
    ):
        for host in hosts:
            brand = brand_inside(host) or brand_under_other_suffix(host)
            if brand is not None and organisation_of(host) not in context.history.correspondents:
                yield finding(finding_id, f"{host} is not {brand.name}'s")
                break


def own_domain_abused(context: ThreatContext) -> Iterator[Finding]:
    """The account's own domain as part of a foreign host, or its name under another suffix in the sender's address."""
    own = context.own_organisation
    own_label = split_host(own)[1] if own else ""
    if len(own_label) < _SHORTEST_OWN:
        return
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        if organisation_of(host) == own:
            continue
        if f".{own}.".replace("-", ".") in f".{host}.".replace("-", "."):  # not in livingstone.com
            yield finding("domains.own_in_host", f"{host} is not your {own}")
            return
    for host in _sender_hosts(context)[:1]:
        if organisation_of(host) != own and split_host(host)[1] == own_label:
            yield finding("domains.own_under_other_suffix", f"{host} is not your {own}")


def mixed_script(context: ThreatContext) -> Iterator[Finding]:
    """An internationalised label that mixes alphabets, or spells a Latin word in another one (UTS #39 §5)."""
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        label = mixed_script_label(host)
        if label:
            yield finding("domains.mixed_script", f'{host} (label "{label}")')
            return


def punycode(context: ThreatContext) -> Iterator[Finding]:
    """A link or sender in an internationalised domain, where the message itself is written in ASCII letters."""
    hosts = [host for host in (*_sender_hosts(context), *_link_hosts(context)) if not host.isascii()]
    if not hosts:
        return
    written = context.subject + context.text[:5_000] + context.message.text_plain[:5_000]
    if any(character.isalpha() and not character.isascii() for character in written):
        return
    for host in hosts:
        if not mixed_script_label(host):
            yield finding("domains.punycode", host)
            return


def risky_suffix(context: ThreatContext) -> Iterator[Finding]:
    """A suffix that is hardly used for anything but abuse."""
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        if host.rpartition(".")[2] in RISKY_SUFFIXES and not ip_of(host):
            yield finding("domains.risky_suffix", host)
            return


def throwaway_sender(context: ThreatContext) -> Iterator[Finding]:
    """A sender under a name that anybody gets for nothing: a free page, a changing address, a tenant without a domain
    of its own. That it is authenticated says nothing, for it costs nothing."""
    end = ends_in(context.sender.domain, _THROWAWAY)
    if end and context.sender.domain != end and not context.by_list:
        yield finding("domains.throwaway_sender", f"From {context.sender.address}, a name under {end}")


def suffix_inside(context: ThreatContext) -> Iterator[Finding]:
    """A host that goes on where one would think it ends: ``www.bank.com.check.example``, ``com-check.example``."""
    for host in _clickable_hosts(context):
        subdomain, label, suffix = split_host(host)
        inner = subdomain.split(".")[1:]
        if not suffix or not context.is_foreign(organisation_of(host)):
            continue
        if (label.partition("-")[0] in _SUFFIX_LABELS and "-" in label) or any(one in _SUFFIX_LABELS for one in inner):
            yield finding("domains.suffix_inside", host)
            return


def unwieldy(context: ThreatContext) -> Iterator[Finding]:
    """A host so long, or of so many parts, that its end is not read."""
    for host in _clickable_hosts(context):
        many = len(split_host(host)[0].split(".")) >= _MANY_LABELS
        if (many or len(host) >= _LONG_HOST) and context.is_foreign(organisation_of(host)) and not ip_of(host):
            yield finding("domains.unwieldy", host)
            return


def random_name(context: ThreatContext) -> Iterator[Finding]:
    """A registrable label nobody would say aloud: made by a program. Hosting services name things so; they do not
    count."""
    for host in (*_sender_hosts(context)[:1], *_clickable_hosts(context)):
        if looks_random(split_host(host)[1]) and not ends_in(host, FREE_HOSTING) and not ip_of(host):
            yield finding("domains.random_name", host)
            return


def looks_random(label: str) -> bool:
    """Whether a label of ASCII letters and digits reads like none: no vowels to speak of, or digits strewn between."""
    if len(label) < _SHORTEST_RANDOM or not label.isascii() or not label.isalnum():
        return False
    vowels = sum(label.count(vowel) for vowel in "aeiouy")
    strewn = len(_LETTER_THEN_DIGIT.findall(label))
    return (
        strewn >= 3 or vowels * 7 <= len(label) or (_CONSONANTS.search(label) is not None and vowels * 5 < len(label))
    )


def _sender_hosts(context: ThreatContext) -> tuple[str, ...]:
    hosts = [context.sender.domain, *(party.domain for party in context.reply_to), context.return_path.domain]
    return tuple(dict.fromkeys(host for host in hosts if host))


def _link_hosts(context: ThreatContext) -> tuple[str, ...]:
    """Hosts of all links; of what a mailing list sends not those that merely stand in the text, for there members show
    one another what they got."""
    links = (link for link in context.links if link.clickable or not context.by_list)
    return _hosts(url.host for link in links for url in link.destinations)


def _clickable_hosts(context: ThreatContext) -> tuple[str, ...]:
    return _hosts(url.host for link in context.followed for url in link.destinations)


def _hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host for host in hosts if host))


def _imitation(context: ThreatContext, host: str) -> str:
    found = imitated(host)
    if found is not None:
        brand, how = found
        return f"{host} imitates {brand.name} ({how})"
    own = context.own_organisation
    how = imitates(host, own) if own else ""
    return f"{host} imitates your own {own} ({how})" if how else ""


DETECTORS = (
    lookalike,
    one_letter_off,
    brand_in_foreign_domain,
    own_domain_abused,
    mixed_script,
    punycode,
    risky_suffix,
    throwaway_sender,
    suffix_inside,
    unwieldy,
    random_name,
)
