"""Traps of size: a mailbox of 200,000 messages. Each is named in docs/sync-traps.md.

The store is filled by SQL and the server holds one message 200,000 times, so that what is tested is what a pass asks,
receives and holds in memory; how long it takes is measured by ``bench/``.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from harness.fake_imap import CONDSTORE, QRESYNC, TIERS, FakeImap
from harness.fake_mailbox import FakeMessage
from harness.on_fake_imap import account_on, one_pass, raw
from harness.syncing import SyncedAccount
from mailmill.uid_set import UidSet

MESSAGES = 200_000
# What a pass may hold on to while it looks at all of them: far less than one object for each.
MOST_BYTES = 24 * 1024 * 1024
PAGE = 10_000

on_tiers_with_mod_sequences = pytest.mark.parametrize(
    "capabilities", [CONDSTORE, QRESYNC], ids=["condstore", "qresync"]
)


async def fill(server: FakeImap, account: SyncedAccount, *, step: int = 1) -> None:
    """200,000 places of one message, on both sides; ``step`` 2 leaves a hole after each."""
    inbox = server.inbox
    inbox.add(raw(1))
    await one_pass(account)
    one = inbox.messages[1]
    uids = range(1, 1 + MESSAGES * step, step)
    inbox.messages = {uid: FakeMessage(one.raw, frozenset(), one.mod_seq) for uid in uids}
    inbox.uid_next = uids[-1] + 1
    async with account.database.write() as connection:
        await connection.exec_driver_sql(
            f"WITH RECURSIVE n(uid) AS (SELECT {1 + step} UNION ALL SELECT uid + {step} FROM n WHERE uid < {uids[-1]}) "
            "INSERT INTO place (mailbox_id, uid_validity, uid, message_id, flags, mod_seq, seen_at) "
            "SELECT p.mailbox_id, p.uid_validity, n.uid, p.message_id, '', p.mod_seq, 0 FROM place p, n "
            "WHERE p.uid = 1"
        )
        await connection.exec_driver_sql(
            f"UPDATE mailbox SET uid_next = {inbox.uid_next}, messages = {MESSAGES} WHERE path = 'INBOX'"
        )
    account.sync._pass.forget()


class Cost:
    """What a pass asks and receives, and the most memory that it holds (if it is to be ``traced``, which is slow)."""

    def __init__(self, server: FakeImap, account: SyncedAccount) -> None:
        self._server = server
        self._account = account
        self._commands = 0
        self.received = 0
        self.peak = 0

    @property
    def asked(self) -> list[bytes]:
        return [line for line in self._server.commands[self._commands :] if line.startswith(b"UID")]

    async def of_a_pass(self, *, traced: bool = False) -> None:
        self._commands = len(self._server.commands)
        if traced:
            tracemalloc.start()
        try:
            self.received = (await one_pass(self._account)).bytes_received
            self.peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


async def held_uids(account: SyncedAccount) -> UidSet:
    return await account.sync._context.holdings.living(account.sync._pass._mailboxes.rows["INBOX"], 7)


@pytest.mark.both_databases
@on_tiers_with_mod_sequences
async def test_an_incremental_pass_over_200_000_messages_costs_what_changed(capabilities: str, data_dir: Path) -> None:
    async with FakeImap(capabilities=capabilities) as server, account_on(server, data_dir, running=False) as account:
        await fill(server, account)
        cost = Cost(server, account)
        await cost.of_a_pass()
        assert cost.asked == []
        server.inbox.add(raw(2))
        for uid in range(1000, 1010):
            server.inbox.set_flags(uid, r"\Seen")
        await cost.of_a_pass()
        # The changes, the new message, its body; nothing is listed.
        assert [line.split()[1] for line in cost.asked] == [b"FETCH"] * 3
        assert cost.received < PAGE
        assert await account.scalar(r"select count(*) from place where flags = '\Seen'") == 10
        assert len(await held_uids(account)) == MESSAGES + 1


@pytest.mark.parametrize(
    ("tier", "step"),
    [("plain", 1), ("condstore", 1), ("qresync", 2)],
    ids=["plain", "condstore", "qresync_with_a_hole_after_each"],
)
async def test_an_enumeration_of_200_000_messages_is_one_listing(tier: str, step: int, data_dir: Path) -> None:
    """Expunges that nobody told: found by one SEARCH of all, confirmed by one of those that are missing."""
    async with FakeImap(capabilities=TIERS[tier]) as server, account_on(server, data_dir, running=False) as account:
        await fill(server, account, step=step)
        gone = [1 + step * number for number in (0, 5, 99_999, 199_999)]
        server.inbox.expunge(*gone)
        server.inbox.expunged.clear()
        cost = Cost(server, account)
        await cost.of_a_pass(traced=tier == "condstore")
        searches = [line for line in cost.asked if line.startswith(b"UID SEARCH")]
        assert [line.endswith(b" ALL") for line in searches] == [True, False]
        assert not (await held_uids(account)) & UidSet(gone)
        assert await account.scalar("select count(*) from place where expunged_at is null") == MESSAGES - len(gone)
        assert cost.peak < MOST_BYTES


@pytest.mark.both_databases
async def test_expunges_of_a_qresync_server_need_no_listing(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        await fill(server, account)
        server.inbox.expunge(5, 6, MESSAGES)
        cost = Cost(server, account)
        await cost.of_a_pass()
        assert not any(line.endswith(b" ALL") for line in cost.asked)
        assert cost.received < PAGE
        assert await account.scalar("select count(*) from place where expunged_at is null") == MESSAGES - 3
