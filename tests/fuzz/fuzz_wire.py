"""Any bytes as an IMAP server's side of a session.

The first two bytes choose the caps, the size of the receive buffer, how the stream is cut, and which commands are under
way; the rest is what the server says.

What must hold:

- nothing is raised but ProtocolError (LimitError among it) and InsecureError;
- however the stream is cut, the same responses come out, and a breach of a cap is one for every cut;
- they are the responses of the reference framer, so every byte is accounted for;
- a run is read as its lines are read one by one;
- every literal that went to a sink ends in one place: an event somebody took, or discarded;
- what is held stays within the caps.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.framing import feed
from mailmill.errors import InsecureError, LimitError, ProtocolError
from mailmill.imap import commands
from mailmill.imap.collectors import (
    BodyCollector,
    Collector,
    EnvelopeCollector,
    ListCollector,
    MetaCollector,
    SearchCollector,
    SelectCollector,
    StatusCollector,
)
from mailmill.imap.commands import Command
from mailmill.imap.fetch import Fetch
from mailmill.imap.limits import DEFAULT_LIMITS, Limits
from mailmill.imap.responses import Malformed, Response, parse, parse_run
from mailmill.imap.session import Session
from mailmill.imap.wire import Framed, Framer, Parts, discard, split_run
from mailmill.uid_set import UidSet

from .reference_framer import frame

TIGHT = Limits(line_bytes=120, literal_bytes=60, response_bytes=250, literals=4, nesting=5, receive_buffer_bytes=32)
SMALL = Limits(
    line_bytes=4000, literal_bytes=3000, response_bytes=8000, literals=20, nesting=64, receive_buffer_bytes=256
)
CAPS = (DEFAULT_LIMITS, SMALL, TIGHT)
CUTS = (1, 2, 3, 7, 31, 64, 1000)
STREAM_ABOVE_BYTES = (None, 0, 8)
UIDS = UidSet.from_ranges([(1, 5), (7, 1000), (4294967290, 4294967295)])


class MemorySink:
    """A literal that is "elsewhere"; knows whether it was freed, and that nobody writes after the end."""

    def __init__(self, size: int) -> None:
        self.announced = size
        self.chunks: list[bytes] = []
        self.finished = False
        self.freed = False

    def write(self, chunk: bytes) -> None:
        assert not self.finished
        assert not self.freed
        self.chunks.append(chunk)

    def finish(self) -> MemorySink:
        self.finished = True
        assert self.size_bytes == self.announced
        return self

    def abort(self) -> None:
        assert not self.finished
        self.freed = True

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.chunks))

    def discard(self) -> None:
        assert self.finished
        self.freed = True


def check(data: bytes) -> None:
    """Raises AssertionError where a law is broken, and whatever should never have been raised."""
    if len(data) < 2:
        return
    limits = CAPS[data[0] % len(CAPS)]
    cut = CUTS[data[0] // len(CAPS) % len(CUTS)]
    above = STREAM_ABOVE_BYTES[data[1] % len(STREAM_ABOVE_BYTES)]
    script = data[1] // len(STREAM_ABOVE_BYTES)
    stream = data[2:]
    check_framing(stream, limits, cut)
    check_session(stream, limits, cut, above, script)


def check_framing(stream: bytes, limits: Limits, cut: int) -> None:
    expected = frame(stream, limits)
    for size in {cut, max(1, len(stream))}:
        framer = Framer(limits)
        responses: list[Parts] = []
        breached = False
        try:
            for at in range(0, len(stream), size):
                responses += feed(framer, stream[at : at + size])
        except LimitError:
            breached = True
        assert breached == expected.breached
        if breached:
            # What came complete in the same read as the breach goes with it.
            assert responses == expected.responses[: len(responses)]
        else:
            assert responses == expected.responses
            assert framer.mid_response == (expected.rest < len(stream))
        framer.abort()


def check_session(stream: bytes, limits: Limits, cut: int, above: int | None, script: int) -> None:
    sinks: list[MemorySink] = []

    def open_sink(size: int) -> MemorySink:
        sinks.append(MemorySink(size))
        return sinks[-1]

    framer = Framer(limits, open_sink=open_sink, stream_above_bytes=above)
    session = Session(must_start_tls=script % 2 == 1)
    bodies = BodyCollector(UIDS, lambda _pressed: None)
    for command, collector, continuations in under_way(script, bodies):
        session.begin(command, collector, continuations=continuations)
    framed: Iterator[Framed] = iter(())
    try:
        for at in range(0, len(stream), cut):
            framed = iter(framer.feed(stream[at : at + cut]))
            for each in framed:
                for event in events_of(each, limits):
                    check_event(event)
                    session.receive(event)
    except (ProtocolError, InsecureError):
        for each in framed:  # as `Link` does
            discard(each)
    framer.abort()
    held = {id(body) for _, body in bodies.queue}
    for sink in sinks:
        assert sink.freed != (id(sink) in held), "a literal was lost, or freed while somebody holds it"
    bodies.discard()
    assert all(sink.freed for sink in sinks)


def events_of(framed: Framed, limits: Limits) -> list[Response]:
    if isinstance(framed, bytes):
        assert len(framed) <= limits.response_bytes
        events = parse_run(framed, limits)
        assert events == [parse(parts, limits) for parts in split_run(framed)], "a run is read differently"
        return events
    assert sum(len(part) for part in framed if isinstance(part, bytes)) <= limits.response_bytes
    return [parse(framed, limits)]


def check_event(event: Response) -> None:
    if isinstance(event, Malformed):
        assert len(event.raw) <= 4096 + 8
        assert event.reason
    elif isinstance(event, Fetch):
        assert event.uid is None or 0 < event.uid < 2**32
        assert event.mod_seq is None or 0 < event.mod_seq < 2**63
        assert event.size_bytes is None or 0 <= event.size_bytes < 2**63


def under_way(script: int, bodies: BodyCollector) -> list[tuple[Command, Collector, int]]:
    """Up to three commands, as `ImapConnection` sends them; ``script`` says which."""
    chosen: list[tuple[Command, Collector, int]] = [
        (commands.uid_fetch(UIDS, ["UID", "BODY.PEEK[]"]), bodies, 0),
        (commands.uid_fetch(UIDS, ["UID", "FLAGS"], changed_since=5, vanished=True), MetaCollector(UIDS), 0),
        (commands.list_mailboxes("*", status_items=("MESSAGES",)), ListCollector(with_status=True), 0),
        (commands.status(b"INBOX", ("MESSAGES",)), StatusCollector("INBOX"), 0),
        (
            commands.select(b"INBOX", read_only=script % 2 == 0, condstore=True),
            SelectCollector("INBOX", read_only=script % 2 == 0, condstore=True),
            0,
        ),
        (commands.uid_search(None, esearch=True), SearchCollector(), 0),
        (commands.uid_fetch(UIDS, ["UID", "ENVELOPE"]), EnvelopeCollector(UIDS), 0),
        (commands.simple("IDLE"), Collector(), 1),
        (commands.login("me", "secret"), Collector(), 0),
    ]
    first, count = script // 4 % len(chosen), script % 4
    return [*chosen[first:], *chosen[:first]][:count]
