"""The budget of a host, in virtual time: a thousand accounts, minutes of failing in each way, and the way back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.virtual_time import run_in_virtual_time
from mailmill.errors import (
    AuthenticationError,
    CertificateError,
    CommandError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    MailmillError,
    ProtocolError,
)
from mailmill.imap.host_budget import LONGEST_PAUSE_SECONDS, HostBudget, HostBudgets, HostLimits
from mailmill.sync.failures import Action, classify, delay_seconds

LIMITS = HostLimits(logins_per_second=20, login_burst=40, opening=20)
ACCOUNTS = 1000


class Connection:
    def __init__(self) -> None:
        self.closed = False
        self._callback: Callable[[], None] = lambda: None

    def when_closed(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def close(self) -> None:
        self.closed = True
        self._callback()


@dataclass
class Server:
    """What the network makes of each attempt. ``fails`` raises, or hangs; None: all is well."""

    fails: Callable[[], Awaitable[None]] | None = None
    login_seconds: float = 0.05
    attempts: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def connect(self) -> Connection:
        self.attempts.append(asyncio.get_running_loop().time())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.login_seconds)
            if self.fails is not None:
                await self.fails()
            return Connection()
        finally:
            self.under_way -= 1


def at_once(error: Callable[[], MailmillError]) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error()

    return fail


async def time_out() -> None:
    await asyncio.sleep(15)
    raise ConnectError("did not answer")


async def hang() -> None:
    await asyncio.Event().wait()


WAYS: dict[str, Callable[[], Awaitable[None]]] = {
    "refused": at_once(lambda: ConnectError("refused")),
    "timeout": time_out,
    "hangs": hang,
    "certificate": at_once(lambda: CertificateError("expired", hint="renew it")),
    "bye": at_once(lambda: ConnectionLostError("BYE too many")),
    "limit": at_once(lambda: CommandError("LOGIN", "NO", "LIMIT", "too many connections")),
    "unavailable": at_once(lambda: CommandError("LOGIN", "NO", "UNAVAILABLE", "later")),
    "nonsense": at_once(lambda: ProtocolError("not IMAP")),
}


class Account:
    """An account's life as `AccountSync` lives it: connect within a lease's deadline, back off, come when called."""

    def __init__(self, name: str, budget: HostBudget, server: Server, jitter: random.Random) -> None:
        self.name, self.budget, self.server, self.jitter = name, budget, server, jitter
        self.called = asyncio.Event()
        self.connection: Connection | None = None
        self.connected_at = 0.0
        self.tries = 0
        self.stopped = False
        budget.call_back(name, self.called.set)

    async def live(self) -> None:
        failures = 0
        while self.connection is None:
            self.tries += 1
            try:
                async with asyncio.timeout(30):
                    self.connection = await self.budget.open(self.name, self.server.connect)
                self.connected_at = asyncio.get_running_loop().time()
            except (MailmillError, TimeoutError) as error:
                failures += 1
                action = classify(error)
                if action is Action.STOP_ACCOUNT:
                    self.stopped = True
                    return
                self.called.clear()
                try:
                    async with asyncio.timeout(delay_seconds(failures, action, jitter=self.jitter)):
                        await self.called.wait()
                except TimeoutError:
                    pass


def fleet(budget: HostBudget, server: Server, count: int = ACCOUNTS) -> tuple[list[Account], list[asyncio.Task[None]]]:
    accounts = [Account(f"a{number}", budget, server, random.Random(number)) for number in range(count)]
    return accounts, [asyncio.create_task(account.live()) for account in accounts]


def most_within(attempts: list[float], seconds: float) -> int:
    most = first = 0
    for index, at in enumerate(attempts):
        while attempts[first] < at - seconds:
            first += 1
        most = max(most, index - first + 1)
    return most


@pytest.mark.parametrize("way", WAYS)
def test_no_storm_whatever_fails_and_all_come_back(way: str) -> None:
    async def body() -> None:
        server = Server(WAYS[way])
        budget = HostBudget("imap.example.org", LIMITS, jitter=random.Random(1))
        accounts, tasks = fleet(budget, server)
        await asyncio.sleep(300)
        assert most_within(server.attempts, 1) <= LIMITS.login_burst + LIMITS.logins_per_second
        assert server.most_under_way <= LIMITS.opening
        later = [at for at in server.attempts if at > 120]
        assert 2 <= len(later) <= 40, "a host that is away is asked now and then, by one"
        assert most_within(later, 5) <= 5
        assert budget.stats.held_back > 100

        server.fails = None
        before = len(server.attempts)
        healed_at = asyncio.get_running_loop().time()
        async with asyncio.timeout(1000):
            await asyncio.gather(*tasks)
        took = max(account.connected_at for account in accounts) - healed_at
        # A hung probe is given up at the lease's deadline of 30 s; then a pause; then everybody, at the host's pace.
        assert took <= 30 + LONGEST_PAUSE_SECONDS + ACCOUNTS / LIMITS.logins_per_second + 10
        assert most_within(server.attempts[before:], 1) <= LIMITS.login_burst + LIMITS.logins_per_second
        stats = budget.stats
        assert (stats.connections, stats.opening, stats.waiting, stats.pause_seconds) == (ACCOUNTS, 0, 0, 0)

    run_in_virtual_time(body())


def test_a_restart_of_ten_thousand_accounts_keeps_to_the_pace_and_leaves_nobody_out() -> None:
    async def body() -> None:
        server = Server()
        budget = HostBudget("imap.example.org", LIMITS)
        accounts, tasks = fleet(budget, server, 10_000)
        await asyncio.gather(*tasks)
        last = max(account.connected_at for account in accounts)
        assert most_within(server.attempts, 1) <= LIMITS.login_burst + LIMITS.logins_per_second
        assert last <= 10_000 / LIMITS.logins_per_second + 30
        assert max(account.tries for account in accounts) <= 20

    run_in_virtual_time(body())


def test_callers_begin_in_order() -> None:
    async def body() -> None:
        budget = HostBudget("h", HostLimits(logins_per_second=1, login_burst=1, opening=5))
        began: list[int] = []

        async def connect(number: int) -> Connection:
            began.append(number)
            await asyncio.sleep(0)
            return Connection()

        await asyncio.gather(*(budget.open(f"a{n}", lambda n=n: connect(n)) for n in range(12)))
        assert began == list(range(12))
        assert asyncio.get_running_loop().time() == pytest.approx(11, abs=0.5)

    run_in_virtual_time(body())


def test_wrong_passwords_and_one_accounts_trouble_slow_nobody() -> None:
    async def body() -> None:
        budget = HostBudget("h", LIMITS)
        wrong = Server(at_once(lambda: AuthenticationError("wrong")))
        full = Server(at_once(lambda: CommandError("LOGIN", "NO", "LIMIT", "too many connections of this user")))
        broken = Server(at_once(lambda: ConfigurationError("no password")))
        for _ in range(20):
            for number in range(5):
                with pytest.raises(AuthenticationError):
                    await budget.open(f"wrong{number}", wrong.connect)
                with pytest.raises(ConfigurationError):
                    await budget.open(f"broken{number}", broken.connect)
            with pytest.raises(CommandError):
                await budget.open("full", full.connect)
        assert budget.stats.pause_seconds == 0
        await budget.open("well", Server().connect)
        assert (budget.stats.refused, budget.stats.succeeded) == (100, 1)

    run_in_virtual_time(body())


def test_failures_that_lie_far_apart_do_not_add_up() -> None:
    async def body() -> None:
        budget = HostBudget("h", LIMITS)
        full = Server(at_once(lambda: CommandError("LOGIN", "NO", "LIMIT", "too many")))
        for number in range(10):
            with pytest.raises(CommandError):
                await budget.open(f"a{number}", full.connect)
            await asyncio.sleep(20)
        assert budget.stats.pause_seconds == 0

    run_in_virtual_time(body())


def test_while_paused_the_error_of_the_others_is_told_and_nothing_is_asked() -> None:
    async def body() -> None:
        budget = HostBudget("h", LIMITS, jitter=random.Random(3))
        server = Server(WAYS["certificate"])
        for number in range(3):
            with pytest.raises(CertificateError):
                await budget.open(f"a{number}", server.connect)
        assert budget.stats.pause_seconds > 0
        with pytest.raises(CertificateError, match="expired") as told:
            await budget.open("a9", server.connect)
        assert "renew it" in told.value.hint
        assert "3 accounts" in told.value.hint
        assert len(server.attempts) == 3

    run_in_virtual_time(body())


def test_whose_turn_came_before_a_pause_does_not_make_it_longer() -> None:
    async def body() -> None:
        budget = HostBudget("h", HostLimits(opening=3), jitter=random.Random(3))
        answers: list[asyncio.Future[Connection]] = []

        async def connect() -> Connection:
            answers.append(asyncio.get_running_loop().create_future())
            return await answers[-1]

        tasks = [asyncio.create_task(budget.open(f"a{number}", connect)) for number in range(5)]
        await asyncio.sleep(1)
        for answer in answers[:3]:  # each gives its place to one who waits, the last one begins the pause
            answer.set_exception(ConnectError("refused"))
        await asyncio.sleep(0.01)
        pause = budget.stats.pause_seconds
        assert len(answers) == 5
        for answer in answers[3:]:
            answer.set_exception(ConnectError("refused"))
        await asyncio.sleep(0.01)
        assert 0 < budget.stats.pause_seconds < pause
        await asyncio.gather(*tasks, return_exceptions=True)

    run_in_virtual_time(body())


def test_one_probe_at_a_time_and_a_cancelled_one_makes_way() -> None:
    async def body() -> None:
        budget = HostBudget("h", LIMITS, jitter=random.Random(3))
        server = Server(WAYS["refused"])
        for number in range(3):
            with pytest.raises(ConnectError):
                await budget.open(f"a{number}", server.connect)
        await asyncio.sleep(budget.stats.pause_seconds + 0.01)
        server.fails = hang
        probe = asyncio.create_task(budget.open("probe", server.connect))
        await asyncio.sleep(1)
        with pytest.raises(ConnectError):
            await budget.open("another", server.connect)
        probe.cancel()
        await asyncio.wait({probe})
        server.fails = None
        await budget.open("another", server.connect)
        assert budget.stats.pause_seconds == 0

    run_in_virtual_time(body())


def test_no_more_connections_than_allowed_and_the_next_is_called_when_one_closes() -> None:
    async def body() -> None:
        budget = HostBudget("h", HostLimits(connections=2))
        server = Server()
        first = await budget.open("a", server.connect)
        await budget.open("b", server.connect)
        called = asyncio.Event()
        budget.call_back("c", called.set)
        with pytest.raises(ConnectError, match="all 2 connections"):
            await budget.open("c", server.connect)
        first.close()
        await called.wait()
        await budget.open("c", server.connect)
        assert budget.stats.connections == 2

    run_in_virtual_time(body())


def test_hosts_do_not_share() -> None:
    async def body() -> None:
        budgets = HostBudgets(lambda host: HostLimits(login_burst=len(host)))
        assert budgets.of("IMAP.example.org.") is budgets.of("imap.example.org")
        dead, well = budgets.of("dead"), budgets.of("well")
        for number in range(5):
            with pytest.raises(ConnectError):
                await dead.open(f"a{number}", Server(WAYS["refused"]).connect)
        await well.open("a9", Server().connect)
        assert [stats.host for stats in budgets.stats] == ["imap.example.org", "dead", "well"]

    run_in_virtual_time(body())


@pytest.mark.parametrize("wrong", [{"logins_per_second": 0}, {"login_burst": 0}, {"opening": 0}, {"connections": 0}])
def test_limits_that_would_never_let_anybody_in(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="host"):
        HostLimits(**wrong)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "cancel", "cancel", "answer", "answer", "fail", "close", "wait"]),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 3), st.sampled_from([None, 1, 3]))
def test_whoever_is_cancelled_whenever_no_place_is_lost(
    steps: list[tuple[str, int, int]], opening: int, connections: int | None
) -> None:
    async def body() -> None:
        budget = HostBudget("h", HostLimits(5, 2, opening, connections), jitter=random.Random(5))
        answers: list[asyncio.Future[Connection]] = []
        tasks: list[asyncio.Task[Connection]] = []
        opened: list[Connection] = []

        async def connect() -> Connection:
            answer: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
            answers.append(answer)
            try:
                connection = await answer
            finally:
                answers.remove(answer)
            opened.append(connection)
            return connection

        def check() -> None:
            stats = budget.stats
            assert 0 <= stats.opening <= opening
            assert stats.waiting >= 0
            assert stats.connections >= 0
            assert len(answers) <= stats.opening
            assert connections is None or stats.connections + stats.opening <= connections

        for kind, which, turns in steps:
            waiting = [answer for answer in answers if not answer.done()]
            living = [task for task in tasks if not task.done()]
            alive = [connection for connection in opened if not connection.closed]
            match kind:
                case "come":
                    budget.call_back(f"a{which}", lambda: None)
                    tasks.append(asyncio.create_task(budget.open(f"a{which}", connect)))
                case "cancel" if living:
                    living[which % len(living)].cancel()
                case "answer" if waiting:
                    waiting[which % len(waiting)].set_result(Connection())
                case "fail" if waiting:
                    waiting[which % len(waiting)].set_exception(ConnectError("no"))
                case "close" if alive:
                    alive[which % len(alive)].close()
                case "wait":
                    await asyncio.sleep(which)
            check()
            for _ in range(turns):
                await asyncio.sleep(0)
                check()
        while any(not task.done() for task in tasks):
            for answer in answers:
                if not answer.done():
                    answer.set_result(Connection())
            await asyncio.sleep(0.1)
            check()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (budget.stats.opening, budget.stats.waiting) == (0, 0), "a place leaked"
        for connection in opened:
            if not connection.closed:
                connection.close()
        assert budget.stats.connections == 0
        await asyncio.sleep(LONGEST_PAUSE_SECONDS)
        await budget.open("last", lambda: asyncio.sleep(0, Connection()))

    run_in_virtual_time(body())
