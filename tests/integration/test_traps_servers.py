"""Traps that real servers set: each on Dovecot in three tiers, on Cyrus and on pymap, where nothing else is said.

Each is named in docs/sync-traps.md; the same traps, and those that no honest server sets, are on the fake server in
the other ``test_traps_*`` modules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from harness.on_any_server import account_on, check, raw, told
from harness.on_fake_imap import let_time_pass
from harness.other_client import OtherClient
from harness.syncing import SyncedAccount
from mailmill.sync.context import SyncLimits
from servers.dovecot import Dovecot
from servers.mail_server import MailServer

pytestmark = pytest.mark.both_databases(any_server=("dovecot", "pymap"))

_GIVEN = {"INBOX", "Sent", "Junk", "Archive"}


async def twice(account: SyncedAccount) -> None:
    """Two passes in a row without an error: what lost its last place is confirmed to be gone by the second. pymap ends
    a session whose mailbox goes.
    """
    well = 0
    async with asyncio.timeout(30):
        while well < 2:
            well = 0 if (await account.sync.sync_now()).errors else well + 1
            await asyncio.sleep(0)


async def test_an_expunge_above_the_highest_living_uid(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 6)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        uids = list(await account.held())
        await any_server.expunge(user, "INBOX", f"uid {uids[3]}:{uids[4]}")
        await twice(account)
        await check(any_server, user, data_dir)
        assert (await told(account))["messageDeleted"] == 2


async def test_as_many_arrive_as_go(any_server: MailServer, data_dir: Path) -> None:
    """The count is the same as before: on tiers that do not tell of expunges it alone says nothing."""
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 6)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        uids = list(await account.held())
        await any_server.expunge(user, "INBOX", f"uid {uids[1]}:{uids[2]}")
        await any_server.add_messages(user, "INBOX", [raw(6), raw(7)])
        await twice(account)
        await check(any_server, user, data_dir)


async def test_a_message_moved_twice_between_two_passes_keeps_its_id(any_server: MailServer, data_dir: Path) -> None:
    """INBOX → B → C, and INBOX → B → INBOX."""
    user = any_server.new_user()
    await any_server.create_mailbox(user, "B")
    await any_server.create_mailbox(user, "C")
    await any_server.add_messages(user, "INBOX", [raw(1), raw(2), raw(3)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        first, second, third = (await account.message_ids()).values()
        uids = list(await account.message_ids())
        await any_server.move(user, "INBOX", "B", f"uid {uids[0]}")
        await any_server.move(user, "B", "C")
        await any_server.move(user, "INBOX", "B", f"uid {uids[1]}")
        await any_server.move(user, "B", "INBOX")
        await twice(account)
        await check(any_server, user, data_dir)
        assert list((await account.message_ids("C")).values()) == [first]
        assert list((await account.message_ids()).values()) == [third, second]
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (3, 0)


async def test_the_same_raw_mail_twice_in_one_mailbox(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(1), raw(2), raw(1)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        one, two, again = (await account.message_ids()).values()
        assert one == again != two
        uids = list(await account.message_ids())
        await any_server.expunge(user, "INBOX", f"uid {uids[0]}")
        await twice(account)
        await check(any_server, user, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (2, 0)


async def test_a_renamed_mailbox_keeps_every_id(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.create_mailbox(user, "Old")
    await any_server.add_messages(user, "Old", [raw(number) for number in range(1, 6)], [r"\Seen"])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        ids = list((await account.message_ids("Old")).values())
        await any_server.rename_mailbox(user, "Old", "New")
        await twice(account)
        await check(any_server, user, data_dir)
        assert list((await account.message_ids("New")).values()) == ids
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (5, 0)


async def test_a_mailbox_deleted_and_recreated_within_an_interval(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.create_mailbox(user, "Lists")
    await any_server.add_messages(user, "Lists", [raw(number) for number in range(1, 6)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        ids = list((await account.message_ids("Lists")).values())
        await any_server.delete_mailbox(user, "Lists")
        await any_server.create_mailbox(user, "Lists")
        await any_server.add_messages(user, "Lists", [raw(20), raw(2), raw(21)])
        await twice(account)
        await check(any_server, user, data_dir)
        assert list((await account.message_ids("Lists")).values())[1] == ids[1]
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (7, 4)


async def test_a_mailbox_renamed_into_the_place_of_one_deleted(any_server: MailServer, data_dir: Path) -> None:
    """The path stays, all behind it is another mailbox."""
    user = any_server.new_user()
    await any_server.create_mailbox(user, "Here")
    await any_server.create_mailbox(user, "There")
    # Cyrus gives all that are made within a second the same UIDVALIDITY.
    while await any_server.status(user, "There", "uidvalidity") == await any_server.status(user, "Here", "uidvalidity"):
        await any_server.delete_mailbox(user, "There")
        await any_server.create_mailbox(user, "There")
    await any_server.add_messages(user, "Here", [raw(1), raw(2)])
    await any_server.add_messages(user, "There", [raw(3), raw(4), raw(5)])
    async with account_on(any_server, user, data_dir) as account:
        await account.once()
        ids = list((await account.message_ids("There")).values())
        await any_server.delete_mailbox(user, "Here")
        await any_server.rename_mailbox(user, "There", "Here")
        await twice(account)
        await check(any_server, user, data_dir)
        assert list((await account.message_ids("Here")).values()) == ids
        assert (await told(account))["messageDeleted"] == 2


async def test_flags_that_change_during_the_first_sync(any_server: MailServer, data_dir: Path) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [raw(number) for number in range(1, 31)])
    limits = SyncLimits(chunk_messages=6, group_messages=3, flag_sweep_seconds=0)
    async with account_on(any_server, user, data_dir, limits=limits) as account:
        await account.wait_for(lambda rows: any(row.event == "messageNew" for row in rows))
        await any_server.set_flags(user, "INBOX", "1:5", [r"\Seen"])
        await any_server.set_flags(user, "INBOX", "26:30", [r"\Flagged"])
        await twice(account)
        await check(any_server, user, data_dir)


@pytest.mark.parametrize("name", ["Entw&APw-rfe", "&U,BTFw-", "R&-D", "a (b) {c}", "100&JTw-"])
async def test_names_in_modified_utf_7(dovecot: Dovecot, data_dir: Path, name: str) -> None:
    user = dovecot.new_user()
    await dovecot.append(user, "INBOX", raw(1))
    async with OtherClient(dovecot.host, dovecot.port, user, dovecot.password) as other:
        await other.create(name)
        await other.append(name, raw(2), raw(3))
        async with account_on(dovecot, user, data_dir) as account:
            await account.once()
            path = next(path for path in account.sync._pass.paths if path not in _GIVEN)
            assert len(await account.held(path)) == 2
            await other.set_flags(name, "1", r"\Seen")
            await account.once()
            assert (await account.held(path))[1] == {r"\Seen"}


# -- namespaces and delimiters ----------------------------------------------------------------------------------------

_NAMESPACES = """
namespace inbox {
  prefix = INBOX.
  separator = .
}
namespace shared {
  type = public
  prefix = Public.
  separator = .
  location = maildir:%h/public
  list = yes
  subscriptions = no
}
"""


async def test_namespaces_with_prefixes_and_a_public_one(
    start_dovecot: Callable[..., Awaitable[Dovecot]], data_dir: Path
) -> None:
    """All that LIST shows and that can be selected is synced: under ``INBOX.``, and what is shared with us."""
    server = await start_dovecot(extra=_NAMESPACES)
    user = server.new_user()
    async with OtherClient(server.host, server.port, user, server.password) as other:
        await other.append("INBOX", raw(1))
        for path in ("INBOX.Lists", "INBOX.Lists.Python", "Public.News"):
            await other.create(path)
            await other.append(path, raw(len(path)))
        async with account_on(server, user, data_dir) as account:
            await account.once()
            await check(server, user, data_dir)
            assert {"INBOX", "INBOX.Lists", "INBOX.Lists.Python", "Public.News"} <= account.sync._pass.paths
            delimiters = "select count(*) from mailbox where delimiter <> '.'"
            assert await account.scalar(delimiters) == 0
            await other.move("INBOX", "1", "Public.News")
            await twice(account)
            await check(server, user, data_dir)
            assert (await told(account))["messageDeleted"] == 0


_DIRECTORIES = "mail_location = sdbox:%h/directories"


@pytest.mark.parametrize("tier", ["qresync", "condstore", "plain"])
async def test_a_mailbox_that_becomes_a_mere_name(
    start_dovecot: Callable[..., Awaitable[Dovecot]], tier: str, data_dir: Path
) -> None:
    """DELETE of a mailbox that has others below it takes its mail and leaves the name (RFC 9051 §6.3.5)."""
    server = await start_dovecot(tier=tier, extra=_DIRECTORIES)
    user = server.new_user()
    async with (
        OtherClient(server.host, server.port, user, server.password) as other,
        account_on(server, user, data_dir) as account,
    ):
        for path in ("Parent", "Parent/Child"):
            await other.create(path)
            await other.append(path, raw(len(path)), raw(len(path) + 1))
        await account.once()
        await other.delete("Parent")
        await twice(account)
        assert await account.scalar("select selectable from mailbox where path = 'Parent'") == 0
        await check(server, user, data_dir)
        assert (await told(account))["messageDeleted"] == 2


async def test_a_mailbox_that_is_listed_and_does_not_exist_holds_up_nothing(dovecot: Dovecot, data_dir: Path) -> None:
    """Dovecot's Maildir++ lists the name of a mailbox that was deleted from above another as if it were there. It is
    told, its mail is kept, and what is gone elsewhere is confirmed to be gone, if only after a day.
    """
    user = dovecot.new_user()
    for path in ("Parent", "Parent/Child"):
        await dovecot.create_mailbox(user, path)
        await dovecot.add_messages(user, path, [raw(len(path))])
    await dovecot.add_messages(user, "INBOX", [raw(1), raw(2)])
    async with account_on(dovecot, user, data_dir) as account:
        await account.once()
        await dovecot.delete_mailbox(user, "Parent")
        await dovecot.expunge(user, "INBOX", "uid 1")
        for _ in range(2):
            report = await account.sync.sync_now()
            assert [error.mailbox for error in report.errors] == ["Parent"]
        assert set(await account.held()) == {2}
        assert len(await account.held("Parent")) == 1
        assert (await told(account))["messageDeleted"] == 0
        let_time_pass(account)
        await account.sync.sync_now()
        assert (await told(account))["messageDeleted"] == 1
