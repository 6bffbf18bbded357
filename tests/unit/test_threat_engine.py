"""The engine as a whole: weights, verdicts, the stored value, and that no input is too much for it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threat_mail import NOTHING, OWN, PROVEN, SERVER, found, mail, verdict

from mailmill.message_parser import parse_message
from mailmill.model import Finding, Severity, VerdictName
from mailmill.processing.threat.engine import DETECTORS, as_json, scan
from mailmill.processing.threat.scoring import DEFAULT_TABLE, MAX_EVIDENCE_CHARS, Weight, finding, judge, reasons

PHISH_HTML = '<p>Your account is locked.</p><a href="https://bit.ly/x1">https://www.paypal.com/login</a>'


def test_a_phishing_message_and_its_honest_twin() -> None:
    phish = mail("PayPal <service@tide-tables.net>", subject="Your account", html=PHISH_HTML, results=NOTHING)
    honest = mail(
        "PayPal <service@paypal.com>",
        subject="Your account",
        html='<a href="https://www.paypal.com/activity">https://www.paypal.com/activity</a>',
    )
    assert verdict(phish) == "malicious"
    assert verdict(honest) == "clean"


@pytest.mark.parametrize(
    "message",
    [
        mail("News <news@meadow-farm.com>", html='<a href="https://click.esp-mail.net/1">www.meadow-farm.com</a>'),
        mail(
            "Meadow Farm <no-reply@meadow-farm.com>",
            subject="Reset your password",
            html='<p>You asked to reset your password.</p><a href="https://meadow-farm.com/reset">Reset</a>',
        ),
        mail(
            "Meadow Farm <billing@meadow-farm.com>",
            subject="Your invoice",
            results="spf=pass smtp.mailfrom=bounces.esp-mail.net; dkim=pass header.d={d}",
            headers=("Reply-To: support@helpdesk-saas.net",),
            html='<a href="https://meadow-farm.com/i/1">View</a> <a href="https://www.facebook.com/meadow">Facebook</a>',
        ),
        mail("Old Printer <printer@meadow-farm.com>", results=NOTHING),
    ],
)
def test_ordinary_mail_is_clean(message: object) -> None:
    assert verdict(message) == "clean"  # type: ignore[arg-type]


def test_authentication_softens_style_but_no_impersonation() -> None:
    shown = '<a href="https://click.esp-mail.net/1">www.bigshop.com</a>'
    scores = [scan(mail(html=shown, results=one), own_address=OWN, authserv_id=SERVER).score for one in (PROVEN, None)]
    assert scores[0] < scores[1]
    spoof = "PayPal <service@tide-tables.net>"
    scores = [scan(mail(spoof, results=one), own_address=OWN, authserv_id=SERVER).score for one in (PROVEN, None)]
    assert scores[0] == scores[1]


def test_one_family_alone_is_not_malicious_unless_conclusive() -> None:
    many = [
        finding(f"links.{name}", "x") for name in ("ip_host", "userinfo", "script_or_data", "recipient_in_fragment")
    ]
    alone = judge(many, aligned=False, table=replace(DEFAULT_TABLE, repeat=1.0))
    assert (alone.verdict, alone.score) == (VerdictName.SUSPICIOUS, 100.0)
    both = judge([*many, finding("domains.mixed_script", "x")], aligned=False)
    assert both.verdict is VerdictName.MALICIOUS
    assert judge([finding("attachments.double_extension", "a.pdf.exe")], aligned=False).verdict is VerdictName.MALICIOUS


def test_further_findings_of_a_family_count_half_and_half_again() -> None:
    table = replace(
        DEFAULT_TABLE, weights=MappingProxyType({f"a.{n}": Weight(20, Severity.LOW, f"word {n}") for n in range(3)})
    )
    result = judge([finding(f"a.{n}", "x", table) for n in range(3)], aligned=False, table=table)
    assert result.score == 35.0
    assert reasons(result, table) == ["word 0", "word 1", "word 2"]


def test_the_same_finding_counts_once() -> None:
    once = judge([finding("links.ip_host", "a")], aligned=False)
    twice = judge([finding("links.ip_host", "a"), finding("links.ip_host", "b")], aligned=False)
    assert once.score == twice.score
    assert len(twice.findings) == 1


def test_an_administrator_may_change_the_table() -> None:
    message = mail("PayPal <paypal@tide-tables.net>")
    weights = {**DEFAULT_TABLE.weights, "sender.brand_in_name": Weight(0, Severity.INFO, "ignored here")}
    table = replace(DEFAULT_TABLE, weights=MappingProxyType(weights))
    assert scan(message, own_address=OWN, authserv_id=SERVER).verdict is VerdictName.SUSPICIOUS
    result = scan(message, own_address=OWN, authserv_id=SERVER, table=table)
    assert result.verdict is VerdictName.CLEAN
    assert reasons(result, table) == []


def test_a_detector_of_somebody_else_takes_part() -> None:
    def always(_: object) -> list[Finding]:
        return [Finding("own.rule", "own", Severity.HIGH, 60.0, "seen")]

    result = scan(mail(), own_address=OWN, authserv_id=SERVER, detectors=(*DETECTORS, always))
    assert result.verdict is VerdictName.SUSPICIOUS


def test_the_stored_value() -> None:
    value = as_json(scan(mail("PayPal <x@tide-tables.net>", results=NOTHING), own_address=OWN, authserv_id=SERVER))
    assert json.loads(json.dumps(value)) == value
    assert list(value) == ["verdict", "score", "findings", "reasons", "promptInjection"]
    findings = value["findings"]
    assert isinstance(findings, list)
    assert set(findings[0]) == {"id", "family", "severity", "score", "evidence"}
    assert [one["score"] for one in findings] == sorted((one["score"] for one in findings), reverse=True)
    assert value["reasons"]


def test_evidence_is_short_plain_text() -> None:
    one = finding("links.ip_host", "a\x00b\u202ec\n\td" + "x" * 5000)
    assert len(one.evidence) == MAX_EVIDENCE_CHARS
    assert one.evidence.isprintable()


def test_every_finding_of_a_detector_has_a_weight() -> None:
    messages = [
        mail("PayPal <service@tide-tables.net>", subject=f"Re: {OWN}", html=PHISH_HTML, results=NOTHING),
        mail(OWN, results=NOTHING, attachments=(("a.pdf.exe", "application/octet-stream", b""),)),
    ]
    seen = set().union(*(found(message) for message in messages))
    assert seen <= set(DEFAULT_TABLE.weights)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"From: \r\n\r\n",
        b"From: @\r\nReply-To: @@@\r\nReturn-Path: <>\r\n\r\n",
        b"From: " + b"<" * 5000 + b"\r\n\r\n",
        b"Content-Type: text/html\r\n\r\n"
        + b"<a href='http://[::'>x</a><a href='http://"
        + b"a." * 3000
        + b"com'>y</a>",
        b"Content-Type: text/html\r\n\r\n" + b"<div>" * 60_000 + b"<a href=http://1.2.3.4>x",
        b"Content-Type: text/html\r\n\r\n<p>" + b"".join(b"<b id=%d>" % n for n in range(3000)) + b"<p>x" * 20_000,
        b"Content-Type: text/html\r\n\r\n" + b"<b " * 100_000,
        b"Content-Type: text/plain\r\n\r\n" + b"http://" * 100_000,
        b"Subject: " + "а".encode() * 10_000 + b"\r\nAuthentication-Results: " + b"mx;" * 20_000 + b"\r\n\r\n",
    ],
)
def test_no_input_is_too_much(raw: bytes) -> None:
    as_json(scan(parse_message(raw), own_address=OWN, authserv_id=SERVER))


@given(sender=st.text(max_size=80), subject=st.text(max_size=80), html=st.text(max_size=300), own=st.text(max_size=30))
def test_any_text_gives_a_verdict_and_always_the_same(sender: str, subject: str, html: str, own: str) -> None:
    raw = f"From: {sender}\r\nSubject: {subject}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}"
    message = parse_message(raw.encode("utf-8", "replace"))
    first = as_json(scan(message, own_address=own, authserv_id="mx"))
    assert first == as_json(scan(message, own_address=own, authserv_id="mx"))
    json.dumps(first)
