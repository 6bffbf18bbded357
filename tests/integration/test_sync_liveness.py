"""Links that die without a word, and everything that takes a server away for a while: back in sync by itself.

Every test of an outage ends in "the store equals the server", after changes that were made meanwhile.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness import truth
from harness.fake_imap import QRESYNC, FakeImap
from harness.fake_imap_faults import refused
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import account_on, arrived, check, raw
from harness.other_client import OtherClient
from harness.syncing import SyncedAccount, synced_account
from mailmill.errors import MailmillError
from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.imap.pool import Pool
from mailmill.model import AccountState, Endpoint, Tls
from mailmill.sync import account_sync
from mailmill.sync.watch import WatchSettings
from servers.dovecot import Dovecot
from servers.proxy import Proxy
from servers.tls import make_certificates

pytestmark = pytest.mark.both_databases

NEVER = 3600.0
# No test waits for a real minute: a link goes unproven for a moment, and an answer takes what a loaded machine needs.
QUICK = WatchSettings(probe_seconds=0.1, answer_seconds=1.0, wake_answer_seconds=1.0)
IMPATIENT = ConnectionSettings(connect_timeout_seconds=2, command_timeout_seconds=1)


@asynccontextmanager
async def account_at(
    endpoint: Endpoint,
    dovecot: Dovecot,
    user: str,
    data_dir: Path,
    *,
    watch: WatchSettings = QUICK,
    delay: float = 0.05,
) -> AsyncIterator[SyncedAccount]:
    """In sync, only pushed to and probed, and tried again ``delay`` seconds after an error."""
    with mock.patch("mailmill.sync.account_sync.delay_seconds", lambda *_arguments, **_options: delay):
        async with synced_account(
            data_dir,
            endpoint,
            dovecot.credentials(user),
            poll_interval_seconds=NEVER,
            sweep_interval_seconds=NEVER,
            watch=watch,
            connection=IMPATIENT,
        ) as account:
            await account.once()
            yield account


async def shown(account: SyncedAccount, words: str) -> None:
    """Until the account is not connected, and says why."""
    failed = asyncio.Event()
    note = account.sync._note_failure

    async def noted(error: MailmillError) -> None:
        await note(error)
        failed.set()

    with mock.patch.object(account.sync, "_note_failure", noted):
        async with asyncio.timeout(30):
            while words not in account.sync.view().reason:
                failed.clear()
                await failed.wait()
    assert account.sync.view().state is AccountState.CONNECT_ERROR


async def check_dovecot(dovecot: Dovecot, user: str, data_dir: Path) -> None:
    async with OtherClient(dovecot.host, dovecot.port, user, dovecot.password) as other:
        held = await other.truth()
    await asyncio.to_thread(truth.check, data_dir, held)


def told(event: str, times: int = 1) -> Callable[[Any], bool]:
    return lambda rows: sum(row.event == event for row in rows) >= times


async def changes(dovecot: Dovecot, user: str) -> None:
    """What is missed by who is not there: mail, a flag, an expunge, in two mailboxes."""
    await dovecot.add_messages(user, "INBOX", [raw(11), raw(12)])
    await dovecot.add_message(user, "Archive", raw(13))
    await dovecot.set_flags(user, "INBOX", "uid 1", [r"\Flagged"])
    await dovecot.expunge(user, "INBOX", "uid 2")


# -- the link ---------------------------------------------------------------------------------------------------------


async def test_a_link_that_a_nat_forgot_is_found_dead_by_the_probe(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [raw(1), raw(2)])
    async with (
        Proxy(dovecot.host, dovecot.port) as proxy,
        account_at(replace(dovecot.endpoint(), port=proxy.port), dovecot, user, data_dir) as account,
    ):
        proxy.stall()
        await changes(dovecot, user)
        await account.wait_for(told("connectError"))
        assert account.connections[0].closed
        assert account.sync.view().state in {AccountState.CONNECT_ERROR, AccountState.CONNECTING}
        proxy.resume()
        await account.wait_for(arrived(5))
        await account.once()
        assert account.sync.view().state is AccountState.CONNECTED
        await check_dovecot(dovecot, user, data_dir)


async def test_a_link_that_dies_in_the_middle_of_a_download(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    async with (
        Proxy(dovecot.host, dovecot.port) as proxy,
        account_at(replace(dovecot.endpoint(), port=proxy.port), dovecot, user, data_dir) as account,
    ):
        before = proxy.bytes_down
        await dovecot.add_messages(user, "INBOX", [raw(number, "x" * 500_000) for number in range(40)])
        await proxy.until(lambda: proxy.bytes_down > before + 1_000_000)
        proxy.stall()
        await account.wait_for(told("connectError"))
        proxy.resume()
        await account.wait_for(arrived(40))
        await account.once()
        await check_dovecot(dovecot, user, data_dir)


async def test_connections_that_are_cut_again_and_again(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    async with (
        Proxy(dovecot.host, dovecot.port) as proxy,
        account_at(replace(dovecot.endpoint(), port=proxy.port), dovecot, user, data_dir) as account,
    ):
        for number in range(1, 6):
            proxy.cut()
            await dovecot.add_message(user, "INBOX" if number % 2 else "Archive", raw(number))
            await account.wait_for(arrived(number))
        await account.once()
        await check_dovecot(dovecot, user, data_dir)


async def test_the_kernel_is_asked_to_find_dead_links_too(dovecot: Dovecot, data_dir: Path) -> None:
    async with account_at(dovecot.endpoint(), dovecot, dovecot.new_user(), data_dir) as account:
        sock = account.connections[0]._link.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        asked = {name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in _OPTIONS}
        assert asked == _OPTIONS


_OPTIONS = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 120_000}


# -- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_dovecot() -> Iterator[Dovecot]:
    """One that a test may stop."""
    with Dovecot() as server:
        yield server


async def test_a_server_that_is_down_for_a_while(own_dovecot: Dovecot, data_dir: Path) -> None:
    user = own_dovecot.new_user()
    await own_dovecot.add_messages(user, "INBOX", [raw(1), raw(2)])
    async with (
        Proxy(own_dovecot.host, own_dovecot.port) as proxy,
        account_at(replace(own_dovecot.endpoint(), port=proxy.port), own_dovecot, user, data_dir) as account,
    ):
        proxy.refusing = True
        await own_dovecot.restart()
        # Dovecot's sessions outlive their server by half a minute.
        proxy.cut()
        await account.wait_for(told("connectError"))
        await changes(own_dovecot, user)
        proxy.refusing = False
        await account.wait_for(arrived(5))
        await account.once()
        await check_dovecot(own_dovecot, user, data_dir)


async def test_a_certificate_that_changes_is_shown_and_taken_when_it_is_trusted(
    own_dovecot: Dovecot, data_dir: Path
) -> None:
    """Untrusted: nothing is sent, the state says why. The authority's file is renewed: back by itself."""
    user = own_dovecot.new_user()
    await own_dovecot.add_messages(user, "INBOX", [raw(1), raw(2)])
    trusted = data_dir / "authority.pem"
    await asyncio.to_thread(shutil.copy, own_dovecot.ca_file, trusted)
    async with Proxy(own_dovecot.host, own_dovecot.tls_port) as proxy:
        endpoint = replace(own_dovecot.endpoint(Tls.IMPLICIT), port=proxy.port, ca_file=str(trusted))
        async with account_at(endpoint, own_dovecot, user, data_dir) as account:
            renewed = await asyncio.to_thread(_renew, own_dovecot, data_dir)
            proxy.cut()
            await shown(account, "not trusted")
            await changes(own_dovecot, user)
            await asyncio.to_thread(shutil.copy, renewed, trusted)
            await account.wait_for(arrived(5))
            await account.once()
            await check_dovecot(own_dovecot, user, data_dir)


def _renew(dovecot: Dovecot, folder: Path) -> Path:
    """Start ``dovecot`` again with a certificate of another authority; its file."""
    made, used = make_certificates(folder), dovecot._certificates
    assert used is not None
    dovecot.stop()
    used.certificate_file.write_bytes(made.certificate_file.read_bytes())
    used.key_file.write_bytes(made.key_file.read_bytes())
    dovecot.start()
    return made.ca_file


async def test_a_name_that_does_not_resolve_for_a_while(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [raw(1), raw(2)])
    known = True
    connect = ImapConnection.open

    async def open_by_name(endpoint: Endpoint, settings: ConnectionSettings) -> ImapConnection:
        # RFC 6761 §6.4: a name that no resolver knows.
        return await connect(
            endpoint if known else replace(endpoint, host="imap.invalid", allow_insecure=True), settings
        )

    with mock.patch.object(ImapConnection, "open", open_by_name):
        async with account_at(dovecot.endpoint(), dovecot, user, data_dir) as account:
            known = False
            await dovecot.kick(user)
            await shown(account, "imap.invalid")
            await changes(dovecot, user)
            known = True
            await account.wait_for(arrived(5))
            await account.once()
            await check_dovecot(dovecot, user, data_dir)


# -- sleep ------------------------------------------------------------------------------------------------------------


async def test_after_a_sleep_a_dead_link_is_found_at_once(dovecot: Dovecot, data_dir: Path) -> None:
    """By a probe that nothing but the wake-up asks for."""
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [raw(1), raw(2)])
    patient = WatchSettings(probe_seconds=NEVER, answer_seconds=NEVER, wake_answer_seconds=0.5)
    async with (
        Proxy(dovecot.host, dovecot.port) as proxy,
        account_at(replace(dovecot.endpoint(), port=proxy.port), dovecot, user, data_dir, watch=patient) as account,
    ):
        proxy.stall()
        await changes(dovecot, user)
        account.sync.woke()
        await account.wait_for(told("connectError"))
        proxy.resume()
        await account.wait_for(arrived(5))
        await account.once()
        await check_dovecot(dovecot, user, data_dir)


async def test_after_a_sleep_a_living_link_is_kept_and_everything_is_looked_at(data_dir: Path) -> None:
    async with (
        FakeImap() as server,
        account_on(server, data_dir, poll_interval_seconds=NEVER, sweep_interval_seconds=NEVER) as account,
    ):
        await account.once()
        client = await server.idling()
        # Lost on the way: this session will never be told of it.
        server.inbox.changed = lambda: None
        server.inbox.add(raw(1))
        client.told = {uid: message.flags for uid, message in server.inbox.messages.items()}
        account.sync.woke()
        await account.wait_for(arrived(1))
        assert server.connections == 1
        await check(server, data_dir)


async def test_after_a_sleep_an_account_that_backs_off_tries_at_once(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    async with (
        Proxy(dovecot.host, dovecot.port) as proxy,
        account_at(
            replace(dovecot.endpoint(), port=proxy.port), dovecot, user, data_dir, delay=NEVER, watch=WatchSettings()
        ) as account,
    ):
        proxy.cut()
        await account.wait_for(told("connectError"))
        await dovecot.add_message(user, "INBOX", raw(1))
        account.sync.woke()
        await account.wait_for(arrived(1))


async def test_a_sleep_does_not_hammer_a_server_that_refuses_the_credentials(data_dir: Path) -> None:
    async with FakeImap() as server:
        server.fault(rb"AUTHENTICATE", refused("NO", "[AUTHENTICATIONFAILED] wrong"), times=None)
        async with account_on(server, data_dir) as account:
            await account.wait_for(told("authenticationError"))
            for _ in range(3):
                account.sync.woke()
                await asyncio.sleep(0)
            assert server.logins == 1
            server.heal()
            account.sync.resume()
            await account.wait_for(told("authenticationSuccess"))
            assert server.logins == 2


async def test_a_call_that_comes_while_the_last_attempt_still_closes_is_heard(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_sync, "delay_seconds", lambda *_, **__: 3600.0)
    close = Pool.close
    calls: list[Pool[ImapConnection]] = []

    async def called_while_closing(pool: Pool[ImapConnection]) -> None:
        await close(pool)
        if not calls:
            calls.append(pool)
            account.sync.called_back()

    monkeypatch.setattr(Pool, "close", called_while_closing)
    async with FakeImap() as server:
        server.fault(rb"AUTHENTICATE", refused("NO", "[UNAVAILABLE] later"), times=1)
        async with synced_account(data_dir, server.endpoint(), server.credentials()) as account:
            await account.wait_for(told("authenticationSuccess"))
        assert calls


# -- what is shown ----------------------------------------------------------------------------------------------------


async def test_an_account_that_has_long_not_been_answered_does_not_pass_for_connected(data_dir: Path) -> None:
    """Whatever keeps its task from finding out."""
    async with FakeImap() as server, account_on(server, data_dir) as account:
        await account.once()
        assert account.sync.view().state is AccountState.CONNECTED
        before = account.connections[0].silent_seconds
        with mock.patch("mailmill.imap.connection.boot_seconds", lambda: 1e9):
            view = account.sync.view()
            assert view.state is AccountState.CONNECT_ERROR
            assert "no answer" in view.reason
        assert account.sync.view().state is AccountState.CONNECTED
        assert account.connections[0].silent_seconds < before + 60


@pytest.mark.parametrize("capabilities", ["idle", "none"])
async def test_what_is_pushed_and_how_late_the_rest_may_be_is_shown(capabilities: str, data_dir: Path) -> None:
    said = QRESYNC if capabilities == "idle" else QRESYNC.replace(" IDLE", "")
    mailboxes = (FakeMailbox(), FakeMailbox("Lists", uid_validity=8))
    async with FakeImap(*mailboxes, capabilities=said) as server, account_on(server, data_dir) as account:
        await account.once()
        view = account.sync.view()
        shown = (view.push, view.pushed, view.sweep_seconds)
        assert shown == (("idle", "INBOX", 60.0) if capabilities == "idle" else ("poll", None, 60.0))
