"""Laws of the IMAP core that hold for every input: encode and parse are inverse, the cuts of a stream do not matter,
nothing but documented errors ever comes out."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.framing import feed
from imap_transcripts import TRANSCRIPTS, Transcript
from mailmill.errors import LimitError
from mailmill.imap import commands, utf7
from mailmill.imap.commands import Command, Literal, LiteralMode, encode
from mailmill.imap.fetch import parse_fetch, parse_simple_fetch
from mailmill.imap.limits import Limits
from mailmill.imap.responses import Malformed, Response, mailbox_path, parse, parse_run
from mailmill.imap.tokens import Value, tokenize
from mailmill.imap.wire import Framer, Parts, split_run
from mailmill.uid_set import UidSet

SMALL = Limits(receive_buffer_bytes=64)


def events(chunks: list[bytes], limits: Limits = SMALL) -> list[Response]:
    framer = Framer(limits)
    return [parse(parts) for chunk in chunks for parts in feed(framer, chunk)]


# -- cuts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_a_stream_cut_at_any_byte_gives_the_same_events(transcript: Transcript):
    stream = transcript.stream
    whole = events([stream], Limits())
    for at in range(1, len(stream)):
        assert events([stream[:at], stream[at:]], Limits()) == whole, f"cut at {at}"


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
@pytest.mark.parametrize("size", [1, 2, 7, 63])
def test_a_dripped_stream_gives_the_same_events(transcript: Transcript, size: int):
    stream = transcript.stream
    assert events([stream[at : at + size] for at in range(0, len(stream), size)]) == events([stream], Limits())


@given(st.sampled_from(TRANSCRIPTS), st.lists(st.integers(1, 200), min_size=1), st.integers(16, 300))
def test_cuts_and_buffer_sizes_do_not_matter(transcript: Transcript, sizes: list[int], buffer_bytes: int):
    stream, chunks, at = transcript.stream, [], 0
    while at < len(stream):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(stream[at : at + size])
        at += size
    assert events(chunks, Limits(receive_buffer_bytes=buffer_bytes)) == events([stream], Limits())


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50), st.integers(16, 200))
def test_literals_of_any_bytes_come_as_they_were_sent(literals: list[bytes], size: int, buffer_bytes: int):
    stream = b"* X" + b"".join(b" {%d}\r\n%b" % (len(data), data) for data in literals) + b" end\r\n* Y\r\n"
    framer = Framer(Limits(receive_buffer_bytes=buffer_bytes))
    responses = [r for at in range(0, len(stream), size) for r in feed(framer, stream[at : at + size])]
    assert list(responses[0][1::2]) == literals
    assert responses[1] == [b"* Y"]


# -- encode and parse are inverse --------------------------------------------------------------------------------------

_ARGUMENT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=50) | st.binary(
    max_size=50
).filter(lambda raw: not set(raw) & {0, 10, 13})


def received(pieces: list[bytes]) -> Parts:
    """What a server makes of a command: the pieces joined, since it has sent its ``+`` between them."""
    [parts] = feed(Framer(), b"* " + b"".join(pieces))
    return parts


@given(st.lists(_ARGUMENT, min_size=1, max_size=5), st.sampled_from(LiteralMode))
@example(['"', "\\", "", "NIL", "{3}", "a b", "é", " "], LiteralMode.SYNCHRONIZING)
def test_what_is_encoded_is_parsed_as_it_was(arguments: list[str | bytes], mode: LiteralMode):
    parts: list[bytes | Literal] = [b"X"]
    for argument in arguments:
        parts += [b" ", commands.string(argument)]
    pieces = encode("A1", Command("X", tuple(parts)), mode)
    expected = [a if isinstance(a, bytes) else a.encode() for a in arguments]
    assert tokenize(received(pieces), 2) == ["A1", "X", *expected]
    assert all(b"\r\n" not in piece.rstrip(b"\r\n") or mode is not LiteralMode.SYNCHRONIZING for piece in pieces)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example("&-&AOk-")
@example("\r\n\0")
def test_mailbox_names_survive_the_wire(name: str):
    raw = utf7.encode(name)
    assert raw.isascii()
    assert all(0x20 <= byte < 0x7F for byte in raw)
    assert utf7.decode(raw) == name
    [_, value] = tokenize(received(encode("X", Command("X", (commands.mailbox(name),)))), 2)
    assert isinstance(value, bytes)
    assert mailbox_path(value) == ("INBOX" if name.upper() == "INBOX" else name)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_mailbox_path(raw: bytes):
    assert isinstance(mailbox_path(raw), str)


@given(st.sets(st.integers(1, 2**32 - 1), min_size=1))
def test_a_split_set_is_the_same_set(uids: set[int]):
    parts = list(commands.split_set(UidSet(uids)))
    assert UidSet.from_ranges(pair for part in parts for pair in part.ranges) == UidSet(uids)


# -- the two readings of FETCH agree -----------------------------------------------------------------------------------

_DATE = st.builds(
    lambda d, m, y, zone: f'"{d:2d}-{m}-{y:04d} 10:11:12 {zone}"',
    *(st.integers(1, 31), st.sampled_from(["Jan", "Feb", "feb", "DEC", "Xyz"]), st.integers(1, 9999)),
    st.sampled_from(["+0000", "-1130", "+0545"]),
)
_FLAG = st.sampled_from(["\\Seen", "\\seen", "\\Recent", "$Label", "NIL", "[x]", "NonJunk", "\\Deleted"])
_ITEM = st.one_of(
    st.builds("UID {}".format, st.integers(0, 2**33)),
    st.builds(lambda flags: f"FLAGS ({' '.join(flags)})", st.lists(_FLAG, max_size=4)),
    st.builds("MODSEQ ({})".format, st.integers(0, 2**64)),
    st.builds("INTERNALDATE {}".format, _DATE),
    st.builds("RFC822.SIZE {}".format, st.integers(0, 2**40)),
    st.builds("EMAILID ({})".format, st.sampled_from(["M1", "a-b_C"])),
    st.sampled_from(
        ["THREADID NIL", "THREADID (NIL)", "THREADID (T1)", "X-GM-MSGID 18446744073709551615", "X-GM-THRID 5"]
    ),
)


@given(
    st.lists(_ITEM, min_size=1, max_size=8, unique_by=lambda item: item.split()[0]),
    st.none() | st.binary(max_size=20),
    st.integers(0, 8),
)
def test_the_fast_reading_of_fetch_is_the_general_one(items: list[str], body: bytes | None, at: int):
    texts = [item.encode() for item in items]
    if body is not None:
        texts.insert(min(at, len(texts)), b"BODY[] {%d}\r\n%b" % (len(body), body))
    [parts] = feed(Framer(), b"* 7 FETCH (" + b" ".join(texts) + b")\r\n")
    fast = parse_simple_fetch(parts)
    try:
        general = parse_fetch(7, tokenize(parts, len(b"* 7 FETCH ")))
    except ValueError:
        assert fast is None
    else:
        assert fast == general, "every shape of this grammar has a fast reading"


# -- the two readings of STATUS agree, and LIST is read the same each time ---------------------------------------------

_NAME = st.sampled_from(
    ["INBOX", "inbox", '"INBOX"', '"a b"', '"&AOQ-"', "a&AOQ-b", '""', "NIL", "a.b/c", '"a(b"', "12"]
)
_STATUS_ITEM = st.builds(
    "{} {}".format,
    st.sampled_from(["MESSAGES", "uidnext", "HIGHESTMODSEQ", "X", "MAILBOXID"]),
    st.sampled_from(["0", "7", "007", "999999999999999999", "9223372036854775808", "(abc)", "x", ""]),
)


@given(_NAME, st.lists(_STATUS_ITEM, max_size=5), st.sampled_from([" ", "  "]))
def test_the_fast_reading_of_status_is_the_general_one(name: str, items: list[str], space: str):
    line = f"* STATUS {name} ({space.join(items)})".encode()
    # An empty list behind it is passed over, and has no fast reading.
    general = parse([line + b" ()"])
    fast = parse([line])
    assert fast == general or (isinstance(fast, Malformed) and isinstance(general, Malformed))


@given(
    _NAME, st.sampled_from([rb"(\HasNoChildren)", rb"()", rb"(\Sent \Marked)"]), st.sampled_from(['"/"', "NIL", '"."'])
)
def test_a_list_line_that_comes_again_means_the_same(name: str, attributes: bytes, delimiter: str):
    line = b"* LIST %s %s %s" % (attributes, delimiter.encode(), name.encode())
    # The line is too long to be remembered with its padding, and says the same.
    assert parse([line]) == parse([line]) == parse([line + b" ()" * 100])


# -- nothing but documented errors -------------------------------------------------------------------------------------

_WORDS = rb"""( ) " \ NIL BODY[ ] <0> * 1 FETCH UID 5 FLAGS ENVELOPE LIST STATUS ESEARCH VANISHED (EARLIER) SEARCH ID
    ALL CAPABILITY ENABLED MODSEQ INTERNALDATE EMAILID OK [ EXISTS A1 + 1:* , 4294967296 (TAG "A1") OLDNAME"""
_FRAGMENT = st.sampled_from([*_WORDS.split(), b" ", b" ", b" ", b"* ", b"{3}\r\nabc", b"\xff", b"\x00"])
_LINE = st.lists(_FRAGMENT, max_size=25).map(b"".join) | st.binary(max_size=100)


@given(_LINE)
def test_tokenize_raises_documented_errors_only(line: bytes):
    for parts in feed(Framer(), line + b"\r\n"):
        try:
            values: list[Value] = tokenize(parts)
        except (ValueError, LimitError):
            continue
        assert isinstance(values, list)


@given(st.lists(_LINE, max_size=6), st.sampled_from([b"", b"* ", b"* 1 FETCH (", b"* LIST "]))
def test_parse_never_raises(lines: list[bytes], start: bytes):
    framer = Framer(Limits(line_bytes=5000, literal_bytes=5000, response_bytes=10_000, receive_buffer_bytes=64))
    try:
        for line in lines:
            for parts in feed(framer, start + line + b"\r\n"):
                parse(parts)
    except LimitError:
        pass


# -- runs of lines -----------------------------------------------------------------------------------------------------

_FLAGS_LINE = st.builds(
    "* {} FETCH (UID {} FLAGS ({}){})".format,
    st.sampled_from(["1", "0", "12", "4294967296"]),
    st.integers(0, 2**32 + 5),
    st.sampled_from(["", "\\Seen", "\\SEEN $Junk", "\\Recent", "a  b", "x" * 300, "\r", "("]),
    st.sampled_from(["", " MODSEQ (7)", " MODSEQ (0)", f" MODSEQ ({2**63})", " MODSEQ (07)", " modseq (9)"]),
).map(str.encode)
_LINE_END = st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r\r\n"])


@given(st.lists(st.tuples(_FLAGS_LINE | _LINE.filter(lambda line: b"\n" not in line), _LINE_END), max_size=8))
def test_a_run_is_read_as_its_lines_are(lines: list[tuple[bytes, bytes]]):
    run = b"".join(line + end for line, end in lines)
    assert parse_run(run) == [parse(parts) for parts in split_run(run)]


def test_lines_that_come_together_are_a_run():
    line = b"* 1 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (3))\r\n"
    [run] = Framer().feed(line * 3)
    assert run == line * 3
    assert len(parse_run(run)) == 3
