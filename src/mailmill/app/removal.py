"""Deleting an account for good, on demand: the use case over `store.account_removal`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from mailmill.app import views
from mailmill.errors import ConflictError
from mailmill.store import account_removal, leases
from mailmill.store import accounts as account_store

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.app.application import Application
    from mailmill.store.database import Database

JsonObject = dict[str, Any]

_OTHERS_SECONDS: Final = 0.2

_log = structlog.get_logger("mailmill.housekeeping")


class Removals:
    """One per application."""

    def __init__(self, application: Application) -> None:
        self._app = application

    async def remove(self, name: str, *, purge: bool) -> JsonObject:
        """Delete what the account ``name`` left here; without ``purge`` nothing goes, and the answer says so.

        Answers when all is gone. Where the wait is given up, or the process dies, the deletion goes on by itself: the
        account is marked, and housekeeping takes up what was left. Raises NotFoundError, and ConflictError for an
        account that is in use: it is the configuration that says which accounts there are.
        """
        database = self._app.database
        async with database.read() as connection:
            await account_store.get_account(connection, name)
        if name in self._app.accounts:
            raise ConflictError(
                f"account {name!r} is in the configuration",
                hint=f"take [accounts.{name}] out of it and restart the service: that pauses it; then delete it",
            )
        began = time.monotonic()
        async with database.write() as connection:
            await self._stop(connection, name)
            if not purge:
                return {"account": name, "purged": False, "messages": 0, "seconds": 0.0}
            removal = await account_removal.mark(connection, name, self._app.clock())
        _log.info("deleting an account", account=name)
        messages = await finish_removal(database, removal.account_id)
        _log.info("deleted an account", account=name, messages=messages)
        return {
            "account": name,
            "purged": True,
            "messages": messages,
            "seconds": round(time.monotonic() - began, 6),
        }

    async def _stop(self, connection: AsyncConnection, name: str) -> None:
        """Have nobody keep the account in sync. Where this process is alone, its configuration decides; a node of a
        fleet that has run since before the account was paused may have it in its own. Raises ConflictError.
        """
        if self._app.database.alone:
            # It alone: the others that this configuration lacks may be in the service's.
            await account_store.pause(connection, name, self._app.clock())
            return
        row = await account_store.get_account(connection, name)
        if not row.paused:
            raise ConflictError(
                f"account {name!r} is in use",
                hint=f"take [accounts.{name}] out of the configuration of all nodes and restart them; then delete it",
            )
        fleet = await leases.read_fleet(connection)
        owner = fleet.owners.get(row.shard)
        for node in fleet.nodes:
            if node.id == owner and node.id != self._app.node and node.started_at <= row.state_changed_at:
                raise ConflictError(
                    f"node {node.id} may still keep account {name!r} in sync: it has run since before it was paused",
                    hint=f"take [accounts.{name}] out of its configuration too and restart it; then delete the account",
                )

    async def running(self) -> list[JsonObject]:
        """The accounts that are being deleted, and how much of each is left."""
        async with self._app.database.read() as connection:
            return [
                {
                    "account": removal.name,
                    "since": views.iso(removal.since),
                    "messagesLeft": await account_removal.messages_left(connection, removal.account_id),
                }
                for removal in await account_removal.removals(connection)
            ]


async def finish_removal(database: Database, account_id: int) -> int:
    """Go on until nothing is left of an account that was marked; returns how many messages went. May be cut anywhere,
    and called again."""
    messages, gone = await remove_what_is_free(database, account_id)
    while not gone:
        # Workers were recording what they ran over it; nobody tells when they have.
        await asyncio.sleep(_OTHERS_SECONDS)
        more, gone = await remove_what_is_free(database, account_id)
        messages += more
    return messages


async def remove_what_is_free(database: Database, account_id: int) -> tuple[int, bool]:
    """All of an account that was marked but what others hold at this moment; returns how many messages went, and
    whether the account is gone. May be cut anywhere, and called again.
    """
    messages = 0
    while True:
        async with database.write() as connection:
            some = await account_removal.remove_messages(connection, account_id)
        messages += some
        if not some:
            break
    while True:
        async with database.write() as connection:
            if not await account_removal.remove_requests(connection, account_id):
                break
    while True:
        async with database.write() as connection:
            if not await account_removal.remove_senders(connection, account_id):
                break
    after: int | None = 0
    while after is not None:
        async with database.write() as connection:
            after = await account_removal.remove_events(connection, account_id, after)
    async with database.write() as connection:
        return messages, await account_removal.remove_rest(connection, account_id)
