"""The channel for hints against a connection that is only played: what is told while it speaks, and when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest
from structlog.testing import capture_logs

from mailmill.store import wake_channel
from mailmill.store.postgres_link import Link
from mailmill.store.wake_channel import WakeChannel
from mailmill.store.wakeups import Wakeups


class PlayedLink:
    """Link and connection in one. ``on_notify`` is called before each NOTIFY is taken; what it raises, that raises."""

    pooled = False

    def __init__(self, failures: Iterable[Exception] = ()) -> None:
        self.failures = list(failures)
        self.on_notify: Callable[[], None] = lambda: None
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def connect(self) -> PlayedLink:
        if self.failures:
            raise self.failures.pop(0)
        return self

    async def execute(self, statement: str, **_options: object) -> None:
        await asyncio.sleep(0)
        self.on_notify()
        self.told.put_nowait(statement.removesuffix("'").partition(" ")[2].partition(" ")[2].partition(" ")[2])

    def add_termination_listener(self, _listener: object) -> None: ...

    async def add_listener(self, _channel: str, _listener: object) -> None: ...

    def is_closed(self) -> bool:
        return False

    async def close(self, **_options: object) -> None: ...


@asynccontextmanager
async def opened(link: PlayedLink) -> AsyncIterator[WakeChannel]:
    channel = WakeChannel(cast("Link", link), Wakeups())
    channel.open()
    try:
        yield channel
    finally:
        await channel.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_channel, "_FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(wake_channel, "_QUIET_SECONDS", 0.001)


async def test_what_is_told_while_it_speaks_goes_out_once_more() -> None:
    link = PlayedLink()
    async with asyncio.timeout(30), opened(link) as channel:
        again = iter([True])
        link.on_notify = lambda: channel.tell(["work"]) if next(again, False) else None
        channel.tell(["work"])
        assert [await link.told.get(), await link.told.get()] == ["work", "work"]


@pytest.mark.parametrize("failure", [asyncpg.InterfaceError("gone"), RuntimeError("unforeseen")])
async def test_what_could_not_be_told_goes_out_later(failure: Exception) -> None:
    link = PlayedLink()
    failures = [failure]

    def fail() -> None:
        if failures:
            raise failures.pop()

    link.on_notify = fail
    async with asyncio.timeout(30), opened(link) as channel:
        channel.tell(["work", "events"])
        assert await link.told.get() == "events work"


async def test_an_unforeseen_failure_is_logged_and_the_channel_comes_back() -> None:
    link = PlayedLink([RuntimeError("unforeseen"), OSError("refused")])
    with capture_logs() as logs:
        async with asyncio.timeout(30), opened(link) as channel:
            await channel.connected.wait()
    lines: list[Any] = [line["error"] for line in logs]
    assert lines == ["RuntimeError('unforeseen')"]
