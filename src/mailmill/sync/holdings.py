"""Which UIDs the store holds, mailbox by mailbox, remembered between passes.

A push must not read 200,000 rows to learn that one message is new. Only the owner of an account writes its places, so
what it has committed is what is there; after any error the memory is dropped and read again.

The same holds for orphans (`store.message_deletion`): where no place was lost since a look found none, there are none.
A pass that finds nothing new must not ask the database either: with a thousand accounts that is most of what it costs.
"""

from __future__ import annotations

from dataclasses import replace

from mailmill.store import messages as store
from mailmill.store.database import Database
from mailmill.store.messages import MailboxRow, SyncBatch
from mailmill.uid_set import UidSet

# Looked for again after so long, whatever is remembered.
_ORPHANS_SECONDS = 3600.0


class Holdings:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._living: dict[int, tuple[int, UidSet]] = {}
        self._no_orphans_until = 0.0

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

    async def have_orphans(self, account_id: int, now: float) -> bool:
        """Whether messages of the account may be left without a living place. ``now``: seconds since the epoch."""
        if now < self._no_orphans_until:
            return False
        # Before the look: a place that is lost during it, by a hint dealt with meanwhile, takes this back.
        self._no_orphans_until = now + _ORPHANS_SECONDS
        found = True
        try:
            async with self._database.read() as connection:
                found = await store.orphan_count(connection, account_id) > 0
        finally:
            if found:
                self.lost_places()
        return found

    def lost_places(self) -> None:
        """Places were tombstoned, or may have been: to be called after the transaction, however it ended."""
        self._no_orphans_until = 0.0

    def forget(self, mailbox_id: int | None = None) -> None:
        """Read again, next time: one mailbox, or all."""
        self.lost_places()
        if mailbox_id is None:
            self._living.clear()
        else:
            self._living.pop(mailbox_id, None)
