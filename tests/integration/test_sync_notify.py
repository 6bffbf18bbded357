"""NOTIFY: every mailbox is pushed on the one connection; where it fails, the way back to IDLE and a sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from harness import truth
from harness.fake_imap import PLAIN, QRESYNC, Answer, Client, FakeImap
from harness.fake_imap_faults import refused
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import account_on, arrived, check, raw
from harness.other_client import OtherClient
from harness.syncing import SyncedAccount, synced_account
from mailmill.sync.watch import WatchSettings
from servers.dovecot import Dovecot
from servers.scripted import Command

pytestmark = pytest.mark.both_databases

NOTIFY = QRESYNC + " NOTIFY"
# Longer than any test: what comes within one was pushed.
NEVER = 3600.0


def told(event: str, path: str | None = None) -> Callable[[Any], bool]:
    return lambda rows: any(row.event == event and (path is None or row.path == path) for row in rows)


async def asked_for(server: FakeImap, pattern: bytes, times: int) -> None:
    """Until so many commands like ``pattern`` have come."""
    await server.until(lambda: server.count(pattern) >= times)


# -- Dovecot ----------------------------------------------------------------------------------------------------------


def only_pushed(dovecot: Dovecot, data_dir: Path, user: str) -> AbstractAsyncContextManager[SyncedAccount]:
    return synced_account(
        data_dir,
        dovecot.endpoint(),
        dovecot.credentials(user),
        poll_interval_seconds=NEVER,
        sweep_interval_seconds=NEVER,
    )


async def test_mail_in_any_mailbox_is_pushed(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_message(user, "Work/Deep/Odd & Öd", raw(1))
    async with only_pushed(dovecot, data_dir, user) as account:
        await account.once()
        for number, path in enumerate(("Archive", "Work/Deep/Odd & Öd", "INBOX", "Sent"), 2):
            await dovecot.add_message(user, path, raw(number))
            await account.wait_for(arrived(number))
        view = account.sync.view()
        assert (view.push, view.pushed, view.sweep_seconds) == ("notify", None, NEVER)
        assert len(account.connections) == 1


async def test_flags_and_expunges_in_any_mailbox_are_pushed(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_messages(user, "Archive", [raw(1), raw(2)])
    async with only_pushed(dovecot, data_dir, user) as account:
        await account.once()
        await dovecot.set_flags(user, "Archive", "uid 1", [r"\Seen"])
        await account.wait_for(told("messageUpdated"))
        await dovecot.expunge(user, "Archive", "uid 2")
        await account.wait_for(told("messageDeleted"))
        assert await account.held("Archive") == {1: frozenset({r"\Seen"})}


async def test_mailboxes_that_come_and_go_are_noticed_at_once(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    async with (
        only_pushed(dovecot, data_dir, user) as account,
        OtherClient(dovecot.host, dovecot.port, user, dovecot.password) as other,
    ):
        await account.once()
        await other.create("Projects")
        await account.wait_for(told("mailboxNew", "Projects"))
        await other.append("Projects", raw(1))
        await account.wait_for(arrived(1))
        # Dovecot tells of a rename by itself, but now and then only when something else happens.
        await other.rename("Projects", "Plans")
        await other.append("Plans", raw(2))
        await account.wait_for(told("mailboxNew", "Plans"))
        await account.wait_for(arrived(2))
        await other.delete("Plans")
        await account.wait_for(told("mailboxDeleted", "Plans"))
        assert len(account.connections) == 1
        # What a rename keeps is one message still.
        rows = await account.events()
        assert sum(row.event == "messageNew" for row in rows) == 2
    await asyncio.to_thread(truth.check, data_dir, await server_truth(dovecot, user))


async def server_truth(dovecot: Dovecot, user: str) -> truth.Truth:
    async with OtherClient(dovecot.host, dovecot.port, user, dovecot.password) as other:
        return await other.truth()


# -- what servers may do instead --------------------------------------------------------------------------------------


def two_mailboxes(capabilities: str = NOTIFY) -> FakeImap:
    return FakeImap(FakeMailbox(), FakeMailbox("Lists", uid_validity=8), capabilities=capabilities)


def lists(server: FakeImap) -> FakeMailbox:
    return server.mailbox("Lists")


async def test_what_changes_between_notify_and_the_first_pass_is_not_missed(data_dir: Path) -> None:
    async with two_mailboxes() as server:

        async def meanwhile(client: Client, _command: Command, answer: Answer) -> None:
            await client.send(answer)
            lists(server).add(raw(1))

        server.fault(rb"LIST", meanwhile)
        async with account_on(server, data_dir, poll_interval_seconds=NEVER) as account:
            await account.wait_for(arrived(1))
            await account.once()
            await check(server, data_dir)


async def test_news_that_the_store_holds_already_costs_no_command(data_dir: Path) -> None:
    async with two_mailboxes() as server, account_on(server, data_dir, poll_interval_seconds=NEVER) as account:
        await account.once()
        client = await server.idling()
        examined = server.count(rb'EXAMINE "Lists"')
        numbers = f"MESSAGES 0 UIDNEXT 1 UIDVALIDITY 8 HIGHESTMODSEQ {lists(server).highest_mod_seq}"
        await client.send([f'* STATUS "Lists" ({numbers})\r\n'.encode()])
        server.inbox.add(raw(1))
        await account.wait_for(arrived(1))
        assert server.count(rb'EXAMINE "Lists"') == examined


@pytest.mark.parametrize("status", ["NO", "BAD"])
async def test_a_refused_notify_means_idle_and_a_sweep(status: str, data_dir: Path) -> None:
    async with two_mailboxes() as server:
        server.fault(rb"NOTIFY", refused(status, "[BADEVENT (MessageNew)] not here"), times=None)
        async with account_on(server, data_dir, sweep_interval_seconds=0.05) as account:
            await account.once()
            lists(server).add(raw(1))
            await account.wait_for(arrived(1))
            server.inbox.add(raw(2))
            await account.wait_for(arrived(2))
            view = account.sync.view()
            assert (view.push, view.pushed, view.sweep_seconds) == ("idle", "INBOX", 0.05)
            assert server.count(rb"NOTIFY") == 1
            assert server.connections == 1
            await check(server, data_dir)


async def test_after_an_overflow_one_mailbox_is_watched_and_the_rest_swept(data_dir: Path) -> None:
    async with (
        two_mailboxes() as server,
        account_on(server, data_dir, sweep_interval_seconds=0.05) as account,
    ):
        await account.once()
        await server.idling()
        server.overflow()
        # Mute: this one no IDLE tells of; the pass after the overflow finds it.
        server.inbox.add(raw(1))
        await account.wait_for(arrived(1))
        await asked_for(server, rb"NOTIFY", times=2)
        server.inbox.add(raw(2))
        await account.wait_for(arrived(2))
        lists(server).add(raw(3))
        await account.wait_for(arrived(3))
        assert account.sync.view().push == "idle"
        assert server.connections == 1
        await check(server, data_dir)


async def test_after_an_overflow_the_next_poll_tries_notify_again(data_dir: Path) -> None:
    async with (
        two_mailboxes() as server,
        account_on(server, data_dir, poll_interval_seconds=0.2) as account,
    ):
        await account.once()
        await server.idling()
        server.overflow()
        await asked_for(server, rb"NOTIFY SET STATUS", times=2)
        lists(server).add(raw(1))
        await account.wait_for(arrived(1))
        assert account.sync.view().push == "notify"


async def test_a_server_that_stays_mute_after_an_overflow_is_left_and_watched_without_notify(data_dir: Path) -> None:
    async with two_mailboxes() as server:
        server.fault(rb"NOTIFY SET \(", refused("NO", "no more"), times=None)
        async with account_on(server, data_dir, sweep_interval_seconds=0.05) as account:
            await account.once()
            await server.idling()
            server.overflow()
            server.inbox.add(raw(1))
            await account.wait_for(arrived(1))
            lists(server).add(raw(2))
            await account.wait_for(arrived(2))
            await account.once()
            assert account.sync.view().push == "idle"
            assert (server.connections, server.count(rb"NOTIFY")) == (2, 2)
            await check(server, data_dir)


async def test_mailboxes_that_notify_does_not_cover_are_swept(data_dir: Path) -> None:
    """Another user's, or shared: they are in no personal namespace."""
    async with two_mailboxes() as server:
        server.untold.add("Lists")
        async with account_on(server, data_dir, sweep_interval_seconds=0.05) as account:
            await account.once()
            lists(server).add(raw(1))
            await account.wait_for(arrived(1))
            view = account.sync.view()
            assert (view.push, view.sweep_seconds) == ("notify", 0.05)


async def test_a_name_above_others_in_the_list_is_no_news(data_dir: Path) -> None:
    """Else each LIST, which tells of it again, would ask for the next, until pushing is given up."""
    async with two_mailboxes() as server:
        server.create(FakeMailbox("Parent")).attributes = rb"\NonExistent"
        child = server.create(FakeMailbox("Parent/Child"))
        async with account_on(server, data_dir) as account:
            await account.once()
            listed = server.count(rb"LIST")
            child.add(raw(1))
            await account.wait_for(arrived(1))
            assert server.count(rb"LIST") == listed
            assert account.sync.view().push == "notify"


async def test_a_notify_that_tells_nothing_is_found_out_by_the_poll_and_given_up(data_dir: Path) -> None:
    async with two_mailboxes() as server:

        async def mute(client: Client, _command: Command, answer: Answer) -> None:
            assert client.notify is not None
            client.notify.others = False
            await client.send(answer)

        server.fault(rb"NOTIFY SET STATUS", mute)
        async with account_on(server, data_dir, poll_interval_seconds=0.1) as account:
            await account.once()
            for number in range(1, 4):
                lists(server).add(raw(number))
                await account.wait_for(arrived(number))
            await server.until(lambda: account.sync.view().push == "idle")
            await check(server, data_dir)


async def test_a_mailbox_that_is_not_synced_may_change_unseen(data_dir: Path) -> None:
    async with (
        two_mailboxes() as server,
        account_on(server, data_dir, mailboxes=("INBOX",), poll_interval_seconds=NEVER) as account,
    ):
        await account.once()
        await server.idling()
        before = len(server.commands)
        lists(server).add(raw(1))
        server.inbox.add(raw(2))
        await account.wait_for(arrived(1))
        assert not [line for line in server.commands[before:] if b"Lists" in line or line.startswith(b"LIST")]


# -- whose news it is -------------------------------------------------------------------------------------------------


async def test_news_of_a_mailbox_that_was_left_is_looked_into_there(data_dir: Path) -> None:
    """An EXISTS that comes while another mailbox is selected, and before INBOX is watched again."""
    async with two_mailboxes(QRESYNC) as server:
        lists(server).add(raw(1))

        async def one_more(client: Client, _command: Command, answer: Answer) -> None:
            # After the pass has read the mailbox's state, in the middle of its sync.
            lists(server).add(raw(2))
            await client.send([*answer[:-1], *client.news(), answer[-1]])

        server.fault(rb"UID FETCH .*BODY", one_more)
        async with account_on(server, data_dir, sweep_interval_seconds=NEVER) as account:
            await account.wait_for(arrived(2))
            await account.once()
            await check(server, data_dir)


async def test_flags_that_come_before_the_mailbox_is_examined_again_cost_one_examine(data_dir: Path) -> None:
    """Plain tier: an EXISTS, and then flags before DONE: one look shows both."""
    async with FakeImap(capabilities=PLAIN) as server, account_on(server, data_dir) as account:
        server.inbox.add(raw(1))
        await account.once()
        client = await server.idling()
        before = server.count(rb"EXAMINE")
        message = server.inbox.messages[1]
        server.inbox.messages[2] = type(message)(raw(2), frozenset(), server.inbox._next_mod_seq())
        server.inbox.uid_next = 3
        message.flags = frozenset({r"\Seen"})
        await client.send([b"* 2 EXISTS\r\n", client.fetched(1, b"FLAGS")])
        client.told = {uid: one.flags for uid, one in server.inbox.messages.items()}
        await account.wait_for(arrived(2))
        await account.wait_for(told("messageUpdated"))
        await server.idling()
        assert server.count(rb"EXAMINE") == before + 1
        await check(server, data_dir)


async def test_the_plain_tier_is_swept_in_one_round_trip_and_polled_for_flags(data_dir: Path) -> None:
    async with FakeImap(FakeMailbox(), FakeMailbox("Lists", uid_validity=8), capabilities=PLAIN) as server:
        lists(server).add(raw(1))
        async with account_on(server, data_dir, poll_interval_seconds=2, sweep_interval_seconds=0.05) as account:
            await account.once()
            lists(server).add(raw(2))
            await account.wait_for(arrived(2))
            lists(server).set_flags(1, r"\Seen")
            await account.wait_for(told("messageUpdated"))
            await check(server, data_dir)


async def test_the_link_is_probed_between_looks(data_dir: Path) -> None:
    async with (
        two_mailboxes() as server,
        account_on(server, data_dir, poll_interval_seconds=NEVER, watch=WatchSettings(0.05, 5)) as account,
    ):
        await account.once()
        await asked_for(server, rb"NOOP", times=server.count(rb"NOOP") + 3)
        server.inbox.add(raw(1))
        await account.wait_for(arrived(1))
        assert server.connections == 1
