from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from store_mail import NOW, open_database

from mailmill.errors import NotFoundError
from mailmill.model import AccountState, Backlog
from mailmill.store import accounts
from mailmill.store.accounts import AccountRow
from mailmill.store.tables import event

STATE = AccountState


@pytest.fixture
async def connection(data_dir: Path, database_url: str) -> AsyncIterator[AsyncConnection]:
    """One transaction for the whole test."""
    async with open_database(data_dir, database_url) as database, database.write() as opened:
        yield opened


async def ensure(connection: AsyncConnection, mark: str | None = "mark", name: str = "me") -> AccountRow:
    return await accounts.ensure_account(
        connection, name=name, email="me@example.org", backlog=Backlog.STORE, credential_mark=mark, now=NOW
    )


async def events(connection: AsyncConnection) -> list[str]:
    return list((await connection.execute(select(event.c.event).order_by(event.c.id))).scalars())


async def test_an_account_is_added_once(connection: AsyncConnection) -> None:
    first = await ensure(connection)
    assert (first.state, first.backlog, first.initialized_at) == (STATE.INIT, Backlog.STORE, None)
    assert await ensure(connection) == first
    assert await accounts.list_accounts(connection) == [first]
    assert await events(connection) == ["accountAdded"]
    with pytest.raises(NotFoundError):
        await accounts.get_account(connection, "you")


async def test_the_configuration_overrules_what_is_stored(connection: AsyncConnection) -> None:
    await ensure(connection)
    row = await accounts.ensure_account(
        connection, name="me", email="new@example.org", backlog=Backlog.DELIVER, credential_mark="mark", now=NOW + 1
    )
    assert (row.email, row.backlog, row.added_at) == ("new@example.org", Backlog.DELIVER, NOW)


async def test_outcomes_are_told_when_they_change(connection: AsyncConnection) -> None:
    account = await ensure(connection)
    for state in (
        STATE.CONNECTING, STATE.SYNCING, STATE.CONNECTED,
        STATE.DISCONNECTED, STATE.CONNECTING, STATE.CONNECTED,
        STATE.CONNECT_ERROR, STATE.CONNECTING, STATE.CONNECT_ERROR,
        STATE.CONNECTING, STATE.CONNECTED, STATE.AUTHENTICATION_ERROR, STATE.AUTHENTICATION_ERROR,
    ):  # fmt: skip
        await accounts.set_state(connection, account.id, state, "", NOW)
    assert (await events(connection))[1:] == [
        "authenticationSuccess",
        "connectError",
        "authenticationSuccess",
        "authenticationError",
    ]


async def test_a_reason_is_kept_shown_and_made_safe(connection: AsyncConnection) -> None:
    account = await ensure(connection)
    await accounts.set_state(connection, account.id, STATE.CONNECT_ERROR, "refused\x00\ud800" + "x" * 5000, NOW + 5)
    row = await accounts.get_account(connection, "me")
    assert row.state_reason.startswith("refused\ufffd\ufffdx")
    assert len(row.state_reason) == 1000
    assert row.state_changed_at == NOW + 5
    await accounts.set_state(connection, account.id, STATE.CONNECT_ERROR, "still refused", NOW + 9)
    row = await accounts.get_account(connection, "me")
    assert (row.state_reason, row.state_changed_at) == ("still refused", NOW + 5)


async def test_new_credentials_clear_an_authentication_error(connection: AsyncConnection) -> None:
    account = await ensure(connection)
    await accounts.set_state(connection, account.id, STATE.AUTHENTICATION_ERROR, "no", NOW)
    assert (await ensure(connection)).state == STATE.AUTHENTICATION_ERROR
    assert (await ensure(connection, "other")).state == STATE.INIT
    await accounts.set_state(connection, account.id, STATE.AUTHENTICATION_ERROR, "no", NOW)
    assert await events(connection) == ["accountAdded", "authenticationError", "authenticationError"]


async def test_credentials_that_cannot_be_had_now_change_nothing(connection: AsyncConnection) -> None:
    account = await ensure(connection)
    await accounts.set_state(connection, account.id, STATE.AUTHENTICATION_ERROR, "no", NOW)
    row = await ensure(connection, None)
    assert (row.state, row.state_reason) == (STATE.AUTHENTICATION_ERROR, "no")
    assert (await ensure(connection)).state == STATE.AUTHENTICATION_ERROR, "the mark is as it was"
    assert (await ensure(connection, "other")).state == STATE.INIT


async def test_an_account_may_be_added_before_its_credentials_can_be_had(connection: AsyncConnection) -> None:
    assert (await ensure(connection, None)).state == STATE.INIT
    assert (await ensure(connection)).state == STATE.INIT


async def test_what_is_not_configured_is_paused_and_purged_of_nothing(connection: AsyncConnection) -> None:
    await ensure(connection)
    await ensure(connection, name="other")
    assert await accounts.pause_missing(connection, {"other"}, NOW) == ["me"]
    assert await accounts.pause_missing(connection, {"other"}, NOW) == []
    paused = await accounts.get_account(connection, "me")
    assert (paused.state, paused.paused) == (STATE.PAUSED, True)
    again = await ensure(connection)
    assert (again.id, again.state, again.paused) == (paused.id, STATE.INIT, False)


async def test_what_is_paused_stays_so_though_its_owner_has_not_heard_of_it(connection: AsyncConnection) -> None:
    row = await ensure(connection)
    await accounts.pause(connection, "me", NOW)
    told = await events(connection)
    await accounts.set_state(connection, row.id, STATE.CONNECT_ERROR, "gone", NOW)
    assert (await accounts.get_account(connection, "me")).state == STATE.PAUSED
    assert await events(connection) == told


async def test_which_accounts_of_a_shard_go_on(connection: AsyncConnection) -> None:
    going, resting = await ensure(connection), await ensure(connection, name="other")
    await accounts.pause(connection, "other", NOW)
    both = {going.shard, resting.shard}
    assert await accounts.going_accounts(connection, both) == {going.id: "me"}
    assert await accounts.going_accounts(connection, both - {going.shard}) == {}


@pytest.mark.parametrize(("mark", "state"), [("mark", STATE.AUTHENTICATION_ERROR), ("new", STATE.INIT)])
async def test_a_pause_does_not_try_refused_credentials_again(
    connection: AsyncConnection, mark: str, state: AccountState
) -> None:
    account = await ensure(connection)
    await accounts.set_state(connection, account.id, STATE.AUTHENTICATION_ERROR, "no", NOW)
    await accounts.pause_missing(connection, (), NOW)
    assert (await ensure(connection, mark)).state == state


async def test_initialized_is_told_once(connection: AsyncConnection) -> None:
    account = await ensure(connection)
    assert await accounts.mark_initialized(connection, account.id, NOW + 1)
    assert not await accounts.mark_initialized(connection, account.id, NOW + 2)
    assert (await accounts.get_account(connection, "me")).initialized_at == NOW + 1
    assert (await events(connection)).count("accountInitialized") == 1


def test_shards_never_change() -> None:
    assert [accounts.shard_of("default", name) for name in ("default", "work", "\N{SNOWMAN}")] == [4, 38, 32]
