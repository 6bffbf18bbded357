"""Category and priority: the evidence of the header first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.message_parser import parse_message
from mailmill.processing.category import CATEGORIES, MAX_EVIDENCE_CHARS, Priority, categorize


def categorized(
    *headers: str, body: str = "Hello Dana, see you on Monday.", kind: str = "text/plain"
) -> dict[str, object]:
    fields = list(headers)
    for default in (
        "From: Lena Ott <lena@meadow.example>",
        "To: dana@example.org",
        "Subject: Monday",
        f"Content-Type: {kind}",
    ):
        if not any(field.lower().startswith(default.partition(" ")[0].lower()) for field in fields):
            fields.append(default)
    return dict(categorize(parse_message(("\n".join(fields) + "\n\n" + body).encode())))


REPORT = 'Content-Type: multipart/report; report-type=delivery-status; boundary="b"'
CALENDAR = (
    '--b\nContent-Type: text/plain\n\nJoin us\n--b\nContent-Type: text/calendar; method=REQUEST; name="invite.ics"\n\n'
    "BEGIN:VCALENDAR\nEND:VCALENDAR\n--b--\n"
)


@pytest.mark.parametrize(
    ("category", "priority", "headers"),
    [
        ("personal", "normal", ()),
        ("personal", "normal", ("Subject: Re: Monday", "In-Reply-To: <1@x>")),
        ("personal", "high", ("X-Priority: 1",)),
        ("personal", "low", ("Importance: low",)),
        ("newsletter", "low", ("List-Unsubscribe: <https://x.example/u>", "From: Harbour <news@x.example>")),
        (
            "newsletter",
            "low",
            ("List-Unsubscribe: <https://x.example/u>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click"),
        ),
        ("newsletter", "low", ("List-Unsubscribe: <mailto:u@x.example>", "X-Priority: 1")),
        ("newsletter", "low", ("Precedence: bulk", "Feedback-ID: 1:2:3:x")),
        ("forum", "low", ("List-Id: <tides.lists.example>", "List-Post: <mailto:tides@lists.example>")),
        (
            "forum",
            "low",
            ("Precedence: list", "List-Unsubscribe: <mailto:x@lists.example>", "Subject: Re: [tides] sale"),
        ),
        ("promotion", "low", ("List-Unsubscribe: <https://x.example/u>", "Subject: 30% off boats: last chance")),
        ("promotion", "low", ("From: Shop <offers@x.example>", "Subject: Summer sale")),
        ("receipt", "normal", ("From: Shop <billing@x.example>", "Subject: Your invoice 4471")),
        ("receipt", "normal", ("From: Shop <no-reply@x.example>", "Subject: Order confirmation #4471")),
        ("receipt", "normal", ("From: Laden <rechnung@x.example>", "Subject: Ihre Rechnung")),
        ("security", "high", ("From: Bank <no-reply@x.example>", "Subject: Your verification code is 4471")),
        ("security", "high", ("From: <security@x.example>", "Subject: New device on your account")),
        ("shipping", "normal", ("From: <no-reply@x.example>", "Subject: Your parcel is out for delivery")),
        ("notification", "normal", ("Auto-Submitted: auto-generated", "Subject: Backup of the night")),
        ("notification", "normal", ("From: GitHub <notifications@github.com>", "Subject: [harbour] Run failed")),
        ("notification", "normal", ("From: <no-reply@x.example>",)),
        (
            "social",
            "low",
            ("From: LinkedIn <notifications-noreply@linkedin.com>", "Subject: You appeared in 3 searches"),
        ),
        ("autoReply", "low", ("Auto-Submitted: auto-replied", "Subject: Out of office")),
        ("bounce", "normal", (REPORT, "From: <MAILER-DAEMON@x.example>", "Subject: Undelivered")),
        ("bounce", "normal", ("From: <mailer-daemon@x.example>", "Subject: failure notice", "Return-Path: <>")),
        ("calendar", "high", ("Content-Type: text/calendar; method=REQUEST",)),
    ],
)
def test_category(category: str, priority: str, headers: tuple[str, ...]) -> None:
    value = categorized(*headers)
    assert (value["category"], value["priority"]) == (category, priority), value
    assert value["evidence"]


def test_a_meeting_among_other_parts() -> None:
    value = categorized("Subject: Harbour meeting", body=CALENDAR, kind='multipart/mixed; boundary="b"')
    assert value["category"] == "calendar"
    assert "calendar object" in str(value["evidence"])


def test_evidence_names_what_was_seen() -> None:
    value = categorized("List-Unsubscribe: <https://x.example/u>", "From: Harbour <news@x.example>")
    assert value["evidence"] == ["From: news@x.example", "List-Unsubscribe"]


def test_a_designed_page_is_no_personal_letter() -> None:
    body = "<p>Hello</p>" + '<img src="https://x.example/a.png">' * 3
    assert categorized(body=body, kind="text/html")["category"] == "notification"
    assert categorized(body="<p>Hello</p><img src=logo.png>", kind="text/html")["category"] == "personal"


def test_words_do_not_move_a_conversation() -> None:
    body = "Is the invoice of $ 1,200.00 paid? The discount was 30% off and the password is on paper."
    assert categorized("Subject: Re: invoice", "In-Reply-To: <1@x>", body=body)["category"] == "personal"
    assert categorized("Subject: invoice", body=body)["category"] == "personal"


_FIELDS = st.sampled_from(["From", "Subject", "List-Id", "List-Post", "Precedence", "Auto-Submitted", "X-Mailer"])


@given(st.lists(st.tuples(_FIELDS, st.text(max_size=60)), max_size=6), st.text(max_size=200))
def test_any_message_has_a_category(fields: list[tuple[str, str]], body: str) -> None:
    raw = "".join(f"{name}: {value}\r\n" for name, value in fields) + f"\r\n{body}"
    value = categorize(parse_message(raw.encode("utf-8", "replace")))
    assert value["category"] in CATEGORIES
    assert value["priority"] in tuple(Priority)
    evidence = value["evidence"]
    assert isinstance(evidence, list)
    assert all(len(one) <= MAX_EVIDENCE_CHARS and one.isprintable() for one in evidence)
