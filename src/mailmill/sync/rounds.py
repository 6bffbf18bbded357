"""One session's rounds: watch, follow what is told, and say when the next pass is due and how much of it.

::

    until_due ──▶ watch ──told──▶ sync the mailboxes told of ──▶ watch … ──▶ due: a sweep, a poll, a request, a wake-up

Three clocks, each late by no more than a tenth: the *sweep* looks at the numbers of what the server does not push, the
*poll* looks at everything, whatever was pushed, and the *probe* (`watch`) proves the link.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from mailmill.imap.connection import ImapConnection, Told
from mailmill.imap.providers import Provider
from mailmill.sync.account_pass import AccountPass
from mailmill.sync.context import SyncContext
from mailmill.sync.report import PassReport
from mailmill.sync.watch import Push, Watcher, WatchSettings, sweep_seconds

# A message that lost its last place is confirmed deleted, or found elsewhere, this soon.
ORPHAN_SECONDS = 1.0
# Looks are spread over the last tenth of their interval: many accounts connect in the same second.
_EARLIEST = 0.9


@dataclass(frozen=True, slots=True)
class Intervals:
    """``poll_seconds``: how often everything is looked at. ``sweep_seconds``: what the server does not push."""

    poll_seconds: float
    sweep_seconds: float
    watch: WatchSettings


class Wanted(asyncio.Event):
    """Set, it ends every wait. `set` asks for a full pass, `stir` only for a look at the requests; `clear` takes both
    back, and is for whoever sees to them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a_pass = False

    def set(self) -> None:
        self.a_pass = True
        super().set()

    def stir(self) -> None:
        super().set()

    def clear(self) -> None:
        self.a_pass = False
        super().clear()


class Rounds:
    """Made for one session on ``main``. ``wanted`` asks for a pass at once; whoever makes the pass clears it."""

    def __init__(
        self,
        context: SyncContext,
        main: ImapConnection,
        mailboxes: AccountPass,
        wanted: Wanted,
        intervals: Intervals,
        *,
        provider: Provider,
        notify: bool,
        apply: Callable[[], Awaitable[None]],
    ) -> None:
        """``notify`` False: NOTIFY is not to be tried. ``apply`` sees to requests between passes."""
        self._context = context
        self._main = main
        self._pass = mailboxes
        self._wanted = wanted
        self._apply = apply
        self._intervals = intervals
        probe_seconds = min(intervals.watch.probe_seconds, provider.idle_probe_seconds)
        settings = replace(intervals.watch, probe_seconds=probe_seconds)
        self._watcher = Watcher(main, wanted, settings, account=context.account, notify=notify)
        self._poll_at = 0.0
        self._slept = False
        self._by_clock = False
        self._jitter = random.Random()  # noqa: S311 - spreads load, guards nothing
        self.went_mute = False

    # -- what can be seen ---------------------------------------------------------------------------------------------

    @property
    def push(self) -> Push:
        return self._watcher.push

    @property
    def pushed(self) -> str | None:
        """The one mailbox that the server tells of; None where it tells of all it can, or of none."""
        watched = self._pass.watched if self.push is Push.IDLE else None
        return watched.path if watched is not None else None

    @property
    def sweep_seconds(self) -> float:
        """How often what the server does not tell of is looked at."""
        rest = self._pass.paths - {self.pushed}
        poll_seconds = self._intervals.poll_seconds
        if not rest or self._watcher.pushes(rest):
            return poll_seconds
        commands = 1 if self._main.features.list_status else len(rest)
        return sweep_seconds(self._intervals.sweep_seconds, commands=commands, poll_seconds=poll_seconds)

    # -- the rounds ---------------------------------------------------------------------------------------------------

    def woke(self) -> None:
        """The machine slept: the link is to be proven before anything else."""
        self._slept = True
        self._wanted.set()

    async def begin(self) -> None:
        """Before the session's first pass."""
        self._poll_at = asyncio.get_running_loop().time() + self._intervals.poll_seconds * _EARLIEST
        await self._watcher.begin()

    async def until_due(self, *, orphans: bool) -> bool:
        """Watch and follow until a pass is due; whether it is to be a thorough one. ``orphans`` want one soon.

        Raises `ImapError` where the link is dead, and what syncing a mailbox raises.
        """
        loop = asyncio.get_running_loop()
        sweep_after = self.sweep_seconds * self._jitter.uniform(_EARLIEST, 1.0)
        due_at = loop.time() + (ORPHAN_SECONDS if orphans else sweep_after)
        while not self._wanted.a_pass and loop.time() < due_at:
            if self._wanted.is_set():
                self._wanted.clear()
                await self._apply()
            else:
                await self._watch(due_at)
        if self._slept:
            self._slept = False
            await self._main.probe(self._intervals.watch.wake_answer_seconds)
        self._by_clock = not self._wanted.a_pass
        if loop.time() < self._poll_at:
            return not self._by_clock
        await self.begin()
        return True

    def passed(self, report: PassReport, *, thorough: bool) -> None:
        """A pass is through."""
        if thorough and self._by_clock:
            self._watcher.polled(found=bool(report.new or report.updated or report.expunged))

    async def _watch(self, until: float) -> None:
        """Until news was dealt with, a pass is wanted, or it is ``until`` (loop time)."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        watched = self._pass.watched
        path = watched.path if watched is not None else None
        told = await self._watcher.wait(path, until - began, self._pass.moved_since)
        if told:
            found = await self._follow(told)
            self._watcher.was_worth_it(loop.time() - began, found=found)

    async def _follow(self, told: Told) -> bool:
        """Look into what the server told. Whether there was something."""
        if told.overflow:
            self.went_mute = True
            await self._watcher.overflowed()
            self.went_mute = False
        if self._pass.surprised(told):
            self._pass.relist()
            self._wanted.set()
        found = False
        for path in self._pass.concerned(told):
            report = PassReport(self._context.account)
            known = await self._pass.one_mailbox(self._main, path, report, arrived_at=self._context.clock())
            if not known or report.expunged:
                # Renamed, deleted, or on its way to another mailbox: only a full pass can tell.
                self._wanted.set()
            found = found or bool(report.new or report.updated or report.expunged or self._pass.backlogs)
        return found
