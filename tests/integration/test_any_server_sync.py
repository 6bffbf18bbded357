"""An account in sync with every real server: whatever another client does, the store equals the server.

What one server can do and others cannot is in ``test_sync``; what none does on demand in ``test_sync_faults`` and its
neighbours.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from harness.on_any_server import account_on, check, raw, told, told_of
from mailmill.model import AccountState, Backlog
from mailmill.sync.context import SyncLimits
from mailmill.sync.watch import Push
from servers.mail_server import MailServer

pytestmark = pytest.mark.both_databases(any_server=("dovecot", "pymap"))

# Names that servers write in their own ways: modified UTF-7, quoted, an atom that looks like a keyword, a child.
ODD_NAMES = ["Entwürfe & Pläne", "日本語", "(mixed) [up]", "NIL", "Lists/py thon", "a&b"]

# Named subsets: where the tier makes no difference, and where a server cannot do what it takes.
on_every_make = pytest.mark.parametrize("any_server", ["dovecot", "cyrus", "pymap"], indirect=True)
with_mod_sequences = pytest.mark.parametrize("any_server", ["dovecot", "dovecot_condstore", "cyrus"], indirect=True)
with_any_name = pytest.mark.parametrize("any_server", ["dovecot", "dovecot_plain", "pymap"], indirect=True)


async def test_a_first_sync_holds_all_that_the_server_has(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    sent = [raw(number) for number in range(1, 41)]
    await any_server.add_messages(user, "INBOX", sent, [r"\Seen"])
    await any_server.add_messages(user, "Projects", [raw(100), raw(101)])
    limits = SyncLimits(chunk_messages=15, group_messages=4)
    async with account_on(any_server, user, data_dir, limits=limits) as account:
        report = await account.once()
        assert report.new == 42
        await check(any_server, user, data_dir)
        contents = await account.contents()
        assert [contents[uid] for uid in sorted(contents)] == sent
        events = await told(account)
        assert (events["messageNew"], events["accountInitialized"]) == (42, 1)
        assert await account.scalar("select count(*) from work") == 84
        assert await account.scalar("select count(*) from event where event = 'messageNew' and not historical") == 0
        again = await account.once()
        assert (again.new, again.updated, again.expunged) == (0, 0, 0)
        assert account.sync.view().state is AccountState.CONNECTED
        features = account.connections[0].features
        tier = "qresync" if features.qresync else "condstore" if features.condstore else "plain"
        assert tier == any_server.traits.tier


async def test_new_mail_and_flags_are_in_the_store_after_a_pass(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 7)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        uids = sorted(await account.message_ids())

        await any_server.append(user, "INBOX", raw(100), [r"\Flagged"])
        await account.once()
        await check(any_server, user, data_dir)

        await any_server.set_flags(user, "INBOX", f"uid {uids[0]},{uids[2]}", [r"\Seen", r"\Answered"])
        await account.once()
        await check(any_server, user, data_dir)

        await any_server.set_flags(user, "INBOX", f"uid {uids[0]}", [r"\Seen"], action="remove")
        await any_server.set_flags(user, "INBOX", f"uid {uids[2]}", [r"\Draft"], action="replace")
        await any_server.append(user, "INBOX", raw(101))
        await account.once()
        await check(any_server, user, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageUpdated"]) == (8, 4)


@on_every_make
async def test_a_keyword_of_the_users_own(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(1), raw(2)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        await any_server.set_flags(user, "INBOX", "all", ["todo", "$Forwarded"])
        await account.once()
        await check(any_server, user, data_dir)
        await any_server.set_flags(user, "INBOX", "all", ["todo"], action="remove")
        await account.once()
        await check(any_server, user, data_dir)


async def test_a_message_keeps_its_id_wherever_it_goes(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 6)])
    await any_server.create_mailbox(user, "Projects")
    await any_server.create_mailbox(user, "Done")
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        ids = await account.message_ids()
        uids = sorted(ids)

        await any_server.copy(user, "INBOX", "Projects", f"uid {uids[0]}")
        await any_server.move(user, "INBOX", "Projects", f"uid {uids[1]}")
        await account.once()
        await check(any_server, user, data_dir)
        assert set((await account.message_ids("Projects")).values()) == {ids[uids[0]], ids[uids[1]]}

        # Twice between two passes, and back: no pass saw it on its way.
        await any_server.move(user, "INBOX", "Projects", f"uid {uids[2]}")
        await any_server.move(user, "Projects", "Done")
        await any_server.move(user, "INBOX", "Projects", f"uid {uids[3]}")
        await any_server.move(user, "Projects", "INBOX")
        await account.once()
        await check(any_server, user, data_dir)
        assert set((await account.message_ids("Done")).values()) == {ids[uid] for uid in uids[:3]}
        assert set((await account.message_ids()).values()) == {ids[uids[0]], ids[uids[3]], ids[uids[4]]}
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (5, 0)


async def test_what_was_expunged_is_gone(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 8)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        ids = await account.message_ids()
        uids = sorted(ids)

        # The highest UID: on Cyrus nothing that ends in `*` tells of it.
        await any_server.expunge(user, "INBOX", f"uid {uids[6]}")
        await account.once()
        await account.wait_for(lambda rows: sum(row.event == "messageDeleted" for row in rows) == 1)
        await check(any_server, user, data_dir)

        # As many come as go: the count alone tells nothing.
        await any_server.expunge(user, "INBOX", f"uid {uids[0]},{uids[2]}:{uids[3]}")
        for number in range(100, 103):
            await any_server.append(user, "INBOX", raw(number))
        await account.once()
        await account.wait_for(lambda rows: sum(row.event == "messageDeleted" for row in rows) == 4)
        await check(any_server, user, data_dir)

        await any_server.expunge(user, "INBOX")
        await account.once()
        await account.wait_for(lambda rows: sum(row.event == "messageDeleted" for row in rows) == 10)
        await check(any_server, user, data_dir)
        assert set(await told_of(account, "messageDeleted")) >= set(ids.values())


async def test_changes_come_without_asking(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    # 300 s are longer than any test: what comes before was pushed.
    poll = 1.0 if any_server.traits.idle_misses_what_came_before else 300.0
    async with account_on(any_server, user, data_dir, poll_interval_seconds=poll) as account:
        await account.once()
        for number in range(1, 4):
            await any_server.append(user, "INBOX", raw(number))
            rows = await account.wait_for(
                lambda rows, wanted=number: sum(row.event == "messageNew" for row in rows) >= wanted
            )
        assert not any(row.historical for row in rows if row.event == "messageNew")
        newest = max(await account.message_ids())
        await any_server.set_flags(user, "INBOX", f"uid {newest}", [r"\Flagged"])
        await account.wait_for(lambda rows: any(row.event == "messageUpdated" for row in rows))
        await any_server.expunge(user, "INBOX", f"uid {newest}")
        await account.wait_for(lambda rows: any(row.event == "messageDeleted" for row in rows))
        await check(any_server, user, data_dir)
        assert account.sync.view().push in (Push.NOTIFY, Push.IDLE)
        assert len(account.connections) == 1


@on_every_make
async def test_mailboxes_with_odd_names(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    for number, name in enumerate(ODD_NAMES):
        await any_server.add_message(user, name, raw(number))
    async with account_on(any_server, user, data_dir) as account:
        assert (await account.once()).new == len(ODD_NAMES)
        await check(any_server, user, data_dir)
        for number, name in enumerate(ODD_NAMES):
            await any_server.append(user, name, raw(number + 100))
        await account.once()
        await check(any_server, user, data_dir)


@with_any_name
async def test_a_mailbox_with_quotes_in_its_name(any_server: MailServer, data_dir: Path) -> None:
    """Cyrus refuses such names."""
    user = any_server.new_user()
    await any_server.add_message(user, 'say "hello"', raw(1))
    await any_server.add_message(user, "back\\slash", raw(2))
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        await check(any_server, user, data_dir)


async def test_a_mailbox_that_is_renamed_keeps_its_messages(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "Projects", [raw(1), raw(2)], [r"\Seen"])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        ids = await account.message_ids("Projects")
        await any_server.rename_mailbox(user, "Projects", "Entwürfe & Pläne")
        await account.once()
        await account.once()
        await check(any_server, user, data_dir)
        assert set((await account.message_ids("Entwürfe & Pläne")).values()) == set(ids.values())
        assert (await told(account))["messageNew"] == 2


async def test_a_mailbox_that_is_deleted_takes_its_messages_along(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "Projects", [raw(1), raw(2)])
    await any_server.add_message(user, "INBOX", raw(1))
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        [kept] = (await account.message_ids()).values()
        await any_server.delete_mailbox(user, "Projects")
        # The server may end a session whose mailbox is gone (RFC 2180 §3), and the pass that is on it with it.
        await account.sync.sync_now()
        await account.once()
        await account.wait_for(lambda rows: any(row.event == "messageDeleted" for row in rows))
        await check(any_server, user, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"], events["mailboxDeleted"]) == (2, 1, 1)
        assert kept not in await told_of(account, "messageDeleted")


async def test_a_mailbox_made_again_is_another_one(any_server: MailServer, data_dir: Path) -> None:
    """Another UIDVALIDITY under the same name, larger (Dovecot, Cyrus) or smaller (pymap's is random)."""
    user = any_server.new_user()
    await any_server.add_messages(user, "Projects", [raw(1), raw(2), raw(3)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        ids = await account.message_ids("Projects")
        await any_server.delete_mailbox(user, "Projects")
        await any_server.create_mailbox(user, "Projects")
        await any_server.add_messages(user, "Projects", [raw(4), raw(2)])
        await account.once()
        await account.wait_for(lambda rows: sum(row.event == "messageDeleted" for row in rows) >= 2)
        await check(any_server, user, data_dir)
        contents = await account.contents("Projects")
        again = {contents[uid]: message for uid, message in (await account.message_ids("Projects")).items()}
        assert set(again) == {raw(2), raw(4)}
        assert again[raw(2)] == ids[sorted(ids)[1]]
        assert (await told(account))["messageNew"] == 4


@on_every_make
async def test_the_same_raw_mail_twice_is_one_message_in_two_places(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(1), raw(2), raw(1)])
    await any_server.add_messages(user, "Projects", [raw(1)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        first, second, third = (message for _, message in sorted((await account.message_ids()).items()))
        assert first == third != second
        assert set((await account.message_ids("Projects")).values()) == {first}
        await any_server.expunge(user, "INBOX", f"uid {min(await account.message_ids())}")
        await account.once()
        await check(any_server, user, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (2, 0)


async def test_mail_that_comes_during_a_long_first_sync_is_new(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 121)])
    limits = SyncLimits(chunk_messages=20, group_messages=5)
    async with account_on(any_server, user, data_dir, limits=limits) as account:
        await account.wait_for(lambda rows: any(row.event == "messageNew" for row in rows))
        await any_server.append(user, "INBOX", raw(1000))
        await account.once()
        await account.once()
        await check(any_server, user, data_dir)
        assert await account.scalar("select count(*) from event where event='messageNew' and not historical") == 1


@on_every_make
@pytest.mark.parametrize(
    ("backlog", "priorities", "historical"),
    [(Backlog.STORE, set(), 1), (Backlog.PROCESS, {10}, 1), (Backlog.DELIVER, {0}, 0)],
)
async def test_the_backlog_policy(
    any_server: MailServer, data_dir: Path, backlog: Backlog, priorities: set[int], historical: int
) -> None:
    user = any_server.new_user()
    await any_server.add_message(user, "INBOX", raw(1))
    async with account_on(any_server, user, data_dir, backlog=backlog) as account:
        await account.once()
        assert set(await account.column("select distinct priority from work")) == priorities
        assert await account.scalar("select count(*) from event where event='messageNew' and historical") == historical
        await any_server.append(user, "INBOX", raw(2))
        await account.once()
        assert await account.scalar("select count(*) from event where event='messageNew' and not historical") == (
            2 - historical
        )
        assert await account.scalar("select count(*) from work where priority = 0") in (2, 4)


@with_mod_sequences
async def test_a_quiet_pass_costs_one_round_trip(any_server: MailServer, data_dir: Path) -> None:
    """LIST with STATUS in it, or two. Without mod-sequences flags have to be read: no pass is free."""
    user = any_server.new_user()
    await any_server.add_message(user, "INBOX", raw(1))
    await any_server.add_message(user, "Projects", raw(2))
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        await asyncio.gather(account.once(), account.once())
        report = await account.once()
        wanted = 1 if account.connections[0].features.list_status else 2
        assert (report.round_trips, report.connections_opened) == (wanted, 0)


@on_every_make
async def test_one_connection_is_enough(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 31)])
    async with account_on(any_server, user, data_dir, pool_size=1) as account:
        await account.once()
        await check(any_server, user, data_dir)
        assert len(account.connections) == 1


async def test_a_server_restart_is_survived(own_server: MailServer, data_dir: Path) -> None:
    user = own_server.new_user()
    await own_server.add_messages(user, "INBOX", [raw(1), raw(2)])
    async with account_on(own_server, user, data_dir) as account:
        await account.once()
        await own_server.restart()
        await own_server.append(user, "INBOX", raw(7))
        await account.wait_for(lambda rows: Counter(row.event for row in rows)["messageNew"] == 3)
        report = await account.sync.sync_now()
        if report.errors:  # the pass that found the connection cut
            await account.once()
        if own_server.traits.forgets_when_stopped:
            await account.wait_for(lambda rows: Counter(row.event for row in rows)["messageDeleted"] == 2)
        await check(own_server, user, data_dir)
