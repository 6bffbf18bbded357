"""Connections that are cut, and answers that change while they are given: nothing is lost, nothing is held twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.fake_imap import QRESYNC, Act, Answer, Client, FakeImap, idle
from harness.fake_imap_faults import cut
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import (
    BODIES,
    CHANGES,
    METADATA,
    account_on,
    arrived,
    check,
    on_every_tier,
    one_pass,
    parked,
    raw,
)
from servers.scripted import Command

# -- cuts -------------------------------------------------------------------------------------------------------------


async def test_cut_at_every_byte_of_a_fetch_with_bodies(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        at = 0
        lengths = {1}

        async def cut_here(client: Client, command: Command, answer: Answer) -> None:
            lengths.add(len(b"".join(answer)))
            await cut(at)(client, command, answer)

        while at < max(lengths):
            inbox = server.inbox
            inbox.expunge(*list(inbox.messages))
            inbox.add(raw(3 * at + 10_000), raw(3 * at + 10_001, "x" * 20), raw(3 * at + 10_002))
            server.fault(BODIES, cut_here)
            report = await account.sync.run_once()
            assert report.error is not None
            assert report.error.code == "connectionLost"
            await one_pass(account)
            at += 1
        await one_pass(account)
        await check(server, data_dir)
        assert at == max(lengths) > 150
        assert await account.scalar("select count(*) from message") == 3 * at
        assert await parked(account) == ""


@pytest.mark.both_databases(capabilities=(QRESYNC,))
@on_every_tier
async def test_cut_all_along_a_first_sync(capabilities: str, data_dir: Path) -> None:
    """From the greeting to the goodbye, every few bytes, each time with something to do of every kind."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        number = 0
        failures = 0
        for at in range(0, 100_000, 23):
            inbox.add(raw(number), raw(number + 1))
            number += 2
            if len(inbox.messages) > 4:
                uids = list(inbox.messages)
                inbox.expunge(*uids[:2])
                inbox.set_flags(uids[2], *([r"\Seen"] if at % 2 else [r"\Flagged"]))
            server.cut_after_bytes = at
            report = await account.sync.run_once()
            server.heal()
            await one_pass(account)
            if not report.errors:
                break
            failures += 1
        await one_pass(account)
        await check(server, data_dir)
        assert failures > 30


async def say_goodbye(client: Client, _command: Command, answer: Answer) -> None:
    await client.send(answer[:1])
    await client.talk.bye("shutting down")
    raise ConnectionResetError("gone")


@pytest.mark.both_databases
@pytest.mark.parametrize("act", [cut(30), say_goodbye], ids=["cut", "bye"])
@pytest.mark.parametrize("during", [METADATA, BODIES, rb"UID SEARCH", rb"EXAMINE"])
async def test_cut_while_it_runs(act: Act, during: bytes, data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir) as account:
        server.inbox.add(raw(0))
        await account.once()
        server.fault(during, act, times=2)
        server.inbox.add(raw(1), raw(2), raw(3))
        server.inbox.expunge(1)
        await account.wait_for(arrived(4))
        await account.once()
        await check(server, data_dir)
        assert server.connections == 3


# -- changes in the middle of an answer -------------------------------------------------------------------------------


@pytest.mark.both_databases(capabilities=(QRESYNC,))
@pytest.mark.parametrize("during", [METADATA, BODIES], ids=["metadata", "bodies"])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["before", "between", "after"])
@on_every_tier
async def test_a_message_vanishes_between_two_fetches(
    capabilities: str, during: bytes, place: int, data_dir: Path
) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))

        async def vanish(client: Client, _command: Command, answer: Answer) -> None:
            server.inbox.expunge(2)
            [news] = client.news()
            # A server does not number what it has just said is gone: its FETCH is among those before, or not at all.
            fetches = [response for response in answer[:-1] if b"UID 2 " not in response or place == 2]
            await client.send([*fetches[:place], news, *fetches[place:], answer[-1]])

        server.fault(during, vanish)
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)
        assert await parked(account) == ""


@pytest.mark.both_databases
@on_every_tier
async def test_a_message_vanishes_between_metadata_and_body(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))

        async def vanish(client: Client, _command: Command, answer: Answer) -> None:
            await client.send(answer)
            server.inbox.expunge(2)

        server.fault(METADATA, vanish)
        assert (await one_pass(account)).new == 2
        await check(server, data_dir)
        assert await parked(account) == ""


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "during",
    [rb"EXAMINE", CHANGES, rb"UID SEARCH", METADATA, BODIES, rb"IDLE", rb"LIST"],
    ids=["examine", "flags", "search", "metadata", "bodies", "idle", "list"],
)
async def test_an_exists_during_another_command_is_enough(during: bytes, data_dir: Path) -> None:
    """The one hint comes while nobody waits for one; the next poll would be minutes away."""
    async with FakeImap() as server, account_on(server, data_dir) as account:
        server.inbox.add(raw(1), raw(2))
        await account.once()

        async def arrive(client: Client, command: Command, answer: Answer) -> None:
            server.inbox.add(raw(100))
            # Told here and so never again.
            exists = [response for response in client.news() if b"EXISTS" in response]
            assert exists
            if command.verb == b"IDLE":
                await client.send(exists)
                await idle(client, command)
            else:
                await client.send([*answer[:-1], *exists, answer[-1]])

        server.fault(during, arrive)
        server.inbox.add(raw(3))
        server.inbox.set_flags(1, r"\Seen")
        server.inbox.expunge(2)
        await account.wait_for(lambda rows: arrived(3)(rows) and any(row.event == "messageUpdated" for row in rows))
        if during == rb"LIST":
            await account.once()
        await account.wait_for(arrived(4))
        await check(server, data_dir)
        assert account.sync.view().push == "idle"
        assert server.connections == 1
