"""Family ``domains``: domains made to be mistaken for others, in the sender's address and in links."""

from __future__ import annotations

from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.hosts import ip_of, organisation_of, split_host
from mailmill.processing.threat.impersonation import brand_inside, imitated, mixed_script_label, near_miss
from mailmill.processing.threat.lookalike import edit_distance_at_most_one, folded
from mailmill.processing.threat.reference import RISKY_SUFFIXES
from mailmill.processing.threat.scoring import finding

_SHORTEST_OWN = 5


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
    """A registrable label one edit from a brand's. There are honest names so near, so it counts less than a
    disguise."""
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        found = near_miss(host)
        if found is not None:
            yield finding("domains.one_letter_off", f"{host} is one letter off {found}")
            return


def brand_in_foreign_domain(context: ThreatContext) -> Iterator[Finding]:
    """A brand's name as subdomain, or as part of a hyphenated label, of a domain that is not the brand's."""
    for host in _sender_hosts(context):
        brand = brand_inside(host)
        if brand is not None:
            yield finding("domains.brand_in_sender", f"{host} is not {brand.name}'s")
            break
    for host in _link_hosts(context):
        brand = brand_inside(host)
        if brand is not None:
            yield finding("domains.brand_in_link", f"{host} is not {brand.name}'s")
            return


def mixed_script(context: ThreatContext) -> Iterator[Finding]:
    """An internationalised label that mixes alphabets, or spells a Latin word in another one (UTS #39 §5)."""
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        label = mixed_script_label(host)
        if label:
            yield finding("domains.mixed_script", f'{host} (label "{label}")')
            return


def punycode(context: ThreatContext) -> Iterator[Finding]:
    """A link or sender in an internationalised domain, where the message itself is written in ASCII letters."""
    written = context.subject + context.text[:5_000] + context.message.text_plain[:5_000]
    if any(character.isalpha() and not character.isascii() for character in written):
        return
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        if not host.isascii() and not mixed_script_label(host):
            yield finding("domains.punycode", host)
            return


def risky_suffix(context: ThreatContext) -> Iterator[Finding]:
    """A suffix that is hardly used for anything but abuse."""
    for host in (*_sender_hosts(context), *_link_hosts(context)):
        if host.rpartition(".")[2] in RISKY_SUFFIXES and not ip_of(host):
            yield finding("domains.risky_suffix", host)
            return


def _sender_hosts(context: ThreatContext) -> tuple[str, ...]:
    hosts = [context.sender.domain, *(party.domain for party in context.reply_to), context.return_path.domain]
    return tuple(dict.fromkeys(host for host in hosts if host))


def _link_hosts(context: ThreatContext) -> tuple[str, ...]:
    return tuple(dict.fromkeys(link.url.host for link in context.links if link.url.host))


def _imitation(context: ThreatContext, host: str) -> str:
    found = imitated(host)
    if found is not None:
        brand, how = found
        return f"{host} imitates {brand.name} ({how})"
    own = context.own_organisation
    if not own or organisation_of(host) == own:
        return ""
    own_label, label = split_host(own)[1], split_host(host)[1]
    if len(own_label) < _SHORTEST_OWN or label == own_label:
        return ""
    if folded(label) == folded(own_label) or (
        label[:1] == own_label[:1] and edit_distance_at_most_one(label, own_label)
    ):
        return f"{host} imitates your own {own}"
    return ""


DETECTORS = (lookalike, one_letter_off, brand_in_foreign_domain, mixed_script, punycode, risky_suffix)
