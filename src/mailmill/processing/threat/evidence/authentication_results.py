"""What the account's own server said of a message's origin: Authentication-Results (RFC 8601), Received-SPF (RFC 7208
§9.1).

Laws:

- Anybody can write these fields. Only those with the account's own authserv-id are read, of them only the topmost run,
  and for each method the topmost one that speaks of it, for a receiving server adds its fields above what the sender
  wrote (RFC 8601 §5).
- Results that contradict one another are not all our server's: a DMARC that passed on nothing counts for nothing, and
  one that failed is not outdone by a signature below it.
- Received-SPF names no one we could hold to it: it may tell against a message, never for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mailmill.message_parser import ParsedMessage
from mailmill.processing.threat.evidence.arc import sealed_results
from mailmill.processing.threat.evidence.hosts import clean_host, mail_domain, organisation_of

MAX_FIELD_CHARS = 8_000
MAX_FIELDS = 50
MAX_SIGNATURES = 20

NAMELESS = "microsoft"
"""What stands for the authserv-id of a server that writes none: Exchange Online's field begins with its results."""

_METHODS = frozenset({"spf", "dkim", "dmarc", "arc", "compauth", "auth", "iprev", "bimi", "none"})

_BLANKS = re.compile(r"\s+")
# A quoted value is taken whole: a reason="… header.d=bank.example" must not become a property.
_PAIR = re.compile(r"([^\s=\"]{1,60})=(\"[^\"]*\"|[^\s\"]*)")
_POLICY = re.compile(r"\bdmarc\s{0,5}=[^;]{0,200}?\bp\s{0,5}=\s{0,5}(none|quarantine|reject)\b", re.IGNORECASE)
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
    ``dmarc_policy`` is what From's domain asks for (none, quarantine, reject), where the server says so. ``compauth``
    is Exchange Online's own judgement. ``forwarded``: a forwarder we know saw From's organisation proven (ARC); that
    explains a failure, and proves nothing.
    """

    known: bool = False
    spf: str = ""
    spf_domain: str = ""
    dkim: tuple[tuple[str, str], ...] = ()
    dmarc: str = ""
    aligned: bool = False
    passed_for: frozenset[str] = frozenset()
    received_spf: str = ""
    dmarc_policy: str = ""
    compauth: str = ""
    forwarded: bool = False

    @property
    def dkim_passed(self) -> bool:
        return any(result == "pass" for result, _ in self.dkim)

    @property
    def dkim_failed(self) -> bool:
        return bool(self.dkim) and not self.dkim_passed and any(result == "fail" for result, _ in self.dkim)


def read_authentication(message: ParsedMessage, authserv_id: str | None, from_domain: str) -> Authentication:
    """The results of the server called ``authserv_id`` (None: none is trusted), judged against ``from_domain``."""
    results = trusted_results(message, authserv_id)
    spf, dmarc, arc, compauth = (_first(results, method) for method in ("spf", "dmarc", "arc", "compauth"))
    organisation = organisation_of(from_domain)
    passed_for, aligned = _passed(results, organisation)
    if dmarc is not None and not dmarc.property("header.from") and _has_several_senders(message):
        # Which of them passed is not said.
        passed_for, aligned = _passed([result for result in results if result is not dmarc], organisation)
    signatures = [result for result in results if result.method == "dkim"][:MAX_SIGNATURES]
    forwarded = False
    if arc is not None and arc.value == "pass" and not aligned:
        forwarded = any(_passed(_parse_results(seen), organisation)[1] for seen in sealed_results(message))
    return Authentication(
        known=bool(spf or dmarc or signatures),
        spf=spf.value if spf else "",
        spf_domain=_mail_from(spf) if spf else "",
        dkim=tuple((result.value, _signing_domain(result)) for result in signatures),
        dmarc=dmarc.value if dmarc else "",
        aligned=aligned,
        passed_for=frozenset(passed_for),
        received_spf="" if spf else _received_spf(message),
        dmarc_policy=_policy(dmarc) if dmarc else "",
        compauth=compauth.value if compauth else "",
        forwarded=forwarded,
    )


def with_signatures(known: Authentication, domains: Iterable[str], from_domain: str) -> Authentication:
    """``known``, and that signatures of ``domains`` hold, as we found ourselves. What our server refused stays so."""
    proven = tuple(dict.fromkeys(domains))
    if not proven:
        return known
    organisation = organisation_of(from_domain)
    passed_for = known.passed_for | {organisation_of(domain) for domain in proven}
    told = {domain for result, domain in known.dkim if result == "pass"}
    return replace(
        known,
        known=True,
        dkim=known.dkim + tuple(("pass", domain) for domain in proven if domain not in told),
        passed_for=passed_for,
        aligned=known.aligned or (known.dmarc != "fail" and bool(organisation) and organisation in passed_for),
    )


def _first(results: Sequence[Result], method: str) -> Result | None:
    return next((result for result in results if result.method == method), None)


def _passed(results: Sequence[Result], organisation: str) -> tuple[set[str], bool]:
    """(organisations that any pass belongs to, whether From's is proven to be one of them)."""
    spf, dmarc = _first(results, "spf"), _first(results, "dmarc")
    signatures = [result for result in results if result.method == "dkim"][:MAX_SIGNATURES]
    domains = [_signing_domain(one) for one in signatures if one.value == "pass"]
    if spf is not None and spf.value == "pass":
        domains.append(_mail_from(spf))
    passed_for = {organisation_of(domain) for domain in domains if domain}
    if dmarc is None or not _is_about(dmarc, organisation):
        return passed_for, bool(organisation) and organisation in passed_for
    if dmarc.value == "fail":
        # An aligned signature would have made it pass: what says so is not of the server that says this, or the domain
        # asks for more than that its organisation signs.
        return passed_for, False
    # A "bestguesspass" has no policy behind it: what it rests on stands beside it.
    if dmarc.value == "pass" and ("" in domains or not (spf and signatures)):
        passed_for.add(organisation)
    return passed_for, bool(organisation) and organisation in passed_for


def _has_several_senders(message: ParsedMessage) -> bool:
    addresses = sum(1 for one in message.summary.from_ if "@" in one.address)
    return addresses > 1 or len(message.header_all("From")) > 1


def _is_about(dmarc: Result, organisation: str) -> bool:
    domain = clean_host(dmarc.property("header.from"))
    return bool(organisation) and (not domain or organisation_of(domain) == organisation)


def _policy(dmarc: Result) -> str:
    for name in ("p", "policy.dmarc", "policy.published-domain-policy"):
        value = dmarc.property(name).lower()
        if value in ("none", "quarantine", "reject"):
            return value
    # Exchange Online: what was done, by what the domain asks for ("oreject": overridden).
    return {"none": "none", "quarantine": "quarantine", "reject": "reject", "oreject": "reject"}.get(
        dmarc.property("action").lower(), ""
    )


def trusted_results(message: ParsedMessage, authserv_id: str | None) -> tuple[Result, ...]:
    """All results under our authserv-id; of the fields that speak of one method, only the topmost one counts.

    ``authserv_id`` is a name, ``*.example.org`` for that domain and every host in it, or `NAMELESS`: then the topmost
    field of all counts, if it names no server.
    """
    if not authserv_id:
        return ()
    wanted = authserv_id.strip().lower()
    seen: set[str] = set()
    results: list[Result] = []
    ours = False
    for field in message.header_all("Authentication-Results")[:MAX_FIELDS]:
        server, found = parse_authentication_results(field)
        if wanted == NAMELESS:
            return found if not server else ()
        if not _is_ours(server, wanted):
            if ours:
                break  # below it is what came with the message
            continue
        ours = True
        results.extend(result for result in found if result.method not in seen)
        seen.update(result.method for result in found)
    return tuple(results)


def _is_ours(server: str, wanted: str) -> bool:
    if not wanted.startswith("*."):
        return server == wanted
    return server == wanted[2:] or server.endswith(wanted[1:])


def parse_authentication_results(field: str) -> tuple[str, tuple[Result, ...]]:
    """(authserv-id in lower case, results) of one field; comments are skipped, nonsense gives no results.

    The id is "" where the field begins with a result (Exchange Online). The policy that some servers tell in a comment
    is a property ``p`` of ``dmarc``.
    """
    head, _, rest = _without_comments(field[:MAX_FIELD_CHARS]).partition(";")
    words = head.split()
    method, equals, _ = words[0].lower().partition("=") if words else ("", "", "")
    if equals and method.partition("/")[0] in _METHODS:
        return "", _parse_results(field)
    return (words[0].strip('"').lower() if words else "", _parse_results(rest, policy_of=field))


def _parse_results(text: str, *, policy_of: str = "") -> tuple[Result, ...]:
    results = []
    for piece in _split(_without_comments(text[:MAX_FIELD_CHARS])):
        pairs = _pairs(piece)
        if not pairs:
            continue
        method, value = pairs[0]
        results.append(Result(method.partition("/")[0], value.lower(), tuple(pairs[1:])))
    policy = _POLICY.search((policy_of or text)[:MAX_FIELD_CHARS])
    if policy is None:
        return tuple(results)
    said = ("p", policy.group(1).lower())
    return tuple(replace(one, properties=(*one.properties, said)) if one.method == "dmarc" else one for one in results)


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
