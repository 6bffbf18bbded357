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
from work_rows import add_account, add_mail, add_place

from harness import steps, stores
from harness.patience import eventually
from mailmill.app import reprocessing
from mailmill.app.application import Application, open_application
from mailmill.app.supervisor import engines
from mailmill.app.use_cases import UseCases
from mailmill.clock import boot_seconds
from mailmill.errors import ConflictError, InvalidRequestError, NotFoundError
from mailmill.settings import Settings, load_settings
from mailmill.store import reprocess, reprocess_cancel, reprocess_pieces
from mailmill.store.reprocess import Wanted
from mailmill.store.tables import event, message, result, work

pytestmark = pytest.mark.both_databases

DAY = 86400.0
MAIL = [f"Subject: Your receipt {number}\r\n\r\nThank you.\r\n".encode() for number in range(1, 6)]


@pytest.fixture(autouse=True)
def processors_are_imported_at_the_start(blockbuster: BlockBuster) -> None:
    """Before anything runs, imports and their metadata may be read on the loop."""
    for function in blockbuster.functions.values():
        function.can_block_in("mailmill/app/wiring.py", {"processors"})


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


async def test_a_service_carries_it_on_and_tells_nobody(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reprocessing, "_WAIT_POLL_SECONDS", 0.01)
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


async def test_what_is_done_is_not_cancelled(settings: Settings) -> None:
    async with holding_mail(settings) as application:
        done = await application.reprocessing.start(processor="category", wait=True)
        with pytest.raises(ConflictError, match="is done"):
            await application.reprocessing.cancel(int(done["id"]))
        with pytest.raises(NotFoundError):
            await application.reprocessing.cancel(77)


async def test_whoever_waits_for_one_that_is_cancelled_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reprocessing, "_WAIT_POLL_SECONDS", 0.01)
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
            await reprocess_cancel.mark(connection, int(asked["id"]))
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


async def until(application: Application, reprocess_id: int, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return await eventually(lambda: application.reprocessing.show(reprocess_id), ready)
