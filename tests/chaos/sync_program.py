"""An account in sync and a worker, in processes that kill themselves where they are told to (`killing`).

``sync_program.py FOLDER`` makes an empty store in FOLDER, says ``{"ready": true}``, and waits for jobs, one a packet on
stdin. It forks a child for each, so that imports are paid for once, and answers ``{"ended": exit code}`` when the child
is gone, minus the signal's number where it was killed. A job says ``data_dir``, ``log``, where the server is, and
``phase`` and ``at`` for the killer. With ``live`` the child gets the account whole first, says ``{"ready": true}``, and
from then on can be killed; it ends in good order once it is told to ``finish`` and has got everything whole again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import uvloop

import mailmill.sync.account_sync
from chaos.evidence import COUNT_RESULTS_ON_SQLITE
from chaos.killing import Killer
from harness.requesting import TENANT, add, ask_append, finished, place_of_content
from harness.syncing import PROCESSORS, SyncedAccount, synced_account
from mailmill.imap.connection import ConnectionSettings
from mailmill.model import Credentials, Endpoint, Tls
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store.database import Database
from mailmill.store.request_rows import NewRequest, RequestKind
from mailmill.store.sqlite_database import SqliteDatabase
from mailmill.sync.context import SyncLimits


async def on_loop(message: Any, _context: Any) -> str:
    return str(message.summary.subject)


def in_thread(message: Any, _context: Any) -> str:
    return str(message.summary.subject)


async def serve(job: dict[str, Any]) -> None:
    killer = Killer(job["log"], job["phase"], job["at"])
    plain_write = SqliteDatabase.write
    killer.install()
    killer.armed = not job["live"]
    mailmill.sync.account_sync.delay_seconds = lambda *_arguments, **_options: 0.0
    async with synced_account(
        Path(job["data_dir"]),
        Endpoint(job["host"], job["port"], Tls.NONE),
        Credentials(job["user"], job["password"]),
        limits=SyncLimits(chunk_messages=6, group_messages=2),
        connection=ConnectionSettings(stream_literal_bytes=2000),
    ) as account:
        async with plain_write(account.database) as connection:
            for statement in COUNT_RESULTS_ON_SQLITE:
                await connection.exec_driver_sql(statement)
        [(first, first_version), (second, second_version)] = PROCESSORS
        worker = Worker(
            account.database,
            account.blobs,
            [
                Processor(first, first_version, on_loop, "async", concurrency=2),
                Processor(second, second_version, in_thread, "thread", concurrency=2),
            ],
            uuid.uuid4().hex,
            settings=WorkerSettings(threads=2),
            observe=killer.observe,
        )
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            await get_whole(account, worker)
            if job["live"]:
                killer.armed = True
                say(ready=True)
                while "ask" in (told := json.loads(await asyncio.to_thread(read_packet) or b"{}")):
                    await carry_out(account, told["ask"])
                    say(asked=True)
                await get_whole(account, worker)
            killer.armed = False
            stop.set()
        await account.blobs.close()


async def get_whole(account: SyncedAccount, worker: Worker) -> None:
    """What is gone is only known to be gone by the pass after the one that missed it."""
    for _ in range(3):
        while (await account.sync.sync_now()).errors:
            await asyncio.sleep(0)
    await worker.settle()


async def carry_out(account: SyncedAccount, asked: list[dict[str, Any]]) -> None:
    """Ask for changes, each under a key of its own, and wait until they are done."""
    rows = []
    for what in asked:
        kind, number, target = what["kind"], what["number"], what.get("target")
        content = f"Subject: mail {number}\r\nTo: me@example.org\r\n\r\n{number}\r\n".encode()
        key = f"{number} {kind} {what.get('add')}"
        if kind == "append":
            rows.append(await ask_append(account, target, content, key=key))
            continue
        message_id, place = await place_of_content(account, content)
        flags = frozenset(what.get("add", ()))
        new = NewRequest(TENANT, account.account_id, RequestKind(kind), message_id, place, target, flags)
        rows.append(await add(account, replace(new, idempotency_key=key)))
    for row in rows:
        await finished(account, row)


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def read_packet() -> bytes:
    """What was told at once; ``b""`` at the end.

    A child that dies while it reads has taken all of it or nothing: half a line would be left to its parent.
    """
    return os.read(0, 1 << 16)


async def make_store(folder: Path) -> None:
    """An empty one, to be copied. Whatever is imported on first use is imported by it, once for all children."""
    database = await Database.open(f"sqlite+aiosqlite:///{folder}/mailmill.db", data_dir=folder)
    await database.close()


def main() -> None:
    uvloop.run(make_store(Path(sys.argv[1])))
    say(ready=True)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    while packet := read_packet():
        job = json.loads(packet)
        if "finish" in job or "ask" in job:
            continue  # meant for a child that was dead already
        child = os.fork()
        if not child:
            code = 1
            try:
                uvloop.run(serve(job))
                code = 0
            except BaseException:  # noqa: BLE001 - a fork must never return into its parent's loop
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        say(ended=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
