"""The checker refuses false histories: one true history, and each way in which it could be false."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos import journal
from chaos.history import (
    ClaimKey,
    Delivery,
    End,
    Event,
    Evidence,
    Journals,
    Message,
    Page,
    Receipt,
    Refusal,
    Store,
    Transaction,
    Work,
    findings,
    hits,
)
from chaos.journal import Journal

KEYS = {name: ClaimKey(1, name, 10) for name in ("on_loop", "in_thread")}
MAIL = {"INBOX": {7: (frozenset({"\\Seen"}), "aa")}, "Archive": {}}


def truth() -> Evidence:
    """Message 1 came, was processed and told of; message 2 came, killed its workers, and is gone by now."""
    events = [
        Event(11, 1, "accountAdded"),
        Event(13, 2, "messageNew", 1),
        Event(12, 3, "messageNew", 2),
        Event(14, 4, "messageProcessed", 1),
        Event(15, 5, "messageFailed", 2, processor="on_loop"),
        Event(16, 6, "messageDeleted", 2),
        Event(17, 7, "mailboxNew", historical=True),
    ]
    told = [event for event in events if not event.historical]
    receipts = [Receipt(f"evt_{each.id}", f"evt_{each.id}", each.name, each.message_id) for each in told]
    store = Store(
        mailboxes={"work": MAIL},
        messages=[
            Message(1, "work", "aa", "completed"),
            Message(2, "work", "bb", "failed", deleted=True, placed=False),
        ],
        events=events,
        results={(1, "on_loop", 3), (1, "in_thread", 1), (2, "in_thread", 1)},
        written={(1, "on_loop", 3): 1, (1, "in_thread", 1): 1, (2, "in_thread", 1): 1},
        work=[Work(2, "on_loop", "failed", crashes=4)],
        deliveries=[Delivery("hook", event.id, "delivered") for event in told],
    )
    transactions = [
        Transaction("a-1", 1.0, 1.1, ("take",), took={5: 8}),
        Transaction("a-1", 2.0, 2.1, ("new",), owner=(5, 8)),
        Transaction("a-1", 3.0, None, ("claim",), claimed=(KEYS["on_loop"],)),
        Transaction("b-1", 4.0, 4.1, ("take",), took={5: 9}),
        Transaction("b-1", 5.0, 5.1, ("flags",), owner=(5, 9)),
        Transaction("b-1", 6.0, 6.1, ("claim",), claimed=tuple(KEYS.values())),
        Transaction("b-1", 7.0, 7.1, ("finish",), recorded=tuple(KEYS.values())),
    ]
    journals = Journals(
        transactions,
        [End("a-1", "claim/committed")],
        [Refusal("a-1", "finish")],
        [*receipts, receipts[1]],
        [Page("follower", 0, 3, (11, 13, 12)), Page("follower", 3, 7, (14, 15, 16, 17))],
    )
    return Evidence({"work": MAIL}, store, journals, {"on_loop": 3, "in_thread": 1}, "hook")


def test_a_true_history_is_believed() -> None:
    assert findings(truth()) == []


def mail(**changed: Any) -> Callable[[Evidence], Evidence]:
    return lambda true: replace(true, servers={"work": {**MAIL, **changed}})


def store(**changed: Callable[[Any], Any]) -> Callable[[Evidence], Evidence]:
    """A field of the store, made from what is true of it."""
    return lambda true: replace(
        true,
        store=replace(true.store, **{name: change(getattr(true.store, name)) for name, change in changed.items()}),
    )


def journals(**changed: Callable[[Any], Any]) -> Callable[[Evidence], Evidence]:
    return lambda true: replace(
        true,
        journals=replace(
            true.journals, **{name: change(getattr(true.journals, name)) for name, change in changed.items()}
        ),
    )


def without(index: int) -> Callable[[Any], Any]:
    return lambda rows: [row for at, row in enumerate(rows) if at != index]


def with_one(index: int, **changed: Any) -> Callable[[Any], Any]:
    return lambda rows: [replace(row, **changed) if at == index else row for at, row in enumerate(rows)]


def and_also(*more: Any) -> Callable[[Any], Any]:
    return lambda rows: [*rows, *more]


FALSE: dict[str, tuple[Callable[[Evidence], Evidence], str]] = {
    # mail
    "lost": (mail(INBOX={**MAIL["INBOX"], 8: (frozenset(), "cc")}), "INBOX 8 is only on the server"),
    "kept": (mail(INBOX={}), "INBOX 7 is only in the store"),
    "flags": (mail(INBOX={7: (frozenset(), "aa")}), "flagged ['\\\\Seen'] in the store, [] on the server"),
    "content": (mail(INBOX={7: (frozenset({"\\Seen"}), "ab")}), "another content"),
    "mailbox missing": (mail(Sent={}), "mailbox 'Sent' is only on the server"),
    "account missing": (lambda true: replace(true, servers={**true.servers, "home": MAIL}), "home: mailbox 'INBOX'"),
    # identity
    "two ids": (store(messages=and_also(Message(3, "work", "aa", "completed"))), "content aa has 2 ids"),
    "told twice": (store(events=and_also(Event(18, 8, "messageNew", 1))), "message 1 has 2 messageNew"),
    "never told": (store(events=without(1)), "message 1 has 0 messageNew"),
    "told of nothing": (
        store(events=and_also(Event(18, 8, "messageNew", 9))),
        "message 9 was told of as new and is not",
    ),
    "orphan": (store(messages=with_one(0, placed=False)), "message 1 is nowhere, and not deleted"),
    "deleted alive": (store(messages=with_one(1, placed=True)), "message 2 is deleted, and somewhere"),
    "taken for deleted": (store(events=and_also(Event(18, 8, "messageDeleted", 1))), "is there, with 1 messageDeleted"),
    "deleted in silence": (store(events=without(5)), "message 2 is gone, with 0 messageDeleted"),
    # terminal states
    "unfinished": (store(work=and_also(Work(1, "on_loop", "processing"))), "on_loop of message 1 is left processing"),
    "given up early": (store(work=with_one(0, crashes=3)), "given up after 3 crashes"),
    "processed twice": (store(events=and_also(Event(18, 8, "messageProcessed", 1))), "has 2 messageProcessed"),
    "processed in silence": (store(events=without(3)), "message 1 is completed and has 0 messageProcessed"),
    "processed and failed": (store(events=and_also(Event(18, 8, "messageProcessed", 2))), "failed and has 1"),
    "failed twice": (
        store(events=and_also(Event(18, 8, "messageFailed", 2, processor="on_loop"))),
        "message 2, on_loop: 2 messageFailed",
    ),
    "failed in silence": (store(events=without(4)), "message 2, on_loop: 0 messageFailed"),
    "status": (store(messages=with_one(0, status="pending")), "message 1 is pending, not completed"),
    # results
    "result lost": (store(results=lambda rows: rows - {(1, "on_loop", 3)}), "message 1 has no result of on_loop 3"),
    "result of old version": (store(results=lambda rows: rows | {(1, "on_loop", 2)}), "on_loop 2 that is not its own"),
    "recorded twice": (store(written=lambda rows: {**rows, (1, "on_loop", 3): 2}), "was recorded 2 times"),
    # fences
    "claimed by two": (
        journals(transactions=and_also(Transaction("c-1", 6.2, 6.3, ("claim",), claimed=(KEYS["on_loop"],)))),
        "message 1, on_loop, fence 10 was claimed by b-1 and c-1",
    ),
    "recorded unclaimed": (
        journals(transactions=with_one(6, life="c-1")),
        "c-1 recorded message 1, on_loop, fence 10, which it never claimed",
    ),
    "recorded late": (
        journals(
            transactions=and_also(
                Transaction("c-1", 6.3, 6.5, ("claim",), claimed=(ClaimKey(1, "on_loop", 11),)),
            )
        ),
        "b-1 recorded message 1, on_loop, fence 10 after it was claimed anew",
    ),
    "recorded again": (
        journals(transactions=and_also(Transaction("b-1", 8.0, 8.1, ("finish",), recorded=(KEYS["on_loop"],)))),
        "fence 10 was recorded 2 times",
    ),
    # owners
    "epoch of two": (
        journals(transactions=and_also(Transaction("c-1", 4.2, 4.3, ("take",), took={5: 9}))),
        "shard 5, epoch 9 was taken by b-1 and c-1",
    ),
    "never owned": (journals(transactions=with_one(1, life="c-1")), "c-1 wrote as the owner of shard 5 by epoch 8"),
    "late owner": (
        journals(transactions=and_also(Transaction("a-1", 4.5, 4.6, ("flags",), owner=(5, 8)))),
        "a-1 wrote as the owner of shard 5 by epoch 8 after a later one was taken",
    ),
    # deliveries
    "never came": (journals(receipts=without(0)), "evt_11 (accountAdded) counts as delivered and never came"),
    "another id": (journals(receipts=with_one(0, webhook_id="evt_99")), "evt_11 came under the webhook-id evt_99"),
    "never happened": (
        journals(receipts=and_also(Receipt("evt_99", "evt_99", "messageNew", 1))),
        "evt_99 was delivered and never happened",
    ),
    "another event": (
        journals(receipts=with_one(0, event="messageNew")),
        "evt_11 is accountAdded of None and came as messageNew of None",
    ),
    "not planned": (store(deliveries=without(0)), "evt_11 (accountAdded) is not planned for hook"),
    "on its way": (store(deliveries=with_one(0, state="sending")), "evt_11 (accountAdded) is sending for hook"),
    "history told": (
        store(deliveries=and_also(Delivery("hook", 17, "pending"))),
        "evt_17 is history and was delivered",
    ),
    # order
    "unnumbered": (store(events=with_one(0, position=None)), "event 11 has no position"),
    "gap": (store(events=with_one(6, position=9)), "positions have gaps or repeats, at [9]"),
    "given twice": (store(events=with_one(6, position=6)), "positions have gaps or repeats, at [6]"),
    "skipped": (journals(pages=with_one(0, event_ids=(11, 12))), "follower was given 2 events from 0 to 3"),
    "read twice": (journals(pages=with_one(1, event_ids=(14, 15, 16, 16))), "skipped [17], twice [16]"),
    "another order": (journals(pages=with_one(0, event_ids=(11, 12, 13))), "in another order"),
    "jumped": (journals(pages=without(0)), "follower read after 3 and stood at 0"),
    "read to the end": (journals(pages=without(1)), "skipped [14, 15, 16, 17]"),
    # requests
    "open request": (store(open_requests=and_also(4)), "request 4 is still open"),
}


@pytest.mark.parametrize("name", FALSE)
def test_a_false_history_is_refused(name: str) -> None:
    falsify, word = FALSE[name]
    found = findings(falsify(truth()))
    assert any(word in line for line in found), found


def test_a_transaction_whose_end_nobody_saw_is_no_proof() -> None:
    """The process died between COMMIT and its answer: what it wrote may stand or not."""
    unknown = Transaction("a-1", 4.5, None, ("flags",), owner=(5, 8), recorded=(KEYS["on_loop"],))
    assert findings(journals(transactions=and_also(unknown))(truth())) == []


def test_hits_are_kills_and_no_halts() -> None:
    ends = [End("a-1", "ran"), End("a-2", "ran"), End("b-1", "ran", "stopped"), End("b-2", "plan/committed")]
    assert hits(ends) == {"ran": 2, "plan/committed": 1}


def test_journals_are_read_as_they_were_written(tmp_path: Path) -> None:
    a, b = Journal(tmp_path, "a-0001"), Journal(tmp_path, "b-0001")
    a.write("came", phase="claim/uncommitted")
    a.write("committing", number=1, points=["claim"], claimed=[[1, "on_loop", 10]])
    b.write("committing", number=1, points=["take", "state"], took={5: 9}, owner=[5, 9])
    b.write("committed", number=1)
    a.write("end", phase="claim/uncommitted", how="killed")
    b.write("refused", what="finish")
    b.write("received", webhook_id="evt_1", envelope_id="evt_1", event="messageNew", message_id=1)
    b.write("read", after=0, cursor=2, events=[1, 2])
    for each in (a, b):
        each.close()
    # Killed in the middle of a line.
    with (tmp_path / "a-0001.jsonl").open("ab") as file:
        file.write(b'{"kind": "end", "pha')
    read = journal.read(tmp_path)
    claim, take = read.transactions
    assert (claim.life, claim.points, claim.claimed, claim.known_at) == ("a-0001", ("claim",), (KEYS["on_loop"],), None)
    assert take.known_at is not None and take.known_at >= take.began_at
    assert (take.took, take.owner) == ({5: 9}, (5, 9))
    assert read.ends == [End("a-0001", "claim/uncommitted")]
    assert read.refusals == [Refusal("b-0001", "finish")]
    assert read.receipts == [Receipt("evt_1", "evt_1", "messageNew", 1)]
    assert read.pages == [Page("b-0001", 0, 2, (1, 2))]


def test_a_life_has_one_journal(tmp_path: Path) -> None:
    Journal(tmp_path, "a-0001").close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path, "a-0001")
