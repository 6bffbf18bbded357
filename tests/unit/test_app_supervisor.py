"""Opening the application: what is configured meets what is stored; nothing needs what it does not use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from sqlalchemy import select
from structlog.testing import capture_logs
from work_rows import add_messages, events, new_work

from harness import steps, stores
from mailmill.alerts.dispatcher import Dispatcher
from mailmill.app import figures, housekeeping, one_pass, wiring
from mailmill.app.application import Application, open_application
from mailmill.app.supervisor import engines, run_service
from mailmill.app.use_cases import UseCases
from mailmill.errors import AuthenticationError, ConfigurationError, StoreError, StoreInUseError
from mailmill.imap.host_budget import HostBudgets
from mailmill.model import AccountState
from mailmill.settings import Settings, load_settings
from mailmill.store import accounts, data_folder, dialect, queue, queue_view
from mailmill.store.data_folder import FolderLock
from mailmill.store.tables import account, work
from mailmill.sync.report import PassReport

pytestmark = pytest.mark.both_databases

PASSWORD = "ACCOUNT_PASSWORD_OF_TEST"
SECRET = "HOOK_SECRET_OF_TEST"


@pytest.fixture(autouse=True)
def processors_are_imported_at_the_start(blockbuster: BlockBuster) -> None:
    """Before anything runs, imports and their metadata may be read on the loop."""
    for function in blockbuster.functions.values():
        function.can_block_in("mailmill/app/wiring.py", {"processors"})


@pytest.fixture
async def settings(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One account, its password in a variable, and one destination, its secret in another, which is not set."""
    monkeypatch.setenv(PASSWORD, "right")
    monkeypatch.delenv(SECRET, raising=False)
    path = tmp_path / "config.toml"

    def write() -> Settings:
        path.write_text(
            f"""
[service]
data_dir = "data"
database_url = "{stores.database_url(data_dir)}"
listen = "127.0.0.1:0"
[accounts.work]
username = "ann"
password_env = "{PASSWORD}"
imap = {{ host = "127.0.0.1", port = 9, tls = "none" }}
[destinations.hook]
kind = "webhook"
url = "https://example.org/"
secret_env = "{SECRET}"
"""
        )
        path.chmod(0o600)
        return load_settings(path, os.environ)

    return await asyncio.to_thread(write)


async def refuse(application: Application) -> None:
    """The server refused the account's credentials."""
    running = application.accounts["work"]
    async with application.database.write() as connection:
        await accounts.set_state(connection, running.row.id, AccountState.AUTHENTICATION_ERROR, "no", time.time())


async def stored_state(application: Application) -> tuple[str, str]:
    async with application.database.read() as connection:
        row = (await connection.execute(select(account.c.state, account.c.credential_mark))).one()
    return row.state, row.credential_mark


async def test_a_shell_without_the_password_leaves_a_refusal_as_it_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_application(settings) as application:
        await refuse(application)
        before = await stored_state(application)
    monkeypatch.delenv(PASSWORD)
    async with open_application(settings) as application:
        assert await stored_state(application) == before
    monkeypatch.setenv(PASSWORD, "right")
    async with open_application(settings) as application:
        assert await stored_state(application) == before
    monkeypatch.setenv(PASSWORD, "other")
    async with open_application(settings) as application:
        assert (await stored_state(application))[0] == "init"


async def test_a_missing_secret_matters_only_where_alerts_are_sent(settings: Settings) -> None:
    async with open_application(settings) as application:
        use_cases = UseCases(application)
        await use_cases.status()
        report = await use_cases.sync(None, process=False)
        assert report["accounts"][0]["error"]["code"] == "connect"
        with pytest.raises(ConfigurationError, match=SECRET):
            await use_cases.sync(None, process=True)

    @asynccontextmanager
    async def serve(_application: Application) -> AsyncIterator[None]:
        raise AssertionError("the service started")
        yield

    with pytest.raises(ConfigurationError, match=SECRET):
        await run_service(settings, serve=serve)


async def test_a_refused_account_is_not_tried_again_by_each_command(settings: Settings) -> None:
    async with open_application(settings) as application:
        await refuse(application)
    async with open_application(settings) as application:
        running = application.accounts["work"]
        running.sync = None  # type: ignore[assignment]  # it must not be asked
        [report] = await one_pass.sync_accounts(application, [running])
        assert isinstance(report.error, AuthenticationError)
        assert report.error.message == "no"
        assert "mailmill account check work" in report.error.hint


class _WillingServer:
    async def logout(self) -> None: ...


async def test_a_check_that_succeeds_clears_the_refusal_without_a_service(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect() -> Any:
        return _WillingServer()

    async def look(_self: UseCases, _connection: Any) -> dict[str, Any]:
        return {"ok": True}

    monkeypatch.setattr(UseCases, "_look", look)
    async with open_application(settings) as application:
        await refuse(application)
    async with open_application(settings) as application:
        application.accounts["work"].connect = connect
        assert (await UseCases(application).check_account("work"))["ok"]
        assert application.accounts["work"].row.state is AccountState.DISCONNECTED
    async with open_application(settings) as application:
        assert (await stored_state(application))[0] == "disconnected"
        async with application.database.read() as connection:
            told = [name for name, _ in await events(connection)]
    assert told == ["accountAdded", "authenticationError", "authenticationSuccess"]


async def test_a_password_that_could_not_be_had_is_asked_for_at_each_connect(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    used: list[str] = []

    class Connection:
        @classmethod
        async def open(cls, *_: Any) -> Connection:
            return cls()

        async def authenticate(self, credentials: Any) -> None:
            used.append(credentials.password)

        def when_closed(self, callback: Any) -> None:
            pass

    monkeypatch.setattr(wiring, "ImapConnection", Connection)
    environ: dict[str, str] = {}
    [configured] = await wiring.configured_accounts(settings, environ)
    connect = wiring.connector(configured, tmp_path, HostBudgets(), environ)
    errors = []
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=PASSWORD) as failed:
            await connect()
        assert failed.value.account == "work"
        errors.append(failed.value)
    assert errors[0] is not errors[1]
    environ[PASSWORD] = "there now"
    await connect()
    assert used == ["there now"]


async def test_a_command_whose_configuration_lacks_an_account_does_not_stop_it(settings: Settings) -> None:
    without = settings.model_copy(update={"accounts": {}, "destinations": {}})

    async def is_paused(application: Application) -> bool:
        async with application.database.read() as connection:
            return (await accounts.get_account(connection, "work")).paused

    async with open_application(settings):
        pass
    async with open_application(without) as application:
        assert not await is_paused(application)
        async with engines(application):
            assert await is_paused(application)


@pytest.mark.parametrize("configured", [True, False])
async def test_a_service_without_an_account_says_what_to_do(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    monkeypatch.setenv(SECRET, "whsec_" + "QUJD" * 12)
    stop = asyncio.Event()

    @asynccontextmanager
    async def serve(_application: Application) -> AsyncIterator[None]:
        stop.set()
        yield

    if not configured:
        settings = settings.model_copy(update={"accounts": {}})
    with capture_logs() as lines:
        async with asyncio.timeout(60):
            await run_service(settings, serve=serve, stop=stop)
    hints = [line["hint"] for line in lines if line["event"] == "no account is configured"]
    assert [hint.partition(",")[0] for hint in hints] == ([] if configured else ["set IMAP_SERVER"])


async def test_a_service_waits_for_a_command_that_has_the_folder_for_a_moment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "whsec_" + "QUJD" * 12)
    loop, refused, stop = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    served = 0

    def take(paths: Sequence[Path]) -> FolderLock:
        try:
            return FolderLock(paths)
        except StoreInUseError:
            loop.call_soon_threadsafe(refused.set)
            raise

    @asynccontextmanager
    async def serve(_application: Application) -> AsyncIterator[None]:
        nonlocal served
        served += 1
        stop.set()
        yield

    monkeypatch.setattr(data_folder, "FolderLock", take)
    async with asyncio.timeout(60):
        async with open_application(settings, for_command=True):
            service = asyncio.create_task(run_service(settings, serve=serve, stop=stop))
            await asyncio.wait((service, asyncio.create_task(refused.wait())), return_when=asyncio.FIRST_COMPLETED)
            assert not service.done()
        await service
    assert served == 1


async def test_what_a_crash_left_is_taken_back_and_counted_at_the_start(settings: Settings) -> None:
    async with open_application(settings) as application:
        account_id = application.accounts["work"].row.id
        async with application.database.write() as connection:
            await add_messages(connection, [1, 2, 3], account_id=account_id)
            rows = [new_work(number, "threat", account_id=account_id) for number in (1, 2, 3)]
            await queue.enqueue(connection, rows, 1.0)
            [threat] = [one for one in application.processors if one.name == "threat"]
            held = await steps.claim(
                connection,
                processor=threat.name,
                version=threat.version,
                worker_id="dead",
                limit=2,
                deadline_seconds=3600,
                now=dialect.now(connection),
            )
            await queue.heartbeat(connection, "dead", dialect.now(connection))
    assert len(held) == 2
    async with open_application(settings) as application:
        scrape = (await UseCases(application).metrics()).decode()
        # Other nodes may be at work: theirs is taken back when they have been silent for long.
        taken_back = 2.0 if application.database.alone else 0.0
        assert f"mailmill_work_taken_back_total {taken_back}\n" in scrape


async def test_work_of_processors_that_are_gone_is_dropped_at_the_start(settings: Settings) -> None:
    async with open_application(settings) as application:
        account_id = application.accounts["work"].row.id
        async with application.database.write() as connection:
            await add_messages(connection, [1, 2], account_id=account_id)
            rows = [new_work(1, "gone", account_id=account_id)]
            rows += [new_work(2, name, account_id=account_id) for name in ("gone", "threat")]
            await queue.enqueue(connection, rows, 1.0)
    async with open_application(settings) as application, application.database.read() as connection:
        rows_left = select(work.c.message_id, work.c.processor).order_by(work.c.message_id, work.c.processor)
        left = (await connection.execute(rows_left)).all()
        told = [(name, number) for name, number in await events(connection) if name == "messageProcessed"]
        alone = application.database.alone
    # Other nodes may have what is not configured here.
    assert [tuple(row) for row in left] == ([] if alone else [(1, "gone"), (2, "gone")]) + [(2, "threat")]
    assert told == ([("messageProcessed", 1)] if alone else [])


async def test_many_who_ask_for_figures_cost_one_count(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    counts = queue_view.counts

    async def counting(connection: Any) -> Any:
        nonlocal counted
        counted += 1
        return await counts(connection)

    monkeypatch.setattr(queue_view, "counts", counting)
    async with open_application(settings) as application:
        use_cases = UseCases(application)
        await asyncio.gather(*(ask() for _ in range(5) for ask in (use_cases.status, use_cases.accounts)))
        await use_cases.metrics()
        assert counted == 1
        monkeypatch.setattr(figures, "KEPT_SECONDS", 0.0)
        monkeypatch.setattr(figures, "SHARE", 0)
        aged = UseCases(application)
        await aged.status()
        await aged.status()
        assert counted == 3


async def test_housekeeping_outlives_whatever_happens(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def always(_connection: Any) -> bool:
        return True

    monkeypatch.setattr(housekeeping, "PERIOD_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "take_turn", always)
    problems = [OSError("disk"), StoreError("store"), RuntimeError("unforeseen")]
    went_on = asyncio.Event()

    async def collect(_referenced: Any, _written_before: float) -> int:
        if problems:
            raise problems.pop()
        went_on.set()
        return 0

    async with open_application(settings) as application:
        monkeypatch.setattr(application.blobs, "collect_orphans", collect)
        task = asyncio.create_task(housekeeping.keep_house(application))
        async with asyncio.timeout(30):
            await went_on.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_runs_begins_to_stop_while_the_listeners_close(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "whsec_" + "QUJD" * 12)
    stopping, dispatcher_stops = asyncio.Event(), asyncio.Event()

    async def run(_self: Dispatcher, stop: asyncio.Event) -> None:
        await stop.wait()
        dispatcher_stops.set()

    monkeypatch.setattr(Dispatcher, "run", run)

    @asynccontextmanager
    async def serve(_application: Application) -> AsyncIterator[None]:
        stopping.set()
        yield
        await dispatcher_stops.wait()

    async with asyncio.timeout(60):
        await run_service(settings, serve=serve, stop=stopping)


async def test_a_running_service_is_not_waited_for_without_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_pass, "_SETTLE_SECONDS", 0.01)

    async def passed(_application: Application, _accounts: Any) -> list[PassReport]:
        return [PassReport("work", new=1)]

    monkeypatch.setattr(one_pass, "sync_accounts", passed)
    async with open_application(settings) as application:
        application.running = True  # its worker never comes to rest: nobody runs it
        async with asyncio.timeout(30):
            report = await UseCases(application).sync(None, process=True)
    assert report["accounts"][0]["new"] == 1


def test_a_thread_that_is_stuck_does_not_hold_the_exit() -> None:
    program = (
        "import asyncio, threading, time\n"
        "from mailmill.app.daemon_threads import DaemonThreads\n"
        "async def main():\n"
        "    asyncio.get_running_loop().set_default_executor(DaemonThreads(2))\n"
        "    assert await asyncio.to_thread(lambda: 7) == 7\n"
        "    began = threading.Event()\n"
        "    def hang():\n"
        "        began.set()\n"
        "        time.sleep(600)\n"
        "    task = asyncio.create_task(asyncio.to_thread(hang))\n"
        "    await asyncio.to_thread(began.wait)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
