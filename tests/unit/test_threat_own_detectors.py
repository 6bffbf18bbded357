"""Detectors that installed packages offer: found by entry point, and unable to harm the scan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import pytest
from threat_mail import NOTHING, OWN, SERVER, context, mail

from mailmill.errors import ConfigurationError
from mailmill.model import Finding, Severity
from mailmill.processing.threat import own_detectors
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.engine import DETECTORS, ThreatEngine
from mailmill.processing.threat.options import ThreatOptions
from mailmill.processing.threat.own_detectors import MAX_FINDINGS, MAX_STUCK, OwnDetector, load_detectors

PHISH = mail("PayPal <service@tide-tables.net>", html='<a href="http://192.0.2.7/login">x</a>', results=NOTHING)


def seen(id_: str = "acme.seen", score: Any = 60.0, evidence: Any = "here") -> Finding:
    return Finding(id_, "any", Severity.HIGH, score, evidence, "It was seen.")


def finds(_: ThreatContext) -> Iterator[Finding]:
    yield seen()


def finds_more(_: ThreatContext) -> list[Finding]:
    return [seen("acme.more")]


def raises(_: ThreatContext) -> Iterator[Finding]:
    yield seen()
    raise ValueError("what was wrong")


def exits(_: ThreatContext) -> list[Finding]:
    raise SystemExit


class _OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raises_oddly(_: ThreatContext) -> list[Finding]:
    raise _OddError


NOT_CALLABLE = "text"
BOTH = (finds, finds_more)


def offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    points = tuple(metadata.EntryPoint(name, f"{__name__}:{name}", own_detectors.ENTRY_POINTS) for name in names)

    def entry_points(*, group: str) -> tuple[metadata.EntryPoint, ...]:
        return tuple(point for point in points if point.group == group)

    monkeypatch.setattr(own_detectors.metadata, "entry_points", entry_points)


def failure_of(function: Callable[[ThreatContext], Any]) -> str:
    (failed,) = OwnDetector(function, "it")(context(mail()))
    assert failed.id == "own_rules.detector_failed"
    return failed.evidence


def test_an_entry_point_is_a_function_or_several(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "finds", "BOTH")
    assert [one.name for one in load_detectors()] == ["BOTH (finds)", "BOTH (finds_more)", "finds"]


@pytest.mark.parametrize("name", ["NOT_CALLABLE", "missing"])
def test_one_that_is_no_detector_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    offer(monkeypatch, name)
    with pytest.raises(ConfigurationError, match=name) as raised:
        load_detectors()
    assert raised.value.hint


def test_it_takes_part_in_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "finds")
    engine = ThreatEngine(ThreatOptions(inspect_files=False))
    verdict = engine.scan(mail(), own_address=OWN, authserv_id=SERVER)
    assert verdict.verdict.value == "suspicious"
    assert verdict.findings == (Finding("acme.seen", "acme", Severity.HIGH, 60.0, "here", "It was seen."),)
    assert engine.as_json(verdict)["reasons"] == ["It was seen."]


def test_the_scoring_table_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "finds")
    scoring = '[weights.acme.seen]\npoints = 5\nseverity = "low"\nwords = "Seen, as ours."\n'
    engine = ThreatEngine(ThreatOptions(scoring=scoring, inspect_files=False))
    verdict = engine.scan(mail(), own_address=OWN, authserv_id=SERVER)
    assert (verdict.score, engine.as_json(verdict)["reasons"]) == (5.0, ["Seen, as ours."])


@pytest.mark.parametrize("finding_id", ["own_rules.detector_failed"])
@pytest.mark.parametrize("name", ["raises", "exits", "raises_oddly"])
def test_one_that_raises_costs_only_its_own_word(monkeypatch: pytest.MonkeyPatch, finding_id: str, name: str) -> None:
    offer(monkeypatch, name, "finds_more")
    verdict = ThreatEngine(ThreatOptions(inspect_files=False)).scan(PHISH, own_address=OWN, authserv_id=SERVER)
    assert verdict.verdict.value == "malicious"
    found = {one.id for one in verdict.findings}
    assert {finding_id, "acme.more", "links.ip_host"} <= found


def test_what_it_found_before_it_raised_counts() -> None:
    ids = [one.id for one in OwnDetector(raises, "it")(context(mail()))]
    assert ids == ["acme.seen", "own_rules.detector_failed"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["text"], "str instead of a Finding"),
        ([seen("Acme")], "not like family.name"),
        ([seen("acme.x y")], "not like family.name"),
        ([seen("own_rules.allowed_sender")], "the engine's own"),
        ([seen("engine.detector_failed")], "the engine's own"),
        ([seen(score=float("nan"))], "no number"),
        ([seen(score="60")], "no number"),
        (7, "TypeError"),
    ],
)
def test_what_is_no_finding_is_said(given: Any, problem: str) -> None:
    assert problem in failure_of(lambda _: given)


@pytest.mark.parametrize("twin_of", ["own_rules.detector_failed"])
@pytest.mark.parametrize("given", [None, [], (), iter(())])
def test_nothing_is_an_answer(twin_of: str, given: Any) -> None:
    assert OwnDetector(lambda _: given, "it")(context(mail())) == [], twin_of


def test_every_bound_is_kept() -> None:
    wild = [seen(f"acme.n{n}", 1e9, "x\x00\n" * 1000) for n in range(1000)]
    found = OwnDetector(lambda _: wild, "it")(context(mail()))
    assert len(found) == MAX_FINDINGS
    assert all(one.score == 100.0 and one.family == "acme" for one in found)
    assert all(len(one.evidence) <= 300 and one.evidence.isprintable() for one in found)


def test_one_that_does_not_come_back_is_left_and_later_not_called() -> None:
    calls: list[int] = []
    may_end = threading.Event()

    def hangs(_: ThreatContext) -> list[Finding]:
        calls.append(1)
        may_end.wait()
        return [seen()]

    detector = OwnDetector(hangs, "it", seconds=0.01)
    prepared = context(mail())
    for _ in range(MAX_STUCK):
        assert "took longer" in detector(prepared)[0].evidence
    assert "not called" in detector(prepared)[0].evidence
    assert len(calls) == MAX_STUCK, "it was called while as many as are allowed hang"
    threads = [one for one in threading.enumerate() if one.name == "mailmill-detector-it"]
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert detector(prepared) != [] and len(calls) == MAX_STUCK + 1, "they came back, so it is called again"


def test_a_failure_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    detector = OwnDetector(exits, "the odd one")
    for _ in range(3):
        detector(context(mail()))
    logged = capsys.readouterr()
    assert (logged.out + logged.err).count("the odd one") == 1


def breaks_at_once(_: ThreatContext) -> list[Finding]:
    raise RecursionError


def gives_no_findings(_: ThreatContext) -> Any:
    return 7


@pytest.mark.parametrize("finding_id", ["engine.detector_failed"])
@pytest.mark.parametrize("broken", [raises, breaks_at_once, gives_no_findings])
def test_a_detector_of_ours_that_raises_does_not_lose_the_verdict(
    capsys: pytest.CaptureFixture[str], finding_id: str, broken: Any
) -> None:
    engine = ThreatEngine(ThreatOptions(inspect_files=False, entry_points=False), detectors=(broken, *DETECTORS))
    for _ in range(2):
        verdict = engine.scan(PHISH, own_address=OWN, authserv_id=SERVER)
        assert verdict.verdict.value == "malicious"
        ids = {one.id for one in verdict.findings}
        assert {finding_id, "links.ip_host"} <= ids
        assert ("acme.seen" in ids) is (broken is raises), "what it found before it failed counts"
    logged = capsys.readouterr()
    assert (logged.out + logged.err).count("a detector failed") == 1


@pytest.mark.parametrize("twin_of", ["engine.detector_failed"])
@pytest.mark.parametrize("honest", [finds, finds_more, lambda _: (), lambda _: iter(())])
def test_a_detector_of_ours_that_finds_little_did_not_fail(twin_of: str, honest: Any) -> None:
    engine = ThreatEngine(ThreatOptions(inspect_files=False, entry_points=False), detectors=(honest,))
    verdict = engine.scan(mail(), own_address=OWN, authserv_id=SERVER)
    assert twin_of not in {one.id for one in verdict.findings}
