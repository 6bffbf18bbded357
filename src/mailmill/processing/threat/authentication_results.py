"""What the account's own server said of a message's origin: Authentication-Results (RFC 8601), Received-SPF (RFC 7208
§9.1).

Law: anybody can write these fields. Only those with the account's own authserv-id are read, and for each method the
topmost one that speaks of it wins, for a receiving server adds its fields above what the sender wrote (RFC 8601 §5).
Received-SPF names no one we could hold to it: it may tell against a message, never for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailmill.message_parser import ParsedMessage
from mailmill.processing.threat.hosts import clean_host, mail_domain, organisation_of

MAX_FIELD_CHARS = 8_000
MAX_FIELDS = 50
MAX_SIGNATURES = 20

_BLANKS = re.compile(r"\s+")
# A quoted value is taken whole: a reason="… header.d=bank.example" must not become a property.
_PAIR = re.compile(r"([^\s=\"]{1,60})=(\"[^\"]*\"|[^\s\"]*)")
_SPF_WORD = re.compile(r"^\s{0,10}([a-z]{1,20})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Result:
    """One method's result: ``method`` (spf, dkim, dmarc …) and ``value`` (pass, fail …) in lower case, the
    properties."""

    method: str
    value: str
    properties: tuple[tuple[str, str], ...] = ()

    def property(self, name: str) -> str:
        return next((value for key, value in self.properties if key == name), "")


@dataclass(frozen=True, slots=True)
class Authentication:
    """The trusted results on one message, judged against its From domain. Empty strings: the server said nothing.

    ``known`` is True if the account's own server gave any result. ``spf``, ``dmarc`` are result words; ``dkim`` has
    (result, signing domain) of each signature. ``aligned`` is True if a pass belongs to From's organisational domain:
    that is what authenticates a message. ``passed_for`` names the organisations that any pass belongs to.
    """

    known: bool = False
    spf: str = ""
    spf_domain: str = ""
    dkim: tuple[tuple[str, str], ...] = ()
    dmarc: str = ""
    aligned: bool = False
    passed_for: frozenset[str] = frozenset()
    received_spf: str = ""

    @property
    def dkim_passed(self) -> bool:
        return any(result == "pass" for result, _ in self.dkim)

    @property
    def dkim_failed(self) -> bool:
        return bool(self.dkim) and not self.dkim_passed and any(result == "fail" for result, _ in self.dkim)


def read_authentication(message: ParsedMessage, authserv_id: str | None, from_domain: str) -> Authentication:
    """The results of the server called ``authserv_id`` (None: none is trusted), judged against ``from_domain``."""
    results = trusted_results(message, authserv_id)
    spf = next((result for result in results if result.method == "spf"), None)
    dmarc = next((result for result in results if result.method == "dmarc"), None)
    signatures = [result for result in results if result.method == "dkim"][:MAX_SIGNATURES]
    spf_domain = _mail_from(spf) if spf else ""
    dkim = tuple((result.value, _signing_domain(result)) for result in signatures)
    passed_for = {organisation_of(domain) for result, domain in dkim if result == "pass" and domain}
    if spf is not None and spf.value == "pass" and spf_domain:
        passed_for.add(organisation_of(spf_domain))
    dmarc_domain = clean_host(dmarc.property("header.from")) if dmarc else ""
    organisation = organisation_of(from_domain)
    dmarc_passed = dmarc is not None and dmarc.value == "pass"
    # A dmarc=pass is about the domain it names; Microsoft's "bestguesspass" has no policy behind it and counts for
    # nothing.
    if dmarc_passed and (not dmarc_domain or organisation_of(dmarc_domain) == organisation):
        passed_for.add(organisation)
    return Authentication(
        known=bool(spf or dmarc or signatures),
        spf=spf.value if spf else "",
        spf_domain=spf_domain,
        dkim=dkim,
        dmarc=dmarc.value if dmarc else "",
        aligned=bool(organisation) and organisation in passed_for,
        passed_for=frozenset(passed_for),
        received_spf="" if spf else _received_spf(message),
    )


def trusted_results(message: ParsedMessage, authserv_id: str | None) -> tuple[Result, ...]:
    """All results under our authserv-id; of the fields that speak of one method, only the topmost one counts.

    ``authserv_id`` is a name, or ``*.example.org`` for that domain and every host in it.
    """
    if not authserv_id:
        return ()
    wanted = authserv_id.strip().lower()
    domain = wanted.removeprefix("*.") if wanted.startswith("*.") else ""
    seen: set[str] = set()
    results: list[Result] = []
    for field in message.header_all("Authentication-Results")[:MAX_FIELDS]:
        server, found = parse_authentication_results(field)
        if server != wanted and not (domain and (server == domain or server.endswith("." + domain))):
            continue
        fresh = [result for result in found if result.method not in seen]
        seen.update(result.method for result in found)
        results.extend(fresh)
    return tuple(results)


def parse_authentication_results(field: str) -> tuple[str, tuple[Result, ...]]:
    """(authserv-id in lower case, results) of one field; comments are skipped, nonsense gives no results."""
    head, *rest = _split(_without_comments(field[:MAX_FIELD_CHARS]))
    words = head.split()
    results = []
    for piece in rest:
        pairs = _pairs(piece)
        if not pairs:
            continue
        method, value = pairs[0]
        results.append(Result(method.partition("/")[0], value.lower(), tuple(pairs[1:])))
    return (words[0].strip('"').lower() if words else "", tuple(results))


def _without_comments(text: str) -> str:
    kept: list[str] = []
    depth = 0
    quoted = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
            continue
        elif character == '"' and depth == 0:
            quoted = not quoted
        elif character == "(" and not quoted:
            depth += 1
            continue
        elif character == ")" and not quoted and depth:
            depth -= 1
            kept.append(" ")
            continue
        if depth == 0:
            kept.append(character)
    return "".join(kept)


def _split(text: str) -> list[str]:
    pieces: list[str] = [""]
    for index, chunk in enumerate(text.split('"')):
        if index % 2:
            pieces[-1] += f'"{chunk}"'
            continue
        first, *more = chunk.split(";")
        pieces[-1] += first
        pieces.extend(more)
    return pieces


def _pairs(piece: str) -> list[tuple[str, str]]:
    text = _BLANKS.sub(" ", piece).replace(" =", "=").replace("= ", "=")
    return [(key.lower(), value.strip('"')) for key, value in _PAIR.findall(text)]


def _mail_from(spf: Result) -> str:
    value = spf.property("smtp.mailfrom") or spf.property("smtp.helo")
    return mail_domain(value) if "@" in value else clean_host(value)


def _signing_domain(dkim: Result) -> str:
    value = dkim.property("header.d")
    if not value or value == "none":
        value = mail_domain(dkim.property("header.i")) if value != "none" else ""
    return clean_host(value)


def _received_spf(message: ParsedMessage) -> str:
    field = message.header("Received-SPF")
    match = _SPF_WORD.match(field) if field else None
    return match.group(1).lower() if match else ""
