"""What one host is asked for by all accounts of this process: logins per second, connections, and none while it fails.

::

              ┌─────────────── a login is answered (also: wrong password) ◀──────────────┐
              ▼                                                                          │
    open ── _ACCOUNTS_IN_A_ROW accounts fail, none gets through ──▶ paused ──time──▶ one probe ──fails──▶ paused, longer
                                                                 ▲                                          │
                                                                 └──────────────────────────────────────────┘

The laws of this file:

1. In any span of t seconds no more than ``login_burst + t * logins_per_second`` attempts begin, whatever fails, and at
   most ``opening`` are under way at once. While the host is paused none begins, after it one.
2. What one account meets may be its own fault: its password, its quota of connections. What several accounts meet one
   after the other, with no success between, is the host's, and all accounts of the host leave it in peace.
3. Callers begin in the order in which they came. One whose turn would come too late is told at once instead of being
   left to wait into its deadline; it is called back, in order, when there is room (`HostBudget.call_back`).
4. As in the pool, state changes in functions that are not coroutines, so that a cancellation finds it before or after.

Waiting for a host takes nothing from other hosts, and a wrong password costs nobody else anything but its one login.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mailmill.errors import (
    ArgumentError,
    AuthenticationError,
    CertificateError,
    ConnectError,
    ImapError,
    InsecureError,
    MailmillError,
)

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0

_ACCOUNTS_IN_A_ROW = 3
# Accounts whose own trouble lasts try again every few minutes: their failures must not add up over time.
_IN_A_ROW_SECONDS = 30.0
# Shorter than a lease's patience (`PoolSettings.acquire_timeout_seconds`), so that a turn is used when it comes.
_LONGEST_WAIT_SECONDS = 15.0
# An attempt that was given up after this long had no answer; sooner, it is only that nobody wants it any more.
_NO_ANSWER_SECONDS = 8.0


class Closing(Protocol):
    """What the budget needs of a connection; ``ImapConnection`` has it."""

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when the connection is closed; at once if it is."""


C = TypeVar("C", bound=Closing)


@dataclass(frozen=True, slots=True)
class HostLimits:
    """``connections`` open to the host at once, by all accounts together; None: as many as the accounts' pools ask for.

    ``opening`` at once are being opened. ``logins_per_second`` on average, ``login_burst`` at once after a quiet time.
    """

    logins_per_second: float = 20.0
    login_burst: int = 40
    opening: int = 20
    connections: int | None = None

    def __post_init__(self) -> None:
        if self.logins_per_second <= 0 or min(self.login_burst, self.opening) < 1:
            raise ValueError("a host needs to be asked now and then")
        if self.connections is not None and self.connections < 1:
            raise ValueError("a host needs at least one connection")


@dataclass(frozen=True, slots=True)
class HostStats:
    """Counts at one moment. ``pause_seconds``: how much longer the host is left in peace, 0 where it is not.

    ``succeeded``, ``refused`` (the credentials) and ``failed`` count attempts since the start; ``held_back`` those who
    were told to come later.
    """

    host: str
    waiting: int
    opening: int
    connections: int
    pause_seconds: float
    succeeded: int
    refused: int
    failed: int
    held_back: int


@dataclass(slots=True, eq=False)
class _Waiter:
    """``turn`` brings how often the host had been paused in a row when it came."""

    account: str
    turn: asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an account met, and when."""

    error: MailmillError
    at: float


class HostBudget:
    """The budget of one host. Belongs to one event loop; holds no task, and a timer only while somebody waits."""

    def __init__(self, host: str, limits: HostLimits | None = None, *, jitter: random.Random | None = None) -> None:
        self._host = host
        self._limits = limits or HostLimits()
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._loop = asyncio.get_running_loop()
        self._tokens = float(self._limits.login_burst)
        self._tokens_at = self._loop.time()
        self._waiters: deque[_Waiter] = deque()
        self._opening = 0
        self._connections = 0
        self._failing: dict[str, _Seen] = {}  # accounts that failed since the last answer, oldest first
        self._pauses = 0
        self._paused_until = 0.0
        self._probing = False
        self._turned_away: dict[str, None] = {}  # accounts, in the order in which they came
        self._call_back: dict[str, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._succeeded = self._refused = self._failed = self._held_back = 0

    def call_back(self, account: str, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time that ``account`` was turned away, or failed with its host, and may try again."""
        self._call_back[account] = callback

    async def open(self, account: str, connect: Callable[[], Awaitable[C]]) -> C:
        """What ``connect`` returns, when it is this caller's turn.

        ``connect`` opens and authenticates a connection of ``account``. Raises whatever it raises, and ConnectError
        (CertificateError) without a call where the host is paused or the queue too long. Can be cancelled at any point.
        """
        probing, pauses = await self._turn(account)
        began = self._loop.time()
        try:
            connection = await connect()
        except BaseException as error:
            self._ended(account, error, probing=probing, began=began, pauses=pauses)
            raise
        self._ended(account, None, probing=probing, began=began, pauses=pauses)
        self._connections += 1
        connection.when_closed(self._connection_closed)
        return connection

    @property
    def stats(self) -> HostStats:
        return HostStats(
            host=self._host,
            waiting=len(self._waiters),
            opening=self._opening,
            connections=self._connections,
            pause_seconds=max(0.0, self._paused_until - self._loop.time()) if self._pauses else 0.0,
            succeeded=self._succeeded,
            refused=self._refused,
            failed=self._failed,
            held_back=self._held_back,
        )

    async def _turn(self, account: str) -> tuple[bool, int]:
        """Wait for the turn, now counted in ``_opening``: whether it is the probe of a paused host, and the pauses in a
        row before it came. (A pause may begin between the turn and the moment in which its caller goes on.)
        """
        probing = self._check(account)
        waiter = _Waiter(account, self._loop.create_future())
        self._waiters.append(waiter)
        self._settle()
        try:
            return probing, await waiter.turn
        except asyncio.CancelledError:
            self._leave(waiter, probing=probing)
            raise

    # -- the state: no coroutine below this line -----------------------------------------------------------------------

    def _check(self, account: str) -> bool:
        """Whether ``account`` comes as the probe. Raises where it comes too early or too late."""
        now = self._loop.time()
        if self._pauses:
            if now < self._paused_until or self._probing:
                self._turn_away(account)
                raise self._still_paused()
            self._probing = True
            self._turned_away.pop(account, None)
            return True
        if len(self._waiters) >= self._room():
            self._turn_away(account)
            raise ConnectError(
                f"{self._host}: {len(self._waiters)} others are waiting for a connection",
                hint="it comes by itself, in turn; service.host_logins_per_second sets the pace",
            )
        if self._limits.connections is not None and self._taken() + len(self._waiters) >= self._limits.connections:
            self._turn_away(account)
            raise ConnectError(
                f"{self._host}: all {self._limits.connections} connections that we may have are in use",
                hint="raise service.host_connections, or set a smaller pool.size for the accounts",
            )
        self._turned_away.pop(account, None)
        return False

    def _turn_away(self, account: str) -> None:
        self._held_back += 1
        if account in self._call_back:
            self._turned_away.setdefault(account)
        self._set_timer()

    def _still_paused(self) -> ConnectError:
        """The error that the accounts before met: it is what this one would meet."""
        last = next(reversed(self._failing.values())).error
        kind = CertificateError if isinstance(last, CertificateError) else ConnectError
        others = (
            f"{len(self._failing)} accounts of this host met it; it is tried at least every {LONGEST_PAUSE_SECONDS:g} s"
        )
        return kind(last.message, hint=f"{last.hint}; {others}" if last.hint else others)

    def _room(self) -> int:
        return max(1, int(self._limits.logins_per_second * _LONGEST_WAIT_SECONDS))

    def _taken(self) -> int:
        return self._connections + self._opening

    def _leave(self, waiter: _Waiter, *, probing: bool) -> None:
        """The caller was cancelled. Its turn may have come in the same moment: its token is spent, its place is not."""
        if waiter.turn.cancelled():
            if waiter in self._waiters:  # else it was passed over, or its line was sent away, a moment ago
                self._waiters.remove(waiter)
            # Perhaps the caller's own deadline: then it wants to come again.
            self._turn_away(waiter.account)
        elif waiter.turn.exception() is None:
            self._opening -= 1
        if probing:
            self._probing = False
        self._settle()

    def _ended(self, account: str, error: BaseException | None, *, probing: bool, began: float, pauses: int) -> None:
        self._opening -= 1
        if probing:
            self._probing = False
        if error is None or isinstance(error, AuthenticationError):
            self._succeeded += error is None
            self._refused += error is not None
            self._answered()
        elif (blamed := self._blames_host(error, began)) is not None:
            self._failed += 1
            self._note(account, blamed)
            if account in self._call_back:
                self._turned_away.setdefault(account)
            # What began before the pause says nothing new.
            if pauses == self._pauses and (probing or len(self._failing) >= _ACCOUNTS_IN_A_ROW):
                self._pause()
        elif not isinstance(error, asyncio.CancelledError):
            self._failed += 1
        self._settle()

    def _note(self, account: str, error: MailmillError) -> None:
        now = self._loop.time()
        self._failing.pop(account, None)
        if not self._pauses:
            self._failing = {who: seen for who, seen in self._failing.items() if now - seen.at < _IN_A_ROW_SECONDS}
        self._failing[account] = _Seen(error, now)

    def _blames_host(self, error: BaseException, began: float) -> MailmillError | None:
        """The error that may be the host's, None where it is not (our settings, our disk, nobody waits any more)."""
        if isinstance(error, ImapError) and not isinstance(error, InsecureError | ArgumentError):
            return error
        if isinstance(error, asyncio.CancelledError | TimeoutError):
            if self._loop.time() - began < _NO_ANSWER_SECONDS:
                return None
            return ConnectError(f"{self._host} does not answer", hint="check host, port and network")
        return None

    def _answered(self) -> None:
        """The host is well."""
        self._failing.clear()
        if self._pauses:
            self._pauses = 0
            self._call(self._room())

    def _pause(self) -> None:
        ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._pauses, 16))
        self._pauses += 1
        self._paused_until = self._loop.time() + self._jitter.uniform(ceiling / 10, ceiling)
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.turn.done():
                self._turn_away(waiter.account)
                waiter.turn.set_exception(self._still_paused())

    def _call(self, most: int) -> None:
        """Call back the first ``most`` of those who were turned away. They come, or they don't."""
        for account in list(self._turned_away)[:most]:
            del self._turned_away[account]
            self._loop.call_soon(self._call_back[account])

    def _connection_closed(self) -> None:
        self._connections -= 1
        if self._limits.connections is not None and not self._pauses:
            self._call(1)
        self._settle()

    def _settle(self) -> None:
        """After any change: let begin who may, and set the timer for who may later."""
        self._fill()
        while self._waiters and self._may_begin():
            waiter = self._waiters.popleft()
            if waiter.turn.done():
                continue
            self._tokens -= 1
            self._opening += 1
            waiter.turn.set_result(self._pauses)
            if not self._pauses:
                self._call(1)
        self._set_timer()

    def _may_begin(self) -> bool:
        return self._tokens >= 1 and self._opening < self._limits.opening

    def _fill(self) -> None:
        now = self._loop.time()
        gained = (now - self._tokens_at) * self._limits.logins_per_second
        self._tokens = min(float(self._limits.login_burst), self._tokens + gained)
        self._tokens_at = now

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        due: float | None = None
        if self._waiters and self._opening < self._limits.opening:
            # A little late rather than a little early, when the token would be a rounding error short.
            due = now + max(0.0, 1 - self._tokens) / self._limits.logins_per_second + 0.001
        elif self._pauses and self._turned_away and not self._probing:
            due = self._paused_until
        if due is not None:
            self._timer = self._loop.call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._pauses and not self._probing and self._loop.time() >= self._paused_until:
            # Somebody has to find out. If the one who is called does not come, the next is, a while later.
            self._call(1)
            if self._turned_away:
                self._timer = self._loop.call_later(1.0, self._due)
            return
        self._settle()


class HostBudgets:
    """One budget for each host, made when it is first asked for."""

    def __init__(self, limits_of: Callable[[str], HostLimits] | None = None) -> None:
        """``limits_of`` gives the limits of a host name in lower case."""
        self._limits_of = limits_of or (lambda _host: HostLimits())
        self._budgets: dict[str, HostBudget] = {}

    def of(self, host: str) -> HostBudget:
        name = host.lower().rstrip(".")
        budget = self._budgets.get(name)
        if budget is None:
            budget = self._budgets[name] = HostBudget(name, self._limits_of(name))
        return budget

    @property
    def stats(self) -> list[HostStats]:
        return [budget.stats for budget in self._budgets.values()]
