"""The demo's mail: of many kinds, and judged as a newcomer would expect."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailmill.app.demo.samples import AUTHSERV_ID, RECIPIENT, SAMPLES, Sample, arriving, compose, first_mailbox
from mailmill.message_parser import parse_message
from mailmill.processing.ai.summary import summarize
from mailmill.processing.category import categorize
from mailmill.processing.threat.engine import as_json, scan

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
VERDICTS = {"phishing": "malicious", "attachment": "malicious", "giftcards": "malicious", "assistant": "suspicious"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_each_is_judged_as_it_should(sample: Sample) -> None:
    message = parse_message(compose(sample, sent_at=NOW, number=1))
    assert message.defects == ()
    verdict = scan(message, own_address=RECIPIENT, authserv_id=AUTHSERV_ID)
    assert verdict.verdict == VERDICTS.get(sample.name, "clean"), verdict.findings
    assert bool(verdict.findings) == (sample.name in VERDICTS), "in a demo, honest mail has nothing against it"


def test_one_is_marked_for_assistants_and_refused_by_the_summary() -> None:
    marked = []
    for sample in SAMPLES:
        message = parse_message(compose(sample, sent_at=NOW, number=1))
        verdict = scan(message, own_address=RECIPIENT, authserv_id=AUTHSERV_ID)
        withheld = summarize(message)["method"] == "withheld"
        assert as_json(verdict)["promptInjection"] is withheld, sample.name
        marked += [sample.name] if withheld else []
    assert marked == ["assistant"]


def test_there_are_many_kinds() -> None:
    found = {str(categorize(parse_message(compose(each, sent_at=NOW, number=1)))["category"]) for each in SAMPLES}
    assert len(found) >= 8


def test_all_arrive_and_something_bad_comes_soon() -> None:
    names = [sample.name for sample in arriving()]
    assert sorted(names) == sorted(sample.name for sample in SAMPLES)
    assert set(names[:3]) & set(VERDICTS)
    assert "assistant" in names[:5]


def test_no_two_are_the_same_message() -> None:
    composed = {compose(sample, sent_at=NOW, number=number) for number in (1, 2) for sample in SAMPLES}
    assert len(composed) == 2 * len(SAMPLES)


def test_the_first_mailbox_is_of_the_past() -> None:
    held = first_mailbox(NOW)
    times = [received_at for _, received_at, _ in held]
    assert times == sorted(times)
    assert max(times) < NOW
    assert {mailbox for mailbox, _, _ in held} == {"INBOX", "Archive"}
