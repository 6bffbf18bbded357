"""What people and programs ask to have changed on the server: a row in ``request``, and its outcome where one waits.

Nothing is changed in the store here: the account's own task carries the request out (`sync.write_back`), or, where no
service runs, a connection made for it; what came of it comes back by sync.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mailmill.app import views
from mailmill.app.account_tasks import take_account
from mailmill.app.borrowing import Borrowing
from mailmill.errors import (
    ArgumentError,
    AuthenticationError,
    ConflictError,
    ConnectionLostError,
    InvalidRequestError,
    MailmillError,
    NotFoundError,
    RefusedError,
    StoreError,
    UnsupportedError,
)
from mailmill.message_parser import parse_headers
from mailmill.model import INBOX, AccountState, Flags, Uid
from mailmill.store import accounts as account_store
from mailmill.store import message_queries as queries
from mailmill.store import requests
from mailmill.store.blob_places import lost_places
from mailmill.store.blobs import BlobRef
from mailmill.store.mailboxes import MailboxRow, list_mailboxes
from mailmill.store.message_queries import PlaceRow
from mailmill.store.request_rows import NewRequest, Place, RequestKind, RequestRow, RequestState, Upload

if TYPE_CHECKING:
    from mailmill.app.account_tasks import RunningAccount
    from mailmill.app.application import Application

JsonObject = dict[str, Any]

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long a finished request is kept, and with it its idempotency key."""

_SYSTEM_FLAGS = {flag[1:].lower(): flag for flag in ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")}
_KEYWORD = re.compile(r"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]{1,100}")
_MOST_FLAGS = 100
_TRASH = "\\Trash"
_TRASH_NAMES = frozenset({"trash", "bin", "deleted", "deleted items", "deleted messages"})
_LINE_ENDS = re.compile(rb"\r?\n")
_LOOP_HEADER_BYTES = 256 * 1024
# Whether these have to be waited out is not known: whoever asked is told that the request is kept.
_NOT_CONNECTED = frozenset(
    {AccountState.AUTHENTICATION_ERROR, AccountState.CONNECT_ERROR, AccountState.PAUSED, AccountState.DISCONNECTED}
)
_FAILURES: dict[str, type[MailmillError]] = {
    "argument": ArgumentError,
    "conflict": ConflictError,
    "connectionLost": ConnectionLostError,
    "notFound": NotFoundError,
    "store": StoreError,
    "unsupported": UnsupportedError,
}


class Changes:
    """One per application. Each method that asks for something takes an ``idempotency_key`` (the same key is the same
    request, however often it is sent) and waits up to ``wait_seconds`` for the outcome.

    They answer with the request: done, or still to be done. One that failed raises: NotFoundError, ConflictError,
    RefusedError … with the reason.
    """

    def __init__(self, application: Application) -> None:
        self._app = application
        self._alone: dict[str, asyncio.Lock] = {}

    async def flags(
        self,
        account: str,
        message_id: int,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
        path: str | None = None,
        uid: int | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float,
    ) -> JsonObject:
        """Add and remove flags; all others stay as they are."""
        running = self._running(account)
        added, removed = flags_of(add), flags_of(remove)
        if not added and not removed:
            raise InvalidRequestError("no flag is named", hint="give flags to add or to remove")
        if both := added & removed:
            raise InvalidRequestError(f"{min(both)} is to be both added and removed", hint="choose one")
        new = self._new(running, RequestKind.FLAGS, message_id, idempotency_key, add=added, remove=removed)
        return await self._ask(running, new, path, uid, wait_seconds)

    async def move(
        self,
        account: str,
        message_id: int,
        target_path: str,
        *,
        path: str | None = None,
        uid: int | None = None,
        copy: bool = False,
        idempotency_key: str | None = None,
        wait_seconds: float,
    ) -> JsonObject:
        """Move, or ``copy``, to ``target_path``. The message keeps its id."""
        running = self._running(account)
        target = await self._target(running, target_path)
        kind = RequestKind.COPY if copy else RequestKind.MOVE
        new = self._new(running, kind, message_id, idempotency_key, target_path=target)
        return await self._ask(running, new, path, uid, wait_seconds)

    async def delete(
        self,
        account: str,
        message_id: int,
        *,
        path: str | None = None,
        uid: int | None = None,
        permanent: bool = False,
        idempotency_key: str | None = None,
        wait_seconds: float,
    ) -> JsonObject:
        """Move to the trash; what is in it, or is to be deleted ``permanent``-ly, is removed for good."""
        running = self._running(account)
        new = self._new(running, RequestKind.DELETE, message_id, idempotency_key, permanent=permanent)
        return await self._ask(running, new, path, uid, wait_seconds)

    async def append(
        self,
        account: str,
        target_path: str,
        raw: bytes,
        *,
        flags: Collection[str] = (),
        internal_date: float | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float,
    ) -> JsonObject:
        """Upload a message. Lines may end in LF alone; the server gets CRLF, as the standard has it."""
        running = self._running(account)
        if not raw.strip():
            raise InvalidRequestError("the message is empty", hint="send it as message/rfc822 in the request's body")
        named = flags_of(flags)
        target = await self._target(running, target_path)
        whole = await asyncio.to_thread(_LINE_ENDS.sub, b"\r\n", raw)
        headers = parse_headers(whole[:_LOOP_HEADER_BYTES])
        [ref] = await self._app.blobs.put_batch([whole])
        upload = Upload(ref.sha256, named, internal_date, headers.message_id_header)
        new = self._new(running, RequestKind.APPEND, None, idempotency_key, target_path=target, upload=upload)
        return await self._outcome(running, await self._add(running, new, ref), wait_seconds)

    async def requests(self, account: str, *, state: str | None, limit: int) -> list[JsonObject]:
        """The newest first."""
        running = self._running(account)
        async with self._app.database.read() as connection:
            rows = await requests.list_requests(connection, running.row.id, state=state, limit=limit)
            made = await requests.message_at(connection, rows)
        return [views.request(row, account, self._state(running), made.get(row.id)) for row in rows]

    async def request(self, account: str, request_id: int) -> JsonObject:
        running = self._running(account)
        async with self._app.database.read() as connection:
            row = await requests.get(connection, request_id, account_id=running.row.id)
        return await self._view(running, row)

    # -- what is asked for --------------------------------------------------------------------------------------------

    def _new(
        self,
        running: RunningAccount,
        kind: RequestKind,
        message_id: int | None,
        key: str | None,
        *,
        target_path: str | None = None,
        add: Flags = frozenset(),
        remove: Flags = frozenset(),
        upload: Upload | None = None,
        permanent: bool = False,
    ) -> NewRequest:
        if key is not None and not 0 < len(key) <= requests.MAX_KEY_CHARACTERS:
            raise InvalidRequestError(f"an Idempotency-Key has 1 to {requests.MAX_KEY_CHARACTERS} characters")
        return NewRequest(
            running.row.tenant_id,
            running.row.id,
            kind,
            message_id=message_id,
            target_path=target_path,
            add=add,
            remove=remove,
            upload=upload,
            permanent=permanent,
            idempotency_key=key,
        )

    async def _place(self, running: RunningAccount, message_id: int, path: str | None, uid: int | None) -> Place:
        """Where the message is, as far as the store knows. Raises NotFoundError and ConflictError."""
        async with self._app.database.read() as connection:
            await queries.get_message(connection, message_id, account_id=running.row.id)
            places = (await queries.places_of(connection, [message_id])).get(message_id, [])
        return choose_place(message_id, places, path, uid)

    async def _target(self, running: RunningAccount, path: str) -> str:
        """The name of a mailbox to put messages into. What the store does not know the server may: it is asked then."""
        path = _spelled(path)
        if not path:
            raise InvalidRequestError("no mailbox is named")
        for row in await self._mailboxes(running):
            if row.path == path and not row.selectable:
                raise InvalidRequestError(f"the mailbox {path!r} can hold no messages")
        return path

    async def _trash(self, running: RunningAccount) -> str:
        path = trash_of(await self._mailboxes(running))
        if path is None:
            raise InvalidRequestError(
                f"account {running.row.name!r} has no trash mailbox",
                hint="move the message to a mailbox of your choice, or delete it permanently",
            )
        return path

    async def _mailboxes(self, running: RunningAccount) -> list[MailboxRow]:
        async with self._app.database.read() as connection:
            return await list_mailboxes(connection, running.row.id)

    # -- what comes of it ---------------------------------------------------------------------------------------------

    async def _ask(
        self, running: RunningAccount, new: NewRequest, path: str | None, uid: int | None, wait_seconds: float
    ) -> JsonObject:
        """``path`` and ``uid`` say which of the message's places is meant."""
        assert new.message_id is not None
        async with self._app.database.read() as connection:
            # Before anything is looked up: what was asked for before may have moved the message, or removed it.
            row = await requests.made_before(connection, new)
        if row is None:
            place = await self._place(running, new.message_id, path, uid)
            target = new.target_path
            if new.kind is RequestKind.DELETE and not new.permanent:
                trash = await self._trash(running)
                target = trash if trash != place.path else None
            row = await self._add(running, replace(new, place=place, target_path=target))
        return await self._outcome(running, row, wait_seconds)

    async def _add(self, running: RunningAccount, new: NewRequest, ref: BlobRef | None = None) -> RequestRow:
        lost = await lost_places(self._app.database, self._app.blobs, [ref] if ref is not None else [])
        try:
            async with self._app.database.write() as connection:
                if ref is not None:
                    await requests.keep_blob(connection, ref, self._app.clock(), lost)
                return await requests.add(connection, new, self._app.clock())
        finally:
            # Whoever asks may be gone by the time of the commit: what is committed is carried out all the same.
            if running.kept:
                running.sync.write_back_wanted()

    async def _outcome(self, running: RunningAccount, row: RequestRow, wait_seconds: float) -> JsonObject:
        if not row.finished:
            if running.kept or self._app.has_other_nodes:
                row = await self._wait(running, row, wait_seconds)
            else:
                row = await self._carry_out(running, row, wait_seconds)
        if row.state is RequestState.FAILED:
            raise _failure(row, running.row.name)
        return await self._view(running, row)

    async def _wait(self, running: RunningAccount, row: RequestRow, wait_seconds: float) -> RequestRow:
        """Until the request is finished and the store shows it, or time is up, or the account is not connected."""
        database = self._app.database
        deadline = asyncio.get_running_loop().time() + wait_seconds
        with database.wake.requests.subscribe() as hints:
            while True:
                async with database.read() as connection:
                    row = await requests.get(connection, row.id)
                left = deadline - asyncio.get_running_loop().time()
                # Another node tells that it is done by the row alone; what it did may show in the store a moment later.
                if row.finished and (not running.kept or running.sync.is_written(row.id)):
                    return row
                if left <= 0 or (not row.finished and await self._is_down(running)):
                    return row
                await hints.wait(min(left, 1.0))

    async def _carry_out(self, running: RunningAccount, row: RequestRow, wait_seconds: float) -> RequestRow:
        """Without a service: connect and apply all that waits. Raises what kept the account from being connected.

        An account that a node of a fleet keeps in sync is left to that one.
        """
        async with self._alone.setdefault(running.row.name, asyncio.Lock()), Borrowing(self._app).open() as own:
            if not await own.borrow(running):
                return await self._wait(running, row, wait_seconds)
            async with self._app.database.read() as connection:
                # Whoever held the lock has applied what was there by then.
                row = await requests.get(connection, row.id)
            if row.finished:
                return row
            await take_account(self._app, running)
            if running.row.state is AccountState.AUTHENTICATION_ERROR:
                raise running.configured.problem or AuthenticationError(
                    running.row.state_reason or "the server refused the credentials",
                    hint=f"correct the password, then: mailmill account check {running.row.name}; the request is kept",
                )
            report = await running.sync.write_once()
            async with self._app.database.read() as connection:
                row = await requests.get(connection, row.id)
            if report.error is not None and not row.finished:
                raise report.error
            return row

    async def _view(self, running: RunningAccount, row: RequestRow) -> JsonObject:
        async with self._app.database.read() as connection:
            made = await requests.message_at(connection, [row])
        return views.request(row, running.row.name, self._state(running), made.get(row.id))

    def _state(self, running: RunningAccount) -> AccountState:
        return running.sync.view().state if running.kept else running.row.state

    async def _is_down(self, running: RunningAccount) -> bool:
        """Whether the account is in a state that has to be waited out. Of another node's it is what that has stored."""
        if not running.kept:
            async with self._app.database.read() as connection:
                running.row = await account_store.get_account(connection, running.row.name)
        return self._state(running) in _NOT_CONNECTED

    def _running(self, name: str) -> RunningAccount:
        running = self._app.accounts.get(name)
        if running is None:
            known = ", ".join(sorted(self._app.accounts)) or "none"
            raise NotFoundError(f"no account {name!r} is configured", hint=f"configured: {known}")
        return running


def flags_of(names: Collection[str]) -> Flags:
    """Flags by their names: ``seen`` and ``\\Seen`` are the system flag, anything else is a keyword as it stands.

    Raises InvalidRequestError for what no client may change (``\\Recent``) and for what is no flag.
    """
    if len(names) > _MOST_FLAGS:
        raise InvalidRequestError(f"more than {_MOST_FLAGS} flags at once")
    found = set()
    for name in names:
        system = _SYSTEM_FLAGS.get(name.removeprefix("\\").lower())
        if system is None and name.lower() in ("\\recent", "recent"):
            raise InvalidRequestError("\\Recent is the server's own", hint="it means: come since the last look")
        if system is None and not _KEYWORD.fullmatch(name):
            raise InvalidRequestError(
                f"not a flag: {name[:60]!r}",
                hint='seen, answered, flagged, deleted, draft, or a keyword: one word without ( ) { % * " \\ ]',
            )
        found.add(system or name)
    return frozenset(found)


def trash_of(mailboxes: Collection[MailboxRow]) -> str | None:
    """The mailbox with the use ``\\Trash`` (RFC 6154), else one with such a name. Pure."""
    usable = [row for row in mailboxes if row.selectable]
    if used := [row.path for row in usable if row.special_use == _TRASH]:
        return used[0]
    named = [row for row in usable if _last_name(row).lower() in _TRASH_NAMES]
    # The shortest path: "Trash" before "Archive/2019/Trash".
    return min((row.path for row in named), key=lambda path: (len(path), path), default=None)


def _last_name(row: MailboxRow) -> str:
    return row.path.rsplit(row.delimiter, 1)[-1] if row.delimiter else row.path


def choose_place(message_id: int, places: Collection[PlaceRow], path: str | None, uid: int | None) -> Place:
    """The one place that is meant. Raises ConflictError where none, or more than one, can be. Pure."""
    wanted = _spelled(path) if path is not None else None
    meant = [
        place for place in places if (wanted is None or place.path == wanted) and (uid is None or place.uid == uid)
    ]
    if len(meant) == 1:
        return Place(meant[0].path, meant[0].uid_validity, Uid(meant[0].uid))
    if not places:
        raise ConflictError(f"message {message_id} is gone from the server", hint="nothing can be done with it there")
    shown = ", ".join(f"{place.path!r} (UID {place.uid})" for place in (meant or places))
    if not meant:
        where = f"in {wanted!r}" if wanted is not None else f"at UID {uid}"
        raise NotFoundError(f"message {message_id} is not {where}", hint=f"it is in {shown}")
    raise ConflictError(
        f"message {message_id} is in several places: {shown}", hint="say which: its path, or path and UID"
    )


def _spelled(path: str) -> str:
    """INBOX is INBOX however it is written (RFC 9051 §5.1)."""
    return INBOX if path.upper() == INBOX else path


def _failure(row: RequestRow, account: str) -> MailmillError:
    error = _FAILURES.get(row.error_code, RefusedError)(row.error, hint=row.error_hint)
    error.account = account
    return error
