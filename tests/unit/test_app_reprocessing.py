"""Reprocessing by the whole application: asked for, carried on, waited for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from sqlalchemy import func, select, update
from work_rows import add_account, add_mail, add_place, new_work

from harness import steps, stores
from harness.patience import eventually
from mailmill.app import reprocessing
from mailmill.app.application import Application, open_application
from mailmill.app.reprocessing import Reprocessing
from mailmill.app.supervisor import engines
from mailmill.app.use_cases import UseCases
from mailmill.clock import boot_seconds
from mailmill.errors import ConflictError, InvalidRequestError, NotFoundError
from mailmill.settings import Settings, load_settings
from mailmill.store import processors, queue, reprocess, reprocess_cancel, reprocess_pieces
from mailmill.store.reprocess import ReprocessRow, Wanted
from mailmill.store.tables import event, message, result, work

pytestmark = pytest.mark.both_databases

DAY = 86400.0
MAIL = [f"Subject: Your receipt {number}\r\n\r\nThank you.\r\n".encode() for number in range(1, 6)]


@pytest.fixture(autouse=True)
def processors_are_imported_at_the_start(blockbuster: BlockBuster) -> None:
    """Before anything runs, imports and their metadata may be read on the loop."""
    for function in blockbuster.functions.values():
        function.can_block_in("mailmill/app/wiring.py", {"processors"})


@pytest.fixture(autouse=True)
def waits_look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reprocessing, "_WAIT_POLL_SECONDS", 0.01)


@pytest.fixture
async def settings(tmp_path: Path, data_dir: Path) -> Settings:
    path = tmp_path / "config.toml"

    def write() -> Settings:
        path.write_text(
            f'''
[service]
data_dir = "data"
database_url = "{stores.database_url(data_dir)}"
listen = "127.0.0.1:0"
[processors]
enabled = ["category"]
'''
        )
        path.chmod(0o600)
        return load_settings(path, os.environ)

    return await asyncio.to_thread(write)


@asynccontextmanager
async def holding_mail(settings: Settings) -> AsyncIterator[Application]:
    """The application with five messages that no processor has had yet."""
    async with open_application(settings) as application:
        async with application.database.write() as connection:
            await add_account(connection, 1)
            for number in await add_mail(connection, application.blobs, MAIL):
                await add_place(connection, number, "INBOX")
            await connection.execute(update(message).values(internal_date=message.c.id * 86400.0))
        yield application


async def versions(application: Application) -> dict[int, list[int]]:
    async with application.database.read() as connection:
        rows = await connection.execute(
            select(result.c.message_id, result.c.version).order_by(result.c.message_id, result.c.version)
        )
        found: dict[int, list[int]] = {}
        for row in rows:
            found.setdefault(row.message_id, []).append(row.version)
        return found


def with_version(application: Application, version: int) -> None:
    """As after a restart with a processor whose version was raised."""
    application.processors[:] = [replace(each, version=version) for each in application.processors]


async def test_without_a_service_it_is_done_here(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        use_cases = UseCases(application)
        counted = await use_cases.reprocessing.start(processor="category", dry_run=True)
        assert (counted["id"], counted["total"]) == (None, 5)
        queued = await use_cases.reprocessing.start(
            processor="category",
            since=datetime(1970, 1, 3, tzinfo=UTC),
            until=datetime(1970, 1, 5),  # noqa: DTZ001
        )
        assert (queued["total"], queued["queued"], queued["left"], queued["state"]) == (2, 2, 2, "running")
        done = await use_cases.reprocessing.start(processor="category", wait=True)
        assert (done["queued"], done["left"], done["state"]) == (3, 0, "done")
        assert await versions(application) == {number: [1] for number in range(1, 6)}
        again = await use_cases.reprocessing.start(processor="category", wait=True)
        assert (again["queued"], again["state"]) == (0, "done")
        assert [each["id"] for each in await use_cases.reprocessing.list()] == ["3", "2", "1"]


async def test_a_service_carries_it_on_and_tells_nobody(settings: Settings) -> None:
    async with holding_mail(settings) as application, engines(application) as begin_stop:
        use_cases = UseCases(application)
        async with asyncio.timeout(30):
            done = await use_cases.reprocessing.start(processor="category", everything=True, wait=True)
            assert (done["total"], done["queued"], done["left"], done["state"]) == (5, 5, 0, "done")
            ledger = await use_cases.processing("account1", "3")
            assert [(each["processor"], each["version"], each["served"]) for each in ledger["results"]] == [
                ("category", 1, True)
            ]
            assert (ledger["status"], ledger["work"]) == ("completed", [])
            async with application.database.read() as connection:
                told = (await connection.execute(select(event.c.event, event.c.historical))).all()
            processed = [row.historical for row in told if row.event == "messageProcessed"]
            assert processed == [True] * 5
            text = (await use_cases.metrics()).decode()
            assert 'mailmill_processor_seconds_count{processor="category"} 5.0' in text
            assert "mailmill_database_write_seconds_count 0.0" not in text
            assert "mailmill_nodes" in text
        begin_stop()


async def test_it_goes_on_after_a_crash_between_two_pieces(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with holding_mail(settings) as application:
        async with application.database.write() as connection:
            row = await reprocess.create(connection, "category", 1, Wanted(), 1000.0)
        async with application.database.read() as connection:
            found = await reprocess_pieces.look(connection, row, 0, limit=2)
        async with application.database.write() as connection:
            await reprocess_pieces.put_piece(connection, row, found, 1000.0)
    async with open_application(settings) as application, engines(application) as begin_stop:
        shown = await until(application, row.id, lambda one: one["state"] == "done")
        assert (shown["queued"], shown["total"]) == (5, 5)
        assert await versions(application) == {number: [1] for number in range(1, 6)}
        begin_stop()


async def test_it_is_cancelled_and_what_has_begun_goes_on(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        use_cases = application.reprocessing
        asked = await use_cases.start(processor="category")
        async with application.database.write() as connection:
            [begun] = await steps.claim(
                connection, processor="category", worker_id="w", limit=1, deadline_seconds=60, now=time.time()
            )
        told = await use_cases.cancel(int(asked["id"]))
        assert (told["state"], told["dropped"]) == ("cancelled", 4)
        assert (told["queued"], told["total"], told["left"]) == (1, 1, 1)
        async with application.database.read() as connection:
            assert list(await connection.scalars(select(work.c.message_id))) == [begun.message_id]
        again = await use_cases.cancel(int(asked["id"]))
        assert (again["state"], again["dropped"]) == ("cancelled", 0)


async def test_one_cancel_is_of_all_that_are_at_work_for_a_processor(settings: Settings) -> None:
    """Of the same, of part of it, and of all; what is left out would bring the rows of the others back."""
    async with holding_mail(settings) as application:
        asked = application.reprocessing
        async with application.database.write() as connection:
            for wanted in (Wanted(), Wanted(), Wanted(everything=True), Wanted(mailboxes=("INBOX",))):
                await reprocess.create(connection, "category", 1, wanted, application.clock())
        for number in (1, 2, 3, 4):
            async with application.database.read() as connection:
                await asked._carry_on(await reprocess.get(connection, number))
        told = await asked.cancel_all("category")
        assert (told["processor"], told["dropped"], told["begun"]) == ("category", 5, 0)
        assert [(each["id"], each["state"]) for each in told["cancelled"]] == [
            (number, "cancelled") for number in ("1", "2", "3", "4")
        ]
        assert sum(each["dropped"] for each in told["cancelled"]) == 5
        assert await still_queued(application) == []
        async with application.database.read() as connection:
            assert await reprocess.list_running(connection) == [], "none comes back to life"
        assert await asked.cancel_all("category") == {
            "processor": "category",
            "dropped": 0,
            "begun": 0,
            "cancelled": [],
        }


async def test_what_a_cancel_says_is_true_where_another_process_takes_back_as_well(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with holding_mail(settings) as application:
        asked = await application.reprocessing.start(processor="category")
        take_back = Reprocessing._take_back

        async def overtaken(mine: Reprocessing, row: ReprocessRow) -> int:
            await take_back(mine, row)
            return await take_back(mine, row)

        monkeypatch.setattr(Reprocessing, "_take_back", overtaken)
        assert (await application.reprocessing.cancel(int(asked["id"])))["dropped"] == 5
        await application.reprocessing.start(processor="category")
        told = await application.reprocessing.cancel_all("category")
        assert (told["dropped"], told["begun"]) == (5, 0)


async def test_one_that_is_over_is_neither_cancelled_nor_run_again(settings: Settings) -> None:
    """Though its rows were queued while the other was there, and though one of them failed."""
    async with holding_mail(settings) as application:
        asked = application.reprocessing
        async with application.database.write() as connection:
            other = await reprocess.create(
                connection, "category", 1, Wanted(until=1.0, everything=True), application.clock()
            )
        over = await asked.start(processor="category", everything=True, wait=True)
        async with application.database.write() as connection:
            failed = await reprocess.get(connection, int(over["id"]))
            await connection.execute(result.delete().where(result.c.message_id == 3))
            row = new_work(3, "category", priority=queue.BACKLOG)
            await queue.enqueue(connection, [row], failed.created_at)
            await connection.execute(update(work).values(state="failed"))
        told = await asked.cancel_all("category")
        assert [each["id"] for each in told["cancelled"]] == [str(other.id)]
        async with application.database.read() as connection:
            again = await reprocess.get(connection, int(over["id"]))
        await asked._carry_on(again)
        shown = await asked.show(int(over["id"]))
        assert (shown["state"], shown["total"], shown["left"], shown["failed"]) == ("done", 5, 0, 1)


async def test_others_for_the_same_messages_are_cancelled_with_one(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        asked = application.reprocessing
        async with application.database.write() as connection:
            for wanted in (Wanted(), Wanted(), Wanted(since=4 * DAY)):
                await reprocess.create(connection, "category", 1, wanted, application.clock())
        await asked.start(processor="category")
        assert (await asked.cancel(1))["dropped"] == 5
        states = {each["id"]: each["state"] for each in await asked.list()}
        assert states == {"1": "cancelled", "2": "cancelled", "3": "running"}


async def test_the_same_asked_for_again_is_joined(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        ask = application.reprocessing.start
        first = await ask(processor="category", accounts=["account1"], mailboxes=["INBOX"], everything=True)
        assert (first["joined"], first["total"]) == (False, 5)
        same = await ask(processor="category", accounts=["account1"] * 2, mailboxes=["INBOX"], everything=True)
        assert (same["joined"], same["id"], same["queued"], same["left"]) == (True, first["id"], 5, 5)
        done = await ask(processor="category", accounts=["account1"], mailboxes=["INBOX"], everything=True, wait=True)
        assert (done["joined"], done["id"], done["state"]) == (True, first["id"], "done")
        assert (done["total"], done["queued"], done["left"]) == (5, 5, 0)
        anew = await ask(processor="category", accounts=["account1"], mailboxes=["INBOX"], everything=True)
        assert (anew["joined"], anew["queued"]) == (False, 5), "what is over is not joined"
        with_version(application, 2)
        newer = await ask(processor="category", accounts=["account1"], mailboxes=["INBOX"], everything=True)
        assert not newer["joined"]


async def test_who_joins_asks_for_what_came_since_as_well(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        first = await application.reprocessing.start(processor="category")
        async with application.database.write() as connection:
            await add_mail(connection, application.blobs, [b"Subject: later\r\n\r\nHello.\r\n"], first_id=6)
        done = await application.reprocessing.start(processor="category", wait=True)
        assert (done["id"], done["total"], done["queued"], done["state"]) == (first["id"], 6, 6, "done")
        assert await versions(application) == {number: [1] for number in range(1, 7)}


async def test_one_that_is_extended_while_it_is_carried_on_loses_nothing(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        async with application.database.write() as connection:
            row = await reprocess.create(connection, "category", 1, Wanted(), application.clock())
        async with application.database.read() as connection:
            found = await reprocess_pieces.look(connection, row, 0)
        async with application.database.write() as connection:
            await add_mail(connection, application.blobs, [b"Subject: later\r\n\r\nHello.\r\n"], first_id=6)
            extended = await reprocess.extend(connection, row, 6, 1)
            assert await reprocess_pieces.put_piece(connection, row, found, application.clock()) is None
        await application.reprocessing._carry_on(extended)
        assert len(await still_queued(application)) == 6


async def test_what_others_have_queued_for_its_messages_is_waited_for(settings: Settings) -> None:
    """And nothing else is: neither what is none of its business, nor what comes later."""
    async with holding_mail(settings) as application:
        ask = application.reprocessing.start
        await ask(processor="category", until=datetime(1970, 1, 5, tzinfo=UTC))
        part = await ask(
            processor="category", since=datetime(1970, 1, 3, tzinfo=UTC), until=datetime(1970, 1, 6, tzinfo=UTC)
        )
        assert (part["joined"], part["total"], part["queued"], part["left"]) == (False, 3, 1, 3)
        async with application.database.write() as connection:
            await connection.execute(work.delete().where(work.c.message_id != 1))
            await queue.enqueue(connection, [new_work(4, "category")], application.clock())
        shown = await application.reprocessing.show(int(part["id"]), fresh=True)
        assert (shown["state"], shown["total"], shown["left"]) == ("done", 3, 0)


async def test_that_the_processor_is_paused_is_told(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        async with application.database.write() as connection:
            await processors.pause(connection, "category", application.clock())
        waited = await application.reprocessing.start(processor="category", wait=True)
        assert (waited["paused"], waited["state"], waited["left"]) == (True, "running", 5)
        assert [each["paused"] for each in await application.reprocessing.list()] == [True]
        async with application.database.write() as connection:
            await processors.resume(connection, "category")
        shown = await application.reprocessing.show(int(waited["id"]))
        assert (shown["paused"], shown["state"]) == (False, "running")


async def test_what_is_done_is_not_cancelled(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        done = await application.reprocessing.start(processor="category", wait=True)
        with pytest.raises(ConflictError, match="is done"):
            await application.reprocessing.cancel(int(done["id"]))
        with pytest.raises(NotFoundError):
            await application.reprocessing.cancel(77)


async def test_whoever_waits_for_one_that_is_cancelled_is_told(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        asked = await application.reprocessing.start(processor="category")
        waiting = asyncio.create_task(application.reprocessing._until_processed(int(asked["id"])))
        await application.reprocessing.cancel(int(asked["id"]))
        async with asyncio.timeout(30):
            await waiting


async def test_a_cancelling_that_was_cut_is_carried_on(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        asked = await application.reprocessing.start(processor="category")
        async with application.database.write() as connection:
            await reprocess_cancel.mark(connection, [int(asked["id"])])
    without = settings.model_copy(update={"service": settings.service.model_copy(update={"roles": ()})})
    async with open_application(without) as application, engines(application) as begin_stop:
        shown = await until(application, int(asked["id"]), lambda one: one["state"] == "cancelled")
        assert (shown["queued"], shown["left"]) == (0, 0)
        begin_stop()


async def test_rows_that_others_hold_are_taken_back_later(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reprocessing, "_MISS_PAUSE_SECONDS", 0.0)
    take_back, held = reprocess_cancel.take_back, iter([0] * 2 * len(reprocess_cancel.STEPS))

    async def passing_over(*given: Any) -> int:
        for nothing in held:
            return nothing
        return await take_back(*given)

    monkeypatch.setattr(reprocess_cancel, "take_back", passing_over)
    async with holding_mail(settings) as application:
        asked = await application.reprocessing.start(processor="category")
        assert (await application.reprocessing.cancel(int(asked["id"])))["dropped"] == 5


async def test_it_goes_by_the_clock_that_all_nodes_share(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with holding_mail(settings) as application:
        monkeypatch.setattr(application.clock, "_ahead_seconds", DAY - boot_seconds())
        asked = await application.reprocessing.start(processor="category")
        async with application.database.read() as connection:
            row = await reprocess.get(connection, int(asked["id"]))
            queued_at = await connection.scalar(select(func.min(work.c.enqueued_at)))
        assert queued_at is not None
        assert DAY <= row.created_at <= queued_at < 2 * DAY
        told = await application.reprocessing.cancel(int(asked["id"]))
        assert (told["state"], told["dropped"]) == ("cancelled", 5)
        async with application.database.read() as connection:
            row = await reprocess.get(connection, int(asked["id"]))
        assert row.finished_at is not None
        assert queued_at <= row.finished_at < 2 * DAY


async def test_a_failing_store_puts_it_off(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([OSError("no")])
    put = reprocess_pieces.put_piece

    async def failing(*given: Any) -> Any:
        for error in failures:
            raise error
        return await put(*given)

    monkeypatch.setattr(reprocess_pieces, "put_piece", failing)
    monkeypatch.setattr(reprocessing, "_LONGEST_PAUSE_SECONDS", 0.01)
    async with holding_mail(settings) as application, engines(application) as begin_stop:
        asked = await application.reprocessing.start(processor="category")
        shown = await until(application, int(asked["id"]), lambda one: one["state"] == "done")
        assert shown["queued"] == 5
        begin_stop()


async def test_what_makes_no_sense_is_refused(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        with_version(application, 3)
        ask = application.reprocessing.start
        with pytest.raises(NotFoundError, match="no processor 'threat' is configured"):
            await ask(processor="threat")
        with pytest.raises(NotFoundError, match="no account 'x'"):
            await ask(processor="category", accounts=["x"])
        with pytest.raises(NotFoundError, match="no mailbox 'Lists'"):
            await ask(processor="category", mailboxes=["INBOX", "Lists"])
        with pytest.raises(InvalidRequestError, match="version 3"):
            await ask(processor="category", version_below=4)
        with pytest.raises(InvalidRequestError, match="goes neither"):
            await ask(processor="category", everything=True, failed=True)
        with pytest.raises(NotFoundError):
            await application.reprocessing.show(1)


async def still_queued(application: Application) -> list[int]:
    async with application.database.read() as connection:
        return list(await connection.scalars(select(work.c.message_id).order_by(work.c.message_id)))


async def until(application: Application, reprocess_id: int, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return await eventually(lambda: application.reprocessing.show(reprocess_id), ready)
