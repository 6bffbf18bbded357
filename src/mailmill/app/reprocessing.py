"""A processor run again over the past: asked for here, put into the queue piece by piece, and how far it is.

What is asked for is a row, and a task of every process carries rows on that are not done, or not all taken back: a
crash, a restart or a node that dies stops nothing. Pieces are short, and between two of them the writer is left to
others for as long as the piece took.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Collection, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from mailmill.app import one_pass
from mailmill.app.figures import Kept
from mailmill.app.views import iso
from mailmill.errors import ConflictError, InvalidRequestError, MailmillError, NotFoundError
from mailmill.store import accounts as account_store
from mailmill.store import processors, reprocess, reprocess_cancel, reprocess_pieces, reprocess_scope
from mailmill.store.database import WakeName
from mailmill.store.reprocess import Lane, ReprocessRow, Wanted

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.app.application import Application
    from mailmill.processing.registry import Processor

JsonObject = dict[str, Any]

_POLL_SECONDS: Final = 15.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
# A look that finds nothing to queue is noted now and then, so that a restart does not begin at the front.
_NOTE_SECONDS: Final = 5.0
_WAIT_POLL_SECONDS: Final = 0.5
_MISSES: Final = 20
_MISS_PAUSE_SECONDS: Final = 0.1
_WAKE_WORK: Final[tuple[WakeName, ...]] = ("work",)

_log = structlog.get_logger("mailmill.reprocess")


class Reprocessing:
    """One per application."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._news = asyncio.Event()
        self._lanes: dict[str, Kept[Lane]] = {}
        self._left: dict[int, Kept[int]] = {}

    async def start(
        self,
        *,
        processor: str,
        accounts: Sequence[str] = (),
        mailboxes: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        failed: bool = False,
        version_below: int | None = None,
        everything: bool = False,
        dry_run: bool = False,
        wait: bool = False,
    ) -> JsonObject:
        """Ask for it; answers with :meth:`show`'s object, with ``dry_run`` only with how many messages it would be.

        Where the same was asked for and is not over, that goes on, and is what is answered with (``joined``). ``wait``
        answers when all has been processed. Where no service runs, all is queued when it answers, and with
        ``wait`` the work is done here. Raises NotFoundError for a processor, account or mailbox that is not there,
        InvalidRequestError for what does not go together.
        """
        declared = self._processor(processor)
        if everything and (failed or version_below is not None):
            raise InvalidRequestError("all goes neither with failed nor with a version", hint="choose one of them")
        if version_below is not None and not 1 <= version_below <= declared.version:
            raise InvalidRequestError(
                f"there is nothing to be gained below version {version_below}: version {declared.version} of "
                f"{declared.name!r} is the one that runs",
                hint=f"give a version from 1 to {declared.version}; to run this version again over all, ask for all",
            )
        async with self._app.database.read() as connection:
            rows = [await account_store.get_account(connection, name) for name in accounts]
            wanted = Wanted(
                account_ids=tuple(sorted({row.id for row in rows})),
                mailboxes=tuple(sorted(set(mailboxes))),
                since=_seconds(since),
                until=_seconds(until),
                failed=failed,
                below=version_below,
                everything=everything,
            )
            if unknown := await reprocess.missing_mailboxes(connection, wanted):
                raise NotFoundError(f"there is no mailbox {unknown[0]!r}", hint="the paths: mailmill mailbox list")
        if dry_run:
            async with self._app.database.read() as connection:
                row = await reprocess.preview(connection, declared.name, declared.version, wanted, self._app.clock())
                paused = await processors.paused(connection)
            total = await self._count(row)
            told = _view(row, 0, 0, paused=row.processor in paused)
            return told | {"id": None, "state": "dryRun", "total": total, "left": total}
        joined = await self._join(declared, wanted)
        if joined is None:
            async with self._app.database.write() as connection:
                row = await reprocess.create(connection, declared.name, declared.version, wanted, self._app.clock())
            _log.info("reprocessing asked for", id=row.id, processor=row.processor, version=row.version)
        else:
            row = joined
        if self._app.running:
            self._news.set()
            if wait:
                await self._until_processed(row.id)
        else:
            await self._carry_on(row)
            if wait:
                await one_pass.process_all(self._app, self._app.make_dispatcher())
        return await self.show(row.id, fresh=True) | {"joined": joined is not None}

    async def show(self, reprocess_id: int, *, fresh: bool = False) -> JsonObject:
        """One of them, with how much of it is left, which is kept as all figures are. Raises NotFoundError."""
        async with self._app.database.read() as connection:
            row = await reprocess.get(connection, reprocess_id)
            paused = await processors.paused(connection)
        return await self._tell(row, await self._lane(row.processor, fresh=fresh), paused, fresh=fresh)

    async def list(self) -> list[JsonObject]:
        """Those of the last 30 days, the newest first."""
        async with self._app.database.read() as connection:
            rows = await reprocess.list_all(connection)
            paused = await processors.paused(connection)
        lanes = {name: await self._lane(name) for name in {row.processor for row in rows}}
        return [await self._tell(row, lanes[row.processor], paused) for row in rows]

    async def cancel(self, reprocess_id: int) -> JsonObject:
        """Queue no more of it, and drop what is queued and has not begun; what has begun goes on. So with all that were
        asked for the same messages and are not over. Answers with :meth:`show`'s object and, as ``dropped``, how many
        messages are not processed again by that.

        Goes on by itself where the wait is given up, and where others hold the last rows for longer than a moment: it
        is still ``cancelling`` then. Raises NotFoundError, and ConflictError where all is done.
        """
        shown = await self.show(reprocess_id, fresh=True)
        if shown["state"] == "done":
            raise ConflictError(
                f"reprocessing {reprocess_id} is done", hint="what it made stays; an older version does not come back"
            )
        if shown["state"] == "cancelled":
            return shown | {"dropped": 0}
        async with self._app.database.read() as connection:
            row = await reprocess.get(connection, reprocess_id)
        same = await self._at_work(row.processor, row.wanted)
        dropped, _ = await self._cancel({reprocess_id, *(each.id for each in same)})
        return await self.show(reprocess_id, fresh=True) | {"dropped": sum(dropped.values())}

    async def cancel_all(self, processor: str) -> JsonObject:
        """As :meth:`cancel`, all of a processor that are not over: ``cancelled`` tells what became of each, ``dropped``
        and ``begun`` (messages that are or were processed again all the same) are of all together.
        """
        at_work = await self._at_work(processor)
        dropped, begun = await self._cancel({each.id for each in at_work})
        told = [await self.show(each, fresh=True) | {"dropped": dropped[each]} for each in sorted(dropped)]
        return {"processor": processor, "dropped": sum(dropped.values()), "begun": begun, "cancelled": told}

    async def run(self) -> None:
        """Carry on what was asked for, for ever."""
        failures = 0
        while True:
            self._news.clear()
            pause = _POLL_SECONDS * random.uniform(0.7, 1)  # noqa: S311 - jitter
            try:
                async with self._app.database.read() as connection:
                    rows = await reprocess.list_running(connection)
                for row in rows:
                    if row.cancelled:
                        await self._take_back(row)
                        continue
                    # A processor that is not configured any more comes back, or its row is forgotten in time.
                    if any(declared.name == row.processor for declared in self._app.processors):
                        await self._carry_on(row)
                failures = 0
            except Exception as error:  # noqa: BLE001 - the boundary: it is carried on later
                failures += 1
                pause = min(_LONGEST_PAUSE_SECONDS, 2.0 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311
                trace = "" if isinstance(error, MailmillError) else "".join(traceback.format_exception(error))
                _log.warning("reprocessing waits", error=str(error), exception=trace)
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _carry_on(self, row: ReprocessRow) -> None:
        """Until all is queued, or until the next time: an older version is running over some, or another process has
        it in hand."""
        database, loop = self._app.database, asyncio.get_running_loop()
        if row.total is None:
            async with database.read() as connection:
                waiting = await reprocess_scope.left(connection, row)
            total = waiting + await self._count(row)
            async with database.write() as connection:
                await reprocess.set_total(connection, row.id, total)
        looked, noted_at = row.position, loop.time()
        while not row.done:
            async with database.read() as connection:
                found = await reprocess_pieces.look(connection, row, looked)
            if not found.message_ids and found.reached < row.last_id and loop.time() - noted_at < _NOTE_SECONDS:
                looked = found.reached
                continue
            began = loop.time()
            async with database.write(wake=_WAKE_WORK) as connection:
                moved = await reprocess_pieces.put_piece(connection, row, found, self._app.clock())
            if moved is None or (not moved.done and found.reached >= row.last_id):
                return
            row, looked, noted_at = moved, moved.position, loop.time()
            await asyncio.sleep(noted_at - began)
        _log.info("reprocessing is queued", id=row.id, processor=row.processor, messages=row.queued)

    async def _take_back(self, row: ReprocessRow) -> int:
        """What it has queued and has not begun; returns how many rows. Cut anywhere, it is carried on by `run`."""
        database, loop = self._app.database, asyncio.get_running_loop()
        dropped = misses = 0
        while misses < _MISSES:
            taken = 0
            for step in reprocess_cancel.STEPS:
                began = loop.time()
                async with database.write() as connection:
                    piece = await reprocess_cancel.take_back(connection, row, step, self._app.clock())
                taken += piece
                await asyncio.sleep(loop.time() - began if piece else 0)
            dropped += taken
            if taken:
                misses = 0
                continue
            async with database.write() as connection:
                if not await reprocess_cancel.is_left(connection, row):
                    await reprocess_cancel.close(connection, row, self._app.clock())
                    break
            # Others are at what is left, and hold nothing for long.
            misses += 1
            await asyncio.sleep(_MISS_PAUSE_SECONDS)
        return dropped

    async def _count(self, row: ReprocessRow, after: int = 0) -> int:
        """How many messages are to be queued for it; a snapshot for each window, so that none is held long."""
        total, position = 0, after
        while position < row.last_id:
            async with self._app.database.read() as connection:
                found = await reprocess_pieces.look(connection, row, position, limit=reprocess_pieces.WINDOW_MESSAGES)
            total, position = total + len(found.message_ids), found.reached
        return total

    async def _join(self, declared: Processor, wanted: Wanted) -> ReprocessRow | None:
        """The same that is not over, which from now on is also about the messages that came since."""
        for row in await self._at_work(declared.name, wanted):
            if row.cancelled or row.version != declared.version:
                continue
            async with self._app.database.read() as connection:
                newest = await reprocess.newest_message(connection)
            more = await self._count(replace(row, last_id=newest), after=row.last_id)
            if not more:
                return row
            async with self._app.database.write() as connection:
                return await reprocess.extend(connection, row, newest, more)
        return None

    async def _at_work(self, processor: str, wanted: Wanted | None = None) -> Sequence[ReprocessRow]:
        """Those that are not over, the newest first."""
        async with self._app.database.read() as connection:
            rows = await reprocess.list_of(connection, processor, wanted)
        lane = await self._lane(processor, fresh=True)
        return [row for row in rows if not row.done or await self._in_queue(row, lane, fresh=True)]

    async def _cancel(self, reprocess_ids: Set[int]) -> tuple[dict[int, int], int]:
        """How many messages are not processed again, by request, and how many of all these are: told by what they had
        queued, for `run` takes back as well.
        """
        if not reprocess_ids:
            return {}, 0
        async with self._app.database.write() as connection:
            marked = await reprocess_cancel.mark(connection, reprocess_ids)
        for row in marked:
            if row.state == "cancelling":
                await self._take_back(row)
        async with self._app.database.read() as connection:
            queued = {row.id: (await reprocess.get(connection, row.id)).queued for row in marked}
        dropped = {row.id: row.queued - queued[row.id] for row in marked}
        _log.info("reprocessing was cancelled", ids=sorted(queued), dropped=sum(dropped.values()))
        self._news.set()
        return dropped, max(0, sum(queued.values()))

    async def _until_processed(self, reprocess_id: int) -> None:
        # Nothing tells that the last row of one is done: workers know rows, not what they are of.
        while (await self.show(reprocess_id))["state"] == "running":  # noqa: ASYNC110
            await asyncio.sleep(_WAIT_POLL_SECONDS)

    async def _tell(self, row: ReprocessRow, lane: Lane, paused: Collection[str], *, fresh: bool = False) -> JsonObject:
        return _view(row, await self._in_queue(row, lane, fresh=fresh), lane.failed, paused=row.processor in paused)

    async def _lane(self, processor: str, *, fresh: bool = False) -> Lane:
        kept = self._lanes.get(processor)
        if kept is None:
            kept = self._lanes[processor] = Kept(self._app.database, partial(reprocess.lane, processor=processor))
        lane = await kept.get(fresh=fresh)
        # That nothing is left ends the waiting, so it must not be from before the rows came; to find none is cheap.
        return lane if lane.oldest_at is not None or fresh else await kept.get(fresh=True)

    async def _in_queue(self, row: ReprocessRow, lane: Lane, *, fresh: bool) -> int:
        """Rows of it that wait or run. An old lane does: its oldest row was there when newer ones came."""
        if lane.oldest_at is None or (row.finished_at is not None and row.finished_at < lane.oldest_at):
            return 0

        async def count(connection: AsyncConnection) -> int:
            return await reprocess_scope.left(connection, await reprocess.get(connection, row.id))

        kept = self._left.setdefault(row.id, Kept(self._app.database, count))
        left = await kept.get(fresh=fresh)
        if not left and not fresh:  # as for the lane
            left = await kept.get(fresh=True)
        if not left:
            self._left.pop(row.id, None)
        return left

    def _processor(self, name: str) -> Processor:
        for declared in self._app.processors:
            if declared.name == name:
                return declared
        known = ", ".join(sorted(declared.name for declared in self._app.processors)) or "none"
        raise NotFoundError(f"no processor {name!r} is configured", hint=f"configured: {known}")


def _view(row: ReprocessRow, in_queue: int, failed: int, *, paused: bool) -> JsonObject:
    """``left`` counts what is still to be queued and what of it still waits or runs. Until all is queued, what was in
    the queue before is in both, so it is never more than ``total``."""
    queued = max(0, row.queued)
    if row.cancelled:
        total: int | None = queued
        left: int | None = min(queued, in_queue)
    elif row.done:
        total, left = max(row.total or 0, in_queue), in_queue
    elif row.total is None:
        total = left = None
    else:
        total = max(row.total, queued)
        left = min(total, max(1, total - queued) + in_queue)
    wanted = row.wanted
    return {
        "id": str(row.id),
        "processor": row.processor,
        "version": row.version,
        "state": row.state if row.cancelled else "running" if left is None or left else "done",
        "since": iso(wanted.since),
        "until": iso(wanted.until),
        "failedOnly": wanted.failed,
        "versionBelow": wanted.below,
        "all": wanted.everything,
        "total": total,
        "queued": queued,
        "left": left,
        "failed": failed,
        "paused": paused,
        "createdAt": iso(row.created_at),
        "queuedAt": iso(row.finished_at),
    }


def _seconds(moment: datetime | None) -> float | None:
    """Epoch seconds; a time without a zone is in UTC."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
