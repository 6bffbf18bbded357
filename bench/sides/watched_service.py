"""``mailmill run`` with two observers in its process: when a message was committed, and how late the loop is.

Arguments: configuration file, port on loopback that takes what is observed, one JSON object a line:

- ``{"event": …, "account": …, "uid": …, "at": …}`` for each messageNew and messageProcessed. ``at`` is the monotonic
  clock, shared by all processes, at the moment the loop first ran after the commit: the store's own hint.
- ``{"lags": […]}``: by how many seconds a sleep of 5 ms took longer, every such sleep.

The service is the one that the command runs: same settings, same engines, same listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from mailmill.app import logs
from mailmill.app.application import Application
from mailmill.app.supervisor import run_service
from mailmill.cli.serving import serve
from mailmill.settings import Settings, load_settings
from mailmill.store import event_log

_TOLD = frozenset({"messageNew", "messageProcessed"})
_SLEEP_SECONDS = 0.005
_LAGS_A_LINE = 50
_HINT_SECONDS = 60


def main(config: str, port: str) -> None:
    settings = load_settings(Path(config), os.environ)
    logs.configure(level="warning", form="json", file=None)
    uvloop.run(_run(settings, int(port)))


async def _run(settings: Settings, port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)

    @contextlib.asynccontextmanager
    async def serving(application: Application) -> AsyncIterator[None]:
        async with serve(application, announce=lambda link: print(json.dumps({"page": link}), flush=True)):
            observers = [
                asyncio.create_task(_commits(application, writer)),
                asyncio.create_task(_lags(writer)),
            ]
            try:
                yield
            finally:
                for each in observers:
                    each.cancel()
                await asyncio.gather(*observers, return_exceptions=True)

    await run_service(settings, serve=serving)
    writer.close()


async def _commits(application: Application, writer: asyncio.StreamWriter) -> None:
    database = application.database
    names = {account.row.id: name for name, account in application.accounts.items()}
    async with database.read() as connection:
        cursor = await event_log.head(connection)
    with database.wake.events.subscribe() as hints:
        while True:
            await hints.wait(_HINT_SECONDS)
            at = time.monotonic()
            async with database.read() as connection:
                rows = await event_log.read_after(connection, cursor, 1000)
            for row in rows:
                cursor = row.position
                if row.event in _TOLD:
                    said = {"event": row.event, "account": names.get(row.account_id or 0), "at": at}
                    writer.write(json.dumps(said | {"message": row.message_id, **row.data}).encode() + b"\n")


async def _lags(writer: asyncio.StreamWriter) -> None:
    lags: list[float] = []
    while True:
        began = time.monotonic()
        await asyncio.sleep(_SLEEP_SECONDS)
        lags.append(max(0.0, time.monotonic() - began - _SLEEP_SECONDS))
        if len(lags) >= _LAGS_A_LINE:
            writer.write(json.dumps({"lags": lags}).encode() + b"\n")
            lags = []


if __name__ == "__main__":
    main(*sys.argv[1:])
