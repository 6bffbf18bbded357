"""Sender history: what is counted of a message, once, and what a later message is told of it. On both databases."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from store_mail import Store, new_store, open_database

from harness.interleaving import beside, waits
from mailmill.model import Address, Backlog, MailboxRef, MessageMeta, SenderHistory, Uid
from mailmill.store import account_removal, accounts, messages, sender_counts, sender_history
from mailmill.store.blobs import BlobRef
from mailmill.store.messages import Arrival, Cursor, StoredContent, SyncBatch, WorkPlan
from mailmill.store.sender_counts import address_key, answers_text, name_key, reversed_domain
from mailmill.store.tables import account, message, sender
from mailmill.uid_set import UidSet

ME = "me@example.org"
DAY = 86_400.0

Row = tuple[str, str, int, float | None, int, float | None]


@pytest.fixture
async def store(data_dir: Path, database_url: str) -> AsyncIterator[Store]:
    async with opened(data_dir, database_url) as made:
        yield made


@asynccontextmanager
async def opened(data_dir: Path, url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, url) as database:
        made = await new_store(database, "Archive")
        async with database.write() as connection:
            refs = [
                MailboxRef("INBOX", "/"),
                MailboxRef("Archive", "/"),
                MailboxRef("Sent", "/", "\\Sent"),
                MailboxRef("Spam", "/", "\\Junk"),
            ]
            await messages.apply_mailbox_list(connection, made.account.id, refs, 1.0)
            await connection.execute(update(account).values(initialized_at=1.0))
        yield made


def mail(
    uid: int,
    from_: str,
    at: float,
    *,
    name: str = "",
    to: Sequence[str] = (ME,),
    message_id: str = "",
    answers: str = "",
    references: Sequence[str] = (),
) -> Arrival:
    raw = f"{uid} {from_} {at}".encode()
    content = StoredContent(
        BlobRef(hashlib.sha256(raw).digest(), "ab/0-0.seg", 0, len(raw)),
        from_name=name,
        from_address=from_,
        message_id_header=message_id or f"<{uid}@somewhere.example>",
        in_reply_to=answers,
        recipients=tuple(Address("", each) for each in to),
        references=references,
    )
    return Arrival(MessageMeta(Uid(uid), frozenset(), internal_date=at), content)


async def rows(store: Store) -> list[Row]:
    wanted = select(
        sender.c.address_key, sender.c.name, sender.c.received, sender.c.received_since, sender.c.sent,
        sender.c.sent_since,
    ).order_by(sender.c.address_key, sender.c.name)  # fmt: skip
    async with store.database.read() as connection:
        return [tuple(row) for row in await connection.execute(wanted)]


def organisation_of(domain: str) -> str:
    """The last two labels; nobody's where it is free mail."""
    organisation = ".".join(domain.split(".")[-2:])
    return "" if organisation == "free.example" else organisation


async def history(store: Store, message_id: int) -> SenderHistory:
    async with store.database.read() as connection:
        return (await sender_history.read_histories(connection, [message_id], organisation_of))[message_id]


async def known_to(store: Store, one: Arrival, path: str = "INBOX") -> SenderHistory:
    """What is known to a message that comes now."""
    [message_id] = (await store.apply([one], path=path)).message_ids
    return await history(store, message_id)


# -- what is counted --------------------------------------------------------------------------------------------------


async def test_received_mail_counts_once_for_each_address_and_name(store: Store) -> None:
    batch = [
        mail(1, "anna@mail.farm.example", 30.0, name="Anna Ott"),
        mail(2, "Anna@Mail.Farm.Example", 20.0, name=' "anna  OTT" '),
        mail(3, "anna@mail.farm.example", 40.0),
        mail(4, "no address", 50.0),
    ]
    await store.apply(batch)
    expected: list[Row] = [
        ("example.farm.mail@anna", "", 1, 40.0, 0, None),
        ("example.farm.mail@anna", "anna ott", 2, 20.0, 0, None),
    ]
    assert await rows(store) == expected
    await store.apply([mail(5, "anna@mail.farm.example", 10.0, name="Anna Ott")])
    expected[1] = ("example.farm.mail@anna", "anna ott", 3, 10.0, 0, None)
    assert await rows(store) == expected


async def test_a_batch_that_is_applied_again_counts_nothing(store: Store) -> None:
    batch = [mail(1, "anna@farm.example", 10.0), mail(2, "bert@farm.example", 20.0)]
    row = await store.mailbox()
    await store.apply(batch, row=row)
    before = await rows(store)
    assert len(before) == 2
    await store.apply(batch, row=row)
    await store.apply(batch, path="Archive")  # the same contents at another place
    assert await rows(store) == before


async def test_a_batch_that_is_rolled_back_counts_nothing(store: Store) -> None:
    row = await store.mailbox()
    batch = SyncBatch(row, 7, [mail(1, "anna@farm.example", 10.0)], (), UidSet(), Cursor(7, 2))
    with pytest.raises(KeyError):
        async with store.database.write() as connection:
            await messages.apply_batch(connection, batch, WorkPlan(()), 1.0)
            raise KeyError
    assert await rows(store) == []
    await store.apply(batch.arrivals)
    assert [row[2] for row in await rows(store)] == [1]


async def test_what_the_account_filed_as_sent_counts_for_whom_it_went_to(store: Store) -> None:
    to = ["bert@shop.example", "Bert@Shop.example", ME, "carl@farm.example"]
    await store.apply([mail(1, ME, 10.0, to=to)], path="Sent")
    await store.apply([mail(2, "alias@example.org", 20.0, to=["bert@shop.example"])], path="Sent")
    await store.apply([mail(3, ME.upper(), 30.0, to=["carl@farm.example"])], path="Archive")
    assert await rows(store) == [
        ("example.farm@carl", "", 0, None, 2, 10.0),
        ("example.shop@bert", "", 0, None, 2, 10.0),
    ]


@pytest.mark.parametrize(
    ("path", "from_"),
    [("INBOX", ME), ("Spam", "anna@farm.example"), ("Spam", ME)],
    ids=["own address in the inbox", "junk", "own address in junk"],
)
async def test_what_anybody_could_have_forged_makes_no_correspondent(store: Store, path: str, from_: str) -> None:
    await store.apply([mail(1, from_, 10.0, to=["evil@evil.example"])], path=path)
    assert await rows(store) == []


async def test_a_senders_text_of_any_length_and_kind_is_stored(store: Store) -> None:
    batch = [
        mail(1, f"{'a' * 400}@farm.example", 10.0),
        mail(2, f"b@{'x.' * 150}example", 10.0, name="n" * 5000),
        mail(3, f"b@{'ü' * 300}.example", 10.0, name="\ud800\x00" * 90),
        mail(4, "c@farm.example", 10.0, message_id="<" + "m" * 9000 + ">", to=["t" * 900, "a\nb@c"]),
        mail(5, "@farm.example", 10.0),
        mail(6, "d@", 10.0),
        mail(7, "d@...", 10.0),
    ]
    await store.apply(batch)
    kept = await rows(store)
    assert {row[0].rpartition("@")[2] for row in kept} == {"b", "c"}
    assert max(len(row[0]) for row in kept) <= 320
    assert max(len(row[1]) for row in kept) <= 100


async def test_two_batches_of_one_account_at_once_both_count(data_dir: Path, postgres_url: str) -> None:
    """The second waits for the first, and adds to what that wrote; neither is lost, and they do not lock each other."""
    first = [mail(1, "zoe@farm.example", 10.0), mail(2, "anna@farm.example", 20.0)]
    second = [mail(3, "anna@farm.example", 5.0), mail(4, "zoe@farm.example", 6.0)]
    async with opened(data_dir, postgres_url) as store:
        batches = [
            SyncBatch(await store.mailbox(path), 7, arrivals, (), UidSet(), Cursor(7, 9))
            for path, arrivals in (("INBOX", first), ("Archive", second))
        ]

        async def apply_second(connection: AsyncConnection) -> None:
            await messages.apply_batch(connection, batches[1], WorkPlan(()), 1.0)

        async with store.database.write() as connection:
            await messages.apply_batch(connection, batches[0], WorkPlan(()), 1.0)
            other = beside(store.database, apply_second)
            assert await waits(store.database, other)
        await other
        assert await rows(store) == [
            ("example.farm@anna", "", 2, 5.0, 0, None),
            ("example.farm@zoe", "", 2, 6.0, 0, None),
        ]


async def test_mail_of_older_code_is_counted_once(store: Store) -> None:
    await store.apply([mail(uid, "anna@farm.example", 10.0 + uid) for uid in range(1, 6)])
    await store.apply([mail(9, "evil@evil.example", 10.0)], path="Spam")
    before = await rows(store)
    await store.apply([mail(10, "my-alias@farm.example", 10.0, to=["bert@shop.example"])], path="Sent")
    async with store.database.write() as connection:
        await connection.execute(text("DELETE FROM sender"))
        await connection.execute(update(message).values(recipients=None, answers=None))
    # Old code and new one write side by side while nodes are upgraded.
    new = await known_to(store, mail(6, "anna@farm.example", 99.0))
    assert (new.known, new.received) == (False, 0)
    pieces = []
    while True:
        async with store.database.write() as connection:
            pieces.append(await sender_counts.count_older(connection, 2))
        if not pieces[-1]:
            break
    assert pieces == [2, 2, 2, 1, 0]
    assert await rows(store) == [(*before[0][:2], 6, 11.0, 0, None)]
    async with store.database.read() as connection:
        last = await connection.scalar(select(message.c.id).where(message.c.internal_date == 99.0))
    told = await history(store, last or 0)
    assert (told.known, told.received) == (True, 5)


async def test_it_goes_with_its_account_in_pieces(store: Store) -> None:
    await store.apply([mail(uid, f"{uid}@farm.example", 10.0) for uid in range(1, 8)])
    async with store.database.write() as connection:
        other = await accounts.ensure_account(
            connection, name="other", email="", backlog=Backlog.PROCESS, credential_mark="", now=1.0
        )
        await messages.apply_mailbox_list(connection, other.id, [MailboxRef("INBOX", "/")], 1.0)
    await replace(store, account=other).apply([mail(1, "anna@farm.example", 10.0)])
    gone = []
    for _ in range(4):
        async with store.database.write() as connection:
            gone.append(await account_removal.remove_senders(connection, store.account.id, 3))
    assert gone == [3, 3, 1, 0]
    assert [row[0] for row in await rows(store)] == ["example.farm@anna"]


# -- what a message is told -------------------------------------------------------------------------------------------


async def test_the_first_message_of_an_address(store: Store) -> None:
    told = await known_to(store, mail(1, "anna@farm.example", 10.0))
    assert told == SenderHistory(known=True)


async def test_an_address_that_wrote_before_and_was_written_to(store: Store) -> None:
    await store.apply([mail(1, "anna@farm.example", 10.0), mail(2, "anna@farm.example", 20.0, name="Anna")])
    await store.apply([mail(1, ME, 30.0, to=["anna@farm.example"])], path="Sent")
    told = await known_to(store, mail(3, "anna@farm.example", 40.0))
    assert (told.received, told.sent, told.account_messages) == (2, 1, 3)
    assert told.correspondents == ("farm.example",)


async def test_what_came_later_is_not_known_to_an_earlier_message(store: Store) -> None:
    """So a message that is looked at again is told that it was the first, as it was told then."""
    first = (await store.apply([mail(1, "anna@farm.example", 10.0, name="Anna Ott")])).message_ids[0]
    before = await history(store, first)
    await store.apply([mail(2, "anna@farm.example", 20.0), mail(3, "x@other.example", 20.0, name="Anna Ott")])
    await store.apply([mail(1, ME, 30.0, to=["anna@farm.example"])], path="Sent")
    assert await history(store, first) == before == SenderHistory(known=True)


async def test_its_organisation(store: Store) -> None:
    await store.apply(
        [
            mail(1, "anna@farm.example", 10.0),
            mail(2, "news@mail.farm.example", 10.0),
            mail(3, "bert@farm.example.evil.test", 10.0),
            mail(4, "bert@farm-example.test", 10.0),
            mail(5, "bert@thefarm.example", 10.0),
            mail(6, "bert@farm.example2", 10.0),
            mail(7, "bert@free.example", 10.0),
            mail(8, "later@farm.example", 90.0),
        ]
    )
    told = await known_to(store, mail(20, "carl@shop.farm.example", 40.0))
    assert (told.received, told.organisation_received) == (0, 2)
    stranger = await known_to(store, mail(21, "carl@free.example", 40.0))
    assert stranger.organisation_received == 0  # a free mailbox is no organisation


async def test_others_of_the_same_name(store: Store) -> None:
    await store.apply(
        [
            mail(1, "anna@farm.example", 10.0, name="Anna Ott"),
            mail(2, "anna.ott@free.example", 10.0, name="ANNA OTT"),
            mail(3, "x@shop.example", 10.0),
            mail(4, "later@evil.example", 90.0, name="Anna Ott"),
        ]
    )
    told = await known_to(store, mail(20, "ceo.office@evil.example", 40.0, name="Anna  Ott"))
    assert (set(told.name_addresses), told.name_sent) == ({"anna@farm.example", "anna.ott@free.example"}, 0)
    nameless = await known_to(store, mail(21, "y@evil.example", 40.0))
    assert nameless.name_addresses == ()


async def test_the_parties_of_the_thread(store: Store) -> None:
    to = [ME, "bert@shop.example"]
    await store.apply([mail(1, "anna@farm.example", 10.0, name="Anna", to=to, message_id="<a@x>")])
    told = await known_to(store, mail(2, "eve@evil.example", 20.0, answers="<a@x>"))
    assert [party.address for party in told.thread] == ["anna@farm.example", ME, "bert@shop.example"]
    assert told.thread[0].name == "Anna"
    by_root = await known_to(
        store, mail(3, "eve@evil.example", 20.0, answers="<z@x>", references=["<a@x>", "<b@x>", "<z@x>"])
    )
    assert by_root.thread == told.thread


@pytest.mark.parametrize(
    "earlier",
    [
        mail(1, "anna@farm.example", 10.0, message_id="<other@x>"),
        mail(1, "anna@farm.example", 90.0, message_id="<a@x>"),
        mail(1, "anna@farm.example", 10.0, message_id="<a@x>", to=()),
    ],
    ids=["none is here", "only a later one", "whom it went to is not known"],
)
async def test_no_thread(store: Store, earlier: Arrival) -> None:
    await store.apply([earlier])
    assert (await known_to(store, mail(2, "eve@evil.example", 20.0, answers="<a@x>"))).thread == ()


async def test_a_message_that_answers_itself(store: Store) -> None:
    assert (await known_to(store, mail(1, "eve@evil.example", 20.0, message_id="<a@x>", answers="<a@x>"))).thread == ()


async def test_another_accounts_mail_says_nothing(store: Store) -> None:
    async with store.database.write() as connection:
        row = await accounts.ensure_account(
            connection, name="other", email="o@example.org", backlog=Backlog.PROCESS, credential_mark="", now=1.0
        )
        await messages.apply_mailbox_list(connection, row.id, [MailboxRef("INBOX", "/")], 1.0)
    other = replace(store, account=row)
    await other.apply([mail(1, "anna@farm.example", 10.0, name="Anna", message_id="<a@x>")])
    told = await known_to(store, mail(2, "anna@farm.example", 20.0, name="Anna", answers="<a@x>"))
    assert told == SenderHistory(known=True)


async def test_nothing_is_said_of_absence_before_the_first_sync_is_over(store: Store) -> None:
    async with store.database.write() as connection:
        await connection.execute(update(account).values(initialized_at=None))
    await store.apply([mail(1, "anna@farm.example", 10.0)])
    told = await known_to(store, mail(2, "anna@farm.example", 20.0))
    assert (told.known, told.received) == (False, 1)


async def test_many_at_once_and_some_that_are_gone(store: Store) -> None:
    ids = (await store.apply([mail(uid, "anna@farm.example", float(uid)) for uid in range(1, 40)])).message_ids
    async with store.database.read() as connection:
        told = await sender_history.read_histories(connection, [*ids, 9_999], organisation_of)
    assert sorted(told) == sorted(ids)
    assert [told[each].account_messages for each in ids] == list(range(39))


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("Anna@Mail.Example.COM", "com.example.mail@anna"),
        ("anna@localhost", "localhost@anna"),
        ("a@b@example.com", "com.example@a@b"),
        ("", ""),
        ("anna", ""),
        ("@example.com", ""),
        ("anna@", ""),
        ("anna@.", ""),
        ("a" * 330 + "@example.com", ""),
    ],
)
def test_the_key_of_an_address(address: str, key: str) -> None:
    assert address_key(address) == key


def test_names_and_references() -> None:
    assert name_key("'Anna  Ott' ") == name_key("ANNA OTT") == "anna ott"
    assert name_key("anna@farm.example") == ""
    assert reversed_domain(reversed_domain("mail.farm.example")) == "mail.farm.example"
    named = [f"<{number}@x>" for number in range(9)]
    assert answers_text(named, "<8@x>").split("\n") == ["<0@x>", "<6@x>", "<7@x>"]
    assert answers_text([], "<8@x>") == ""
