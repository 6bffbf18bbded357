"""Responses into events: real servers' transcripts, and the readings that matter one by one."""

from __future__ import annotations

import pytest

from harness.framing import feed
from imap_transcripts import BROKEN, CYRUS, DOVECOT, GMAIL, ODD, TRANSCRIPTS, Transcript
from mailmill.imap.fetch import Fetch, parse_internal_date
from mailmill.imap.limits import Limits
from mailmill.imap.responses import (
    Esearch,
    Exists,
    Expunge,
    Listed,
    Malformed,
    Other,
    Response,
    Search,
    Status,
    StatusData,
    Tagged,
    Vanished,
    parse,
)
from mailmill.imap.wire import Framer
from mailmill.model import Address
from mailmill.uid_set import UidSet


def events(stream: bytes) -> list[Response]:
    return [parse(parts) for parts in feed(Framer(), stream)]


def only(line: bytes) -> Response:
    [event] = events(line + b"\r\n")
    return event


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_transcripts_are_read_as_what_they_are(transcript: Transcript):
    assert tuple(type(event).__name__ for event in events(transcript.stream)) == transcript.kinds


def fetches(transcript: Transcript) -> list[Fetch]:
    return [event for event in events(transcript.stream) if isinstance(event, Fetch)]


def test_dovecot_in_detail():
    said = events(DOVECOT.stream)
    assert said[0] == Status(
        "OK",
        "CAPABILITY",
        "IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN",
        "Dovecot ready.",
    )
    assert said[8] == Listed("Entwürfe (alt)", b"Entw&APw-rfe (alt)", "/", frozenset({"\\hasnochildren"}))
    assert said[9] == StatusData(
        "Entwürfe (alt)", {"MESSAGES": 2, "UIDNEXT": 3, "UIDVALIDITY": 1700000002, "HIGHESTMODSEQ": 4}
    )
    assert said[20] == Vanished(True, UidSet.parse("1:4,7"))
    assert said[19] == Tagged("A5", "OK", "READ-ONLY", "", "Examine completed (0.001 + 0.000 secs).")
    assert said[27] == Esearch("A8", True, UidSet.parse("5:6,11"), None)
    assert said[30:32] == [Exists(4), Expunge(2)]
    flags, meta, body, empty = fetches(DOVECOT)
    assert (flags.uid, flags.flags, flags.mod_seq) == (5, {"\\Seen", "$Label1"}, 21)
    assert (meta.internal_date, meta.size_bytes, meta.mod_seq) == (1709629872.0, 44827, 9)
    assert body.sections == {"BODY[]": b"Subject: a {5}\r\n\r\nA1 OK not an end\r\n"}
    assert (empty.sections, empty.flags) == ({"BODY[]": b""}, {"\\Seen"})


def test_cyrus_in_detail():
    meta, no_thread, envelope = fetches(CYRUS)
    assert (meta.email_id, meta.thread_id, meta.mod_seq) == ("M00af", "T77", 18)
    assert meta.flags == {"\\Seen"}, "\\Recent is of the session, not of the message"
    assert meta.internal_date == 1676258940.0 + 60
    assert (no_thread.email_id, no_thread.thread_id) == ("M01", None)
    assert envelope.envelope is not None
    assert envelope.envelope.subject == 'a "quoted) \\ (" subject'
    assert envelope.envelope.from_ == (Address("Fred (Foo)", "fred@example.org"),)
    assert envelope.envelope.reply_to == ()
    assert envelope.envelope.to == (), "a group that is empty has no addresses"
    assert envelope.envelope.message_id_header == "<1@x>"
    listed = next(event for event in events(CYRUS.stream) if isinstance(event, Listed))
    assert (listed.path, listed.delimiter, listed.old_path) == ("INBOX.Drafts", ".", "INBOX")
    assert [event for event in events(CYRUS.stream) if isinstance(event, Search)] == [
        Search(UidSet([2, 3, 5]), 917162500),
        Search(UidSet(), None),
    ]


def test_gmail_in_detail():
    meta, body = fetches(GMAIL)
    assert (meta.x_gm_msgid, meta.x_gm_thrid) == ("1278455344230334866", "1278455344230334865")
    assert body.sections == {"BODY[]": b"a: b\r\n\r\nc"}
    assert events(GMAIL.stream)[-2] == Tagged("A3", "NO", "ALERT", "", "Too many simultaneous connections. (Failure)")


def test_odd_servers_in_detail():
    said = events(ODD.stream)
    assert said[0] == Status("OK", "", "", "hello {3}")
    assert said[1] == Exists(5)
    assert said[3] == Listed("NIL", b"NIL", None, frozenset({"\\hasnochildren"}))
    assert said[4] == Listed("Boîte", b"Bo\xc3\xaete", "/", frozenset())
    assert said[5] == Listed("a\\b", b"a\\b", "\\", frozenset())
    assert said[9] == StatusData("INBOX", {"MESSAGES": 2, "HIGHESTMODSEQ": 0})
    assert said[10] == Other("XSOMETHING")
    assert said[15] == Tagged("a7", "OK", "", "", "")
    flags, envelope, body, sections, unknown = fetches(ODD)
    assert flags.flags == {"\\Seen", "\\Answered"}
    assert envelope.envelope is not None
    assert envelope.envelope.subject == "café"
    assert body.sections == {"BODY[]": b"hello"}
    assert sections.sections == {'BODY[HEADER.FIELDS (DATE "X ]")]<0>': b"Date", "BODY[TEXT]": None}
    assert unknown.flags == {"NIL", "[x]", "$MDNSent"}


def test_what_cannot_be_read_says_why_and_hides_nothing_after_it():
    said = events(BROKEN.stream)
    assert all(isinstance(event, Malformed) and event.reason and event.raw for event in said[:-1])
    assert isinstance(said[-1], Fetch)


def test_malformed_keeps_a_bounded_beginning_only():
    event = only(b"* 1 FETCH (UID 5 ENVELOPE (" + b'"x" ' * 100_000)
    assert isinstance(event, Malformed)
    assert len(event.raw) <= 4096


def test_nesting_has_an_end():
    deep = b"* 1 FETCH (UID 1 X " + b"(" * 1000 + b")" * 1000 + b")"
    assert isinstance(only(deep), Malformed)
    assert isinstance(parse([deep], Limits(nesting=2000)), Fetch)


@pytest.mark.parametrize(
    "line",
    [
        b'* 1 FETCH (UID 5 X "' + b"\\a" * 100_000,
        b"* 1 FETCH (UID 5 " + b"BODY[" * 100_000,
        b"* 1 FETCH (UID 5 FLAGS (" + b"a " * 100_000,
        b"* 1 FETCH (" + b"UID 5 " * 100_000,
        b"* SEARCH " + b"9" * 100_000,
    ],
    ids=["quoted", "sections", "flags", "items", "digits"],
)
def test_hostile_lines_cost_one_pass(line: bytes):
    # An exponential or quadratic search would outlive the suite's timeout.
    assert isinstance(only(line), Malformed)


@pytest.mark.parametrize("extra", [b"", b" X-UNKNOWN (1)"])
@pytest.mark.parametrize("nil", [b"NIL", b"(NIL)"])
def test_no_thread_is_no_thread_called_nil(nil: bytes, extra: bytes):
    """Cyrus puts parentheses around it, in both readings."""
    fetched = only(b"* 1 FETCH (UID 1 THREADID " + nil + extra + b")")
    assert isinstance(fetched, Fetch)
    assert (fetched.uid, fetched.thread_id) == (1, None)


def test_the_last_of_repeated_items_counts_in_both_readings():
    fast = only(b"* 1 FETCH (UID 1 FLAGS (a) UID 2 FLAGS (b))")
    slow = only(b"* 1 fetch (UID 1 FLAGS (a) UID 2 FLAGS (b))")
    assert fast == slow == Fetch(uid=2, flags=frozenset({"b"}))


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (b"01-Jan-1970 00:00:00 +0000", 0.0),
        (b" 1-Jan-1970 01:00:00 +0100", 0.0),
        (b"31-dec-1969 18:30:00 -0530", 0.0),
        (b"29-Feb-2024 12:00:00 +0000", 1709208000.0),
        (b"29-Feb-2023 12:00:00 +0000", None),
        (b"00-Foo-2023 12:00:00 +0000", None),
        (b"yesterday", None),
    ],
)
def test_internal_dates(raw: bytes, seconds: float | None):
    assert parse_internal_date(raw) == seconds


def test_encoded_words_and_bad_charsets_in_envelopes():
    event = only(
        b'* 1 FETCH (UID 1 ENVELOPE ("d" "=?utf-8?q?h=C3=A9?= =?x-none?b?aGk=?=" (("=?bad" NIL "a" "b"))'
        b" NIL NIL NIL NIL NIL NIL NIL))"
    )
    assert isinstance(event, Fetch)
    assert event.envelope is not None
    assert event.envelope.subject == "héhi"
    assert event.envelope.from_ == (Address("=?bad", "a@b"),)
