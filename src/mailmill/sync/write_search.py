"""Looking in a mailbox for what a command of ours may have put there: after a crash, or where the server does not say.

Laws:

* What is found has the bytes that were sent (or the server's own EMAILID or X-GM-MSGID for them): a Message-ID alone is
  no proof, senders choose it.
* It stands at or above the UIDNEXT noted before the command, and no other request made it.
* Nothing is changed by looking: the mailbox is examined.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from mailmill.errors import CommandError
from mailmill.imap.connection import ImapConnection
from mailmill.model import MessageMeta, Uid
from mailmill.store import requests
from mailmill.store.request_rows import Content, RequestRow
from mailmill.sync.context import SyncContext
from mailmill.uid_set import UidSet

# So many bodies are compared at most. Only messages of our size, or with our Message-ID, get there.
_MOST_COMPARED = 50
_PIECE_BYTES = 1024 * 1024


async def find_made(connection: ImapConnection, context: SyncContext, row: RequestRow) -> tuple[int, Uid] | None:
    """UIDVALIDITY and UID of what ``row``'s command made in its target; None where it made nothing.

    Leaves the target examined, where it had to look. Raises `ImapError`.
    """
    assert row.target_path is not None
    [status] = await connection.statuses([row.target_path])
    if status is None:
        return None
    async with context.database.read() as reader:
        content = await requests.content_of(reader, row)
        taken = await requests.taken_uids(reader, row, row.target_path, status.uid_validity)
    if content is None:
        return None
    # In another generation the mark means nothing: then only what carries the Message-ID is looked at.
    marked = row.target_uid_validity == status.uid_validity and row.target_uid_next is not None
    low = row.target_uid_next if marked and row.target_uid_next is not None else 1
    span = UidSet.span(low, status.uid_next - 1) - taken
    if not span:
        return None
    await connection.select(row.target_path)
    likely = await _with_message_id(connection, content, span) & span
    uid = await _equal(connection, likely, content)
    if uid is None and marked:
        uid = await _equal(connection, span - likely, content)
    return (status.uid_validity, uid) if uid is not None else None


async def _with_message_id(connection: ImapConnection, content: Content, span: UidSet) -> UidSet:
    header = content.message_id_header
    if not header or not header.isascii() or not header.isprintable():
        return UidSet()
    try:
        return await connection.search_header("Message-ID", header, within=span)
    except CommandError:
        # Some servers refuse to search headers; sizes and bytes tell as well.
        return UidSet()


async def _equal(connection: ImapConnection, uids: UidSet, content: Content) -> Uid | None:
    """The first of ``uids`` that is the same message."""
    if not uids:
        return None
    metas = sorted((await connection.fetch_meta(uids)).messages, key=lambda meta: meta.uid)
    compared = []
    for meta in metas:
        same = _same_identity(meta, content)
        if same:
            return meta.uid
        # A size that the server does not know exactly must not hide a message that has our Message-ID.
        if same is None and (meta.size_bytes == content.size_bytes or content.message_id_header):
            compared.append(meta)
    compared.sort(key=lambda meta: (meta.size_bytes != content.size_bytes, meta.uid))
    for meta in compared[:_MOST_COMPARED]:
        if await _hash(connection, meta.uid) == content.sha256:
            return meta.uid
    return None


def _same_identity(meta: MessageMeta, content: Content) -> bool | None:
    """None where one side has no such identity: then only the bytes tell."""
    if meta.email_id and content.email_id:
        return meta.email_id == content.email_id
    if meta.x_gm_msgid and content.x_gm_msgid:
        return meta.x_gm_msgid == content.x_gm_msgid
    return None


async def _hash(connection: ImapConnection, uid: Uid) -> bytes | None:
    found: bytes | None = None
    async for fetched in connection.fetch_bodies(UidSet([uid])):
        if isinstance(fetched.body, Path):
            digest = await asyncio.to_thread(_hash_file, fetched.body)
        else:
            digest = hashlib.sha256(fetched.body).digest()
        if fetched.uid == uid:
            found = digest
    return found


def _hash_file(path: Path) -> bytes:
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                hasher.update(piece)
    finally:
        path.unlink(missing_ok=True)
    return hasher.digest()
