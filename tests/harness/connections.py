"""Connections to test with: logged in to a server, or to a script that plays one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mailmill.imap.connection import ConnectionSettings, FetchedBody, ImapConnection
from mailmill.model import Credentials, Endpoint
from mailmill.uid_set import UidSet
from servers.scripted import ScriptedServer, Talk

SETTINGS = ConnectionSettings(connect_timeout_seconds=20, command_timeout_seconds=20)
ME = Credentials("me", "secret")

MAIL = b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello.\r\n"


@asynccontextmanager
async def connected(
    endpoint: Endpoint, credentials: Credentials, settings: ConnectionSettings = SETTINGS
) -> AsyncIterator[ImapConnection]:
    connection = await ImapConnection.open(endpoint, settings)
    try:
        await connection.authenticate(credentials)
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def talking(
    script: Callable[[Talk], Awaitable[None]], settings: ConnectionSettings = SETTINGS
) -> AsyncIterator[ImapConnection]:
    async with ScriptedServer(script) as server, connected(server.endpoint(), ME, settings) as connection:
        yield connection


async def bodies(connection: ImapConnection, uids: UidSet) -> list[FetchedBody]:
    return [body async for body in connection.fetch_bodies(uids)]
