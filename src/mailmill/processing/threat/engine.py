"""Runs every detector over one prepared message and weighs what they found.

:func:`scan` and :func:`assess` are pure, and raise what a detector raises. :class:`ThreatEngine` is what the service
runs: made once as configured, and no detector's failure costs it the verdict.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from types import MappingProxyType
from typing import Final

import structlog

from mailmill.errors import ConfigurationError
from mailmill.message_parser import ParsedMessage
from mailmill.model import NO_HISTORY, Finding, SenderHistory, Verdict
from mailmill.processing.registry import JsonValue
from mailmill.processing.threat.context import ThreatContext, prepare
from mailmill.processing.threat.evidence.address_list import check_allowed, read_list
from mailmill.processing.threat.evidence.dkim_check import DkimCheck
from mailmill.processing.threat.evidence.hosts import clean_host, is_public_suffix, organisation_of
from mailmill.processing.threat.evidence.inside import ReadInsides, read_nothing
from mailmill.processing.threat.evidence.inside_reader import InsideReader
from mailmill.processing.threat.evidence.yara_rules import YaraRules
from mailmill.processing.threat.families import (
    attachments,
    authentication,
    domains,
    html,
    impersonation,
    language,
    links,
    own_rules,
    padding,
    pictures,
    posed_letters,
    prompt_injection,
    sender,
)
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.options import DEFAULT_OPTIONS, OwnWords, ThreatOptions
from mailmill.processing.threat.own_detectors import load_detectors
from mailmill.processing.threat.scoring import DEFAULT_TABLE, ScoringTable, finding, judge, plain, read_table, reasons

_FAILED: Final = "engine.detector_failed"
_MAX_TOLD: Final = 100
_LISTS: Final = "the lists are described in docs/configuration.md"

_log = structlog.get_logger(__name__)

Detector = Callable[[ThreatContext], Iterable[Finding]]

FAMILIES: Mapping[str, tuple[Detector, ...]] = MappingProxyType(
    {
        "authentication": authentication.DETECTORS,
        "sender": sender.DETECTORS,
        "domains": domains.DETECTORS,
        "impersonation": impersonation.DETECTORS,
        "links": links.DETECTORS,
        "html": html.DETECTORS,
        "padding": padding.DETECTORS,
        "attachments": attachments.DETECTORS,
        "pictures": pictures.DETECTORS,
        "language": (*language.DETECTORS, *posed_letters.DETECTORS),
        "prompt_injection": prompt_injection.DETECTORS,
    }
)
"""The detectors that come with mailmill, by family."""

DETECTORS: tuple[Detector, ...] = tuple(chain.from_iterable(FAMILIES.values()))


def scan(
    message: ParsedMessage,
    *,
    own_address: str = "",
    authserv_id: str | None = None,
    history: SenderHistory = NO_HISTORY,
    read_insides: ReadInsides = read_nothing,
    table: ScoringTable = DEFAULT_TABLE,
    detectors: Sequence[Detector] = DETECTORS,
) -> Verdict:
    """The verdict on a parsed message: :func:`prepare` it, then :func:`assess` it."""
    prepared = prepare(
        message, own_address=own_address, authserv_id=authserv_id, history=history, read_insides=read_insides
    )
    return assess(prepared, table=table, detectors=detectors)


def assess(
    context: ThreatContext, *, table: ScoringTable = DEFAULT_TABLE, detectors: Sequence[Detector] = DETECTORS
) -> Verdict:
    """The verdict on a prepared message."""
    found = chain.from_iterable(detector(context) for detector in detectors)
    return judge(found, aligned=context.vouched, familiar=context.familiar, table=table)


def as_json(verdict: Verdict, table: ScoringTable = DEFAULT_TABLE) -> dict[str, JsonValue]:
    """The stored value:
    ``{"verdict","score","findings":[{id,family,severity,score,evidence}],"reasons":[…],"promptInjection":bool}``.

    ``promptInjection`` marks text addressed to an assistant: agents and AI processors refuse it.
    """
    return {
        "verdict": verdict.verdict.value,
        "score": verdict.score,
        "findings": [
            {
                "id": one.id,
                "family": one.family,
                "severity": one.severity.value,
                "score": round(one.score, 1),
                "evidence": one.evidence,
            }
            for one in verdict.findings
        ],
        "reasons": reasons(verdict, table),
        "promptInjection": prompt_injection.addressed_to_assistant(verdict.findings),
    }


@dataclass(frozen=True, slots=True)
class _Own:
    """What holds for one account: its words, and the detectors made of them."""

    words: OwnWords
    detectors: tuple[Detector, ...]


class ThreatEngine:
    """The engine as configured: made once, for any number of messages and threads.

    Raises ConfigurationError naming the entry of the scoring table, the line of the YARA rule, the list entry or the
    entry point that makes no sense.
    """

    def __init__(self, options: ThreatOptions = DEFAULT_OPTIONS, *, detectors: Sequence[Detector] = DETECTORS) -> None:
        table = _table(options)
        self._detectors: list[Detector] = list(detectors)
        offered = load_detectors() if options.entry_points else ()
        self._detectors += offered
        self.own_detectors = len(offered)
        self.yara_rules = 0
        if options.yara:
            rules = YaraRules(options.yara)
            self.yara_rules = len(rules.weights)
            said = {f"{own_rules.YARA}.{name}": weight for name, weight in rules.weights.items()}
            table = replace(table, weights=MappingProxyType(said | dict(table.weights)))
            self._detectors.append(partial(own_rules.yara_matches, rules, table))
        self.table = table
        self.wants_raw = options.wants_raw
        self._everybody = _own(options.everybody, "threat")
        self._accounts = {
            name: _own(options.everybody.and_those(words), f"accounts.{name}.threat")
            for name, words in options.accounts
        }
        self._inside = InsideReader() if options.inspect_files else None
        self._dkim = DkimCheck() if options.verify_dkim else None
        self._told: set[str] = set()

    def scan(
        self,
        message: ParsedMessage,
        *,
        own_address: str = "",
        authserv_id: str | None = None,
        history: SenderHistory = NO_HISTORY,
        account: str = "",
    ) -> Verdict:
        """The verdict on a parsed message of ``account`` (a name that the options know, else what holds for all)."""
        context = self.prepare(
            message, own_address=own_address, authserv_id=authserv_id, history=history, account=account
        )
        return self.weigh(context, self.find(context, account=account))

    def prepare(
        self,
        message: ParsedMessage,
        *,
        own_address: str = "",
        authserv_id: str | None = None,
        history: SenderHistory = NO_HISTORY,
        account: str = "",
    ) -> ThreatContext:
        """The message, prepared for the detectors."""
        own = self._accounts.get(account, self._everybody)
        return prepare(
            message,
            own_address=own_address,
            authserv_id=authserv_id,
            history=history,
            read_insides=self._inside if self._inside is not None else read_nothing,
            people=own.words.people,
            own_domains=own.words.domains,
            signatures=self._dkim.verify(message.raw) if self._dkim is not None else (),
        )

    def find(self, context: ThreatContext, *, account: str = "") -> tuple[Finding, ...]:
        """All that the detectors report of a prepared message, before it is weighed."""
        own = self._accounts.get(account, self._everybody)
        return (*self._run(self._detectors, context), *self._run(own.detectors, context))

    def weigh(self, context: ThreatContext, findings: Sequence[Finding]) -> Verdict:
        """The verdict that these findings make."""
        allowed = any(one.id == own_rules.ALLOWED for one in findings)
        return judge(findings, aligned=context.vouched, allowed=allowed, familiar=context.familiar, table=self.table)

    def as_json(self, verdict: Verdict) -> dict[str, JsonValue]:
        """The stored value, see :func:`as_json`."""
        return as_json(verdict, self.table)

    def close(self) -> None:
        """End the processes that read files."""
        if self._inside is not None:
            self._inside.close()

    def _run(self, detectors: Iterable[Detector], context: ThreatContext) -> list[Finding]:
        """What each detector found, until it failed; its failure is a finding, and logged once."""
        found: list[Finding] = []
        for detector in detectors:
            try:
                found.extend(detector(context))
            except Exception as error:  # noqa: BLE001 - one detector must not cost the message its verdict
                found.append(self._failure(detector, error))
        return found

    def _failure(self, detector: Detector, error: Exception) -> Finding:
        name = _name_of(detector)
        problem = plain(f"{type(error).__name__}: {error}")
        if name not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(name)
            # Rendered here: a logger's own renderer may show what the variables hold, which is somebody's mail.
            trace = "".join(traceback.format_exception(error))
            _log.error("a detector failed", detector=name, error=problem, exception=trace)
        return finding(_FAILED, f"{name}: {problem}")


@lru_cache(maxsize=2)
def engine_of(options: ThreatOptions) -> ThreatEngine:
    """The engine for these options; the same one for the same options, as long as it is among the last two."""
    return ThreatEngine(options)


def _table(options: ThreatOptions) -> ScoringTable:
    if not options.scoring:
        return DEFAULT_TABLE
    try:
        return read_table(options.scoring, over=DEFAULT_TABLE)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{options.scoring_file}: {error.message}".removeprefix(": "),
            hint=error.hint or "its form is that of docs/threats.md",
            key="threat.scoring_file",
        ) from None


def _own(words: OwnWords, key: str) -> _Own:
    try:
        allow = read_list(words.allow)
        check_allowed(allow)
    except ValueError as error:
        raise ConfigurationError(f"'{key}.allow': {error}", hint=_LISTS, key=f"{key}.allow") from None
    try:
        block = read_list(words.block)
    except ValueError as error:
        raise ConfigurationError(f"'{key}.block': {error}", hint=_LISTS, key=f"{key}.block") from None
    for domain in words.domains:
        organisation = organisation_of(clean_host(domain))
        if not organisation or organisation in FREE_MAIL or is_public_suffix(organisation):
            raise ConfigurationError(
                f"'{key}.domains': {domain!r} is no domain that could be yours alone",
                hint="name domains as example.org; single addresses of a mail service belong to threat.people",
                key=f"{key}.domains",
            )
    return _Own(words, own_rules.list_detectors(allow, block))


def _name_of(detector: Detector) -> str:
    function = detector.func if isinstance(detector, partial) else detector
    return f"{function.__module__.rpartition('.')[2]}.{getattr(function, '__name__', type(function).__name__)}"
