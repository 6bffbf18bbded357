"""The pool, on connections that exist in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from mailmill.errors import ConnectError, ConnectionLostError, PoolTimeoutError
from mailmill.imap.pool import Pool, PoolSettings
from servers.fake_connection import FakeConnection, FakeSelected


class Opener:
    """The pool's ``connect``: counts, and fails or waits where told to."""

    def __init__(self) -> None:
        self.opened: list[FakeConnection] = []
        self.failures: list[Exception] = []
        self.waits_for: asyncio.Future[None] | None = None
        self.called = asyncio.Event()

    async def __call__(self) -> FakeConnection:
        self.called.set()
        if self.waits_for is not None:
            await self.waits_for
        if self.failures:
            raise self.failures.pop(0)
        connection = FakeConnection(len(self.opened) + 1)
        self.opened.append(connection)
        return connection


@pytest.fixture
def opener() -> Opener:
    return Opener()


@asynccontextmanager
async def opened(opener: Opener, settings: PoolSettings | None = None) -> AsyncIterator[Pool[FakeConnection]]:
    pool = Pool(opener, settings)
    try:
        async with asyncio.timeout(20):
            yield pool
    finally:
        await pool.close()
    assert all(connection.closed for connection in opener.opened)
    assert pool.stats.leased == pool.stats.idle == pool.stats.connecting == pool.stats.closing == 0


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def hold(pool: Pool[FakeConnection], got: asyncio.Queue[FakeConnection], until: asyncio.Event) -> None:
    async with pool.lease() as connection:
        got.put_nowait(connection)
        await until.wait()


async def test_a_released_connection_is_used_again(opener: Opener) -> None:
    async with opened(opener) as pool:
        async with pool.lease() as first:
            assert pool.stats.leased == 1
        async with pool.lease() as second:
            assert second is first
        assert second.noops == 0, "just proven: no check is due"
        assert pool.stats.opened_total == 1


async def test_no_more_than_size_are_opened_and_callers_are_served_in_order(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        served: list[int] = []

        async def caller(number: int) -> None:
            async with pool.lease():
                served.append(number)
                await asyncio.sleep(0)

        async with pool.lease():
            tasks = [asyncio.create_task(caller(number)) for number in range(10)]
            await turns()
            assert pool.stats.waiting == 10
            assert served == []
        await asyncio.gather(*tasks)
        assert served == list(range(10))
        assert pool.stats.opened_total == 1


async def test_a_late_caller_does_not_overtake_one_whose_turn_has_come(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        got: asyncio.Queue[FakeConnection] = asyncio.Queue()
        done = asyncio.Event()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(pool.lease())
            waiting = asyncio.create_task(hold(pool, got, done))
            await turns()
        # Released, and granted to the one who waits, who has not run yet.
        late = asyncio.create_task(hold(pool, got, done))
        await turns()
        assert got.qsize() == 1
        assert pool.stats.waiting == 1
        done.set()
        await asyncio.gather(waiting, late)


async def test_the_deadline_of_a_waiter(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1, acquire_timeout_seconds=0.01)) as pool, pool.lease():
        with pytest.raises(PoolTimeoutError, match="1 of 1 in use"):
            async with pool.lease():
                pytest.fail("there is only one connection")
        assert pool.stats.waiting == 0


async def test_the_deadline_of_a_connect(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1, acquire_timeout_seconds=0.01)) as pool:
        opener.waits_for = asyncio.get_running_loop().create_future()
        with pytest.raises(PoolTimeoutError, match="opening a connection"):
            async with pool.lease():
                pytest.fail("connect never returns")
        assert pool.stats.connecting == 0
        opener.waits_for = None
        async with pool.lease():
            pass


async def test_a_failed_connect_gives_the_slot_to_the_next(opener: Opener) -> None:
    opener.failures = [ConnectError("refused"), ConnectError("refused again")]
    async with opened(opener, PoolSettings(size=1)) as pool:
        got: asyncio.Queue[FakeConnection] = asyncio.Queue()
        done = asyncio.Event()
        tasks = [asyncio.create_task(hold(pool, got, done)) for _ in range(3)]
        assert (await got.get()).number == 1
        done.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ConnectError, ConnectError, type(None)]


async def test_a_connection_with_the_mailbox_open_is_preferred(opener: Opener) -> None:
    async with opened(opener) as pool:
        async with pool.lease() as first, pool.lease() as second, pool.lease() as third:
            first.selected, second.selected = FakeSelected("INBOX"), FakeSelected("Sent")
        async with pool.lease("Sent") as connection:
            assert connection is second
        async with pool.lease("INBOX") as connection:
            assert connection is first
        async with pool.lease("Archive") as connection:
            assert connection is first, "none has it open: the freshest"
            assert connection.selected is None, "nobody inherits the mailbox of the holder before"
        async with pool.lease() as connection:
            assert connection is first
        assert pool.stats.idle == 3
        assert third.selected is None


async def test_silence_is_checked_before_use(opener: Opener) -> None:
    async with opened(opener) as pool:
        async with pool.lease() as connection:
            pass
        connection.last_proven_at -= 61
        async with pool.lease() as again:
            assert again is connection
            assert again.noops == 1


async def test_one_that_fails_its_check_is_closed_and_another_taken(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=2)) as pool:
        async with pool.lease() as first, pool.lease() as second:
            pass
        # `first` was released last, so it is the freshest and tried first.
        for connection in (first, second):
            connection.last_proven_at -= 61
        first.broken = True
        async with pool.lease() as connection:
            assert connection is second
        assert first.closed
        second.broken = True
        second.last_proven_at -= 61
        async with pool.lease() as connection:
            assert connection.number == 3
        assert pool.stats.opened_total == 3


async def test_a_check_that_hangs_is_bounded(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1, check_timeout_seconds=0.01)) as pool:
        async with pool.lease() as first:
            pass
        first.last_proven_at -= 61
        first.noop_waits_for = asyncio.get_running_loop().create_future()
        async with pool.lease() as connection:
            assert connection is not first
        assert first.closed


async def test_a_cancelled_check_closes_the_connection(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        async with pool.lease() as first:
            pass
        first.last_proven_at -= 61
        first.noop_waits_for = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(hold(pool, asyncio.Queue(), asyncio.Event()))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert first.closed
        assert pool.stats.leased == 0


async def test_one_the_server_hung_up_on_is_not_handed_out(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        async with pool.lease() as first:
            pass
        first.closed = True
        async with pool.lease() as second:
            assert second is not first


@pytest.mark.parametrize("fault", ["closed", "busy"])
async def test_a_connection_whose_exchange_was_cut_never_comes_back(opener: Opener, fault: str) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        async with pool.lease() as first:
            setattr(first, fault, True)
        assert first.closed
        assert first.logouts == 0, "nothing more is said on a connection in an unknown state"
        async with pool.lease() as second:
            assert second is not first


async def test_an_error_of_the_holder_does_not_cost_a_sound_connection(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        with pytest.raises(KeyError):
            async with pool.lease() as first:
                raise KeyError
        async with pool.lease() as second:
            assert second is first


async def test_a_holder_that_is_cancelled_releases(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        got: asyncio.Queue[FakeConnection] = asyncio.Queue()
        task = asyncio.create_task(hold(pool, got, asyncio.Event()))
        await got.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (pool.stats.leased, pool.stats.idle) == (0, 1)


async def test_a_turn_granted_to_one_who_was_cancelled_goes_to_the_next(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        got: asyncio.Queue[FakeConnection] = asyncio.Queue()
        done = asyncio.Event()
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(pool.lease())
            first = asyncio.create_task(hold(pool, got, done))
            second = asyncio.create_task(hold(pool, got, done))
            await turns()
        first.cancel()  # its turn has come in the release above, but it has not run since
        assert await got.get() is connection
        assert second.done() is False
        done.set()
        await second
        assert first.cancelled()


async def test_idle_connections_are_closed_in_time(opener: Opener) -> None:
    async with opened(opener, PoolSettings(max_idle_seconds=0.01)) as pool:
        async with pool.lease() as first, pool.lease() as second:
            pass
        await asyncio.gather(first.gone.wait(), second.gone.wait())
        await turns()
        assert (first.logouts, second.logouts) == (1, 1)
        assert pool.stats.idle == pool.stats.closing == 0


async def test_one_that_says_goodbye_holds_its_slot_until_it_is_gone(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        async with pool.lease() as first:
            first.logout_waits_for = asyncio.get_running_loop().create_future()
        pool.expire_all()
        assert pool.stats.closing == 1
        got: asyncio.Queue[FakeConnection] = asyncio.Queue()
        done = asyncio.Event()
        task = asyncio.create_task(hold(pool, got, done))
        await turns()
        assert pool.stats.waiting == 1
        first.logout_waits_for.set_result(None)
        assert (await got.get()).number == 2
        done.set()
        await task


async def test_a_goodbye_that_hangs_is_bounded(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1, close_timeout_seconds=0.01)) as pool:
        async with pool.lease() as first:
            first.logout_waits_for = asyncio.get_running_loop().create_future()
        pool.expire_all()
        async with pool.lease() as second:
            assert first.closed
            assert second is not first


async def test_expire_all_reaches_idle_leased_and_connecting(opener: Opener) -> None:
    async with opened(opener) as pool:
        async with pool.lease() as leased:
            async with pool.lease() as idle:
                pass
            got: asyncio.Queue[FakeConnection] = asyncio.Queue()
            done = asyncio.Event()
            opener.waits_for = asyncio.get_running_loop().create_future()
            opener.called.clear()
            held = [asyncio.create_task(hold(pool, got, done)) for _ in range(2)]
            await opener.called.wait()
            assert await got.get() is idle
            pool.expire_all()
            assert leased.closed is False, "its holder may end in peace"
            opener.waits_for.set_result(None)
            connecting = await got.get()
            done.set()
            await asyncio.gather(*held)
        await asyncio.gather(leased.gone.wait(), idle.gone.wait(), connecting.gone.wait())
        assert pool.stats.idle == 0


async def test_close_fails_waiters_and_waits_for_leases(opener: Opener) -> None:
    async with opened(opener, PoolSettings(size=1)) as pool:
        async with pool.lease() as connection:
            waiting = asyncio.create_task(hold(pool, asyncio.Queue(), asyncio.Event()))
            await turns()
            closing = asyncio.create_task(pool.close())
            with pytest.raises(ConnectionLostError, match="closed"):
                await waiting
            assert connection.closed is False
        await closing
        assert connection.logouts == 1
        with pytest.raises(ConnectionLostError, match="closed"):
            async with pool.lease():
                pytest.fail("the pool is closed")


async def test_close_takes_a_lease_away_that_does_not_end(opener: Opener) -> None:
    pool = Pool(opener, PoolSettings(close_timeout_seconds=0.01))
    async with pool.lease() as connection:
        await pool.close()
        assert connection.closed
    assert pool.stats.leased == pool.stats.idle == 0


async def test_a_connect_that_ends_after_close_is_not_kept(opener: Opener) -> None:
    pool = Pool(opener, PoolSettings(close_timeout_seconds=0.01))
    opener.waits_for = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(hold(pool, asyncio.Queue(), asyncio.Event()))
    await opener.called.wait()
    await pool.close()
    opener.waits_for.set_result(None)
    with pytest.raises(ConnectionLostError):
        await task
    assert opener.opened[0].closed
    assert pool.stats.connecting == 0


async def test_a_cancelled_close_still_closes(opener: Opener) -> None:
    pool = Pool(opener)
    async with pool.lease() as leased:
        async with pool.lease() as idle:
            idle.logout_waits_for = asyncio.get_running_loop().create_future()
        closing = asyncio.create_task(pool.close())
        await turns()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert leased.closed
        assert idle.closed
    await turns()
    assert pool.stats.closing == 0


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        PoolSettings(size=0)
