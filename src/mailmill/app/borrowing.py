"""A command without a service, on a PostgreSQL that other nodes may share: it owns an account for as long as it works
on it, or leaves it to who owns it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mailmill.app.lease_book import LeaseBook
from mailmill.errors import MailmillError
from mailmill.store import accounts as account_store
from mailmill.store.owned_database import OwnedDatabase

if TYPE_CHECKING:
    from mailmill.app.account_tasks import RunningAccount
    from mailmill.app.application import Application

_RETRY_SECONDS = 1.0
_SERIAL = itertools.count(1)


class Borrowing:
    """The shards of one command. To be used as a context: at its end all goes back."""

    def __init__(self, application: Application) -> None:
        self._app = application
        # Without roles nothing is given to it: it has what it asks for.
        # A name of its own: who retires gives back all that its name holds, and others may borrow beside it.
        node = replace(application.fleet_node, id=f"{application.node}:command{next(_SERIAL)}"[-80:], roles=())
        self._book = LeaseBook(application.database, node, application.settings.service.lease_seconds)
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Borrowing]:
        if self._app.database.alone or self._app.running:
            yield self
            return
        await self._book.renew()
        # No task group: what fails within is to be raised as it is.
        renewing = asyncio.create_task(self._renew(), name="borrowing")
        try:
            yield self
        finally:
            renewing.cancel()
            with contextlib.suppress(MailmillError, TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS):
                    await asyncio.wait([renewing])
                    await self._book.retire()
        if renewing.done() and not renewing.cancelled():
            renewing.result()

    async def borrow(self, account: RunningAccount) -> bool:
        """Whether the account is ours to sync now; then its row is read anew and its writes are guarded."""
        database = self._app.database
        if database.alone:
            return True
        async with self._turn:
            shard = account.row.shard
            if shard not in self._book.held:
                await self._book.take([shard])
            lease = self._book.held.get(shard)
        if lease is None:
            return False
        async with database.read() as connection:
            row = await account_store.get_account(connection, account.row.name)
        account.renew(row, OwnedDatabase(database, lease))
        return True

    async def _renew(self) -> None:
        while True:
            pause = self._book.lease_seconds / 4
            try:
                async with asyncio.timeout(pause):
                    await self._book.renew()
            except (MailmillError, TimeoutError):
                # The leases end by themselves, and then nothing is written any more.
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)
