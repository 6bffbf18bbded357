"""A processor run again over the past: asked for here, put into the queue piece by piece, and how far it is.

What is asked for is a row, and a task of every process carries rows on that are not done, or not all taken back: a
crash, a restart or a node that dies stops nothing. Pieces are short, and between two of them the writer is left to
others for as long as the piece took.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from mailmill.app import one_pass
from mailmill.app.figures import Kept
from mailmill.app.views import iso
from mailmill.errors import ConflictError, InvalidRequestError, MailmillError, NotFoundError
from mailmill.store import accounts as account_store
from mailmill.store import reprocess, reprocess_cancel, reprocess_pieces
from mailmill.store.database import WakeName
from mailmill.store.reprocess import Lane, ReprocessRow, Wanted

if TYPE_CHECKING:
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

        ``wait`` answers when all has been processed. Where no service runs, all is queued when it answers, and with
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
                account_ids=tuple(row.id for row in rows),
                mailboxes=tuple(mailboxes),
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
            total = await self._count(row)
            return _view(row, Lane(0, 0)) | {"id": None, "state": "dryRun", "total": total, "left": total}
        async with self._app.database.write() as connection:
            row = await reprocess.create(connection, declared.name, declared.version, wanted, self._app.clock())
        _log.info("reprocessing asked for", id=row.id, processor=row.processor, version=row.version)
        if self._app.running:
            self._news.set()
            if wait:
                await self._until_processed(row.id)
        else:
            await self._carry_on(row)
            if wait:
                await one_pass.process_all(self._app, self._app.make_dispatcher())
        return await self.show(row.id, fresh=True)

    async def show(self, reprocess_id: int, *, fresh: bool = False) -> JsonObject:
        """One of them, with how much of it is left, which is kept as all figures are. Raises NotFoundError."""
        async with self._app.database.read() as connection:
            row = await reprocess.get(connection, reprocess_id)
        return _view(row, await self._lane(row.processor, fresh=fresh))

    async def list(self) -> list[JsonObject]:
        """Those of the last 30 days, the newest first."""
        async with self._app.database.read() as connection:
            rows = await reprocess.list_all(connection)
        lanes = {name: await self._lane(name) for name in {row.processor for row in rows}}
        return [_view(row, lanes[row.processor]) for row in rows]

    async def cancel(self, reprocess_id: int) -> JsonObject:
        """Queue no more of it, and drop what is queued and has not begun; what has begun goes on. Answers with
        :meth:`show`'s object and, as ``dropped``, how many messages are not processed again by that.

        Goes on by itself where the wait is given up, and where others hold the last rows for longer than a moment: it
        is still ``cancelling`` then. Raises NotFoundError, and ConflictError where all is done.
        """
        shown = await self.show(reprocess_id, fresh=True)
        if shown["state"] == "done":
            raise ConflictError(
                f"reprocessing {reprocess_id} is done", hint="what it made stays; an older version does not come back"
            )
        async with self._app.database.write() as connection:
            row = await reprocess_cancel.mark(connection, reprocess_id)
        dropped = await self._take_back(row) if row.state == "cancelling" else 0
        _log.info("reprocessing was cancelled", id=row.id, processor=row.processor, dropped=dropped)
        self._news.set()
        return await self.show(reprocess_id, fresh=True) | {"dropped": dropped}

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
            total = await self._count(row)
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

    async def _count(self, row: ReprocessRow) -> int:
        """How many messages it is about; a snapshot for each window, so that none is held long."""
        total = position = 0
        while position < row.last_id:
            async with self._app.database.read() as connection:
                found = await reprocess_pieces.look(connection, row, position, limit=reprocess_pieces.WINDOW_MESSAGES)
            total, position = total + len(found.message_ids), found.reached
        return total

    async def _until_processed(self, reprocess_id: int) -> None:
        # Nothing tells that the last row of one is done: workers know rows, not what they are of.
        while (await self.show(reprocess_id))["state"] == "running":  # noqa: ASYNC110
            await asyncio.sleep(_WAIT_POLL_SECONDS)

    async def _lane(self, processor: str, *, fresh: bool = False) -> Lane:
        kept = self._lanes.get(processor)
        if kept is None:
            kept = self._lanes[processor] = Kept(self._app.database, partial(reprocess.lane, processor=processor))
        lane = await kept.get(fresh=fresh)
        # That nothing is left ends the waiting, so it must not be from before the rows came; to count none is cheap.
        return lane if lane.left or fresh else await kept.get(fresh=True)

    def _processor(self, name: str) -> Processor:
        for declared in self._app.processors:
            if declared.name == name:
                return declared
        known = ", ".join(sorted(declared.name for declared in self._app.processors)) or "none"
        raise NotFoundError(f"no processor {name!r} is configured", hint=f"configured: {known}")


def _view(row: ReprocessRow, lane: Lane) -> JsonObject:
    """``left`` counts what is still to be queued and what of it still waits or runs; others' backlog for the same
    processor may hide in it, so it is never more than what was asked for."""
    total = max(row.total or 0, row.queued)
    unqueued = 0 if row.done or row.cancelled else None if row.total is None else max(1, total - row.queued)
    left = None if unqueued is None else unqueued + min(row.queued, lane.left)
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
        "total": row.queued if row.done or row.cancelled else row.total,
        "queued": row.queued,
        "left": left,
        "failed": lane.failed,
        "createdAt": iso(row.created_at),
        "queuedAt": iso(row.finished_at),
    }


def _seconds(moment: datetime | None) -> float | None:
    """Epoch seconds; a time without a zone is in UTC."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
