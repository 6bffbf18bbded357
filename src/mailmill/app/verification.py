"""Verifying accounts: when somebody asks, and by itself now and then.

The light look of the timer compares every UID and flag and a few contents of each mailbox, one account at a time and
spread over the interval, so that ten thousand accounts are no storm. It repairs nothing: it tells.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from mailmill.app import views
from mailmill.app.account_tasks import take_account
from mailmill.app.borrowing import Borrowing
from mailmill.app.one_pass import refused
from mailmill.errors import ConflictError, MailmillError
from mailmill.model import AccountState
from mailmill.sync.verify import Doors, VerifyOptions, VerifyProgress, VerifyReport, verify_account
from mailmill.sync.verify_compare import MOST_LISTED, Gap, Sampling
from mailmill.sync.verify_doors import OwnDoors, RunningDoors

if TYPE_CHECKING:
    from mailmill.app.account_tasks import RunningAccount
    from mailmill.app.application import Application

JsonObject = dict[str, Any]

_log = structlog.get_logger("mailmill.verify")

_LIGHT = Sampling(newest=3, random=3)
# Accounts that one request looks at side by side.
_SIDE_BY_SIDE = 4
# The first look after a start comes within this; from then on the interval counts.
_FIRST_WITHIN_SECONDS = 6 * 3600.0
# A look that takes longer is given up until the next time: others wait for their turn.
_LONGEST_LIGHT_SECONDS = 3600.0
_GAPS_LOGGED = 3
_RANGES_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class LastVerify:
    """What the last look that met no error brought: when it was over (epoch seconds), and gaps by kind."""

    at: float
    gaps: Mapping[str, int]


class Verification:
    """One per application. What it remembers is of this process: after a restart there is no last look."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._turns: dict[str, asyncio.Lock] = {}
        self._progress: dict[str, VerifyProgress] = {}
        self._last: dict[str, LastVerify] = {}
        self._jitter = random.Random()  # noqa: S311 - spreads load, guards nothing

    def last(self, account: str) -> LastVerify | None:
        return self._last.get(account)

    def state(self) -> JsonObject:
        """How far running looks are, and how the last ones ended."""
        return {"accounts": [self._state(name) for name in sorted(self._app.accounts)]}

    async def verify(
        self, accounts: Sequence[RunningAccount], *, full: bool, repair: bool, seed: int | None
    ) -> JsonObject:
        """Look at each account; one that fails has its ``error`` and holds up no other."""
        began = time.monotonic()
        options = VerifyOptions(sampling=Sampling(full=full, seed=seed), repair=repair)
        slots = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def one(account: RunningAccount) -> VerifyReport:
            async with slots:
                return await self._one(account, options)

        reports = await asyncio.gather(*(one(account) for account in accounts))
        return {
            "seconds": round(time.monotonic() - began, 6),
            "clean": not any(report.gaps or report.error for report in reports),
            "accounts": [report_view(report) for report in reports],
        }

    async def run(self, interval_seconds: float) -> None:
        """Look at every account once in about ``interval_seconds``, for ever. To be run where accounts are synced."""
        loop = asyncio.get_running_loop()
        first = min(interval_seconds, _FIRST_WITHIN_SECONDS)
        due = [(loop.time() + self._jitter.uniform(0.1, 1.0) * first, name) for name in self._app.accounts]
        heapq.heapify(due)
        while due:
            at, name = heapq.heappop(due)
            await asyncio.sleep(max(0.0, at - loop.time()))
            await self._light_look(name)
            heapq.heappush(due, (loop.time() + interval_seconds * self._jitter.uniform(0.9, 1.1), name))

    async def _light_look(self, name: str) -> None:
        account = self._app.accounts[name]
        if not account.kept or account.sync.view().state is not AccountState.CONNECTED or name in self._progress:
            # In its first sync, away, or being looked at: what there is to say is said by its state.
            return
        try:
            async with asyncio.timeout(_LONGEST_LIGHT_SECONDS):
                await self._one(account, VerifyOptions(sampling=_LIGHT))
        except TimeoutError:
            _log.warning("verify took too long and was given up until the next time", account=name)
        except Exception as error:  # noqa: BLE001 - the boundary: a look is not worth the service's life
            _log.error("verify failed", account=name, exception="".join(traceback.format_exception(error)))

    async def _one(self, account: RunningAccount, options: VerifyOptions) -> VerifyReport:
        name = account.configured.name
        async with self._turns.setdefault(name, asyncio.Lock()), Borrowing(self._app).open() as own:
            if self._app.has_other_nodes and not account.kept:
                return VerifyReport(name, error=_not_here(name))
            if not account.kept:
                if not await own.borrow(account):
                    return VerifyReport(name, error=_elsewhere(name))
                await take_account(self._app, account)
                if account.row.state is AccountState.AUTHENTICATION_ERROR:
                    # Changed credentials have cleared it.
                    return VerifyReport(name, error=refused(account))
            progress = self._progress[name] = VerifyProgress()
            try:
                report = await verify_account(
                    account.database,
                    self._app.blobs,
                    account=name,
                    account_id=account.row.id,
                    globs=account.configured.sync.mailboxes,
                    doors=self._doors(account),
                    options=options,
                    progress=progress,
                )
            finally:
                self._progress.pop(name, None)
        self._note(report)
        return report

    def _doors(self, account: RunningAccount) -> Doors:
        if account.kept:
            return RunningDoors(account.sync, account.connect, pool_size=account.configured.sync.pool.size)
        return OwnDoors(account.sync, account.connect)

    def _note(self, report: VerifyReport) -> None:
        if report.error is not None:
            error = report.error
            _log.warning("not verified", account=report.account, error=error.message, hint=error.hint)
            return
        counts = {str(kind): count for kind, count in report.counts().items()}
        self._last[report.account] = LastVerify(time.time(), counts)
        if report.gaps:
            _log.warning(
                "the store differs from the server",
                account=report.account,
                gaps=counts,
                first=[
                    f"{gap.path}: {gap.kind} {_uids_text(gap, 5)} {gap.detail}" for gap in report.gaps[:_GAPS_LOGGED]
                ],
                hint="mailmill verify --repair",
            )

    def _state(self, name: str) -> JsonObject:
        progress, last = self._progress.get(name), self._last.get(name)
        running = None
        if progress is not None:
            running = {
                "phase": progress.phase,
                "mailbox": progress.mailbox,
                "done": progress.done,
                "total": progress.total,
            }
        return {"account": name, "running": running, "last": last_view(last)}


def _not_here(name: str) -> MailmillError:
    """Of an account that a service does not keep: another node may, or none (it is paused, or its node is gone)."""
    return ConflictError(
        "this node does not keep it in sync",
        hint="verify it on the node that does: `mailmill account list` shows which, if any; none where it is paused",
        account=name,
    )


def _elsewhere(name: str) -> MailmillError:
    """An account is compared and repaired where it is kept in sync: there nothing of it changes in the middle."""
    return ConflictError(
        "another node keeps it in sync",
        hint="verify it on that node: `mailmill status` shows which one has it",
        account=name,
    )


def last_view(last: LastVerify | None) -> JsonObject | None:
    """The last look in the words of the contract."""
    return None if last is None else {"at": views.iso(last.at), "gaps": dict(last.gaps)}


def report_view(report: VerifyReport) -> JsonObject:
    """One account's part of ``mailmill verify --json``. Of each list the first `MOST_LISTED` entries; ``counts`` is of
    all gaps.
    """
    return {
        "account": report.account,
        "full": report.full,
        "mailboxes": report.mailboxes,
        "messages": report.messages,
        "contents": report.contents,
        "counts": {str(kind): count for kind, count in report.counts().items()},
        "gaps": _gap_views(report.gaps),
        "repaired": _gap_views(report.repaired),
        "settled": _gap_views(report.settled),
        "unverified": [{"path": path, "reason": reason} for path, reason in sorted(report.unverified.items())],
        "seconds": round(report.seconds, 6),
        "error": views.error(report.error),
    }


def _gap_views(gaps: Sequence[Gap]) -> list[JsonObject]:
    return [
        {
            "kind": str(gap.kind),
            "path": gap.path,
            "uids": _uids_text(gap, _RANGES_SHOWN),
            "count": gap.count,
            "detail": gap.detail,
        }
        for gap in gaps[:MOST_LISTED]
    ]


def _uids_text(gap: Gap, most_ranges: int) -> str:
    """``"1:3,7"``; what is too long ends in ``…``."""
    ranges = gap.uids.ranges
    text = ",".join(str(low) if low == high else f"{low}:{high}" for low, high in ranges[:most_ranges])
    return f"{text},…" if len(ranges) > most_ranges else text
