"""Fixtures for all tests.

Laws: an async test that blocks the loop fails (blockbuster); every test runs on uvloop, as the service does; property
tests are the same on every run; nothing is written outside of ``tmp_path`` and the servers' own folders.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import uvloop
from blockbuster import BlockBuster, blockbuster_ctx

from harness import lock_order, stores
from servers.cyrus import Cyrus
from servers.dovecot import Dovecot
from servers.mail_server import MailServer
from servers.postgres import Postgres
from servers.pymap import Pymap
from servers.s3 import S3

# `default` is quick and the same on every run; `wide` looks further (`--hypothesis-profile=wide`, before a release).
hypothesis.settings.register_profile(
    "default", derandomize=True, deadline=None, database=None, max_examples=100, print_blob=True
)
hypothesis.settings.register_profile("wide", deadline=None, database=None, max_examples=2000, print_blob=True)


DATABASE_MAKES = ("sqlite", "postgresql")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: runs on uvloop and on asyncio's own loop")
    config.addinivalue_line(
        "markers",
        "both_databases(**only): runs once with data_dir's rows in SQLite, once in PostgreSQL; there, of a sweep over "
        "a parameter, only with the values given",
    )
    config.addinivalue_line("markers", "children_only: mailmill runs in child processes, none of it in the test's own")
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis.settings.load_profile("default")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The service runs on uvloop, so the tests do; ``both_loops`` adds asyncio's own for what sits on the transport."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.get_closest_marker("both_loops"):
        factories["asyncio"] = asyncio.new_event_loop
    return factories


# Where blocking is allowed while a loop runs, and why. `aiosqlite` and `asyncio.to_thread` need no entry: what they do
# happens in threads, where no loop runs.
_MAY_BLOCK: tuple[tuple[str, set[str]], ...] = (
    # Imports on first use (a lazily loaded codec, a TLS backend) read files once in a process.
    ("<frozen importlib._bootstrap>", {"_find_and_load"}),
    # A test's own HTTP client looks for the system's certificates, unless SSL_CERT_FILE names them.
    ("httpcore2/_ssl.py", {"default_ssl_context"}),
    # A loop that is being closed joins the thread that ended its executor. uvloop does that in C, which leaves no frame
    # for blockbuster's own exception to know it by, and now and then the thread is still on its last step.
    ("asyncio/runners.py", {"close"}),
    # PostgreSQL's schema is made in a thread, by Alembic in a loop of its own where nothing else runs.
    ("mailmill/store/migrate.py", {"upgrade"}),
    # A new connection to PostgreSQL looks for the user's certificates and password file.
    ("asyncpg/connect_utils.py", {"_parse_connect_arguments"}),
    # A traceback that is being shown reads source lines.
    ("traceback.py", {"format_exception", "print_exception", "format_exception_only"}),
    ("_pytest/assertion/rewrite.py", {"exec_module"}),
)


@pytest.fixture(autouse=True)
def blockbuster(request: pytest.FixtureRequest) -> Iterator[BlockBuster | None]:
    """On in every test: a blocking call while a loop runs raises BlockingError.

    ``children_only`` marks tests in whose own process no code of mailmill runs: they only start it and look at it.
    """
    if request.node.get_closest_marker("children_only"):
        yield None
        return
    with blockbuster_ctx() as guard:
        for function in guard.functions.values():
            for filename, names in _MAY_BLOCK:
                function.can_block_in(filename, names)
        yield guard


@pytest.fixture(scope="session")
def watched_locks() -> Iterator[list[str]]:
    with lock_order.watched() as faults:
        yield faults


@pytest.fixture(autouse=True)
def wrong_lock_order(watched_locks: list[str]) -> Iterator[list[str]]:
    """Empty, or the test fails: transactions on PostgreSQL lock rows in the order that `row_locks` says."""
    watched_locks.clear()
    yield watched_locks
    assert not watched_locks, "\n".join(watched_locks)


@pytest.fixture
def data_dir(new_data_dir: Callable[[str], Path]) -> Path:
    """An empty data folder for a service or a store."""
    return new_data_dir("data")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The configuration of whoever runs the tests must not reach them."""
    for name in list(os.environ):
        if name.startswith(("MAILMILL_", "IMAP_", "CEREBRAS_", "OPENAI_", "AWS_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg-data"))


# -- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """One object store. Tests share it, so each takes a bucket of its own: ``await s3.new_bucket()``."""
    with S3() as server:
        yield server


@pytest.fixture
def start_s3() -> Iterator[Callable[[], Awaitable[S3]]]:
    """``await start_s3()``: a server of the test's own, to stop, restart or turn against us as it likes."""
    with contextlib.ExitStack() as running:

        async def start() -> S3:
            return await asyncio.to_thread(running.enter_context, S3())

        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL. Tests share it, so each takes a database of its own: ``postgres.new_database()``."""
    with Postgres() as server:
        yield server


@pytest.fixture
def start_postgres() -> Iterator[Callable[..., Awaitable[Postgres]]]:
    """``await start_postgres(**options)``: a server of the test's own, to restart or stop as it likes."""
    with contextlib.ExitStack() as running:

        async def start(**options: Any) -> Postgres:
            return await asyncio.to_thread(running.enter_context, Postgres(**options))

        yield start


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # In a module that is marked, tests that open no store run once.
    if metafunc.definition.get_closest_marker("both_databases") and "database_make" in metafunc.fixturenames:
        metafunc.parametrize("database_make", DATABASE_MAKES, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if left := [item for item in items if _left_to_sqlite(item)]:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not _left_to_sqlite(item)]


def _left_to_sqlite(item: pytest.Item) -> bool:
    marker, parameters = item.get_closest_marker("both_databases"), getattr(item, "callspec", None)
    if marker is None or parameters is None or parameters.params.get("database_make") != "postgresql":
        return False
    return any(parameters.params.get(name) not in (*values, None) for name, values in marker.kwargs.items())


@pytest.fixture
def database_make(request: pytest.FixtureRequest) -> str:
    """What keeps the rows of `data_dir`: SQLite, and in its turn PostgreSQL where the test has ``both_databases``."""
    make: str = getattr(request, "param", DATABASE_MAKES[0])
    return make


@pytest.fixture
def new_data_dir(request: pytest.FixtureRequest, tmp_path: Path, database_make: str) -> Iterator[Callable[[str], Path]]:
    """``new_data_dir(name)``: an empty folder for a store on a database of the test's make (`harness.stores`)."""
    made: list[str] = []

    def new(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        if database_make == "postgresql":
            made.append(request.getfixturevalue("postgres").new_store())
            stores.put_into(folder, made[-1])
        return folder

    yield new
    for url in made:
        request.getfixturevalue("postgres").drop(url)


@pytest.fixture(params=DATABASE_MAKES)
def database_url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """A new database of each make, for what must hold on both; it is for ``Database.open(…, data_dir=data_dir)``."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A new database on ``postgres``, with the schema and nothing else."""
    url = postgres.new_store()
    yield url
    postgres.drop(url)


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    """One Dovecot with everything (QRESYNC). Tests share it, so each takes a user of its own: ``mail_user``."""
    with Dovecot() as server:
        yield server


@pytest.fixture(scope="session")
def dovecot_condstore() -> Iterator[Dovecot]:
    """A Dovecot that announces CONDSTORE but no QRESYNC and no LIST-STATUS."""
    with Dovecot(tier="condstore") as server:
        yield server


@pytest.fixture(scope="session")
def dovecot_plain() -> Iterator[Dovecot]:
    """A Dovecot that announces little more than IMAP4rev1 and IDLE: the plain tier."""
    with Dovecot(tier="plain") as server:
        yield server


@pytest.fixture
def start_dovecot() -> Iterator[Callable[..., Awaitable[Dovecot]]]:
    """``await start_dovecot(**options)``: a server of the test's own, to restart, stop or configure as it likes."""
    with contextlib.ExitStack() as running:

        async def start(**options: Any) -> Dovecot:
            return await asyncio.to_thread(running.enter_context, Dovecot(**options))

        yield start


@pytest.fixture
def mail_user(dovecot: Dovecot) -> str:
    """A user of ``dovecot`` whose mailboxes are empty."""
    return dovecot.new_user()


@pytest.fixture(scope="session")
def cyrus() -> Iterator[Cyrus]:
    """One Cyrus (QRESYNC, OBJECTID). Tests share it, so each takes a user of its own: ``cyrus.new_user()``."""
    with Cyrus() as server:
        yield server


@pytest.fixture
def start_cyrus() -> Iterator[Callable[..., Awaitable[Cyrus]]]:
    """``await start_cyrus(**options)``: a server of the test's own, to restart, stop or configure as it likes."""
    with contextlib.ExitStack() as running:

        async def start(**options: Any) -> Cyrus:
            return await asyncio.to_thread(running.enter_context, Cyrus(**options))

        yield start


@pytest.fixture(scope="session")
def pymap() -> Iterator[Pymap]:
    """One pymap with its demo data. Its mail is shared: a test that changes it starts its own ``with Pymap()``."""
    with Pymap() as server:
        yield server


# Every kind of server, by the name of the fixture that is one.
_ANY_SERVER = ("dovecot", "dovecot_condstore", "dovecot_plain", "cyrus", "pymap")
_OWN_SERVER: dict[str, Callable[[], Dovecot | Cyrus | Pymap]] = {"dovecot": Dovecot, "cyrus": Cyrus, "pymap": Pymap}


@pytest.fixture(params=_ANY_SERVER)
def any_server(request: pytest.FixtureRequest) -> MailServer:
    """Each real server in turn, shared as above: what holds for one must hold for all."""
    server: MailServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=_OWN_SERVER)
def own_server(request: pytest.FixtureRequest) -> Iterator[MailServer]:
    """Each make of server in turn, for the test alone: to be restarted."""
    with _OWN_SERVER[request.param]() as server:
        yield server
