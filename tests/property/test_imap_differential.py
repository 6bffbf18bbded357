"""The reading of responses compared with imapclient's: another program, written by others from the same RFCs.

Where both accept a response they must read the same from it. What each reads otherwise, on purpose, is listed at the
end, so that a change of either shows.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imapclient import exceptions
from imapclient.response_parser import parse_fetch_response, parse_message_list, parse_response
from imapclient.response_types import Address as TheirAddress
from imapclient.response_types import Envelope as TheirEnvelope

from harness.framing import feed
from imap_transcripts import TRANSCRIPTS
from mailmill.imap.fetch import Fetch
from mailmill.imap.responses import Esearch, Listed, Malformed, Response, Search, StatusData, parse
from mailmill.imap.wire import Framer, Parts
from mailmill.model import Address, Envelope

Their = list[bytes | tuple[bytes, bytes]]

# -- both readings -----------------------------------------------------------------------------------------------------


def framed(line: bytes) -> Parts:
    [parts] = feed(Framer(), b"* " + line + b"\r\n")
    return parts


def ours(line: bytes) -> Response:
    return parse(framed(line))


def for_imaplib(parts: Parts, keyword: bytes) -> Their:
    """A response as `imaplib` hands it on: ``* `` and the keyword gone, each literal beside the text before it."""
    first = parts[0]
    assert isinstance(first, bytes)
    texts = [first.removeprefix(b"* ").replace(keyword + b" ", b"", 1), *parts[2::2]]
    literals = parts[1::2]
    theirs: Their = []
    for text, literal in zip(texts, [*literals, None], strict=True):
        assert isinstance(text, bytes)
        if isinstance(literal, bytes):
            theirs.append((text + b"{%d}" % len(literal), literal))
        else:
            theirs.append(text)
    return theirs


def their_fetch(line: bytes) -> dict[bytes, Any]:
    answer = parse_fetch_response(for_imaplib(framed(line), b"FETCH"), normalise_times=False, uid_is_key=False)
    [items] = answer.values()
    return dict(items)


# -- a grammar of what servers send ------------------------------------------------------------------------------------

ATOM = st.text("abcXYZ0123456789$_-.", min_size=1, max_size=12).filter(lambda text: text.upper() != "NIL")
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
ANY_BYTES = st.binary(max_size=40).filter(lambda data: b"\0" not in data)


def quoted(text: str) -> bytes:
    return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


def literal(data: bytes) -> bytes:
    return b"{%d}\r\n" % len(data) + data


NSTRING = st.one_of(st.just(b"NIL"), PRINTABLE.map(quoted), PRINTABLE.map(lambda text: literal(text.encode())))
FLAG = st.one_of(st.sampled_from(["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"]), ATOM.map("$".__add__))
DATE = st.builds(
    "{:2d}-{}-{} {:02d}:{:02d}:{:02d} {}".format,
    st.integers(1, 28),
    st.sampled_from(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]),
    st.integers(1971, 2037),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.sampled_from(["+0000", "-0800", "+0530", "+1300", "-0330"]),
)
ADDRESS = st.builds(
    lambda name, mailbox, host: b"(%b NIL %b %b)" % (name, quoted(mailbox), quoted(host)), NSTRING, ATOM, ATOM
)
ADDRESSES = st.one_of(
    st.just(b"NIL"), st.lists(ADDRESS, min_size=1, max_size=3).map(lambda many: b"(" + b"".join(many) + b")")
)
ENVELOPE = st.builds(
    lambda fields: b"ENVELOPE (%b)" % b" ".join(fields),
    st.tuples(
        st.sampled_from([b"NIL", b'"Mon, 7 Feb 1994 21:52:25 -0800"']), NSTRING, *[ADDRESSES] * 6, NSTRING, NSTRING
    ),
)
ITEM = st.one_of(
    st.integers(1, 2**32 - 1).map("UID {}".format).map(str.encode),
    st.lists(FLAG, max_size=5).map(lambda flags: f"FLAGS ({' '.join(flags)})".encode()),
    st.integers(1, 2**63 - 1).map("MODSEQ ({})".format).map(str.encode),
    st.integers(0, 2**32).map("RFC822.SIZE {}".format).map(str.encode),
    DATE.map('INTERNALDATE "{}"'.format).map(str.encode),
    st.integers(1, 2**64 - 1).map("X-GM-MSGID {}".format).map(str.encode),
    ENVELOPE,
    st.one_of(PRINTABLE.map(quoted), ANY_BYTES.map(literal), st.just(b"NIL")).map(b"BODY[] ".__add__),
    PRINTABLE.map(lambda text: b"BODY[HEADER.FIELDS (DATE SUBJECT)] " + literal(text.encode())),
)
ITEMS = st.lists(ITEM, min_size=1, max_size=7, unique_by=lambda item: item.split(b" ", 1)[0])


# -- the same is read --------------------------------------------------------------------------------------------------


def check_fetch(fetch: Fetch, theirs: dict[bytes, Any]) -> None:
    assert fetch.uid == theirs.get(b"UID")
    if b"FLAGS" in theirs:
        words = {word if isinstance(word, bytes) else str(word).encode() for word in theirs[b"FLAGS"]}
        assert fetch.flags == {word.decode() for word in words if word != b"\\Recent"}
    assert fetch.mod_seq == (theirs[b"MODSEQ"][0] if b"MODSEQ" in theirs else None)
    assert fetch.size_bytes == theirs.get(b"RFC822.SIZE")
    if b"INTERNALDATE" in theirs:
        assert fetch.internal_date == theirs[b"INTERNALDATE"].timestamp()
    if b"X-GM-MSGID" in theirs:
        assert fetch.x_gm_msgid == str(theirs[b"X-GM-MSGID"])
    if b"ENVELOPE" in theirs:
        assert fetch.envelope is not None
        check_envelope(fetch.envelope, theirs[b"ENVELOPE"])
    bodies = {name: value for name, value in theirs.items() if name.startswith(b"BODY[")}
    assert dict(fetch.sections) == {name.decode(): value for name, value in bodies.items()}


def check_envelope(envelope: Envelope, theirs: TheirEnvelope) -> None:
    for mine, their in (
        (envelope.subject, theirs.subject),
        (envelope.in_reply_to, theirs.in_reply_to),
        (envelope.message_id_header, theirs.message_id),
    ):
        if "=?" not in mine:
            assert mine == (their or b"").decode()
    for people, others in (
        (envelope.from_, theirs.from_),
        (envelope.sender, theirs.sender),
        (envelope.reply_to, theirs.reply_to),
        (envelope.to, theirs.to),
        (envelope.cc, theirs.cc),
        (envelope.bcc, theirs.bcc),
    ):
        assert [person.address for person in people] == [address_of(other) for other in others or () if other.host]


def address_of(their: TheirAddress) -> str:
    return f"{their.mailbox.decode()}@{their.host.decode()}"


@given(st.integers(1, 2**32 - 1), ITEMS)
def test_fetch(seq: int, items: list[bytes]) -> None:
    line = b"%d FETCH (%b)" % (seq, b" ".join(items))
    fetch = ours(line)
    assert isinstance(fetch, Fetch)
    check_fetch(fetch, their_fetch(line))


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_fetch_as_servers_sent_it(transcript: Any) -> None:
    compared = 0
    for parts in feed(Framer(), transcript.stream):
        fetch = parse(parts)
        if not isinstance(fetch, Fetch) or fetch.envelope is not None:
            continue
        try:
            theirs = parse_fetch_response(for_imaplib(parts, b"FETCH"), normalise_times=False, uid_is_key=False)
        except exceptions.ProtocolError:
            continue
        [items] = theirs.values()
        items.pop(b"INTERNALDATE", None)  # one is a leap second, which has no time of its own
        flags = {bytes(flag).decode().lower() for flag in items.pop(b"FLAGS", ()) if isinstance(flag, bytes)}
        assert {flag.lower() for flag in fetch.flags or ()} - {"nil"} == flags - {"\\recent"}
        check_fetch(fetch, items)
        compared += 1
    assert compared or transcript.name == "broken"


@given(
    st.lists(st.sampled_from(["\\Noselect", "\\HasChildren", "\\Sent", "\\X"]), max_size=4),
    st.sampled_from([b'"/"', b'"."', b"NIL", b'"\\\\"']),
    st.one_of(ATOM.map(str.encode), PRINTABLE.map(quoted), PRINTABLE.map(lambda text: literal(text.encode()))),
)
def test_list(attributes: list[str], delimiter: bytes, name: bytes) -> None:
    line = f"LIST ({' '.join(attributes)}) ".encode() + delimiter + b" " + name
    listed = ours(line)
    assert isinstance(listed, Listed)
    their_flags, their_delimiter, their_name = parse_response(for_imaplib(framed(line), b"LIST"))
    assert listed.attributes == {flag.decode().lower() for flag in their_flags}
    assert listed.delimiter == (None if their_delimiter is None else their_delimiter.decode())
    assert listed.raw_name == (their_name if isinstance(their_name, bytes) else str(their_name).encode())


NAMES = ["MESSAGES", "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ", "UNSEEN"]


@given(PRINTABLE.map(quoted), st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2**63 - 1)))
def test_status(name: bytes, items: dict[str, int]) -> None:
    line = b"STATUS " + name + f" ({' '.join(f'{key} {value}' for key, value in items.items())})".encode()
    status = ours(line)
    assert isinstance(status, StatusData)
    _, pairs = parse_response(for_imaplib(framed(line), b"STATUS"))
    assert status.items == dict(zip([key.decode() for key in pairs[::2]], pairs[1::2], strict=True)) == items


@given(st.lists(st.integers(1, 2**32 - 1), max_size=30), st.none() | st.integers(1, 2**63 - 1))
def test_search(uids: list[int], mod_seq: int | None) -> None:
    words = [*map(str, uids), *([f"(MODSEQ {mod_seq})"] if mod_seq and uids else [])]
    line = " ".join(["SEARCH", *words]).encode()
    search = ours(line)
    assert isinstance(search, Search)
    theirs = parse_message_list([line.removeprefix(b"SEARCH").strip()])
    assert list(search.uids) == sorted(set(theirs))
    assert search.mod_seq == theirs.modseq


def test_esearch() -> None:
    line = b'ESEARCH (TAG "A1") UID ALL 1:3,7 MODSEQ 9'
    esearch = ours(line)
    assert isinstance(esearch, Esearch)
    tag, uid, *pairs = parse_response(for_imaplib(framed(line), b"ESEARCH"))
    assert (tag, uid) == ((b"TAG", b"A1"), b"UID")
    assert dict(zip(pairs[::2], pairs[1::2], strict=True)) == {b"ALL": b"1:3,7", b"MODSEQ": 9}
    assert (esearch.tag, esearch.uid, str(esearch.all), esearch.mod_seq) == ("A1", True, "1:3,7", 9)


# -- what is read otherwise, on purpose --------------------------------------------------------------------------------


def test_flags_are_compared_by_meaning_here() -> None:
    line = rb"1 FETCH (FLAGS (\SEEN \Recent NIL 5))"
    fetch = ours(line)
    assert isinstance(fetch, Fetch)
    assert fetch.flags == {"\\Seen", "NIL", "5"}, "one spelling, all of them text, without the session's own"
    assert their_fetch(line)[b"FLAGS"] == (b"\\SEEN", b"\\Recent", None, 5)


def test_a_group_is_no_address_here() -> None:
    group = b'((NIL NIL "team" NIL)("A" NIL "a" "b")(NIL NIL NIL NIL))'
    line = b"1 FETCH (ENVELOPE (NIL NIL NIL NIL NIL " + group + b" NIL NIL NIL NIL))"
    fetch = ours(line)
    assert isinstance(fetch, Fetch)
    assert fetch.envelope is not None
    assert fetch.envelope.to == (Address("A", "a@b"),)
    assert len(their_fetch(line)[b"ENVELOPE"].to) == 3


def test_encoded_words_of_an_envelope_are_decoded_here() -> None:
    line = b'1 FETCH (ENVELOPE (NIL "=?utf-8?q?caf=C3=A9?=" NIL NIL NIL NIL NIL NIL NIL NIL))'
    fetch = ours(line)
    assert isinstance(fetch, Fetch)
    assert fetch.envelope is not None
    assert fetch.envelope.subject == "café"
    assert their_fetch(line)[b"ENVELOPE"].subject == b"=?utf-8?q?caf=C3=A9?="


@pytest.mark.parametrize(
    "line",
    [
        b"1 FETCH (UID 0 FLAGS ())",
        b"1 FETCH (UID 4294967296 FLAGS ())",
        b"1 FETCH (UID 5 MODSEQ (9223372036854775808))",
    ],
)
def test_numbers_out_of_range_are_refused_here(line: bytes) -> None:
    assert isinstance(ours(line), Malformed)
    assert their_fetch(line)


def test_a_bracket_within_a_section_is_read_here_only() -> None:
    line = b'1 FETCH (BODY[HEADER.FIELDS (DATE "X ]")]<0> "a")'
    fetch = ours(line)
    assert isinstance(fetch, Fetch)
    assert dict(fetch.sections) == {'BODY[HEADER.FIELDS (DATE "X ]")]<0>': b"a"}
    with pytest.raises((exceptions.ProtocolError, ValueError)):
        their_fetch(line)
