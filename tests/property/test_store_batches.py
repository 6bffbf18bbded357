"""Random batches against a plain model: the store holds what the mailboxes hold, and the event log tells how it came.

A mailbox is a dictionary UID → (content, flags). What a UID contains never changes (RFC 9051 §2.3.1.1), so content is a
function of mailbox and UID, and few contents are shared by many UIDs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from mailmill.model import Backlog, MailboxRef, MessageMeta, Uid
from mailmill.store import accounts, event_log, messages, sequencer
from mailmill.store.blobs import BlobRef
from mailmill.store.database import Database
from mailmill.store.event_log import EventRow
from mailmill.store.messages import Arrival, Cursor, StoredContent, SyncBatch, WorkPlan
from mailmill.uid_set import UidSet

PATHS = ("INBOX", "Archive")
PLAN = WorkPlan((("threat", 1), ("summary", 1)), Backlog.PROCESS)

uids = st.integers(1, 12)
flag_sets = st.frozensets(st.sampled_from(["\\Seen", "\\Flagged", "$Junk"]))


@dataclass(frozen=True)
class Change:
    """What happens in one mailbox between two passes, and how the pass that tells of it goes."""

    path: str
    appear: dict[int, frozenset[str]]
    flag: dict[int, frozenset[str]]
    vanish: set[int]
    by_id: bool
    replays: int
    confirm: bool


changes = st.builds(
    Change,
    path=st.sampled_from(PATHS),
    appear=st.dictionaries(uids, flag_sets, max_size=6),
    flag=st.dictionaries(uids, flag_sets, max_size=4),
    vanish=st.sets(uids, max_size=4),
    by_id=st.booleans(),
    replays=st.integers(0, 1),
    confirm=st.booleans(),
)


def content_of(path: str, uid: int) -> str:
    return f"content {(uid * 7 + len(path)) % 5}"


def writer_of(content: str) -> str:
    """Few people write many contents."""
    return "anna" if content[-1] in "024" else "bert"


@dataclass
class Model:
    mailboxes: dict[str, dict[int, frozenset[str]]] = field(default_factory=lambda: {path: {} for path in PATHS})
    ever: set[str] = field(default_factory=set)

    def apply(self, change: Change) -> None:
        mailbox = self.mailboxes[change.path]
        for uid, flags in (change.appear | {k: v for k, v in change.flag.items() if k in change.appear}).items():
            if uid not in change.vanish:
                mailbox[uid] = flags
                self.ever.add(content_of(change.path, uid))
        for uid, flags in change.flag.items():
            if uid in mailbox and uid not in change.vanish:
                mailbox[uid] = flags
        for uid in change.vanish:
            mailbox.pop(uid, None)

    def living(self) -> set[tuple[str, int, str, frozenset[str]]]:
        return {
            (path, uid, content_of(path, uid), flags)
            for path, mailbox in self.mailboxes.items()
            for uid, flags in mailbox.items()
        }


class Subject:
    """The store under test, with an account of its own for each example."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.account_id = 0
        self.ids: dict[str, int] = {}
        self.clock = 0.0

    async def begin(self, name: str) -> None:
        async with self.database.write() as connection:
            account = await accounts.ensure_account(
                connection, name=name, email="", backlog=Backlog.PROCESS, credential_mark="", now=0.0
            )
            self.account_id = account.id
            await messages.apply_mailbox_list(connection, account.id, [MailboxRef(path) for path in PATHS], 0.0)
        await self._number()
        async with self.database.read() as connection:
            self.start = await event_log.head(connection)

    async def _number(self) -> None:
        """What is committed is in the log at once."""
        async with self.database.write() as connection:
            await sequencer.number(connection)

    def _arrival(self, change: Change, uid: int, flags: frozenset[str]) -> Arrival:
        text = content_of(change.path, uid)
        meta = MessageMeta(Uid(uid), flags)
        if change.by_id and text in self.ids:
            return Arrival(meta, known_message_id=self.ids[text])
        digest = hashlib.sha256(text.encode()).digest()
        ref = BlobRef(digest, "ab/0-0.seg", 0, len(text))
        return Arrival(meta, StoredContent(ref, subject=text, from_address=f"{writer_of(text)}@example.org"))

    async def apply(self, change: Change) -> None:
        self.clock += 1
        async with self.database.read() as connection:
            row = await messages.get_mailbox(connection, self.account_id, change.path)
        batch = SyncBatch(
            mailbox=row,
            uid_validity=3,
            arrivals=[self._arrival(change, uid, flags) for uid, flags in change.appear.items()],
            flag_changes=[MessageMeta(Uid(uid), flags) for uid, flags in change.flag.items()],
            expunged=UidSet(change.vanish),
            cursor=Cursor(3, max([row.cursor.uid_next, *(uid + 1 for uid in change.appear)])),
        )
        for replay in range(change.replays + 1):
            async with self.database.write() as connection:
                outcome = await messages.apply_batch(connection, batch, PLAN, self.clock)
                if replay:
                    assert (outcome.new, outcome.updated, outcome.expunged) == (0, 0, 0)
        if change.confirm:
            async with self.database.write() as connection:
                await messages.confirm_deleted(connection, self.account_id, self.clock + 0.5, self.clock)

    async def check(self, model: Model) -> None:
        await self._number()
        async with self.database.read() as connection:

            async def rows(sql: str) -> list[tuple[object, ...]]:
                return [tuple(row) for row in await connection.execute(text(sql), {"account": self.account_id})]

            stored = await rows(
                "SELECT b.path, p.uid, m.subject, p.flags FROM place p JOIN message m ON m.id = p.message_id "
                "JOIN mailbox b ON b.id = p.mailbox_id WHERE b.account_id = :account AND p.expunged_at IS NULL"
            )
            living = {(path, uid, subject, frozenset(str(flags).split())) for path, uid, subject, flags in stored}
            assert living == model.living()
            found = await rows("SELECT id, subject, deleted_at FROM message WHERE account_id = :account")
            self.ids = {str(subject): int(str(message_id)) for message_id, subject, _ in found}
            assert len(self.ids) == len(found)
            assert self.ids.keys() == model.ever
            shown = {content for _, _, content, _ in model.living()}
            assert not {subject for _, subject, deleted_at in found if deleted_at is not None} & shown
            assert len(await rows("SELECT 1 FROM work WHERE account_id = :account")) == 2 * len(found)
            counted = await rows("SELECT address_key, received FROM sender WHERE account_id = :account")
            assert dict(counted) == Counter(f"org.example@{writer_of(content)}" for content in model.ever)
            events = await event_log.read_after(connection, self.start, 100_000)
        texts = {message_id: subject for subject, message_id in self.ids.items()}
        assert told_by([event for event in events if event.account_id == self.account_id], texts) == {
            place[:3] for place in model.living()
        }


def told_by(events: list[EventRow], texts: dict[int, str]) -> set[tuple[str, int, str]]:
    """The places that someone believes in who heard nothing but the events; each must make sense when it is heard."""
    places: set[tuple[str, int, str]] = set()
    announced: Counter[str] = Counter()
    deleted: set[str] = set()
    for event in events:
        if event.message_id is None:
            continue
        text = texts[event.message_id]
        if event.event == "messageDeleted":
            assert not [place for place in places if place[2] == text]
            deleted.add(text)
            continue
        where = (str(event.path), int(event.data["uid"]), text)
        if event.event == "messageNew":
            announced[text] += 1
        if event.event == "messageNew" or "added" in event.data:
            assert where not in places
            places.add(where)
            deleted.discard(text)
        elif "removed" in event.data:
            places.remove(where)
        else:
            assert where in places
        assert text not in deleted
        assert announced[text] == 1
    return places


def test_the_store_equals_the_mailboxes_after_any_batches(data_dir: Path, database_url: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        database = runner.run(Database.open(database_url, data_dir=data_dir))
        number = 0

        @given(st.lists(changes, max_size=6))
        def check(sequence: list[Change]) -> None:
            nonlocal number
            number += 1

            async def example() -> None:
                subject, model = Subject(database), Model()
                await subject.begin(f"account {number}")
                for change in sequence:
                    await subject.apply(change)
                    model.apply(change)
                    await subject.check(model)

            runner.run(example())

        try:
            check()
        finally:
            runner.run(database.close())
