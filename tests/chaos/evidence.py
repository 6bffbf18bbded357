"""What is there at the end, gathered for `history`: the mail server by plain IMAP, the store by plain SQL and files."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos import journal
from chaos.history import Delivery, Event, Evidence, Mailboxes, Message, Store, Work
from harness.other_client import OtherClient

# Every time a result is written is kept, so that a second time shows.
COUNT_RESULTS = """
CREATE TABLE written (message_id bigint, processor text, version integer);
CREATE FUNCTION note_written() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO written VALUES (new.message_id, new.processor, new.version); RETURN new; END';
CREATE TRIGGER note_written AFTER INSERT OR UPDATE ON result FOR EACH ROW EXECUTE FUNCTION note_written();
"""
COUNT_RESULTS_ON_SQLITE = (
    "CREATE TABLE IF NOT EXISTS written (message_id INTEGER, processor TEXT, version INTEGER)",
    *(
        f"CREATE TRIGGER IF NOT EXISTS written_{what} AFTER {what} ON result "
        "BEGIN INSERT INTO written VALUES (new.message_id, new.processor, new.version); END"
        for what in ("INSERT", "UPDATE")
    ),
)

# Gives the rows of a statement; all that it is given are answered from one snapshot.
Fetch = Callable[[str], Awaitable[Sequence[Any]]]


async def gather(
    read_store: Callable[[], Awaitable[Store]],
    journals: Path,
    clients: Mapping[str, OtherClient],
    processors: Mapping[str, int],
    destination: str,
) -> Evidence:
    """``clients``: a logged-in client of each account."""
    servers = {account: _digested(await client.truth()) for account, client in clients.items()}
    store = await read_store()
    read = await asyncio.to_thread(journal.read, journals)
    return Evidence(servers, store, read, processors, destination)


def _digested(held: Mapping[str, Mapping[int, tuple[frozenset[str], bytes]]]) -> Mailboxes:
    return {
        path: {uid: (flags, hashlib.sha256(raw).hexdigest()) for uid, (flags, raw) in messages.items()}
        for path, messages in held.items()
    }


async def postgres_store(connection: Any, blobs: Path) -> Store:
    """``connection`` is asyncpg's, ``blobs`` the folder that all nodes share."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await store(connection.fetch, blobs)


async def store(fetch: Fetch, blobs: Path, *, position: str = "seq") -> Store:
    """What the database holds. ``position``: the column of ``event`` that says its place in the log."""
    written = await fetch("SELECT message_id, processor, version FROM written")
    return Store(
        mailboxes=await _mailboxes(fetch, blobs),
        messages=[
            Message(row["id"], row["name"], row["digest"], row["status"], bool(row["deleted"]), bool(row["placed"]))
            for row in await fetch(
                "SELECT m.id, a.name, encode(m.sha256, 'hex') AS digest, s.processing_status AS status,"
                " m.deleted_at IS NOT NULL AS deleted, EXISTS (SELECT 1 FROM place p WHERE p.message_id = m.id"
                " AND p.expunged_at IS NULL) AS placed FROM message m JOIN account a ON a.id = m.account_id"
                " JOIN email_status s ON s.message_id = m.id ORDER BY m.id"
            )
        ],
        events=[
            Event(
                row["id"],
                row["position"],
                row["event"],
                row["message_id"],
                bool(row["historical"]),
                json.loads(row["data"]).get("processor") if row["event"] == "messageFailed" else None,
            )
            for row in await fetch(
                f"SELECT id, {position} AS position, event, message_id, historical, data FROM event ORDER BY id"
            )
        ],
        results=[tuple(row) for row in await fetch("SELECT message_id, processor, version FROM result")],
        written=Counter(tuple(row) for row in written),
        work=[Work(**row) for row in await fetch("SELECT message_id, processor, state, crashes, attempt FROM work")],
        deliveries=[Delivery(**row) for row in await fetch("SELECT destination, event_id, state FROM delivery")],
        open_requests=[
            row["id"] for row in await fetch("SELECT id FROM request WHERE state NOT IN ('done', 'failed') ORDER BY id")
        ],
    )


async def _mailboxes(fetch: Fetch, blobs: Path) -> dict[str, Mailboxes]:
    """Living places with the digests of what the segments hold. A place held twice, or another content, fails."""
    found: dict[str, dict[str, dict[int, tuple[frozenset[str], str]]]] = {}
    for row in await fetch(
        "SELECT name, path FROM account LEFT JOIN mailbox ON account_id = account.id AND deleted_at IS NULL"
        " AND selectable"
    ):
        mailboxes = found.setdefault(row["name"], {})
        if row["path"] is not None:
            mailboxes[row["path"]] = {}
    for row in await fetch(
        "SELECT account.name, mailbox.path, place.uid, place.flags, encode(message.sha256, 'hex') AS digest, segment,"
        " offset_bytes, blob.size_bytes FROM place JOIN mailbox ON mailbox.id = mailbox_id JOIN account ON account.id ="
        " mailbox.account_id JOIN message ON message.id = message_id LEFT JOIN blob ON blob.sha256 = message.sha256"
        " WHERE expunged_at IS NULL AND mailbox.deleted_at IS NULL"
    ):
        places = found[row["name"]][row["path"]]
        where = f"{row['name']}: {row['path']} {row['uid']}"
        assert row["segment"] is not None, f"{where} has no raw message"
        content = await asyncio.to_thread(
            _read, blobs / "segments" / row["segment"], row["offset_bytes"], row["size_bytes"]
        )
        assert hashlib.sha256(content).hexdigest() == row["digest"], f"{where} has another content in its segment"
        assert row["uid"] not in places, f"{where} is held in two generations"
        places[row["uid"]] = (frozenset(row["flags"].split()), row["digest"])
    return found


def _read(segment: Path, offset: int, size: int) -> bytes:
    try:
        with segment.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except FileNotFoundError:
        return b""
