"""Accounts: what the store knows of them. Their servers and credentials are configuration and never come here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import NotFoundError
from mailmill.model import AccountState, Backlog, EventName
from mailmill.store import dialect, event_log
from mailmill.store.dialect import storable
from mailmill.store.event_log import DEFAULT_TENANT, NewEvent
from mailmill.store.tables import account

SHARDS = 64

_MAX_REASON = 1000
_LOGGED_IN = frozenset({AccountState.SYNCING, AccountState.CONNECTED})
_ANNOUNCED = {
    AccountState.AUTHENTICATION_ERROR: EventName.AUTHENTICATION_ERROR,
    AccountState.CONNECT_ERROR: EventName.CONNECT_ERROR,
} | dict.fromkeys(_LOGGED_IN, EventName.AUTHENTICATION_SUCCESS)


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as stored. Times are seconds since the epoch; ``initialized_at`` is when its first sync was over."""

    id: int
    tenant_id: str
    name: str
    email: str
    shard: int
    backlog: Backlog
    state: AccountState
    state_reason: str
    state_changed_at: float
    paused: bool
    added_at: float
    initialized_at: float | None


async def ensure_account(
    connection: AsyncConnection,
    *,
    name: str,
    email: str,
    backlog: Backlog,
    credential_mark: str | None,
    now: float,
    tenant_id: str = DEFAULT_TENANT,
) -> AccountRow:
    """Make the account what the configuration says; a new one raises accountAdded. For who keeps it in sync from now
    on: whoever only looks takes it as it is (`known_account`).

    ``credential_mark`` (`KeyRing.mark`) tells that the credentials changed: that clears ``authenticationError``. None:
    they are not known now, and what is stored about them stays. An account that `pause_missing` paused goes on.
    """
    name, email = storable(name), storable(email)
    row = (await connection.execute(_rows(tenant_id).where(account.c.name == name))).first()
    if row is None:
        return await known_account(
            connection,
            name=name,
            email=email,
            backlog=backlog,
            credential_mark=credential_mark,
            now=now,
            tenant_id=tenant_id,
        )
    changes: dict[str, Any] = {"email": email, "backlog": str(backlog), "paused": False}
    refused = row.announced == EventName.AUTHENTICATION_ERROR
    if credential_mark is not None and row.credential_mark != credential_mark:
        changes |= {"credential_mark": credential_mark, "announced": ""}
        refused = False
    if row.paused and refused:
        # Taking an account out of the file and putting it back does not try again what the server refused.
        changes |= _state_values(AccountState.AUTHENTICATION_ERROR, "the server refused these credentials before", now)
    elif row.paused or (row.state == AccountState.AUTHENTICATION_ERROR and not refused):
        changes |= _state_values(AccountState.INIT, "", now)
    if any(row._mapping[column] != value for column, value in changes.items()):
        # Rows that are as configured are left alone: another node may be writing them.
        await connection.execute(update(account).where(account.c.id == row.id).values(**changes))
    return await get_account(connection, name, tenant_id=tenant_id)


async def known_account(
    connection: AsyncConnection,
    *,
    name: str,
    email: str,
    backlog: Backlog,
    credential_mark: str | None,
    now: float,
    tenant_id: str = DEFAULT_TENANT,
) -> AccountRow:
    """The account as it is, paused or not, whatever the configuration says; one that is not there is added as
    configured, which raises accountAdded.
    """
    name, email = storable(name), storable(email)
    row = (await connection.execute(_rows(tenant_id).where(account.c.name == name))).first()
    if row is not None:
        return _account_row(row)
    new = dialect.insert(connection, account).values(
        tenant_id=tenant_id,
        name=name,
        email=email,
        shard=shard_of(tenant_id, name),
        backlog=str(backlog),
        state=str(AccountState.INIT),
        state_changed_at=now,
        credential_mark=credential_mark or "",
        added_at=now,
    )
    # Nodes that start at once with the same configuration add the same account: one of them does.
    made = await connection.execute(new.on_conflict_do_nothing(index_elements=["tenant_id", "name"]))
    added = await get_account(connection, name, tenant_id=tenant_id)
    if made.rowcount:
        await event_log.append(connection, [NewEvent(tenant_id, EventName.ACCOUNT_ADDED, now, account_id=added.id)])
    return added


async def set_state(connection: AsyncConnection, account_id: int, state: AccountState, reason: str, now: float) -> None:
    """Note the state. ``reason`` is shown to people and must hold no secret.

    Raises authenticationError, connectError or authenticationSuccess where the outcome of connecting differs from the
    last one told: neither a restart nor a server that stays down tells the same twice.

    A paused account stays paused: who still keeps it in sync has not heard of it yet.
    """
    stored = select(account).where(account.c.id == account_id)
    row = (await connection.execute(dialect.lock(connection, stored, of=account))).first()
    if row is None:
        raise NotFoundError(f"there is no account with id {account_id}")
    if row.paused:
        return
    reason = storable(reason)[:_MAX_REASON]
    changes: dict[str, Any] = {}
    if row.state != state:
        changes = _state_values(state, reason, now)
    elif row.state_reason != reason:
        changes = {"state_reason": reason}
    outcome = _ANNOUNCED.get(state)
    if outcome is not None and row.announced != outcome:
        changes["announced"] = str(outcome)
        data = {"reason": reason} if reason else {}
        await event_log.append(connection, [NewEvent(row.tenant_id, outcome, now, account_id=account_id, data=data)])
    if changes:
        await connection.execute(update(account).where(account.c.id == account_id).values(**changes))


async def mark_initialized(connection: AsyncConnection, account_id: int, now: float) -> bool:
    """Note that the first sync of all mailboxes is over: accountInitialized, once. False where it was noted before."""
    tenant_id: str | None = await connection.scalar(
        update(account)
        .where(account.c.id == account_id, account.c.initialized_at.is_(None))
        .values(initialized_at=now)
        .returning(account.c.tenant_id)
    )
    if tenant_id is None:
        return False
    await event_log.append(connection, [NewEvent(tenant_id, EventName.ACCOUNT_INITIALIZED, now, account_id=account_id)])
    return True


async def pause_missing(
    connection: AsyncConnection, keep_names: Collection[str], now: float, *, tenant_id: str = DEFAULT_TENANT
) -> list[str]:
    """Pause the accounts that the configuration no longer names; nothing of theirs is purged. Returns their names."""
    kept = {storable(name) for name in keep_names}
    going = select(account.c.name).where(
        account.c.tenant_id == tenant_id, account.c.removing_at.is_(None), account.c.paused.is_(False)
    )
    gone = sorted(name for name in (await connection.execute(going)).scalars() if name not in kept)
    for name in gone:
        await pause(connection, name, now, tenant_id=tenant_id)
    return gone


async def pause(connection: AsyncConnection, name: str, now: float, *, tenant_id: str = DEFAULT_TENANT) -> None:
    """Pause the account ``name``, which the configuration no longer names; nothing where it is paused."""
    values = _state_values(AccountState.PAUSED, "it is no longer in the configuration", now)
    mine = (account.c.tenant_id == tenant_id, account.c.name == storable(name), account.c.removing_at.is_(None))
    await connection.execute(update(account).where(*mine, account.c.paused.is_(False)).values(paused=True, **values))


async def going_accounts(connection: AsyncConnection, shards: Collection[int]) -> dict[int, str]:
    """Id → name of the accounts of ``shards`` that are to be kept in sync: neither paused nor being deleted."""
    going = select(account.c.id, account.c.name).where(
        account.c.shard.in_(shards), account.c.paused.is_(False), account.c.removing_at.is_(None)
    )
    return {row[0]: row[1] for row in await connection.execute(going)}


async def list_accounts(
    connection: AsyncConnection, *, shard: int | None = None, tenant_id: str = DEFAULT_TENANT
) -> list[AccountRow]:
    """All accounts by name, or those of one shard, paused ones included."""
    rows = _rows(tenant_id)
    if shard is not None:
        rows = rows.where(account.c.shard == shard)
    return [_account_row(row) for row in await connection.execute(rows)]


async def get_account(connection: AsyncConnection, name: str, *, tenant_id: str = DEFAULT_TENANT) -> AccountRow:
    """The account called ``name``. Raises NotFoundError."""
    row = (await connection.execute(_rows(tenant_id).where(account.c.name == storable(name)))).first()
    if row is None:
        raise NotFoundError(f"there is no account {name!r}", hint="`mailmill account list` shows those there are")
    return _account_row(row)


def shard_of(tenant_id: str, name: str) -> int:
    """Which of the `SHARDS` an account is in; the same on every node, for ever."""
    digest = hashlib.sha256(f"{tenant_id}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8]) % SHARDS


def _state_values(state: AccountState, reason: str, now: float) -> dict[str, Any]:
    return {"state": str(state), "state_reason": reason, "state_changed_at": now}


def _rows(tenant_id: str) -> Select[Any]:
    # An account that is being deleted is there for nobody.
    own = (account.c.tenant_id == tenant_id, account.c.removing_at.is_(None))
    return select(account).where(*own).order_by(account.c.name)


def _account_row(row: Row[Any]) -> AccountRow:
    return AccountRow(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        email=row.email,
        shard=row.shard,
        backlog=Backlog(row.backlog),
        state=AccountState(row.state),
        state_reason=row.state_reason,
        state_changed_at=row.state_changed_at,
        paused=row.paused,
        added_at=row.added_at,
        initialized_at=row.initialized_at,
    )
