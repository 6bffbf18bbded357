"""Changes on the server: STORE, COPY, MOVE, EXPUNGE, APPEND on every server here, as the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from harness.connections import MAIL, bodies, connected
from harness.fake_imap import TIERS, FakeImap
from harness.fake_mailbox import FakeMailbox
from mailmill.errors import ArgumentError, CommandError, UnsupportedError
from mailmill.imap.connection import ImapConnection
from mailmill.model import Credentials, Endpoint, MessageMeta, Uid
from mailmill.uid_set import UidSet
from servers.cyrus import Cyrus
from servers.dovecot import Dovecot
from servers.pymap import Pymap

Place = tuple[Endpoint, Credentials]
OpenPlace = Callable[[], AbstractAsyncContextManager[Place]]

REAL = ["dovecot", "dovecot_condstore", "dovecot_plain", "cyrus", "writable_pymap"]
SEEN, FLAGGED, DELETED = frozenset({"\\Seen"}), frozenset({"\\Flagged"}), frozenset({"\\Deleted"})
BINARY_MAIL = MAIL + b"a\0b\r\n"


@pytest.fixture(scope="module")
def writable_pymap() -> Iterator[Pymap]:
    with Pymap() as server:
        yield server


@pytest.fixture(params=[*REAL, *(f"fake-{tier}" for tier in TIERS)])
def place(request: pytest.FixtureRequest) -> OpenPlace:
    """A server and an account on it that has an INBOX and a mailbox Sent. Only pymap's is shared, and not empty."""
    name: str = request.param
    if not name.startswith("fake-"):
        server = request.getfixturevalue(name)

    @asynccontextmanager
    async def open_place() -> AsyncIterator[Place]:
        if name.startswith("fake-"):
            capabilities = TIERS[name.removeprefix("fake-")]
            async with FakeImap(FakeMailbox(), FakeMailbox("Sent", uid_validity=8), capabilities=capabilities) as fake:
                yield fake.endpoint(), fake.credentials()
        elif isinstance(server, Pymap):
            yield server.endpoint(), server.credentials()
        else:
            assert isinstance(server, Dovecot | Cyrus)
            yield server.endpoint(), server.credentials(server.new_user())

    return open_place


@asynccontextmanager
async def inbox_of(place: Place) -> AsyncIterator[ImapConnection]:
    async with connected(*place) as connection:
        await connection.select("INBOX", read_only=False)
        yield connection


@asynccontextmanager
async def writing(open_place: OpenPlace) -> AsyncIterator[ImapConnection]:
    """INBOX of the place, selected for writing."""
    async with open_place() as place, inbox_of(place) as connection:
        yield connection


def mail(number: int) -> bytes:
    return f"Message-ID: <{number}@example.org>\r\nX-Token: token-{number}\r\n".encode() + MAIL


async def append_all(connection: ImapConnection, count: int) -> list[Uid]:
    uids = []
    for number in range(count):
        reply = await connection.append("INBOX", mail(number))
        assert reply.uid is not None
        uids.append(reply.uid)
    await connection.noop()
    return uids


async def flags_of(connection: ImapConnection, uids: UidSet) -> dict[Uid, frozenset[str] | None]:
    return {message.uid: message.flags for message in (await connection.fetch_flags(uids)).messages}


async def highest_mod_seq(connection: ImapConnection, uids: UidSet) -> int:
    return max(message.mod_seq or 0 for message in (await connection.fetch_flags(uids)).messages)


async def raw_of(connection: ImapConnection, path: str, uid: Uid) -> bytes:
    await connection.select(path)
    [fetched] = await bodies(connection, UidSet([uid]))
    assert isinstance(fetched.body, bytes)
    return fetched.body


# -- APPEND ------------------------------------------------------------------------------------------------------------


async def test_an_appended_message_is_what_was_given(place: OpenPlace):
    async with writing(place) as connection:
        flags = frozenset({"\\Seen", "\\Answered"})
        reply = await connection.append("INBOX", mail(1), flags=flags, internal_date=1_000_000_000.7)
        assert reply.uid is not None
        assert connection.selected is not None
        assert reply.uid_validity == connection.selected.status.uid_validity
        [message] = (await connection.fetch_meta(UidSet([reply.uid]))).messages
        assert (message.flags, message.internal_date, message.size_bytes) == (flags, 1_000_000_000.0, len(mail(1)))
        assert await raw_of(connection, "INBOX", reply.uid) == mail(1)


async def test_a_message_of_20_megabytes(place: OpenPlace):
    lines = b"".join(b"%08d %s\r\n" % (number, b"x" * 60) for number in range(300_000))
    async with writing(place) as connection:
        reply = await connection.append("INBOX", MAIL + lines)
        assert reply.uid is not None
        assert connection.bytes_sent > 20_000_000
        raw = await raw_of(connection, "INBOX", reply.uid)
        assert raw == MAIL + lines, "byte for byte"


async def test_append_to_a_mailbox_that_does_not_exist(place: OpenPlace):
    async with writing(place) as connection:
        for raw in (MAIL, MAIL + b"x" * 100_000):
            with pytest.raises(CommandError) as caught:
                await connection.append("Nowhere", raw)
            assert (caught.value.command, caught.value.response_code) == ("APPEND", "TRYCREATE")
        await connection.noop()


async def test_append_while_idling_and_with_nothing_selected(place: OpenPlace):
    async with place() as where, connected(*where) as connection:
        assert (await connection.append("Sent", MAIL)).uid is not None
        await connection.select("INBOX")
        await connection.idle()
        assert (await connection.append("INBOX", MAIL)).uid is not None
        assert not connection.idling
        assert connection.take_hint() or await connection.wait_hint(0), "EXISTS is news"


async def test_nul_goes_only_to_servers_that_take_it(place: OpenPlace):
    async with writing(place) as connection:
        if connection.features.binary:
            assert (await connection.append("INBOX", BINARY_MAIL)).uid is not None
        else:
            sent = connection.bytes_sent
            with pytest.raises(ArgumentError, match="NUL"):
                await connection.append("INBOX", BINARY_MAIL)
            assert connection.bytes_sent == sent
        await connection.noop()


# -- STORE -------------------------------------------------------------------------------------------------------------


async def test_flags_are_added_and_removed(place: OpenPlace):
    async with place() as where, inbox_of(where) as connection:
        one, two, three = await append_all(connection, 3)
        await connection.store_flags(UidSet([one]), add=SEEN)
        reply = await connection.store_flags(UidSet([one, two]), add=FLAGGED, remove=SEEN)
        assert {message.uid: message.flags for message in reply.messages} == {one: FLAGGED, two: FLAGGED}
        assert (reply.modified, reply.malformed) == (UidSet(), 0)
        if connection.features.condstore:
            assert all(message.mod_seq for message in reply.messages)
        async with connected(*where) as other:
            await other.select("INBOX")
            seen_by_another = await flags_of(other, UidSet([one, two, three]))
        assert seen_by_another == {one: FLAGGED, two: FLAGGED, three: frozenset()}
        again = await connection.store_flags(UidSet([one]), add=FLAGGED)
        assert [message.flags for message in again.messages] in ([], [FLAGGED]), "told of or not, nothing has changed"
        none = UidSet([three + 1000])
        assert (await connection.store_flags(none, add=SEEN)).messages == []


async def test_odd_keywords(place: OpenPlace, request: pytest.FixtureRequest):
    odd = frozenset({"$Forwarded", "NonJunk", "a.b-c_d+e=f~g!h#i", "[odd}", "1"})
    async with writing(place) as connection:
        [uid] = await append_all(connection, 1)
        if "pymap" in request.node.name:
            # A server may keep less than it was asked to, without a word: the reply shows what it keeps.
            reply = await connection.store_flags(UidSet([uid]), add=frozenset({"$Forwarded", "\\Seen"}))
            assert [message.flags for message in reply.messages] == [SEEN]
            return
        reply = await connection.store_flags(UidSet([uid]), add=odd)
        assert [message.flags for message in reply.messages] == [odd]
        reply = await connection.store_flags(UidSet([uid]), remove=odd - {"1"})
        assert [message.flags for message in reply.messages] == [{"1"}]


async def test_a_change_on_condition(place: OpenPlace):
    async with place() as where, inbox_of(where) as connection:
        one, two = await append_all(connection, 2)
        if not connection.features.condstore:
            with pytest.raises(UnsupportedError, match="mod-sequences"):
                await connection.store_flags(UidSet([one]), add=SEEN, unchanged_since=1)
            return
        both = UidSet([one, two])
        known = await highest_mod_seq(connection, both)
        async with inbox_of(where) as other:
            await other.store_flags(UidSet([two]), add=FLAGGED)
        reply = await connection.store_flags(both, add=SEEN, remove=FLAGGED, unchanged_since=known)
        assert reply.modified == UidSet([two])
        assert await flags_of(connection, both) == {one: SEEN, two: FLAGGED}, "what another changed is as it left it"
        known = await highest_mod_seq(connection, both)
        reply = await connection.store_flags(both, add=DELETED, remove=FLAGGED | SEEN, unchanged_since=known)
        assert reply.modified == UidSet()
        assert await flags_of(connection, both) == {one: DELETED, two: DELETED}


async def test_nothing_is_sent_that_makes_no_sense(place: OpenPlace):
    async with place() as where, connected(*where) as connection:
        sent = connection.bytes_sent
        uids = UidSet([1])
        with pytest.raises(UnsupportedError, match="selected for writing"):
            await connection.store_flags(uids, add=SEEN)
        await connection.select("INBOX")
        selected = connection.bytes_sent
        for change in (
            connection.store_flags(uids, add=SEEN),
            connection.expunge(uids),
            connection.move(uids, "Sent"),
        ):
            with pytest.raises(UnsupportedError):
                await change
        await connection.select("INBOX", read_only=False)
        selected_again = connection.bytes_sent
        with pytest.raises(ArgumentError):
            await connection.store_flags(uids, add=frozenset({"\\seen"}), remove=SEEN)
        with pytest.raises(ArgumentError):
            await connection.store_flags(uids, add=frozenset({"a b"}))
        with pytest.raises(ArgumentError):
            await connection.append("INBOX", b"")
        with pytest.raises(ArgumentError):
            await connection.append("INBOX", MAIL, internal_date=float("nan"))
        nothing = UidSet()
        assert (await connection.store_flags(nothing, add=SEEN)).messages == []
        assert (await connection.store_flags(uids)).messages == []
        assert (await connection.copy(nothing, "Sent")).uids == {}
        assert await connection.expunge(nothing) == nothing
        assert await connection.search_header("X-Token", "x", within=nothing) == nothing
        assert connection.bytes_sent == selected_again > selected > sent


# -- COPY, MOVE, EXPUNGE -----------------------------------------------------------------------------------------------


async def test_copies_are_found_by_what_the_server_tells(place: OpenPlace):
    async with writing(place) as connection:
        one, two, three = await append_all(connection, 3)
        reply = await connection.copy(UidSet([one, three, three + 1000]), "Sent")
        assert set(reply.uids) == {one, three}
        assert await connection.search(UidSet([one, two, three])) == UidSet([one, two, three])
        with pytest.raises(CommandError) as caught:
            await connection.copy(UidSet([one]), "Nowhere")
        assert caught.value.response_code == "TRYCREATE"
        assert (await connection.copy(UidSet([three + 1000]), "Sent")).uids == {}
        assert await raw_of(connection, "Sent", reply.uids[one]) == mail(0)
        assert await raw_of(connection, "Sent", reply.uids[three]) == mail(2)
        assert connection.selected is not None
        assert reply.uid_validity == connection.selected.status.uid_validity


async def test_a_move_takes_and_gives(place: OpenPlace):
    async with writing(place) as connection:
        one, two, three = await append_all(connection, 3)
        if not connection.features.move:
            with pytest.raises(UnsupportedError, match="MOVE"):
                await connection.move(UidSet([one]), "Sent")
            return
        reply = await connection.move(UidSet([one, three]), "Sent")
        assert set(reply.uids) == {one, three}
        assert await connection.search(UidSet([one, two, three])) == UidSet([two])
        assert connection.take_hint(), "the mailbox has changed, whoever did it"
        [status] = await connection.statuses(["INBOX"])
        assert status is not None
        assert connection.exists == status.messages
        with pytest.raises(CommandError) as caught:
            await connection.move(UidSet([two]), "Nowhere")
        assert caught.value.response_code == "TRYCREATE"
        assert await connection.search(UidSet([two])) == UidSet([two])
        assert (await connection.move(UidSet([one]), "Sent")).uids == {}, "what is gone already is passed over"
        assert await raw_of(connection, "Sent", reply.uids[three]) == mail(2)


async def test_an_expunge_takes_what_is_named_and_marked(place: OpenPlace):
    async with writing(place) as connection:
        marked, unmarked, of_another = await append_all(connection, 3)
        await connection.store_flags(UidSet([marked, of_another]), add=DELETED)
        assert await connection.expunge(UidSet([marked, unmarked])) == UidSet([marked])
        assert await connection.search(UidSet([marked, unmarked, of_another])) == UidSet([unmarked, of_another])
        assert await connection.expunge(UidSet([marked])) == UidSet([marked]), "gone already: the same answer"


async def test_an_expunge_without_uidplus_is_refused():
    async with FakeImap(capabilities="IMAP4rev1 IDLE") as server:
        server.inbox.add(MAIL, flags=["\\Deleted"])
        async with inbox_of((server.endpoint(), server.credentials())) as connection:
            with pytest.raises(UnsupportedError, match="UIDPLUS") as caught:
                await connection.expunge(UidSet([1]))
            assert caught.value.hint
            assert (await connection.append("INBOX", MAIL)).uid is None
            assert (await connection.copy(UidSet([1]), "INBOX")).uids == {}
        assert server.count(rb".*EXPUNGE") == 0
        assert len(server.inbox.messages) == 3


# -- SEARCH HEADER -----------------------------------------------------------------------------------------------------


async def test_a_message_is_found_by_its_header(place: OpenPlace):
    async with writing(place) as connection:
        one, two = await append_all(connection, 2)
        both = UidSet([one, two])
        assert await connection.search_header("X-Token", "token-1", within=both) == UidSet([two])
        assert await connection.search_header("Message-ID", "<0@example.org>", within=both) == UidSet([one])
        assert await connection.search_header("x-token", "TOKEN-", within=both) == both
        assert await connection.search_header("X-Token", "token-1", within=UidSet([one])) == UidSet()
        assert one in await connection.search_header("Message-ID", "<0@example.org>")
        assert await connection.search_header("X-Token", 'quo"ted\\', within=both) == UidSet()


# -- beside others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_name", ["dovecot", "cyrus"])
async def test_changes_beside_another_client_are_neither_lost_nor_mistaken(
    server_name: str, dovecot: Dovecot, cyrus: Cyrus
):
    server: Dovecot | Cyrus = dovecot if server_name == "dovecot" else cyrus
    user = server.new_user()
    place = server.endpoint(), server.credentials(user)
    async with inbox_of(place) as connection, inbox_of(place) as other:
        ours = await append_all(connection, 30)
        await other.noop()
        theirs: list[Uid] = []

        async def interfere() -> None:
            for uid in ours[20:]:
                theirs.append((await other.append("INBOX", mail(uid))).uid or Uid(0))
                await other.store_flags(UidSet([uid]), add=DELETED)
                await other.expunge(UidSet([uid]))

        async def change() -> tuple[list[MessageMeta], dict[Uid, Uid]]:
            stored: list[MessageMeta] = []
            moved: dict[Uid, Uid] = {}
            for uid in ours[:20:2]:
                stored += (await connection.store_flags(UidSet([uid]), add=FLAGGED)).messages
                moved |= (await connection.move(UidSet([uid + 1]), "Sent")).uids
                await connection.append("Sent", mail(uid))
            return stored, moved

        (stored, moved), _ = await asyncio.gather(change(), interfere())
        assert {message.uid: message.flags for message in stored} == dict.fromkeys(ours[:20:2], FLAGGED)
        assert list(moved) == ours[1:20:2]
        await connection.noop()
        assert connection.take_hint()
        assert await connection.search() == UidSet([*ours[:20:2], *theirs])
        if server_name == "cyrus":
            # Cyrus 3.6 never tells an EXISTS of what arrived while a MOVE was carried out, nor a VANISHED of what was
            # expunged together with an arrival: what was told does not add up until the next SELECT. UIDs are exact.
            await connection.select("INBOX")
        assert connection.exists == 20
        assert not connection.malformed
