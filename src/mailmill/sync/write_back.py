"""Carrying out requests on the account's own connection: rows in, commands out, outcomes back into the rows.

`write_plan` decides, this asks and commits. Laws:

* A step is committed before its command goes out (`requests.begin`), its outcome as soon as the server has answered.
  Whatever is cut in between is taken up from the row.
* The store's places and flags are not touched here: what a command did is learnt by the sync that follows, on the same
  connection, like what anybody else did. So a message keeps its id and each change is told once.
* One request's failure holds up no other message's; an error of the connection itself is raised, the rows stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from mailmill.errors import (
    ArgumentError,
    CommandError,
    ImapError,
    StorageUnavailableError,
    StoreError,
    UnsupportedError,
)
from mailmill.imap.connection import ImapConnection
from mailmill.imap.replies import CopyReply
from mailmill.model import Flags, MailboxStatus, Uid
from mailmill.store import requests
from mailmill.store.database import WakeName
from mailmill.store.message_queries import places_of
from mailmill.store.request_rows import Failure, Place, RequestKind, RequestRow, Step
from mailmill.sync import write_plan
from mailmill.sync.context import SyncContext
from mailmill.sync.write_plan import MOST_ATTEMPTS, Act, Shown
from mailmill.sync.write_search import find_made
from mailmill.uid_set import UidSet

_WAKE: tuple[WakeName, ...] = ("requests",)
_DELETED: Flags = frozenset({"\\Deleted"})
_STORE_RETRY_SECONDS = 30.0
_GONE_ALREADY = "it was gone already"
_ONLY_MARKED = "marked \\Deleted, not removed: the server cannot remove single messages (no UIDPLUS)"


@dataclass(frozen=True, slots=True)
class Applied:
    """``touched``: mailboxes to be synced now, in this order: what came in before what went out. ``lost``: requests
    whose place is gone, to be looked for after a full pass (`WriteBack.find_lost`).
    """

    touched: tuple[str, ...] = ()
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _Done:
    row: RequestRow
    made: tuple[int, Uid] | None = None
    note: str = ""


class WriteBack:
    """The requests of one account. ``wake`` is called when one is due again that had to wait."""

    def __init__(self, context: SyncContext, *, wake: Callable[[], None]) -> None:
        self._context = context
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._lost: dict[int, RequestRow] = {}
        self._unsynced: set[int] = set()
        self._targets: dict[str, None] = {}
        self._sources: dict[str, None] = {}
        self._log = structlog.get_logger("mailmill.sync").bind(account=context.account)
        self.wanted = asyncio.Event()
        self.wanted.set()  # whatever was left open before

    @property
    def has_lost(self) -> bool:
        """Whether a full pass is to tell where messages are that requests are about."""
        return bool(self._lost)

    def is_synced(self, request_id: int) -> bool:
        """Whether the store shows what a finished request did."""
        return request_id not in self._unsynced

    def synced(self) -> None:
        """The mailboxes that were touched are synced: whoever waits for an outcome may look."""
        if self._unsynced:
            self._unsynced.clear()
            self._context.database.wake.requests.notify()

    def forget(self) -> None:
        """The connection is gone: the next one begins from the rows, with a full pass."""
        self.wanted.set()
        self._lost.clear()
        self._targets.clear()
        self._sources.clear()
        self.synced()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def apply_pending(self, connection: ImapConnection) -> Applied:
        """Apply what is due, in order, each request tried once. Raises `ImapError` where the connection failed, and
        StoreError; what the server refuses is in the rows.
        """
        self.wanted.clear()
        tried: set[int] = set()
        while rows := await self._due(tried):
            for run in write_plan.runs(rows):
                tried |= {row.id for row in run}
                await self._apply(connection, run)
        await self._set_timer()
        touched = (*(path for path in self._targets if path not in self._sources), *self._sources)
        self._targets.clear()
        self._sources.clear()
        return Applied(touched, bool(self._lost))

    async def find_lost(self) -> None:
        """After a full pass: requests whose place was gone go on where their message is now, or fail."""
        lost, self._lost = self._lost, {}
        for row in lost.values():
            async with self._context.database.read() as reader:
                fresh = await requests.get(reader, row.id)
                held = (await places_of(reader, [row.message_id])).get(row.message_id, []) if row.message_id else []
            places = [Place(place.path, place.uid_validity, Uid(place.uid)) for place in held]
            await self._found(fresh, write_plan.find_again(fresh, places))
        if lost:
            self._wake()

    # -- one command's worth ------------------------------------------------------------------------------------------

    async def _due(self, tried: set[int]) -> list[RequestRow]:
        async with self._context.database.read() as reader:
            rows = await requests.due(reader, self._context.account_id, self._context.clock())
        return [row for row in rows if row.id not in tried and row.id not in self._lost]

    async def _apply(self, connection: ImapConnection, run: Sequence[RequestRow]) -> None:
        try:
            if run[0].place is None:
                await self._append(connection, run[0])
            else:
                await self._change(connection, run)
        except (CommandError, ArgumentError, UnsupportedError) as error:
            if len(run) == 1:
                await self._refused(run[0], error)
                return
            # One of them may be at fault: each by itself, from what its row says now.
            for row in run:
                fresh = await self._fresh(row)
                if not fresh.finished and row.id not in self._lost:
                    await self._apply(connection, [fresh])
        except ImapError as error:
            await self._cut(run, error)
            raise

    async def _change(self, connection: ImapConnection, run: Sequence[RequestRow]) -> None:
        by_act: dict[Act, list[RequestRow]] = {}
        shown = await self._look(connection, run)
        for row in run:
            act: Act | Failure = write_plan.next_act(row, shown[row.id])
            made = None
            if act is Act.SEARCH:
                made = await find_made(connection, self._context, row)
                act = write_plan.after_search(row, shown[row.id], found=made is not None)
            if isinstance(act, Failure):
                await self._fail([(row, act)])
            elif act is Act.REMOVE and made is not None:
                by_act.setdefault(act, []).append(await self._copied(row, made))
            elif act is Act.DONE:
                self._touch(target=row.target_path)
                await self._settle([_Done(row, made or _made_before(row), _why_done(row))])
            else:
                by_act.setdefault(act, []).append(row)
        for kind, rows in by_act.items():
            await self._act(connection, kind, rows)

    async def _act(self, connection: ImapConnection, act: Act, rows: Sequence[RequestRow]) -> None:
        match act:
            case Act.STORE:
                await self._store(connection, rows)
            case Act.MOVE:
                await self._move(connection, rows)
            case Act.COPY:
                await self._copy(connection, rows)
            case Act.REMOVE:
                await self._remove(connection, rows)
            case Act.LOST:
                self._lost |= {row.id: row for row in rows}
            case Act.READ_ONLY:
                await self._fail([(row, _read_only(row)) for row in rows])
            case _:
                raise AssertionError(act)

    async def _look(self, connection: ImapConnection, run: Sequence[RequestRow]) -> dict[int, Shown]:
        """What the server shows of the places of a run, which are all in one mailbox."""
        status = await self._select(connection, _place(run[0]).path)
        read_only = connection.selected is not None and connection.selected.read_only
        uids = UidSet(_place(row).uid for row in run)
        if status is None:
            present = UidSet()
        elif run[0].kind is RequestKind.FLAGS and not read_only:
            # Their STORE tells which are there.
            present = uids
        else:
            present = await connection.search(uids)
        return {
            row.id: Shown(
                status.uid_validity if status is not None else None,
                _place(row).uid in present,
                read_only,
                connection.features.move,
            )
            for row in run
        }

    async def _select(self, connection: ImapConnection, path: str) -> MailboxStatus | None:
        """The mailbox, selected for writing. None: the server has no such mailbox."""
        selected = connection.selected
        if selected is not None and selected.path == path and not selected.read_only:
            return selected.status
        # Synced in any case: that also examines it again, so that we idle without rights to write.
        self._touch(source=path)
        try:
            return await connection.select(path, read_only=False)
        except CommandError as error:
            if error.status != "NO" or write_plan.says_not_now(error):
                raise
            return None

    async def _store(self, connection: ImapConnection, rows: Sequence[RequestRow]) -> None:
        rows = await self._begin(rows, Step.STORE)
        if not rows:
            return
        uids = UidSet(_place(row).uid for row in rows)
        reply = await connection.store_flags(uids, add=rows[0].add, remove=rows[0].remove)
        told = {message.uid: message.flags for message in reply.messages if message.flags is not None}
        # A server need not tell of messages that were as asked already.
        untold = uids - UidSet(told)
        there = await connection.search(untold) if untold else UidSet()
        done, failed = [], []
        for row in rows:
            uid = _place(row).uid
            if uid not in told and uid not in there:
                self._lost[row.id] = row
            elif uid in told and (ignored := _ignored(row, told[uid])):
                failed.append((row, ignored))
            else:
                done.append(_Done(row))
        await self._settle(done)
        await self._fail(failed)

    async def _move(self, connection: ImapConnection, rows: Sequence[RequestRow]) -> None:
        rows = await self._begin_towards(connection, rows, Step.MOVE)
        if not rows:
            return
        uids = UidSet(_place(row).uid for row in rows)
        reply = await connection.move(uids, _target(rows[0]))
        made = _made(rows, reply)
        await self._settle([_Done(row, made[row.id]) for row in rows if row.id in made])
        rest = [row for row in rows if row.id not in made]
        there = await connection.search(UidSet(_place(row).uid for row in rest)) if rest else UidSet()
        for row in rest:
            if _place(row).uid in there:
                await self._later(row, Failure("refused", "the server said that it moved the message, but it did not"))
                continue
            found = await find_made(connection, self._context, row)
            if found is not None:
                await self._settle([_Done(row, found)])
            else:
                # Expunged by somebody between our look and the command: there was nothing to move.
                self._lost[row.id] = row

    async def _copy(self, connection: ImapConnection, rows: Sequence[RequestRow]) -> None:
        rows = await self._begin_towards(connection, rows, Step.COPY)
        if not rows:
            return
        reply = await connection.copy(UidSet(_place(row).uid for row in rows), _target(rows[0]))
        made = _made(rows, reply)
        for row in rows:
            if row.id not in made and (found := await find_made(connection, self._context, row)) is not None:
                made[row.id] = found
        copies = [row for row in rows if row.id in made]
        self._lost |= {row.id: row for row in rows if row.id not in made}
        if rows[0].kind is RequestKind.COPY:
            await self._settle([_Done(row, made[row.id]) for row in copies])
            return
        originals = [await self._copied(row, made[row.id]) for row in copies]
        if originals and await self._select(connection, _place(rows[0]).path) is not None:
            await self._remove(connection, originals)

    async def _remove(self, connection: ImapConnection, rows: Sequence[RequestRow]) -> None:
        """Remove single messages: mark them, then UID EXPUNGE. Never a plain EXPUNGE: it takes what others marked."""
        if await self._select(connection, _place(rows[0]).path) is None:
            self._lost |= {row.id: row for row in rows}
            return
        rows = await self._begin(rows, Step.REMOVE)
        if not rows:
            return
        uids = UidSet(_place(row).uid for row in rows)
        await connection.store_flags(uids, add=_DELETED)
        if not connection.features.uidplus:
            await self._settle([_Done(row, _made_before(row), _ONLY_MARKED) for row in rows])
            return
        gone = await connection.expunge(uids)
        await self._settle([_Done(row, _made_before(row)) for row in rows if _place(row).uid in gone])
        for row in rows:
            if _place(row).uid not in gone:
                await self._later(row, Failure("refused", "the server did not remove the message, and did not say why"))

    async def _append(self, connection: ImapConnection, row: RequestRow) -> None:
        assert row.upload is not None
        if row.step is Step.APPEND and (found := await find_made(connection, self._context, row)) is not None:
            self._touch(target=row.target_path)
            await self._settle([_Done(row, found)])
            return
        async with self._context.database.read() as reader:
            ref = await requests.blob_of(reader, row.upload)
        if ref is None:
            await self._fail([(row, Failure("store", "the bytes to upload are not in the store any more"))])
            return
        try:
            raw = await self._context.blobs.get(ref)
        except StorageUnavailableError as error:
            # The store is away, the upload is not: no try was made.
            await self._wait_for_store(row, Failure(error.code, error.message, error.hint))
            return
        except StoreError as error:
            await self._fail([(row, Failure(error.code, error.message, error.hint))])
            return
        begun = await self._begin_towards(connection, [row], Step.APPEND)
        if not begun:
            return
        upload = row.upload
        reply = await connection.append(_target(row), raw, flags=upload.flags, internal_date=upload.internal_date)
        made = (reply.uid_validity, reply.uid) if reply.uid_validity is not None and reply.uid is not None else None
        await self._settle([_Done(begun[0], made or await find_made(connection, self._context, begun[0]))])

    # -- what goes into the rows --------------------------------------------------------------------------------------

    async def _begin_towards(
        self, connection: ImapConnection, rows: Sequence[RequestRow], step: Step
    ) -> list[RequestRow]:
        """`_begin` for what puts messages into a mailbox. Empty where there is none: then they have failed."""
        path = _target(rows[0])
        [status] = await connection.statuses([path])
        if status is None:
            await self._fail([(row, write_plan.no_mailbox(path)) for row in rows])
            return []
        self._touch(target=path)
        return await self._begin(rows, step, status)

    async def _begin(
        self, rows: Sequence[RequestRow], step: Step, target: MailboxStatus | None = None
    ) -> list[RequestRow]:
        """Commit the step, but for those that were tried often enough. Returns the rows as they are now."""
        await self._fail([(row, _given_up(row)) for row in rows if row.attempts >= MOST_ATTEMPTS])
        rows = [row for row in rows if row.attempts < MOST_ATTEMPTS]
        if not rows:
            return []
        now = self._context.clock()
        retry_at = {row.id: now + write_plan.resume_seconds(row.attempts) for row in rows}
        marks = (target.uid_validity, target.uid_next) if target is not None else None
        async with self._context.database.write() as writer:
            await requests.begin(writer, rows, step, retry_at=retry_at, target=marks)
        begun = [replace(row, step=step, attempts=row.attempts + 1) for row in rows]
        if marks is None:
            return begun
        return [replace(row, target_uid_validity=marks[0], target_uid_next=marks[1], target_uid=None) for row in begun]

    async def _copied(self, row: RequestRow, made: tuple[int, Uid]) -> RequestRow:
        async with self._context.database.write() as writer:
            await requests.copied(writer, row, *made)
        return replace(row, step=Step.REMOVE, target_uid_validity=made[0], target_uid=made[1])

    async def _settle(self, done: Sequence[_Done]) -> None:
        if not done:
            return
        now = self._context.clock()
        self._unsynced |= {each.row.id for each in done}
        async with self._context.database.write() as writer:
            for each in done:
                await requests.finish(writer, each.row, now, made=each.made, note=each.note)

    async def _fail(self, failed: Sequence[tuple[RequestRow, Failure]]) -> None:
        if not failed:
            return
        now = self._context.clock()
        async with self._context.database.write(wake=_WAKE) as writer:
            for row, failure in failed:
                await requests.fail(writer, row, failure, now)
        for row, failure in failed:
            self._log.warning("request failed", request=row.id, kind=str(row.kind), error=failure.message)

    async def _later(self, row: RequestRow, failure: Failure, *, counted: bool = True) -> None:
        """Try again after a while, but not for ever. ``counted``: this try is in ``row.attempts`` already."""
        attempts = row.attempts if counted else row.attempts + 1
        if attempts >= MOST_ATTEMPTS:
            await self._fail([(row, _given_up(replace(row, attempts=attempts, error=failure.message)))])
            return
        run_at = self._context.clock() + write_plan.retry_seconds(attempts)
        async with self._context.database.write(wake=_WAKE) as writer:
            await requests.defer(writer, row, failure, run_at, attempts)

    async def _wait_for_store(self, row: RequestRow, failure: Failure) -> None:
        """Not counted as a try: an outage of the object store, however long, fails nothing for good."""
        run_at = self._context.clock() + _STORE_RETRY_SECONDS
        async with self._context.database.write(wake=_WAKE) as writer:
            await requests.defer(writer, row, failure, run_at, row.attempts)

    async def _refused(self, row: RequestRow, error: ImapError) -> None:
        fresh = await self._fresh(row)
        if not isinstance(error, CommandError):
            await self._fail([(fresh, Failure(error.code, error.message, error.hint))])
            return
        failure = write_plan.failure_of(error, fresh)
        if write_plan.is_for_good(error):
            await self._fail([(fresh, failure)])
        else:
            await self._later(fresh, failure, counted=fresh.attempts > row.attempts)

    async def _cut(self, run: Sequence[RequestRow], error: ImapError) -> None:
        """The connection failed under these. A command that had begun was counted before it went out; so is a look, or
        one that ends every connection would keep the account from all its other work.
        """
        now = self._context.clock()
        for row in run:
            fresh = await self._fresh(row)
            if fresh.finished or fresh.attempts > row.attempts:
                continue
            failure = Failure(error.code, error.message, error.hint)
            if fresh.attempts + 1 >= MOST_ATTEMPTS:
                await self._fail([(fresh, _given_up(replace(fresh, attempts=MOST_ATTEMPTS, error=failure.message)))])
                continue
            run_at = now + write_plan.resume_seconds(fresh.attempts)
            async with self._context.database.write(wake=_WAKE) as writer:
                await requests.defer(writer, fresh, failure, run_at, fresh.attempts + 1)

    async def _found(self, row: RequestRow, again: Place | Act | Failure) -> None:
        if isinstance(again, Place):
            if row.attempts >= MOST_ATTEMPTS:
                await self._fail([(row, Failure("conflict", "the message is moved faster than it can be followed"))])
                return
            async with self._context.database.write() as writer:
                await requests.relocate(writer, row, again, keep_step=row.step is Step.REMOVE)
        elif isinstance(again, Act):
            note = _GONE_ALREADY if row.kind is RequestKind.DELETE and row.step is not Step.REMOVE else ""
            await self._settle([_Done(row, _made_before(row), note)])
        elif again.code == "refused":
            await self._later(row, again, counted=False)
        else:
            await self._fail([(row, again)])

    async def _fresh(self, row: RequestRow) -> RequestRow:
        async with self._context.database.read() as reader:
            return await requests.get(reader, row.id)

    def _touch(self, *, target: str | None = None, source: str | None = None) -> None:
        if target is not None:
            self._targets[target] = None
        if source is not None:
            self._sources[source] = None

    async def _set_timer(self) -> None:
        now = self._context.clock()
        async with self._context.database.read() as reader:
            due_at = await requests.next_due_at(reader, self._context.account_id, now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_at is not None:
            self._timer = asyncio.get_running_loop().call_later(due_at - now, self._wake)


def _place(row: RequestRow) -> Place:
    assert row.place is not None
    return row.place


def _target(row: RequestRow) -> str:
    assert row.target_path is not None
    return row.target_path


def _made(rows: Sequence[RequestRow], reply: CopyReply) -> dict[int, tuple[int, Uid]]:
    """Request id → where its message is now, as far as the server told."""
    if reply.uid_validity is None:
        return {}
    uids = {row.id: reply.uids.get(_place(row).uid) for row in rows}
    return {request_id: (reply.uid_validity, uid) for request_id, uid in uids.items() if uid is not None}


def _made_before(row: RequestRow) -> tuple[int, Uid] | None:
    """What the row tells of the target already; for one whose message was in its target from the start, its place."""
    if row.target_uid_validity is not None and row.target_uid is not None:
        return (row.target_uid_validity, row.target_uid)
    if row.place is not None and row.place.path == row.target_path:
        return (row.place.uid_validity, row.place.uid)
    return None


def _why_done(row: RequestRow) -> str:
    return "it was there already" if row.place is not None and row.place.path == row.target_path else ""


def _ignored(row: RequestRow, flags: Flags | None) -> Failure | None:
    """Some servers say OK and keep no keywords (RFC 9051 §7.1, PERMANENTFLAGS)."""
    now = {flag.lower() for flag in flags or ()}
    missing = sorted(flag for flag in row.add if flag.lower() not in now)
    left = sorted(flag for flag in row.remove if flag.lower() in now)
    if not missing and not left:
        return None
    what = " ".join([*missing, *left])
    return Failure(
        "refused",
        f"the server did not {'set' if missing else 'remove'} {what} in {_place(row).path!r}",
        "it keeps no such flag in this mailbox" if missing else "",
    )


def _read_only(row: RequestRow) -> Failure:
    path = _place(row).path
    return Failure("refused", f"the server opens {path!r} for reading only", "the account has no right to change it")


def _given_up(row: RequestRow) -> Failure:
    why = row.error or "each was cut off: the connection was lost, or there was no room to record what came of it"
    return Failure(row.error_code or "connectionLost", f"given up after {row.attempts} tries: {why}", row.error_hint)
