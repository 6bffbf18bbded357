"""Mail comes steadily to 20 accounts of two nodes, and one of them goes: how long a message waits to be stored.

Two services on one PostgreSQL and one Dovecot, leases as they come. A third process, which syncs nothing, has the
observer (``sides/watched_service``): it notes the monotonic clock, which all processes share, when the event of a
stored message can be read. A wait is from the OK of a message's APPEND to that; what counts is the longest of a round,
over all accounts that the node had. Dovecot tells of a message after half a second, which is in every wait.

A node is killed, or stopped in its tracks, just after it renewed its leases: then they last longest. Each node that
went comes back under the same mail, and the wait is measured of all accounts.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from signal import SIGCONT, SIGSTOP

from bench.figures import Goal, Line, Result, Samples
from bench.fleet import Fleet
from bench.observed import Observed
from bench.processes import BenchError
from bench.service import AccountConfig
from bench.stage import Stage
from bench.steady_mail import SteadyMail, steady_mail

TITLE = "A node goes: longest wait of a message, APPEND to stored"

_ACCOUNTS = 20
_EVERY_SECONDS = 1.0
_QUIET_SECONDS = 10.0
_BEFORE_SECONDS = 3.0
_AFTERWARDS_SECONDS = 2.0
_RENEWED_SECONDS = 0.75
_TIMEOUT_SECONDS = 120.0
_LOOK_SECONDS = 0.1
_LOOKER = "looker"


@dataclass(slots=True)
class _Measured:
    """Seconds by what happened, one for each round; ``raw`` has them by account."""

    longest: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    raw: list[dict[str, object]] = field(default_factory=list)

    def note(self, what: str, waits: dict[str, float]) -> None:
        self.longest[what].append(max(waits.values()))
        self.raw.append({"what": what, "longest_seconds": waits})

    def samples(self, what: str) -> Samples:
        return Samples.of(self.longest[what], "s")


async def measure(stage: Stage) -> Result:
    count = stage.size(_ACCOUNTS, 6)
    stops, kills, freezes = stage.size(5, 2), stage.size(3, 1), stage.size(2, 1)
    stage.bar.expect(1 + stops + kills + freezes)
    server = stage.dovecot
    users = {f"account{number:02}": server.new_user() for number in range(count)}
    accounts = [AccountConfig(name, user, server.port, server.password) for name, user in users.items()]
    url = await asyncio.to_thread(stage.postgres.new_database)
    with stage.folder() as folder:
        async with Observed() as observed, Fleet(stage.programs, "hand_over", folder, url, accounts) as fleet:
            stage.bar.doing("two nodes begin")
            await fleet.begin(_LOOKER, "api", observer_port=observed.port)
            for name in ("a", "b"):
                await fleet.begin(name)
            await fleet.until_spread(_LOOKER, "a", "b")
            async with steady_mail(server, users, observed, every=_EVERY_SECONDS) as mail:
                rounds = _Rounds(fleet, mail, set(users))
                await rounds.quiet()
                stage.bar.advance()
                for what, number, one in (
                    ("stopped", stops, rounds.stop),
                    ("killed", kills, rounds.kill),
                    ("frozen", freezes, rounds.freeze),
                ):
                    for turn in range(number):
                        stage.bar.doing(f"{what}, {turn + 1}/{number}")
                        await one("ab"[turn % 2])
                        stage.bar.advance()
    return _result(rounds.measured)


def _result(measured: _Measured) -> Result:
    aside = {
        "stopped": ("ending", "SIGTERM to the end of its process"),
        "joined": ("joined, equal shares", "its start to equal shares"),
        "killed": ("killed, all back", "the kill to new mail of the last account"),
        "frozen": ("frozen, all back", "SIGSTOP to new mail of the last account"),
    }
    lines = [Line("nothing happens, longest wait", measured.samples("quiet"))]
    for what, words, limit in (
        ("stopped", "a node is stopped in good order", 5),
        ("joined", "a node joins", 5),
        ("killed", "a node is killed", 45),
        ("frozen", "a node is stopped in its tracks", 45),
        ("thawed", "it goes on", 5),
    ):
        samples = measured.samples(what)
        lines.append(Line(f"{words}, longest wait", samples, Goal("at most", limit, "s"), judged=samples.high))
        if what in aside:
            name, told = aside[what]
            lines.append(Line(f"  {told}", measured.samples(name)))
    return Result(tuple(lines), ("the goals are held against the worst of all rounds.",), {"rounds": measured.raw})


class _Rounds:
    def __init__(self, fleet: Fleet, mail: SteadyMail, accounts: set[str]) -> None:
        self.measured = _Measured()
        self._fleet = fleet
        self._mail = mail
        self._accounts = accounts

    async def quiet(self) -> None:
        with self._mail.coming():
            await asyncio.sleep(_BEFORE_SECONDS)
            since = time.monotonic()
            await asyncio.sleep(_QUIET_SECONDS)
            self.measured.note("quiet", await self._waits(self._accounts, since))

    async def stop(self, name: str) -> None:
        async def stop() -> float:
            since = time.monotonic()
            await self._fleet.stop(name)
            self.measured.longest["ending"].append(time.monotonic() - since)
            return since

        await self._goes("stopped", name, stop)
        await self._comes("joined", lambda: self._fleet.begin(name))

    async def kill(self, name: str) -> None:
        async def kill() -> float:
            await self._fleet.until_renewed(_LOOKER, name, _RENEWED_SECONDS)
            since = time.monotonic()
            await self._fleet.kill(name)
            return since

        await self._goes("killed", name, kill)
        await self._comes("joined", lambda: self._fleet.begin(name))

    async def freeze(self, name: str) -> None:
        async def freeze() -> float:
            await self._fleet.until_renewed(_LOOKER, name, _RENEWED_SECONDS)
            since = time.monotonic()
            self._fleet.nodes[name].send_signal(SIGSTOP)
            return since

        async def go_on() -> None:
            self._fleet.nodes[name].send_signal(SIGCONT)

        await self._goes("frozen", name, freeze)
        await self._comes("thawed", go_on)

    async def _goes(self, what: str, name: str, go: Callable[[], Awaitable[float]]) -> None:
        """``go`` gives the moment at which the node was told."""
        with self._mail.coming():
            await asyncio.sleep(_BEFORE_SECONDS)
            owners = await self._fleet.owners(_LOOKER)
            had = {account for account, owner in owners.items() if owner == self._fleet.id_of(name)}
            if not had:
                raise BenchError(f"the node had no account: {owners}")
            since = await go()
            back: dict[str, float] = {}
            while had - back.keys():
                if time.monotonic() > since + _TIMEOUT_SECONDS:
                    raise BenchError(f"nobody took over: {sorted(had - back.keys())}")
                await asyncio.sleep(_LOOK_SECONDS)
                back = self._mail.first_stored(had, since)
            self.measured.longest[f"{what}, all back"].append(max(back.values()) - since)
            self.measured.note(what, await self._waits(had, since))
        await self._settle()

    async def _comes(self, what: str, come: Callable[[], Awaitable[object]]) -> None:
        with self._mail.coming():
            await asyncio.sleep(_BEFORE_SECONDS)
            since = time.monotonic()
            await come()
            await self._fleet.until_spread(_LOOKER, "a", "b")
            self.measured.longest[f"{what}, equal shares"].append(time.monotonic() - since)
            self.measured.note(what, await self._waits(self._accounts, since))
        await self._settle()

    async def _waits(self, accounts: set[str], since: float) -> dict[str, float]:
        """Of what comes until a moment from now; returns when all of it is stored."""
        await asyncio.sleep(_AFTERWARDS_SECONDS)
        until = time.monotonic()
        while missing := self._mail.missing(accounts, until):
            if time.monotonic() > until + _TIMEOUT_SECONDS:
                raise BenchError(f"{missing} messages were not stored")
            await asyncio.sleep(_LOOK_SECONDS)
        return self._mail.waits(accounts, since, until)

    async def _settle(self) -> None:
        """Until what piled up is processed: it is work for the machine, and not what is measured."""
        looker = self._fleet.nodes[_LOOKER]
        await looker.until(
            "an empty queue",
            lambda status: not status["queue"]["pending"] + status["queue"]["processing"],
            "/v1/status",
            _TIMEOUT_SECONDS,
        )
