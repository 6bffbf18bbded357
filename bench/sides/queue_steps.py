"""The queue by itself, without a processor: statements of the store as the worker puts them together.

Arguments: database URL, data folder, then one of

- ``grow FIRST LAST ACCOUNTS``: a backlog (``bench.backlog``);
- ``drain BATCHES WORKERS READERS``: each of so many workers finishes its last batch of 100 (result and event) and
  claims the next in one transaction; meanwhile ``READERS`` hold a snapshot each and page through the messages;
- ``claims COUNT``: so many batches of 100 claimed and given back, each claim timed by itself;
- ``fairness``: another account's single message, and how many batches are claimed before it.

One JSON object is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import func, insert, select, text

from bench import backlog
from mailmill.store import queue
from mailmill.store.database import Database
from mailmill.store.queue import Ask, Claim, Exchange, Finished, NewWork
from mailmill.store.queue_front import Front
from mailmill.store.tables import account, mailbox, message, place

_BATCH = 100
_WARM_UP = 20
_DEADLINE_SECONDS = 3600.0
_VALUE = '{"ok":true}'
_PAGE = 1000
_PAGE_PAUSE_SECONDS = 0.05


def main(url: str, folder: str, step: str, *numbers: str) -> None:
    told = uvloop.run(_step(url, Path(folder), step, [int(number) for number in numbers]))
    print(json.dumps(told))


async def _step(url: str, folder: Path, step: str, numbers: list[int]) -> dict[str, Any]:
    readers = numbers[2] if step == "drain" else 0
    database = await Database.open(url, data_dir=folder, readers=max(4, readers + 1))
    try:
        match step:
            case "grow":
                first, last, accounts = numbers
                await backlog.grow(database, first=first, last=last, accounts=accounts)
                return {}
            case "drain":
                batches, workers, _ = numbers
                async with _reading(database, readers):
                    return await _drain(database, batches, workers)
            case "claims":
                return {"seconds": await _claims(database, *numbers)}
            case "fairness":
                return {"batches_before": await _fairness(database)}
            case _:
                raise ValueError(step)
    finally:
        await database.close()


async def _drain(database: Database, batches: int, workers: int) -> dict[str, Any]:
    names = [f"drain-{time.time_ns()}-{number}" for number in range(workers)]
    async with database.write() as connection:
        for name in names:
            await queue.heartbeat(connection, name, time.time())
    left = batches
    rows = 0

    async def work(name: str, warming_up: bool) -> None:
        nonlocal left, rows
        held: list[Claim] = []
        front = Front()
        mine = _WARM_UP
        while (mine if warming_up else left) > 0:
            mine -= 1
            if not warming_up:
                left -= 1
            finished = [Finished(claim, _VALUE, 0.001) for claim in held]
            ask = Ask(backlog.PROCESSOR, _BATCH, _DEADLINE_SECONDS, backlog.VERSION, front=front)
            exchange = Exchange(name, finished, finished_at=time.time(), asks=[ask])
            report, [held], _ = await database.transact(exchange)
            if report.recorded != len(finished) or len(report.processed_ids) != len(finished):
                raise RuntimeError(f"not all was recorded: {report}")
            rows += report.recorded
        # The last batch is finished beyond what is counted.
        async with database.write() as connection:
            await queue.release(connection, name, held)

    await asyncio.gather(*(work(name, True) for name in names))
    rows = 0
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work(name, False) for name in names))
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    if rows < _BATCH * (batches - 2 * workers):
        raise RuntimeError(f"the backlog was too short: {rows} rows in {batches} batches")
    return {"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "all_rows": rows + workers * (_WARM_UP - 1) * _BATCH}


async def _claim(connection: Any, worker_id: str) -> list[Claim]:
    ask = Ask(backlog.PROCESSOR, _BATCH, _DEADLINE_SECONDS, backlog.VERSION)
    exchanged = await connection.run_sync(Exchange(worker_id, asks=[ask]))
    [claims] = exchanged.claims
    return list(claims)


@contextlib.asynccontextmanager
async def _reading(database: Database, readers: int) -> AsyncIterator[None]:
    """``readers`` that each page through all messages in one snapshot, again and again, as an export would."""
    began = [asyncio.Event() for _ in range(readers)]

    async def read(begun: asyncio.Event) -> None:
        while True:
            after = 0
            async with database.read() as connection:
                while True:
                    page = (
                        await connection.execute(
                            select(message.c.id, message.c.subject, message.c.internal_date)
                            .where(message.c.id > after)
                            .order_by(message.c.id)
                            .limit(_PAGE)
                        )
                    ).all()
                    begun.set()
                    if not page:
                        break
                    after = page[-1].id
                    await asyncio.sleep(_PAGE_PAUSE_SECONDS)

    tasks = [asyncio.create_task(read(each)) for each in began]
    try:
        await asyncio.gather(*(each.wait() for each in began))
        yield
    finally:
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _claims(database: Database, count: int) -> list[float]:
    seconds = []
    name = f"claims-{time.time_ns()}"
    for number in range(-_WARM_UP, count):
        async with database.write() as connection:
            began = time.perf_counter()
            held = await _claim(connection, name)
            if number >= 0:
                seconds.append(time.perf_counter() - began)
            if len(held) != _BATCH:
                raise RuntimeError(f"{len(held)} rows came")
        async with database.write() as connection:
            await queue.release(connection, name, held)
    return seconds


async def _fairness(database: Database) -> int:
    """Batches without it before the one that has the other account's message; all is given back in the end."""
    now = time.time()
    name = f"fairness-{time.time_ns()}"
    async with database.write() as connection:
        newest = await connection.scalar(select(func.max(message.c.id))) or 0
        other = (await connection.scalar(select(func.max(account.c.id))) or 0) + 1
        await connection.execute(
            insert(account).values(
                id=other, tenant_id="default", name=f"small{other}", shard=0, backlog="process", state="connected",
                state_changed_at=now, added_at=now,
            )
        )  # fmt: skip
        await connection.execute(insert(mailbox).values(id=other, account_id=other, path="INBOX", selectable=True))
        await connection.execute(
            insert(message).values(
                id=newest + 1, account_id=other, sha256=bytes(31) + b"\1", size_bytes=1, internal_date=now, subject="",
                from_name="", from_address="", message_id_header="", in_reply_to="", historical=False, stored_at=now,
            )
        )  # fmt: skip
        await connection.execute(
            insert(place).values(
                mailbox_id=other, uid_validity=1, uid=newest + 1, message_id=newest + 1, flags="", seen_at=now
            )
        )
        row = NewWork(newest + 1, other, 0, backlog.PROCESSOR, backlog.VERSION, queue.NEW_MAIL)
        await queue.enqueue(connection, [row], now)
    before = 0
    while True:
        async with database.write() as connection:
            claimed = await _claim(connection, name)
        if not claimed:
            raise RuntimeError("the other account's message never came")
        if any(claim.account_id == other for claim in claimed):
            break
        before += 1
    async with database.write() as connection:
        await queue.release_all(connection, name)
        # So that the next round adds another one.
        await connection.execute(text("DELETE FROM message WHERE id = :id"), {"id": newest + 1})
    return before


if __name__ == "__main__":
    main(*sys.argv[1:])
