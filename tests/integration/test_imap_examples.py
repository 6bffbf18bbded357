"""Every example of ``docs/imap-client.md``, run as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.connections import MAIL, SETTINGS, connected
from mailmill.imap import ConnectionLostError, Credentials, Endpoint, ImapConnection, UidSet
from servers.dovecot import Dovecot
from servers.ports import free_ports
from servers.pymap import Pymap

PAGE = Path(__file__).parents[2] / "docs" / "imap-client.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

Place = tuple[Endpoint, Credentials]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """All blocks of the page, as one module."""
    module = types.ModuleType("imap_client_page")
    sys.modules[module.__name__] = module
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


@pytest.fixture(scope="module")
def pymap_of_examples() -> Iterator[Pymap]:
    with Pymap() as server:
        yield server


@pytest.fixture(params=["dovecot", "pymap_of_examples"])
def place(request: pytest.FixtureRequest) -> Place:
    """An account with an INBOX and a mailbox Sent."""
    server = request.getfixturevalue(request.param)
    if isinstance(server, Pymap):
        return server.endpoint(), server.credentials()
    assert isinstance(server, Dovecot)
    return server.endpoint(), server.credentials(server.new_user())


@asynccontextmanager
async def filled(place: Place, count: int) -> AsyncIterator[tuple[ImapConnection, list[int]]]:
    async with connected(*place) as connection:
        yield connection, [await append(connection, number) for number in range(count)]


async def append(connection: ImapConnection, number: int, path: str = "INBOX") -> int:
    reply = await connection.append(path, f"Message-ID: <{number}@example.org>\r\n".encode() + MAIL)
    assert reply.uid is not None
    return reply.uid


def test_every_example_is_run() -> None:
    named = set(re.findall(r"^(?:async )?def (\w+)", "\n".join(BLOCKS), re.MULTILINE))
    assert named
    assert named == set(re.findall(r"\bpage\.(\w+)\(", Path(__file__).read_text(encoding="utf-8"))) & named


async def test_connect_and_look_around(page: Any, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    await page.show_mailboxes(*place)
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"INBOX +\d+$", line) for line in lines)
    assert any(line.startswith("Sent") for line in lines)


async def test_headers(page: Any, place: Place) -> None:
    async with filled(place, 3) as (connection, _):
        assert await page.newest_subjects(connection, 2) == ["Grüße", "Grüße"]


async def test_downloads(page: Any, place: Place, tmp_path: Path) -> None:
    async with filled(place, 2) as (connection, uids):
        large = (await connection.append("INBOX", MAIL + b"x" * 1_000_000)).uid
    assert await page.download(*place, tmp_path) >= 3
    saved = {file: await asyncio.to_thread((tmp_path / f"{file}.eml").read_bytes) for file in (uids[0], large)}
    assert saved == {uids[0]: b"Message-ID: <0@example.org>\r\n" + MAIL, large: MAIL + b"x" * 1_000_000}
    assert await asyncio.to_thread(os.listdir, tmp_path / "incoming") == []


async def test_what_has_changed(page: Any, place: Place) -> None:
    known = page.Known()
    async with filled(place, 3) as (connection, uids), connected(*place) as other:
        one, two, three = uids
        new, gone = await page.sync_flags(connection, known)
        assert UidSet(uids) & new == UidSet(uids)
        assert not gone
        await other.select("INBOX", read_only=False)
        await other.store_flags(UidSet([one]), add=frozenset({"\\Flagged"}))
        await other.store_flags(UidSet([two]), add=frozenset({"\\Deleted"}))
        await other.expunge(UidSet([two]))
        four = await append(other, 4)
        assert await page.sync_flags(connection, known) == (UidSet([four]), UidSet([two]))
        assert known.flags[one] == {"\\Flagged"}
        assert known.flags[three] == frozenset()
        assert await page.sync_flags(connection, known) == (UidSet(), UidSet())
        known.uid_validity -= 1
        new, gone = await page.sync_flags(connection, known)
        assert UidSet([one, three, four]) - new == gone == UidSet()


async def test_waiting_for_news(page: Any, place: Place) -> None:
    looks = asyncio.Semaphore(0)

    async def look(connection: ImapConnection) -> None:
        looks.release()

    async with connected(*place) as connection, connected(*place) as other:
        watching = asyncio.create_task(page.watch(connection, look))
        async with asyncio.timeout(30):
            await looks.acquire()
            for number in range(2):
                while not connection.idling:  # pymap tells of what came before IDLE with the next command only
                    await asyncio.sleep(0)
                await append(other, number)
                await looks.acquire()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


async def test_archiving(page: Any, dovecot: Dovecot, dovecot_plain: Dovecot) -> None:
    for server in (dovecot, dovecot_plain):
        place = server.endpoint(), server.credentials(server.new_user())
        async with filled(place, 3) as (connection, (one, two, three)):
            assert connection.features.move == (server is dovecot)
            await page.archive(connection, UidSet([one, three]))
            assert await connection.search() == UidSet([two])
            await connection.select("Archive")
            archived = (await connection.fetch_flags(await connection.search())).messages
            assert [message.flags for message in archived] == [{"\\Seen"}, {"\\Seen"}]


async def test_a_change_on_condition(page: Any, dovecot: Dovecot, mail_user: str) -> None:
    async with filled((dovecot.endpoint(), dovecot.credentials(mail_user)), 2) as (connection, (one, two)):
        known = (await connection.select("INBOX")).highest_mod_seq
        await dovecot.set_flags(mail_user, "INBOX", f"uid {two}", ["\\Seen"])
        assert await page.flag_unless_changed(connection, UidSet([one, two]), known) == UidSet([two])


async def test_an_upload(page: Any, place: Place) -> None:
    raw = b"Message-ID: <once@example.org>\r\n" + MAIL
    assert await page.upload_once(*place, raw, "<once@example.org>")
    assert not await page.upload_once(*place, raw, "<once@example.org>")


async def test_counts_over_a_pool(page: Any, place: Place) -> None:
    async with filled(place, 1) as (connection, _):
        [status] = await connection.statuses(["INBOX"])
    assert status is not None
    counts = await page.message_counts(*place, ["INBOX", "Sent"] * 5)
    assert counts["INBOX"] == status.messages
    assert set(counts) == {"INBOX", "Sent"}


async def test_what_goes_wrong(page: Any, place: Place) -> None:
    endpoint, credentials = place
    assert re.fullmatch(r"\d+ messages", await page.diagnose(endpoint, credentials, "INBOX"))
    assert (await page.diagnose(endpoint, credentials, "Nowhere")).startswith("EXAMINE refused: ")
    [unused] = free_ports(1)
    unreachable = Endpoint(endpoint.host, unused, endpoint.tls)
    assert (await page.diagnose(unreachable, credentials, "INBOX")).startswith("not reached: ")
    stranger = Credentials(credentials.username, "wr0ng-passw0rd")
    refused = await page.diagnose(endpoint, stranger, "INBOX")
    assert refused.startswith("refused: ")
    assert "wr0ng" not in refused


async def test_the_block_of_a_connection_ends_it(place: Place) -> None:
    async with await ImapConnection.connect(*place, SETTINGS) as connection:
        await connection.noop()
    assert connection.closed
    with pytest.raises(ZeroDivisionError):
        async with await ImapConnection.connect(*place) as connection:
            raise ZeroDivisionError
    assert connection.closed
    with pytest.raises(ConnectionLostError):
        await connection.noop()
