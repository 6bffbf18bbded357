"""Framing: what belongs together, what is refused, what large literals cost."""

from __future__ import annotations

import pytest

from harness.framing import feed
from mailmill.errors import LimitError
from mailmill.imap.limits import Limits
from mailmill.imap.wire import Framer


class Sink:
    """A `LiteralSink` that remembers; it is its own `Spooled`."""

    def __init__(self, size: int) -> None:
        self.size_bytes = size
        self.chunks: list[bytes] = []
        self.ended = ""

    def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def finish(self) -> Sink:
        self.ended = "finished"
        return self

    def abort(self) -> None:
        self.ended = "aborted"

    def discard(self) -> None:
        self.ended = "discarded"


def test_literals_stand_between_the_text_around_them():
    framer = Framer()
    assert feed(framer, b"* 1 FETCH (A {3}\r\n\r\n) B ~{2+}\r\nxy)\r\n") == [
        [b"* 1 FETCH (A ", b"\r\n)", b" B ", b"xy", b")"]
    ]
    assert not framer.mid_response


@pytest.mark.parametrize("line", [b"* OK see {3}", b"* NO {3}", b"A1 BAD what is {3}", b"+ go {3}", b"* bye {3}"])
def test_human_text_that_ends_like_a_literal_is_text(line: bytes):
    assert feed(Framer(), line + b"\r\n* 1 EXISTS\r\n") == [[line], [b"* 1 EXISTS"]]


def test_a_blank_line_after_a_literal_is_forgiven_once_and_only_inside_a_list():
    assert feed(Framer(), b'* 1 FETCH ("(" {1}\r\nx\r\n)\r\n') == [[b'* 1 FETCH ("(" ', b"x", b")"]]
    assert feed(Framer(), b'* LIST () "/" {1}\r\nx\r\n\r\n* 1 EXISTS\r\n') == [
        [b'* LIST () "/" ', b"x", b""],
        [b"* 1 EXISTS"],
    ]
    assert len(feed(Framer(), b"* 1 FETCH ({1}\r\nx\r\n\r\n)\r\n")) == 2


def test_an_empty_literal_and_bare_line_feeds():
    assert feed(Framer(), b"* X {0}\r\n\n\n* Y\n") == [[b"* X ", b"", b""], [b"* Y"]]


def test_a_literal_larger_than_the_buffer_comes_whole():
    body = bytes(range(256)) * 400
    framer = Framer(Limits(receive_buffer_bytes=1024))
    assert feed(framer, b"* 1 FETCH (B {%d}\r\n%b)\r\n" % (len(body), body)) == [[b"* 1 FETCH (B ", body, b")"]]


def test_a_line_larger_than_the_buffer_comes_whole():
    line = b"* SEARCH " + b" ".join(b"%d" % n for n in range(1, 5000))
    assert feed(Framer(Limits(receive_buffer_bytes=512)), line + b"\r\n* OK\r\n") == [[line], [b"* OK"]]


def test_large_literals_go_to_the_sink_in_bounded_chunks():
    sinks: list[Sink] = []

    def open_sink(size: int) -> Sink:
        sinks.append(Sink(size))
        return sinks[-1]

    framer = Framer(Limits(receive_buffer_bytes=1024), open_sink=open_sink, stream_above_bytes=100)
    body = b"0123456789" * 1000
    [parts] = feed(framer, b"* 1 FETCH (A {5}\r\nsmall B {10000}\r\n" + body + b")\r\n")
    assert parts == [b"* 1 FETCH (A ", b"small", b" B ", sinks[0], b")"]
    assert b"".join(sinks[0].chunks) == body
    assert max(map(len, sinks[0].chunks)) <= 1024
    assert sinks[0].ended == "finished"


def test_abort_frees_the_literal_under_way_and_those_before_it():
    sinks: list[Sink] = []

    def open_sink(size: int) -> Sink:
        sinks.append(Sink(size))
        return sinks[-1]

    framer = Framer(open_sink=open_sink, stream_above_bytes=1)
    feed(framer, b"* 1 FETCH (A {5}\r\nwhole B {10}\r\nhalf")
    framer.abort()
    assert [sink.ended for sink in sinks] == ["discarded", "aborted"]


def test_an_announced_literal_above_the_cap_is_refused_before_a_byte_of_it():
    with pytest.raises(LimitError, match="1073741824 bytes"):
        feed(Framer(), b"* 1 FETCH (BODY[] {1073741824}\r\n")


@pytest.mark.parametrize(
    ("limits", "stream"),
    [
        (Limits(line_bytes=100), b"* " + b"x" * 101),
        (Limits(line_bytes=100), b"* " + b"x" * 100 + b"\r\n"),
        (Limits(response_bytes=100), b"* X {60}\r\n" + b"x" * 60 + b" {60}\r\n"),
        (Limits(response_bytes=100), b"* X {60}\r\n" + b"x" * 60 + b"y" * 60 + b"\r\n"),
        (Limits(literals=2), b"* X {1}\r\na {1}\r\nb {1}\r\n"),
    ],
)
def test_caps_end_it(limits: Limits, stream: bytes):
    with pytest.raises(LimitError):
        feed(Framer(limits), stream)


def test_caps_count_for_each_response_anew():
    framer = Framer(Limits(response_bytes=100))
    assert len(feed(framer, (b"* X {60}\r\n" + b"x" * 60 + b"\r\n") * 5)) == 5


def test_the_buffer_grows_under_load_and_is_given_back_at_rest():
    framer = Framer()
    small = len(framer.get_buffer())
    feed(framer, b"* OK " + b"x" * 3 * small + b"\r\n")
    assert len(framer.get_buffer()) == Limits().receive_buffer_bytes
    framer.shrink()
    assert len(framer.get_buffer()) == small


def test_a_dripped_line_is_searched_once():
    # Quadratic searching of 2 MB in single bytes would take minutes; the suite's timeout is the assertion.
    framer = Framer()
    responses = []
    for _ in range(200_000):
        room = framer.get_buffer()
        room[0] = 65
        responses += framer.received(1)
    assert feed(framer, b"\r\n") == [[b"A" * 200_000]]
    assert not responses
