"""Requests on real servers: what is asked for happens there, the store says so, and every id stays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from harness import requesting, truth
from harness.other_client import OtherClient
from harness.requesting import ask, ask_append, finished, now, outcome, write_once
from harness.syncing import SyncedAccount, synced_account
from mailmill.model import Credentials, Endpoint
from servers.cyrus import Cyrus
from servers.dovecot import Dovecot
from servers.pymap import Pymap

pytestmark = pytest.mark.both_databases(where=("dovecot", "pymap"))


def raw(number: int) -> bytes:
    return f"Subject: number {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n{number}\r\n".encode()


class Where:
    """A server and a user of its own, with three messages in INBOX, one in Archive, and a place for rubbish.

    ``keyword`` is one that the server keeps; pymap keeps none.
    """

    def __init__(
        self, host: str, port: int, endpoint: Endpoint, credentials: Credentials, keyword: str = "todo"
    ) -> None:
        self.keyword = keyword
        self.endpoint = endpoint
        self.credentials = credentials
        self.client = OtherClient(host, port, credentials.username, credentials.password)


@pytest.fixture(params=["dovecot", "dovecot_condstore", "dovecot_plain", "cyrus", "pymap"])
def where(request: pytest.FixtureRequest) -> Iterator[Where]:
    if request.param == "pymap":
        with Pymap() as server:
            yield Where(server.host, server.port, server.endpoint(), server.credentials(), r"\Draft")
        return
    server: Dovecot | Cyrus = request.getfixturevalue(request.param)
    user = server.new_user()
    yield Where(server.host, server.port, server.endpoint(), server.credentials(user))


@pytest.fixture
def own_pymap() -> Iterator[Pymap]:
    """It keeps no keywords."""
    with Pymap() as server:
        yield server


@pytest.fixture
async def other(where: Where) -> AsyncIterator[OtherClient]:
    async with where.client as client:
        # Some servers give an Archive to everybody.
        for path in {"Archive", "Rubbish"} - set(await client.truth()):
            await client.create(path)
        await client.append("INBOX", raw(901), raw(902), raw(903))
        await client.append("Archive", raw(910))
        yield client


async def uids_of(other: OtherClient, path: str, *numbers: int) -> list[int]:
    held = (await other.truth())[path]
    by_raw = {raw_bytes: uid for uid, (_, raw_bytes) in held.items()}
    return [by_raw[raw(number)] for number in numbers]


async def check(other: OtherClient, data_dir: Path) -> None:
    await asyncio.to_thread(truth.check, data_dir, await other.truth())


def events(rows: list[object]) -> Counter[str]:
    return Counter(row.event for row in rows)  # type: ignore[attr-defined]


async def synced(account: SyncedAccount) -> None:
    report = await account.sync.run_once()
    assert not report.errors, report.errors


@pytest.fixture
async def account(where: Where, other: OtherClient, data_dir: Path) -> AsyncIterator[SyncedAccount]:
    async with synced_account(data_dir, where.endpoint, where.credentials, running=False) as made:
        await synced(made)
        yield made


async def test_flags_reach_the_server_and_the_event_says_so(
    where: Where, account: SyncedAccount, other: OtherClient, data_dir: Path
) -> None:
    first, second, third = await uids_of(other, "INBOX", 901, 902, 903)
    ids = await account.message_ids()
    await other.set_flags("INBOX", str(third), r"\Answered")
    asked = [
        await ask(account, "flags", "INBOX", uid, add=[r"\Flagged", where.keyword], remove=[r"\Seen"])
        for uid in (first, second, third)
    ]
    before = len(await account.events())
    await write_once(account)
    assert [outcome(await now(account, row)) for row in asked] == [("done", "", "")] * 3
    held = (await other.truth())["INBOX"]
    assert held[first][0] == held[second][0] == {r"\Flagged", where.keyword}
    # What another client set meanwhile stays.
    assert held[third][0] == {r"\Flagged", where.keyword, r"\Answered"}
    await check(other, data_dir)
    told = (await account.events())[before:]
    assert {row.message_id for row in told} == {ids[uid] for uid in (first, second, third)}
    assert {row.event for row in told} == {"messageUpdated"}
    assert {frozenset(row.data["flags"]) for row in told} == {held[first][0], held[third][0]}


async def test_a_flag_that_the_server_does_not_keep_is_named(own_pymap: Pymap, data_dir: Path) -> None:
    async with synced_account(data_dir, own_pymap.endpoint(), own_pymap.credentials(), running=False) as account:
        await synced(account)
        uid = min(await account.message_ids())
        row = await ask(account, "flags", "INBOX", uid, add=["todo"])
        await write_once(account)
        assert outcome(await now(account, row)) == ("failed", "refused", "the server did not set todo in 'INBOX'")


async def test_a_moved_message_keeps_its_id(account: SyncedAccount, other: OtherClient, data_dir: Path) -> None:
    first, second = await uids_of(other, "INBOX", 901, 902)
    ids = await account.message_ids()
    before = len(await account.events())
    asked = [await ask(account, "move", "INBOX", uid, "Archive") for uid in (first, second)]
    # Asked for before it was moved: it is about the message wherever it is by then.
    later = await ask(account, "flags", "INBOX", first, add=[r"\Seen"])
    await write_once(account)
    rows = [await now(account, row) for row in (*asked, later)]
    assert [outcome(row) for row in rows] == [("done", "", "")] * 3
    moved = await account.message_ids("Archive")
    assert [moved[row.target_uid or 0] for row in rows[:2]] == [ids[first], ids[second]]
    assert (await account.held("Archive"))[rows[0].target_uid or 0] == {r"\Seen"}
    await check(other, data_dir)
    told = events((await account.events())[before:])
    assert (told["messageNew"], told["messageDeleted"]) == (0, 0)


async def test_a_copy_is_the_same_message_in_two_places(
    account: SyncedAccount, other: OtherClient, data_dir: Path
) -> None:
    [first] = await uids_of(other, "INBOX", 901)
    ids = await account.message_ids()
    row = await ask(account, "copy", "INBOX", first, "Archive")
    await write_once(account)
    row = await now(account, row)
    assert outcome(row) == ("done", "", "")
    assert (
        (await account.message_ids("Archive"))[row.target_uid or 0]
        == ids[first]
        == (await account.message_ids())[first]
    )
    await check(other, data_dir)


async def test_a_deleted_message_goes_to_the_trash_and_from_there_for_good(
    account: SyncedAccount, other: OtherClient, data_dir: Path
) -> None:
    [first] = await uids_of(other, "INBOX", 901)
    ids = await account.message_ids()
    row = await ask(account, "delete", "INBOX", first, "Rubbish")
    await write_once(account)
    row = await now(account, row)
    assert outcome(row) == ("done", "", "")
    assert (await account.message_ids("Rubbish"))[row.target_uid or 0] == ids[first]
    row = await ask(account, "delete", "Rubbish", row.target_uid or 0)
    await write_once(account)
    assert outcome(await now(account, row)) == ("done", "", "")
    assert (await other.truth())["Rubbish"] == {}
    await synced(account)
    await check(other, data_dir)
    assert [row.message_id for row in await account.events() if row.event == "messageDeleted"] == [ids[first]]


async def test_only_what_was_asked_for_is_expunged(account: SyncedAccount, other: OtherClient, data_dir: Path) -> None:
    first, second = await uids_of(other, "INBOX", 901, 902)
    await other.set_flags("INBOX", str(second), r"\Deleted")
    row = await ask(account, "delete", "INBOX", first)
    await write_once(account)
    assert outcome(await now(account, row)) == ("done", "", "")
    held = (await other.truth())["INBOX"]
    assert first not in held
    assert second in held


async def test_an_uploaded_message_is_stored_byte_for_byte(
    account: SyncedAccount, other: OtherClient, data_dir: Path
) -> None:
    row = await ask_append(account, "Archive", raw(950), [r"\Seen"], 1_700_000_000.0)
    twin = await ask_append(account, "Archive", raw(950))
    await write_once(account)
    row, twin = await now(account, row), await now(account, twin)
    assert [outcome(row), outcome(twin)] == [("done", "", "")] * 2
    held = (await other.truth())["Archive"]
    assert held[row.target_uid or 0] == ({r"\Seen"}, raw(950))
    assert held[twin.target_uid or 0] == (frozenset(), raw(950))
    await check(other, data_dir)
    ids = await account.message_ids("Archive")
    assert ids[row.target_uid or 0] == ids[twin.target_uid or 0]
    async with account.database.read() as connection:
        assert await requesting.requests.message_at(connection, [row]) == {row.id: ids[row.target_uid or 0]}


async def test_what_cannot_be_done_says_why(account: SyncedAccount, other: OtherClient, data_dir: Path) -> None:
    first, second, third = await uids_of(other, "INBOX", 901, 902, 903)
    nowhere = await ask(account, "move", "INBOX", first, "No such mailbox")
    uploaded = await ask_append(account, "No such mailbox", raw(1))
    gone = await ask(account, "flags", "INBOX", second, add=[r"\Seen"])
    deleted = await ask(account, "delete", "INBOX", third)
    await other.expunge("INBOX", f"{second}")
    await other.expunge("INBOX", f"{third}")
    await write_once(account)
    assert outcome(await now(account, nowhere)) == ("failed", "notFound", "the server has no mailbox 'No such mailbox'")
    assert outcome(await now(account, uploaded))[:2] == ("failed", "notFound")
    assert outcome(await now(account, gone)) == ("failed", "conflict", "the message is gone from the server")
    assert outcome(await now(account, deleted)) == ("done", "", "it was gone already")
    assert first in (await other.truth())["INBOX"]
    await synced(account)
    await check(other, data_dir)


async def test_a_message_that_somebody_moved_is_followed(
    account: SyncedAccount, other: OtherClient, data_dir: Path
) -> None:
    first, second, third = await uids_of(other, "INBOX", 901, 902, 903)
    flagged = await ask(account, "flags", "INBOX", first, add=[r"\Flagged"])
    moved = await ask(account, "move", "INBOX", second, "Rubbish")
    deleted = await ask(account, "delete", "INBOX", third)
    for uid in (first, second, third):
        await other.copy("INBOX", str(uid), "Archive")
        await other.expunge("INBOX", str(uid))
    await write_once(account)
    assert outcome(await now(account, flagged)) == ("done", "", "")
    assert outcome(await now(account, moved)) == ("done", "", "")
    assert outcome(await now(account, deleted)) == (
        "failed",
        "conflict",
        "the message was moved meanwhile, to 'Archive'",
    )
    held = await other.truth()
    archived = {content: flags for flags, content in held["Archive"].values()}
    assert archived[raw(901)] == {r"\Flagged"}
    assert raw(902) not in archived
    assert raw(903) in archived
    await synced(account)
    await check(other, data_dir)


async def test_requests_are_applied_while_the_account_idles(where: Where, other: OtherClient, data_dir: Path) -> None:
    [first] = await uids_of(other, "INBOX", 901)
    async with synced_account(data_dir, where.endpoint, where.credentials) as account:
        await account.once()
        row = await finished(account, await ask(account, "flags", "INBOX", first, add=[r"\Flagged"]))
        assert outcome(row) == ("done", "", "")
        # The answer comes when the store shows it.
        assert r"\Flagged" in (await account.held())[first]
        row = await finished(account, await ask(account, "move", "INBOX", first, "Archive"))
        assert outcome(row) == ("done", "", "")
        assert (await account.message_ids("Archive")).get(row.target_uid or 0) == row.message_id
        assert first not in await account.held()
        await account.once()
        await check(other, data_dir)
        assert len(account.connections) == 1
