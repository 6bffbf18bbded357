"""Whose name is this? Brand names in words and in domains; used by the families ``sender`` and ``domains``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mailmill.processing.threat.brands import BRANDS, FILLER_WORDS, Brand
from mailmill.processing.threat.hosts import clean_host, organisation_of, split_host
from mailmill.processing.threat.lookalike import edit_distance_at_most_one, folded, scripts_of, skeleton

_WORDS = re.compile(r"[^\W_]+(?:[.'&+-][^\W_]+)*\+?")
_SHORTEST_EDITED = 6  # below that, one letter more or less is another word ("visa", "vista")
_SHORTEST_INSIDE = 5

_DISTINCTIVE_NAMES: dict[str, Brand] = {}
_WORD_NAMES: dict[str, Brand] = {}
for _brand in BRANDS:
    for _name in _brand.names:
        (_DISTINCTIVE_NAMES if _brand.distinctive else _WORD_NAMES).setdefault(skeleton(_name), _brand)
_LONGEST_NAME_WORDS = max(len(name.split()) for name in _DISTINCTIVE_NAMES)

_BY_ORGANISATION: dict[str, list[Brand]] = {}
for _brand in BRANDS:
    for _domain in _brand.domains:
        _BY_ORGANISATION.setdefault(_domain, []).append(_brand)

# Registrable labels of the brands' own domains ("paypal"), those long and distinctive enough to be recognised
# elsewhere.
_LABELS: dict[str, Brand] = {}
for _brand in BRANDS:
    for _domain in _brand.domains[:1]:
        _label = split_host(_domain)[1]
        if len(_label) >= 4:
            _LABELS.setdefault(_label, _brand)
    for _name in _brand.names:
        _joined = skeleton(_name).replace(" ", "")
        if _brand.distinctive and _joined.isalnum() and len(_joined) >= 4:
            _LABELS.setdefault(_joined, _brand)
_FOLDED: dict[str, Brand] = {folded(label): brand for label, brand in _LABELS.items() if len(label) >= 5}
_BY_LENGTH: dict[int, list[tuple[str, Brand]]] = {}
for _label, _brand in _LABELS.items():
    if len(_label) >= _SHORTEST_EDITED:
        _BY_LENGTH.setdefault(len(_label), []).append((_label, _brand))

# Software that people run themselves, on hosts named after it.
_SELF_HOSTED = frozenset(
    {"gitlab", "github", "zimbra", "roundcube", "cpanel", "sharepoint", "office365", "microsoft365"}
)

# Names of their own that happen to be one letter off a brand's.
_HONEST_NEIGHBOURS = frozenset(
    {"correos", "tresor", "telstar", "twister", "adidas", "exodos", "costo", "stream", "team"}
)

_COUNTRY_FREE_FOR_ALL = frozenset({"tk", "ml", "ga", "cf", "gq", "su", "cc", "pw", "ws"})


@dataclass(frozen=True, slots=True)
class Claim:
    """A brand found in a display name; ``whole``: the name says nothing else but words such as "support"."""

    brand: Brand
    whole: bool


@lru_cache(maxsize=4_096)
def brand_named(text: str) -> Claim | None:
    """The brand that a display name claims to be, or None. Look-alike letters and digits are seen through."""
    words = _WORDS.findall(skeleton(text[:200]))[:30]
    if not words:
        return None
    for size in range(min(_LONGEST_NAME_WORDS, len(words)), 0, -1):
        for start in range(len(words) - size + 1):
            brand = _DISTINCTIVE_NAMES.get(" ".join(words[start : start + size]))
            if brand is not None:
                rest = words[:start] + words[start + size :]
                return Claim(brand, all(word in FILLER_WORDS or not word.isalpha() for word in rest))
    left = [word for word in words if word not in FILLER_WORDS and not word.isdigit()]
    brand = _WORD_NAMES.get(" ".join(left))
    if brand is not None:
        return Claim(brand, whole=True)
    joined = _FOLDED.get(folded("".join(left)))
    return Claim(joined, whole=True) if joined is not None and joined.distinctive else None


def belongs_to(brand: Brand, host: str) -> bool:
    """Whether a host is the brand's own: one of its domains, or its name under a country's suffix (``paypal.se``)."""
    organisation = organisation_of(host)
    if organisation in brand.domains:
        return True
    _, label, suffix = split_host(host)
    if label not in {split_host(domain)[1] for domain in brand.domains}:
        return False
    last = suffix.rpartition(".")[2]
    return (len(last) == 2 and last not in _COUNTRY_FREE_FOR_ALL) or suffix in ("com", "net", "org", "eu", label)


def is_brands_own(host: str) -> bool:
    """Whether a host belongs to one of the brands."""
    return organisation_of(host) in _BY_ORGANISATION


def carries_name(brand: Brand, host: str) -> bool:
    """Whether the brand's name is part of the registrable label: a branch or a second domain, or made to look like
    one."""
    label = skeleton(split_host(host)[1])
    return any(name in label for name in (skeleton(one).replace(" ", "") for one in brand.names) if len(name) >= 4)


@lru_cache(maxsize=8_192)
def imitated(host: str) -> tuple[Brand, str] | None:
    """(brand, how) if the registrable label of a host passes for a brand's: look-alike letters, digits for letters."""
    host = clean_host(host)
    _, label, suffix = split_host(host)
    if not suffix or _own_brand(host) is not None:
        return None
    plain = skeleton(label)
    brand = _LABELS.get(plain)
    if brand is not None:
        if plain != label:
            return (brand, "look-alike letters")
        return None
    brand = _FOLDED.get(folded(label)) if len(label) >= 5 else None
    if brand is not None and any(character.isdigit() for character in label):
        return (brand, "digits for letters")
    if brand is not None and len(label) >= _SHORTEST_EDITED and brand.distinctive:
        return (brand, "look-alike letters")
    return None


@lru_cache(maxsize=8_192)
def near_miss(host: str) -> str | None:
    """The brand's label that the registrable label of a host is one edit away from, or None."""
    host = clean_host(host)
    _, label, suffix = split_host(host)
    plain = skeleton(label)
    if not suffix or "-" in plain or plain in _HONEST_NEIGHBOURS or plain in _LABELS or _own_brand(host) is not None:
        return None
    for length in (len(plain) - 1, len(plain), len(plain) + 1):
        for known, brand in _BY_LENGTH.get(length, ()):
            if known[0] == plain[:1] and brand.distinctive and edit_distance_at_most_one(plain, known):
                return known
    return None


@lru_cache(maxsize=8_192)
def brand_inside(host: str) -> Brand | None:
    """The brand whose name stands in a host that is not its own: as a subdomain, or as a part of a hyphenated label."""
    host = clean_host(host)
    subdomain, label, suffix = split_host(host)
    if not suffix:
        return None
    own = _own_brand(host)
    if own is not None:
        return None
    for piece in re.split(r"[.-]", skeleton(f"{subdomain}.{label}")):
        brand = _LABELS.get(piece)
        if brand is None or len(piece) < _SHORTEST_INSIDE or piece in _SELF_HOSTED:
            continue
        if brand.distinctive and not belongs_to(brand, host):
            return brand
    return None


def _own_brand(host: str) -> Brand | None:
    """The brand that this host belongs to, if it is the owner's."""
    own = _BY_ORGANISATION.get(organisation_of(host))
    if own:
        return own[0]
    brand = _LABELS.get(split_host(host)[1])
    return brand if brand is not None and belongs_to(brand, host) else None


@lru_cache(maxsize=8_192)
def mixed_script_label(host: str) -> str:
    """The first label of a host that mixes Latin with Cyrillic, Greek …, or is all look-alikes of Latin letters; or
    ""."""
    for label in clean_host(host).split("."):
        if label.isascii():
            continue
        scripts = scripts_of(label)
        if len(scripts) > 1 and "LATIN" in scripts:
            return label
        if "LATIN" not in scripts and scripts and skeleton(label).isascii() and len(label) >= 4:
            return label
    return ""
