"""Names that are often worn by others, and the domains that their owners send and host from.

The table is data, ``brands.txt``; its head says how a line is written. A name is *distinctive* if it means nothing
else: then it counts wherever it stands in a display name or a host. A name that is also a word or a surname (Chase,
Orange, Apple) is *ambiguous*: it counts only where it is the whole name but for words such as "support", or beside
further evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Brand:
    """``distinctive`` and ``ambiguous`` are names in lower case, ``name`` the one to show.

    ``domains`` are the owner's organisational domains, the main one first. ``everywhere``: mail of anybody shows the
    name as an icon, a badge, or a way to pay or to sign in.
    """

    name: str
    distinctive: tuple[str, ...]
    ambiguous: tuple[str, ...]
    domains: tuple[str, ...]
    everywhere: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.distinctive, *self.ambiguous)


def read_brands(table: str) -> tuple[Brand, ...]:
    """The brands of a table written as ``brands.txt`` says. Raises ValueError naming the line that is none."""
    lines: list[str] = []
    for line in table.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace() and lines:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return tuple(_brand(line) for line in lines)


def _brand(line: str) -> Brand:
    names_part, bar, rest = line.partition("|")
    domains_part, _, flags = rest.partition("|")
    names = [name.strip().lower() for name in names_part.split(",")]
    domains = tuple(domains_part.split())
    if not bar or not domains or not all(name.strip("~") for name in names) or flags.strip() not in ("", "everywhere"):
        raise ValueError(f"no brand: {line[:80]!r}")
    return Brand(
        name=names[0].removeprefix("~"),
        distinctive=tuple(name for name in names if not name.startswith("~")),
        ambiguous=tuple(name.removeprefix("~") for name in names if name.startswith("~")),
        domains=domains,
        everywhere=flags.strip() == "everywhere",
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BRANDS: tuple[Brand, ...] = read_brands(resources.files(__package__).joinpath("brands.txt").read_text("utf-8"))

# Words around a brand's name that make it no other thing: "Apple Support Team", "Ihr DHL Kundenservice".
FILLER_WORDS: frozenset[str] = _words("""
    a account accounts admin administrator alert alerts alerte app aviso bank banking billing care center centre cliente
    clientes client com company confirmation contact corp customer customerservice customercare delivery department dept
    desk email express from global group help helpdesk inc info information international invoice kundenservice
    kundendienst ihr le login ltd mail mailer manager member membership message my news no noreply notice notification
    notifications of official online order orders our parcel password payment payments portal prime promo rewards reward
    reply secure security serveur service services servicio servico soporte store subscription suivi support system team
    ag banca banco banque gmbh llc plc tech technical the tracking update updates us verify verification wallet web
    winner your
""")

# What is written beside a brand's name in a domain made for bait: "paypal-login", "securenetflix", "dhl-tracking-de".
BAIT_WORDS: frozenset[str] = _words("""
    access account accounts acct activate activation alert alerts api app apps auth authenticate authentication bank
    banking bill billing bonus card care cancel center centre check checkout claim client clients cloud confirm
    confirmation connect contact customer customers customs de delivery desk device dispatch docs document documents doc
    ebanking email en es express fee fees file files form fr free gift giftcard help helpdesk home hotline id info
    information infos inbox internet invoice invoices it kunde kunden kundenservice konto log login logon mail manage
    member members message messages mobile my nl notice notification notifications office officiel official online order
    orders org package parcel parcels pass password pay payment payments pickup portal post postage premium prime
    profile promo protect protection receipt recover recovery redelivery refund refunds register registration renew
    renewal reschedule reset resolution resolve restore review reward rewards safe safety seguro servicio secure secured
    security server service services session settings share shared shipment shipping shop sign signin signon site
    soporte status store subscription suivi support suporte suspended sync system tax team tech ticket toll track
    tracking transaction transfer trust uk unlock update updates upgrade us user users valid validate validation
    verificacion verification verify verified voice voicemail wallet web webmail website welcome win winner your zahlung
""")

# Those of the bait words that ask for something: one of them stands beside a name that is also a word.
STRONG_BAIT_WORDS: frozenset[str] = _words("""
    account accounts activate activation auth authenticate authentication billing claim confirm confirmation customs id
    login logon parcel parcels password recover recovery redelivery refund refunds reschedule restore secure secured
    update updates security signin signon suspended suivi tracking unlock validate validation verificacion verification
    verify verified wallet webmail
""")

# Names and words of their own that happen to be near a brand's.
HONEST_NEIGHBOURS: frozenset[str] = _words("""
    absolut adidas alianza aliance alliance allianza amazonas amazonia amazons barclay binary canvas citybank claris
    correos costo decathlons disco discos discard ether expert facebooks garant garante garantie garanty hermes horizon
    ikeas interpole lotto marriot marriotts medicaid medicate medicine netflux nordia nordic papal payable personal
    revolt robloxian salana slackline stream switch team telecast telstar tencent tesco tresor twister vodafones
    walgreen waymart westpark xerox exodos otto intuition intuitive maersks paypoint experian expedite expedia engine
    engines
""")

# What owners themselves put beside their names, for domains they send from: "ryanairmail".
SECOND_DOMAIN_WORDS: frozenset[str] = _words("mail email emails news shop store group app apps mobile")
