"""Uploads: in pieces, as fast as they leave, and silence is measured by what leaves as well."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from unittest import mock

import pytest

from mailmill.errors import ConnectionLostError
from mailmill.imap import commands
from mailmill.imap.collectors import Collector
from mailmill.imap.limits import DEFAULT_LIMITS
from mailmill.imap.link import LONGEST_ANSWER_SECONDS, Link
from mailmill.imap.responses import Expunge, Response
from mailmill.imap.session import Session

HIGH_WATER_BYTES = 64 * 1024


class SlowTransport:
    """Takes what is written and lets go of it when told to, as a transport over a slow line does."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.taken = bytearray()
        self.held = 0
        self.most_held = 0
        self.aborted = False
        link.connection_made(cast(Any, self))

    def write(self, data: bytes | memoryview) -> None:
        self.taken += data
        self.held += len(data)
        self.most_held = max(self.most_held, self.held)
        if self.held > HIGH_WATER_BYTES:
            self.link.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.held

    def leaves(self, size_bytes: int) -> None:
        self.held -= min(size_bytes, self.held)
        if self.held < HIGH_WATER_BYTES // 4:
            self.link.resume_writing()

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def make_link() -> tuple[Link, SlowTransport]:
    link = Link("server:143", Session(), DEFAULT_LIMITS, silence_seconds=3600, spool_dir=None, stream_above_bytes=2**20)
    return link, SlowTransport(link)


class Clock:
    """The loop, at another time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self.loop = loop
        self.now = now

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)


async def until_stuck(transport: SlowTransport) -> None:
    """Until the upload waits for something."""
    taken = -1
    while taken != len(transport.taken):
        taken = len(transport.taken)
        for _ in range(3):
            await asyncio.sleep(0)


async def test_a_long_message_waits_in_the_hands_of_who_wrote_it():
    link, transport = make_link()
    message = bytes(range(256)) * 8000
    uploading = asyncio.create_task(link.upload(message, lambda: False))
    while not uploading.done():
        await until_stuck(transport)
        transport.leaves(HIGH_WATER_BYTES)
    await uploading
    assert transport.taken == message
    assert transport.most_held <= 2 * HIGH_WATER_BYTES
    assert link.bytes_sent == len(message)


async def test_what_leaves_slowly_is_no_silence_and_what_does_not_leave_is():
    link, transport = make_link()
    uploading = asyncio.create_task(link.upload(b"x" * 2**20, lambda: False))
    await until_stuck(transport)
    link.silence_seconds = 0  # the alarm rings whenever it is asked, as after the whole time
    for _ in range(5):
        transport.leaves(1)
        link._on_alarm()
        assert not link.closed
    link._on_alarm()
    with pytest.raises(ConnectionLostError, match="no answer"):
        await uploading
    assert transport.aborted


async def test_talk_is_no_progress():
    """A server that says something all the time and takes nothing, or never comes to the end."""
    link, transport = make_link()
    now = link._loop.time()
    uploading = asyncio.create_task(link.upload(b"x" * 2**20, lambda: False))
    await until_stuck(transport)
    with mock.patch.object(link, "_loop", Clock(link._loop, now + LONGEST_ANSWER_SECONDS - 1)) as clock:
        link._heard_at = clock.now
        link._on_alarm()
        assert not link.closed
        link._heard_at = clock.now = clock.now + 2
        link._on_alarm()
        with pytest.raises(ConnectionLostError, match="took longer than ten minutes"):
            await uploading


async def test_an_upload_stops_where_the_exchange_has_ended():
    link, transport = make_link()
    ended = False
    uploading = asyncio.create_task(link.upload(b"x" * 2**20, lambda: ended))
    await until_stuck(transport)
    ended = True
    transport.leaves(HIGH_WATER_BYTES * 2)
    await uploading
    assert len(transport.taken) < 2**18
    assert not link.closed


@pytest.mark.parametrize("stuck", [True, False])
async def test_a_cancelled_upload_cuts_the_connection(stuck: bool):
    link, transport = make_link()
    uploading = asyncio.create_task(link.upload(b"x" * 2**20, lambda: False))
    await asyncio.sleep(0)
    if stuck:
        await until_stuck(transport)
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert link.closed
    assert transport.aborted


async def test_a_server_that_never_stops_hinting_is_not_read_faster_than_we_can_bear():
    """Else its account would have the loop to itself: all others, and the API, would wait for seconds."""
    link, _ = make_link()
    loop, later = link._loop, []
    with mock.patch.object(link, "_loop", Clock(loop, loop.time())) as clock:
        clock.call_later = lambda seconds, act, *arguments: later.append((seconds, act, arguments))
        hear(link, b"* OK hello\r\n")
        hear(link, b"* 1 EXISTS\r\n" * 20_000)
        assert not later, "another client may have changed much at once"
        hear(link, b"* 1 FETCH (FLAGS ())\r\n" * 5_000)
        [(seconds, resume, arguments)] = later
        assert 0 < seconds < 0.35, "from the first turn that was too much"
        clock.now += seconds
        resume(*arguments)
        assert link._pauses <= {"turn"}
        hear(link, b"* 1 EXISTS\r\n" * 1_000)
        # The debt of the turns that had been read already is paid as well.
        assert later[1][0] == pytest.approx(0.6 - seconds, abs=0.01)


async def test_answers_are_read_as_fast_as_they_come():
    link, _ = make_link()
    hear(link, b"* OK hello\r\n")
    link.session.begin(commands.simple("NOOP"), Taker())
    hear(link, b"* 1 FETCH (FLAGS ())\r\n" * 50_000)
    assert link._pauses <= {"turn"}


def read_at_once(link: Link, data: bytes) -> None:
    while (room := len(link.get_buffer(-1))) < len(data):
        filler = b"* OK " + b"x" * (room - 7) + b"\r\n"  # a full buffer grows
        link.get_buffer(-1)[:room] = filler
        link.buffer_updated(room)
    link.get_buffer(-1)[: len(data)] = data
    link.buffer_updated(len(data))


async def test_what_comes_in_one_read_is_taken_in_turns():
    """A read holds thousands of short lines; the loop must serve others between them."""
    link, _ = make_link()
    hear(link, b"* OK hello\r\n")
    taker = Counter()
    link.session.begin(commands.simple("NOOP"), taker)
    read_at_once(link, b"* 1 EXPUNGE\r\n" * 5_000)
    assert 0 < taker.claimed < 5_000
    assert "turn" in link._pauses
    while link._framed:
        await asyncio.sleep(0)
    assert taker.claimed == 5_000


async def test_the_last_words_before_a_connection_ends_are_heard():
    link, _ = make_link()
    hear(link, b"* OK hello\r\n")
    taker = Counter()
    link.session.begin(commands.simple("NOOP"), taker)
    read_at_once(link, b"* 1 EXPUNGE\r\n" * 5_000 + b"* BYE moving house\r\n")
    link.connection_lost(None)
    assert taker.claimed >= 5_000
    with pytest.raises(ConnectionLostError, match="moving house"):
        link.check()


class Counter(Collector):
    def __init__(self) -> None:
        self.claimed = 0

    def claim(self, event: Response) -> bool:
        self.claimed += isinstance(event, Expunge)
        return isinstance(event, Expunge)


class Taker(Collector):
    """Claims all that comes."""

    def claim(self, event: Response) -> bool:
        return True


def hear(link: Link, data: bytes) -> None:
    while data:
        buffer = link.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        data = data[size:]
        link.buffer_updated(size)
        while link._framed:
            link._begin_turn()  # as the loop would
