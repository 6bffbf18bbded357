"""The brands as they are looked up: by name, by registrable label, by owner. Made once, when first imported."""

from __future__ import annotations

from functools import lru_cache

from mailmill.processing.threat.evidence.hosts import clean_host, ends_in, organisation_of, split_host, state_suffix
from mailmill.processing.threat.evidence.lookalike import folded, skeleton
from mailmill.processing.threat.knowledge.brands import BRANDS, Brand

SHORTEST_EDITED = 6  # below that, one letter more or less is another word ("visa", "vista")
SHORTEST_JOINED_EDITED = 9  # several words in one ("nzpost", "nypost")
SHORTEST_INSIDE = 5

# Software that people run themselves, on hosts named after it.
SELF_HOSTED = frozenset(
    {"gitlab", "github", "zimbra", "roundcube", "cpanel", "sharepoint", "office365", "microsoft365", "jira",
     "confluence", "discord", "steam", "dropbox"}
)  # fmt: skip

_COUNTRY_FREE_FOR_ALL = frozenset({"tk", "ml", "ga", "cf", "gq", "su", "cc", "pw", "ws"})
_OWN_SUFFIXES = frozenset({"com", "net", "org", "eu"})

BY_NAME: dict[str, Brand] = {}
BY_WORD_NAME: dict[str, Brand] = {}
BY_LABEL: dict[str, Brand] = {}
"""Names written as one word, as they stand in domains ("bankofamerica")."""
_BY_DOMAIN: dict[str, Brand] = {}
_OWN_LABELS: dict[str, frozenset[str]] = {}
_STATE_SUFFIXES: dict[str, frozenset[str]] = {}
_distinctive_labels: set[str] = set()

for _brand in BRANDS:
    for _name in _brand.distinctive:
        BY_NAME.setdefault(skeleton(_name), _brand)
    for _name in _brand.ambiguous:
        BY_WORD_NAME.setdefault(skeleton(_name), _brand)
    for _domain in _brand.domains:
        _BY_DOMAIN.setdefault(_domain, _brand)
    _OWN_LABELS[_brand.name] = frozenset(split_host(domain)[1] for domain in _brand.domains)
    _STATE_SUFFIXES[_brand.name] = frozenset(filter(None, map(state_suffix, _brand.domains)))
    for _name in _brand.names:
        _joined = skeleton(_name).replace(" ", "")
        if _joined.isalnum() and len(_joined) >= 3:
            BY_LABEL.setdefault(_joined, _brand)
            if _name in _brand.distinctive:
                _distinctive_labels.add(_joined)

LONGEST_NAME_WORDS = max(len(name.split()) for name in BY_NAME)
LONGEST_WORD_NAME_WORDS = max(len(name.split()) for name in BY_WORD_NAME)

BY_FOLDED_LABEL: dict[str, Brand] = {
    folded(label): brand for label, brand in BY_LABEL.items() if len(label) >= 5 and label in _distinctive_labels
}
BY_LENGTH: dict[int, list[str]] = {}
for _label in BY_LABEL:
    _shortest = SHORTEST_EDITED if _label in BY_NAME else SHORTEST_JOINED_EDITED
    if len(_label) >= _shortest and _label in _distinctive_labels:
        BY_LENGTH.setdefault(len(_label), []).append(_label)


FIRST_WORDS = frozenset(name.partition(" ")[0] for name in (*BY_NAME, *BY_WORD_NAME))


def is_distinctive_name(name: str) -> bool:
    """Whether a brand's name, as a skeleton, means nothing else."""
    return name in BY_NAME


def is_distinctive_label(label: str) -> bool:
    """Whether the label of a brand means nothing else."""
    return label in _distinctive_labels


@lru_cache(maxsize=8_192)
def belongs_to(brand: Brand, host: str) -> bool:
    """Whether a host is the brand's own: one of its domains, or its name under a country's suffix (``paypal.se``).

    A body of a state writes from any domain that the state keeps for its bodies.
    """
    host = clean_host(host)
    if organisation_of(host) in brand.domains:
        return True
    if state_suffix(host) in _STATE_SUFFIXES[brand.name]:
        return True
    _, label, suffix = split_host(host)
    if _is_whole_domain(ends_in(host, frozenset(brand.domains))):
        return True
    if label not in _OWN_LABELS[brand.name]:
        return False
    last = suffix.rpartition(".")[2]
    return (len(last) == 2 and last not in _COUNTRY_FREE_FOR_ALL) or suffix in _OWN_SUFFIXES or suffix == label


def _is_whole_domain(domain: str) -> bool:
    """A listed domain that is no organisational one: ``gov.uk`` is a public suffix and an owner at once, and
    ``receita.fazenda.gov.br`` lies under another's."""
    return bool(domain) and (not split_host(domain)[2] or organisation_of(domain) != domain)


@lru_cache(maxsize=8_192)
def owner_of(host: str) -> Brand | None:
    """The brand that a host belongs to, or None."""
    host = clean_host(host)
    brand = _BY_DOMAIN.get(organisation_of(host)) or BY_LABEL.get(split_host(host)[1])
    if brand is not None and belongs_to(brand, host):
        return brand
    end = ends_in(host, _BY_DOMAIN.keys())
    return _BY_DOMAIN[end] if _is_whole_domain(end) else None
