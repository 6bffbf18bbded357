"""The connections of one account: a few, shared, opened on demand and closed when nobody needs them.

The laws of this file:

1. ``leased + idle + connecting + closing <= size`` at every moment, so the server never sees more than ``size``
   connections of ours, not even while one says goodbye.
2. State is read and changed in functions that are not coroutines. Each first changes the state and then starts what
   takes time (a goodbye, a timer), so a cancellation finds the state either before or after, never between.
3. Callers are served in the order in which they came. Nobody waits while a connection is idle or a slot is free.
4. A lease names its mailbox: what is handed out has that one selected, or none as far as anybody can see. Nobody
   inherits the mailbox of the holder before; a write that comes before its SELECT is refused, not misdirected.
5. A connection that is closed, or whose exchange was cut, never comes back: it is aborted at release. Releasing
   contains no ``await``, so there is nothing in it that a cancellation could interrupt.

A slot that was granted but not yet taken (its caller was cancelled in between) is given back by the caller's own
``except`` branch: see ``_wait_for_turn``. That is the one place where a slot could be lost for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mailmill.errors import ConnectionLostError, ImapError, PoolTimeoutError


class Selected(Protocol):
    """The mailbox a connection has open."""

    @property
    def path(self) -> str: ...


class PooledConnection(Protocol):
    """What the pool needs of a connection; ``ImapConnection`` has it.

    ``closed`` is True for good once the link is gone or an exchange was cut. ``busy`` is True while a command is under
    way: its reply is not read to the end. ``forget_selected`` makes ``selected`` None until the next SELECT.
    ``last_proven_at`` is ``loop.time()`` of the last completed round trip. ``logout`` is polite, bounded in time and
    never raises; ``abort`` closes at once.
    """

    @property
    def closed(self) -> bool: ...
    @property
    def busy(self) -> bool: ...
    @property
    def selected(self) -> Selected | None: ...
    @property
    def last_proven_at(self) -> float: ...
    def forget_selected(self) -> None: ...
    async def noop(self) -> None: ...
    async def logout(self) -> None: ...
    def abort(self) -> None: ...


C = TypeVar("C", bound=PooledConnection)


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """``size`` connections at most. An idle one is closed after ``max_idle_seconds``, and proven by a NOOP before it is
    handed out again after ``check_after_seconds`` of silence.

    ``acquire_timeout_seconds`` bounds the whole way to a lease: waiting, checking and connecting.
    ``check_timeout_seconds`` bounds one NOOP, ``close_timeout_seconds`` one goodbye, and the patience of ``close`` with
    leases that are still out.
    """

    size: int = 3
    max_idle_seconds: float = 300
    acquire_timeout_seconds: float = 30
    check_after_seconds: float = 60
    check_timeout_seconds: float = 10
    close_timeout_seconds: float = 5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("a pool needs a size of at least 1")


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts at one moment; ``opened_total`` counts every connection that was opened since the start."""

    leased: int
    idle: int
    connecting: int
    closing: int
    waiting: int
    opened_total: int


@dataclass(frozen=True, slots=True)
class _Member(Generic[C]):
    """An open connection and the generation it was asked for in."""

    connection: C
    generation: int


@dataclass(frozen=True, slots=True)
class _Idle(Generic[C]):
    member: _Member[C]
    since: float


@dataclass(frozen=True, slots=True)
class _Turn(Generic[C]):
    """What a caller is granted: an idle connection, now leased, or (None) a slot to connect in, now counted so."""

    member: _Member[C] | None


@dataclass(frozen=True, slots=True)
class _Waiter(Generic[C]):
    turn: asyncio.Future[_Turn[C]]
    mailbox: str | None


class Pool(Generic[C]):
    """Leases connections that ``connect`` opens and authenticates.

    Belongs to one event loop; build it inside a running one. Whoever builds it must ``await close()``.
    Idle connections are closed by a timer of the pool itself: there is nothing to run beside it.
    """

    def __init__(self, connect: Callable[[], Awaitable[C]], settings: PoolSettings | None = None) -> None:
        self._connect = connect
        self._settings = settings or PoolSettings()
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Idle[C]] = []  # in the order of release: the last is the freshest
        self._leased: dict[int, _Member[C]] = {}  # by id(connection)
        self._connecting = 0
        self._closing: dict[asyncio.Task[None], C] = {}
        self._waiters: deque[_Waiter[C]] = deque()
        self._generation = 0
        self._opened_total = 0
        self._closed = False
        self._at_rest = asyncio.Event()  # closed, and nothing leased, connecting or closing any more
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def lease(self, mailbox: str | None = None) -> AsyncIterator[C]:
        """A connection of one's own until the block ends.

        ``mailbox`` is what the caller works on: ``selected`` is that mailbox (an idle connection that has it open is
        preferred), or None. Without one, ``selected`` may be any: for what is said of no mailbox (LIST, STATUS).

        Raises PoolTimeoutError at the deadline, whatever ``connect`` raises (the next in line then tries for itself),
        and ConnectionLostError once the pool is closed. Can be cancelled at any point.
        """
        connection = await self._acquire(mailbox)
        try:
            yield connection
        finally:
            self._release(connection)

    def expire_all(self) -> None:
        """Let no connection opened until now serve another lease: the network or the credentials changed.

        Idle ones are closed now, leased ones when they are released; one that is just connecting counts as old.
        """
        self._generation += 1
        idle, self._idle = self._idle, []
        for one in idle:
            self._say_goodbye(one.member.connection)
        self._settle()

    async def close(self) -> None:
        """Close everything. Callers in line get ConnectionLostError; leases have ``close_timeout_seconds`` to end.

        What is leased still is then aborted under its holder. Takes at most twice ``close_timeout_seconds``, raises
        nothing but its own cancellation, and leaves no connection open in either case. May be called again.
        """
        self._shut()
        try:
            for give_up in (self._take_leases_away, self._cut_goodbyes):
                try:
                    async with asyncio.timeout(self._settings.close_timeout_seconds):
                        await self._at_rest.wait()
                        return
                except TimeoutError:
                    give_up()
        finally:
            self._take_leases_away()
            self._cut_goodbyes()

    @property
    def stats(self) -> PoolStats:
        """How many connections there are of each kind, now."""
        return PoolStats(
            leased=len(self._leased),
            idle=len(self._idle),
            connecting=self._connecting,
            closing=len(self._closing),
            waiting=sum(not waiter.turn.done() for waiter in self._waiters),
            opened_total=self._opened_total,
        )

    # -- the way to a lease (coroutines: they hold one slot each and change state only through the functions below) ----

    async def _acquire(self, mailbox: str | None) -> C:
        deadline = self._loop.time() + self._settings.acquire_timeout_seconds
        turn = await self._wait_for_turn(mailbox, deadline)
        while turn.member is not None:
            if await self._is_alive(turn.member.connection, deadline):
                return turn.member.connection
            turn = self._exchange(turn.member.connection, mailbox)
        return await self._open(deadline)

    async def _wait_for_turn(self, mailbox: str | None, deadline: float) -> _Turn[C]:
        waiter: _Waiter[C] = _Waiter(self._loop.create_future(), mailbox)
        self._enqueue(waiter)
        if waiter.turn.done():
            return waiter.turn.result()
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter.turn
        except TimeoutError as error:
            self._leave(waiter)
            stats = self.stats
            raise PoolTimeoutError(
                f"no connection became free within {self._settings.acquire_timeout_seconds:g} s "
                f"({stats.leased} of {self._settings.size} in use, {stats.connecting} connecting)",
                hint="raise pool.size or pool.acquire_timeout_seconds of the account",
            ) from error
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    async def _is_alive(self, connection: C, deadline: float) -> bool:
        if connection.closed:
            return False
        now = self._loop.time()
        if now - connection.last_proven_at < self._settings.check_after_seconds:
            return True
        try:
            async with asyncio.timeout_at(min(deadline, now + self._settings.check_timeout_seconds)):
                await connection.noop()
        except (ImapError, TimeoutError, OSError):
            return False
        except BaseException:
            self._drop(connection)
            raise
        return not connection.closed

    async def _open(self, deadline: float) -> C:
        generation = self._generation
        try:
            async with asyncio.timeout_at(deadline) as limit:
                connection = await self._connect()
        except BaseException as error:
            self._connect_failed()
            if isinstance(error, TimeoutError) and limit.expired():
                raise PoolTimeoutError(
                    f"opening a connection took longer than {self._settings.acquire_timeout_seconds:g} s",
                    hint="if the server is only slow, raise pool.acquire_timeout_seconds of the account",
                ) from error
            raise
        return self._connected(_Member(connection, generation))

    async def _goodbye(self, connection: C) -> None:
        try:
            async with asyncio.timeout(self._settings.close_timeout_seconds):
                await connection.logout()
        except TimeoutError:
            pass
        finally:
            connection.abort()

    # -- the state: no coroutine below this line -----------------------------------------------------------------------

    def _enqueue(self, waiter: _Waiter[C]) -> None:
        if self._closed:
            raise _pool_is_closed()
        self._waiters.append(waiter)
        self._settle()

    def _leave(self, waiter: _Waiter[C]) -> None:
        """The caller gives up. Its turn may have come in the same moment: then it goes to the next in line."""
        if not waiter.turn.done():
            waiter.turn.cancel()
            self._waiters.remove(waiter)
        elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
            self._give_back(waiter.turn.result())

    def _give_back(self, turn: _Turn[C]) -> None:
        if turn.member is not None:
            self._release(turn.member.connection)
        else:
            self._connect_failed()

    def _exchange(self, dead: C, mailbox: str | None) -> _Turn[C]:
        """Another turn for a caller whose connection turned out dead. The slot stays theirs: nobody overtakes."""
        self._leased.pop(id(dead), None)
        dead.abort()
        if self._closed:
            self._settle()
            raise _pool_is_closed()
        member = self._take_idle(mailbox)
        if member is None:
            self._connecting += 1
        self._settle()
        return _Turn(member)

    def _drop(self, connection: C) -> None:
        self._leased.pop(id(connection), None)
        connection.abort()
        self._settle()

    def _connected(self, member: _Member[C]) -> C:
        self._connecting -= 1
        self._opened_total += 1
        if self._closed:
            member.connection.abort()
            self._settle()
            raise _pool_is_closed()
        self._leased[id(member.connection)] = member
        return member.connection

    def _connect_failed(self) -> None:
        self._connecting -= 1
        self._settle()

    def _release(self, connection: C) -> None:
        member = self._leased.pop(id(connection), None)
        if member is None or connection.closed or connection.busy:  # None: close() took it away from its holder
            connection.abort()
        elif self._closed or member.generation != self._generation:
            self._say_goodbye(connection)
        else:
            self._idle.append(_Idle(member, self._loop.time()))
        self._settle()

    def _take_idle(self, mailbox: str | None) -> _Member[C] | None:
        """Lease an idle connection: one with the mailbox open, else the freshest, so that the others shrink away."""
        self._forget_dead()
        if not self._idle:
            return None
        place = len(self._idle) - 1
        for index, one in enumerate(self._idle):
            selected = one.member.connection.selected
            if mailbox is not None and selected is not None and selected.path == mailbox:
                place = index
        member = self._idle.pop(place).member
        self._leased[id(member.connection)] = member
        selected = member.connection.selected
        if mailbox is not None and selected is not None and selected.path != mailbox:
            member.connection.forget_selected()
        return member

    def _forget_dead(self) -> None:
        """A server may hang up on a connection while it idles here."""
        for one in self._idle:
            if one.member.connection.closed:
                one.member.connection.abort()
        self._idle = [one for one in self._idle if not one.member.connection.closed]

    def _settle(self) -> None:
        """After any change: serve who waits, set the timer for what idles, and tell ``close`` when all is done."""
        while self._waiters:
            waiter = self._waiters[0]
            if not waiter.turn.done():
                member = self._take_idle(waiter.mailbox)
                if member is None:
                    if self._slots() >= self._settings.size:
                        break
                    self._connecting += 1
                waiter.turn.set_result(_Turn(member))
            self._waiters.popleft()
        self._set_timer()
        if self._closed and not self._slots():
            self._at_rest.set()

    def _slots(self) -> int:
        return len(self._leased) + len(self._idle) + self._connecting + len(self._closing)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._idle:
            self._timer = self._loop.call_at(self._idle[0].since + self._settings.max_idle_seconds, self._shrink)

    def _shrink(self) -> None:
        oldest_allowed = self._loop.time() - self._settings.max_idle_seconds
        # The timer may fire a clock tick early; the one it was set for goes in any case.
        stale = [one for index, one in enumerate(self._idle) if index == 0 or one.since <= oldest_allowed]
        self._idle = self._idle[len(stale) :]
        for one in stale:
            self._say_goodbye(one.member.connection)
        self._settle()

    def _say_goodbye(self, connection: C) -> None:
        """Close politely, in a task of the pool's own that no caller's cancellation reaches. It holds its slot till
        then.
        """
        if connection.closed:
            connection.abort()
            return
        task = self._loop.create_task(self._goodbye(connection), name="imap pool: goodbye")
        self._closing[task] = connection
        task.add_done_callback(self._goodbye_done)

    def _goodbye_done(self, task: asyncio.Task[None]) -> None:
        del self._closing[task]
        if not task.cancelled():
            task.exception()  # logout never raises by contract; were it to, the connection is aborted all the same
        self._settle()

    def _shut(self) -> None:
        self._closed = True
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.turn.done():
                waiter.turn.set_exception(_pool_is_closed())
        idle, self._idle = self._idle, []
        for one in idle:
            self._say_goodbye(one.member.connection)
        self._settle()

    def _take_leases_away(self) -> None:
        leased, self._leased = self._leased, {}
        for member in leased.values():
            member.connection.abort()
        self._settle()

    def _cut_goodbyes(self) -> None:
        for task, connection in self._closing.items():
            task.cancel()
            connection.abort()


def _pool_is_closed() -> ConnectionLostError:
    return ConnectionLostError("the connection pool of the account is closed")
