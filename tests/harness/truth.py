"""What a server holds, what a store holds, and whether that is the same: the end of every test of faults.

The store is read with plain SQL and plain file access, so that no code under test vouches for itself.
"""

from __future__ import annotations

import hashlib
import imaplib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from harness.stores import Snapshot, opened
from servers.over_imap import listed, quoted

__all__ = ["Truth", "check", "in_store", "on_server", "opened"]

# Path → UID → flags and raw message.
Truth = Mapping[str, Mapping[int, tuple[frozenset[str], bytes]]]

_FETCHED = re.compile(rb"UID (\d+)")
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")


def on_server(client: imaplib.IMAP4) -> dict[str, dict[int, tuple[frozenset[str], bytes]]]:
    """All that a logged-in ``client`` sees. Blocks."""
    found = {}
    for name in listed(client):
        kind, answer = client.select(quoted(name), readonly=True)
        assert kind == "OK", answer
        found[name] = _messages(client) if int(answer[0] or 0) else {}
    return found


def _messages(client: imaplib.IMAP4) -> dict[int, tuple[frozenset[str], bytes]]:
    found = {}
    _, answer = client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])")
    # imaplib gives (head, literal) pairs, and after each what follows its literal.
    for index, part in enumerate(answer):
        if isinstance(part, tuple):
            tail = answer[index + 1] if index + 1 < len(answer) else b""
            told = part[0] + b" " + (tail if isinstance(tail, bytes) else b"")
            uid, flags = _FETCHED.search(told), _FLAGS.search(told)
            assert uid is not None and flags is not None, told
            found[int(uid[1])] = (frozenset(flags[1].decode().split()) - {r"\Recent"}, part[1])
    return found


def in_store(data_dir: Path) -> dict[str, dict[int, tuple[frozenset[str], bytes]]]:
    """Living places with flags and raw messages, read from the segments. A place held twice fails. Blocks."""
    with opened(data_dir) as store:
        return _held(store, data_dir)


def check(data_dir: Path, server: Truth) -> None:
    """The store equals ``server``; each message has one id and one messageNew; what is nowhere is deleted. Blocks."""
    with opened(data_dir) as database:
        store = _held(database, data_dir)
        held, wanted = _shown(store), _shown(server)
        assert held == wanted, f"the store holds {held}, the server {wanted}"
        for path, messages in server.items():
            for uid, (_, raw) in messages.items():
                assert store[path][uid][1] == raw, f"{path} {uid} has another content"
        messages = database.execute("SELECT id, sha256, deleted_at IS NOT NULL FROM message").fetchall()
        assert len({sha256 for _, sha256, _ in messages}) == len(messages), "a content has two ids"
        new = Counter(row[0] for row in database.execute("SELECT message_id FROM event WHERE event = 'messageNew'"))
        assert new == {message_id: 1 for message_id, _, _ in messages}, "not one messageNew for each message"
        living = {row[0] for row in database.execute("SELECT message_id FROM place WHERE expunged_at IS NULL")}
        deleted = {message_id for message_id, _, gone in messages if gone}
        assert deleted.isdisjoint(living), "a message that is somewhere counts as deleted"
        # A cursor may only claim what is there: UIDs below it are held, still to be fetched, or gone.
        for path, uid_next, uncovered, count in database.execute(
            "SELECT path, uid_next, uncovered, messages FROM mailbox WHERE deleted_at IS NULL AND selectable"
        ):
            assert (uncovered, count) == ("", len(server[path])), f"the cursor of {path} is off"
            assert all(uid < uid_next for uid in server[path])


def _held(store: Snapshot, data_dir: Path) -> dict[str, dict[int, tuple[frozenset[str], bytes]]]:
    paths = store.execute("SELECT path FROM mailbox WHERE deleted_at IS NULL AND selectable").fetchall()
    found: dict[str, dict[int, tuple[frozenset[str], bytes]]] = {path: {} for (path,) in paths}
    places = store.execute(
        "SELECT mailbox.path, place.uid, place.flags, blob.sha256, segment, offset_bytes, blob.size_bytes "
        "FROM place JOIN mailbox ON mailbox.id = mailbox_id JOIN message ON message.id = message_id "
        "JOIN blob ON blob.sha256 = message.sha256 WHERE expunged_at IS NULL"
    )
    for path, uid, flags, sha256, segment, offset, size in places:
        with (data_dir / "blobs" / "segments" / segment).open("rb") as file:
            file.seek(offset)
            raw = file.read(size)
        assert hashlib.sha256(raw).digest() == sha256, f"segment {segment} is damaged"
        assert uid not in found[path], f"{path} {uid} is held in two generations"
        found[path][uid] = (frozenset(flags.split()), raw)
    return found


def _shown(truth: Truth) -> dict[str, dict[int, list[str]]]:
    """Without the contents, so that a difference can be read."""
    return {path: {uid: sorted(flags) for uid, (flags, _) in held.items()} for path, held in sorted(truth.items())}
