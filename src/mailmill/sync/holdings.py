"""Which UIDs the store holds, mailbox by mailbox, remembered between passes.

A push must not read 200,000 rows to learn that one message is new. Only the owner of an account writes its places, so
what it has committed is what is there; after any error the memory is dropped and read again.
"""

from __future__ import annotations

from dataclasses import replace

from mailmill.store import messages as store
from mailmill.store.database import Database
from mailmill.store.messages import MailboxRow, SyncBatch
from mailmill.uid_set import UidSet


class Holdings:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._living: dict[int, tuple[int, UidSet]] = {}

    async def living(self, row: MailboxRow, uid_validity: int) -> UidSet:
        """UIDs of the living places of a mailbox in one generation."""
        known = self._living.get(row.id)
        if known is not None and known[0] == uid_validity:
            return known[1]
        async with self._database.read() as connection:
            uids = await store.living_uids(connection, row.id, uid_validity)
        self._living[row.id] = (uid_validity, uids)
        return uids

    def committed(self, batch: SyncBatch) -> MailboxRow:
        """Take note of a batch that has been committed; returns its mailbox row as it now is."""
        known = self._living.get(batch.mailbox.id)
        if known is not None and known[0] == batch.uid_validity:
            arrived = UidSet(arrival.meta.uid for arrival in batch.arrivals)
            self._living[batch.mailbox.id] = (batch.uid_validity, (known[1] | arrived) - batch.expunged)
        return replace(batch.mailbox, cursor=batch.cursor)

    def forget(self, mailbox_id: int | None = None) -> None:
        """Read again, next time: one mailbox, or all."""
        if mailbox_id is None:
            self._living.clear()
        else:
            self._living.pop(mailbox_id, None)
