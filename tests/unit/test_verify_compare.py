"""Two views of a mailbox, and what differs between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.model import Flags, MailboxStatus, Uid
from mailmill.store.verify_reads import StoredMailbox
from mailmill.sync.verify_compare import (
    Findings,
    Gap,
    GapKind,
    Page,
    Sampling,
    ServerMailbox,
    compare_lists,
    compare_mailbox,
    compare_page,
    no_longer,
    pages,
    still_there,
    wanted_by,
)
from mailmill.uid_set import UidSet

SEEN = frozenset({r"\Seen"})


def stored(living: UidSet, **what: object) -> StoredMailbox:
    """INBOX in generation 7, its cursor in order."""
    row = StoredMailbox(
        id=1,
        path="INBOX",
        selectable=True,
        uid_validity=7,
        uid_next=(living.highest or 0) + 1,
        messages=len(living),
        highest_mod_seq=None,
        uncovered=UidSet(),
        living=living,
    )
    return replace(row, **what)  # type: ignore[arg-type]


def server(existing: UidSet, *, uid_next: int | None = None, mod_seq: int | None = None) -> ServerMailbox:
    status = MailboxStatus("INBOX", len(existing), uid_next or (existing.highest or 0) + 1, 7, mod_seq)
    return ServerMailbox(status, existing)


def gaps_of(row: StoredMailbox, there: ServerMailbox) -> list[Gap]:
    findings = Findings()
    compare_mailbox(row, there, findings)
    return findings.gaps()


def page_gaps(row: StoredMailbox, page: Page) -> list[Gap]:
    findings = Findings()
    compare_page(row, page, findings)
    return findings.gaps()


# -- mailboxes --------------------------------------------------------------------------------------------------------


def test_mailboxes_that_only_one_side_has() -> None:
    findings = Findings()
    listed = {"INBOX": True, "New": True, "Folder": False, "Elsewhere": True, "Opened": True}
    held = {"INBOX": True, "Old": True, "Folder": False, "Opened": False}
    paths = compare_lists(listed, held, wanted_by(["INBOX", "New", "Old", "Fold*", "Opene?"]), findings)
    assert paths == ["INBOX"]
    assert [(gap.kind, gap.path) for gap in findings.gaps()] == [
        (GapKind.MAILBOX_MISSING, "New"),
        (GapKind.MAILBOX_SURPLUS, "Old"),
        (GapKind.MAILBOX_MISSING, "Opened"),
    ]


def test_globs_take_brackets_for_themselves() -> None:
    wanted = wanted_by(["inbox", "[Gmail]/*", "a?c"])
    assert [path for path in ("INBOX", "[Gmail]/All Mail", "abc", "Gmail/x", "abbc", "inbox2") if wanted(path)] == [
        "INBOX",
        "[Gmail]/All Mail",
        "abc",
    ]


# -- cursors ----------------------------------------------------------------------------------------------------------


def test_a_cursor_in_order_has_no_gap() -> None:
    row = stored(UidSet([1, 2, 5]), uncovered=UidSet([4]), messages=4, uid_next=6, highest_mod_seq=10)
    assert gaps_of(row, server(UidSet([1, 2, 4, 5]), mod_seq=10)) == []
    # What arrived since the store was read is above its marks, and no gap of the cursor.
    assert gaps_of(row, server(UidSet([1, 2, 4, 5, 6, 7]), mod_seq=12)) == []
    # Some servers name a UIDNEXT below what they list.
    assert gaps_of(row, server(UidSet([1, 2, 4, 5]), uid_next=1, mod_seq=10)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uid_next": 9}, "uid_next is 9, the server's is 6"),
        ({"highest_mod_seq": 11}, "highest_mod_seq is 11, the server's is 10"),
        ({"messages": 5}, "it counts 5 messages, there are 3"),
        ({"uncovered": None}, "what is still to be fetched cannot be read"),
    ],
)
def test_a_cursor_that_claims_what_is_not_so(change: dict[str, object], said: str) -> None:
    [gap] = gaps_of(stored(UidSet([1, 2, 5]), **change), server(UidSet([1, 2, 5]), mod_seq=10))
    assert (gap.kind, gap.path, gap.detail) == (GapKind.CURSOR, "INBOX", said)


def test_a_cursor_that_waits_for_what_it_holds_or_what_is_gone() -> None:
    row = stored(UidSet([1, 2]), uncovered=UidSet([2, 3]), messages=3, uid_next=4)
    assert [(gap.kind, str(gap.uids)) for gap in gaps_of(row, server(UidSet([1, 2]), uid_next=4))] == [
        (GapKind.CURSOR, "2"),
        (GapKind.CURSOR, "3"),
    ]


def test_generations() -> None:
    findings = Findings()
    there = server(UidSet([1]))
    assert not compare_mailbox(stored(UidSet([1]), uid_validity=6), there, findings)
    [gap] = findings.gaps()
    assert (gap.kind, gap.detail) == (GapKind.GENERATION, "UIDVALIDITY is 7 on the server, 6 in the store")
    # A mailbox that was never opened and holds nothing lacks nothing.
    assert gaps_of(stored(UidSet(), uid_validity=0), server(UidSet())) == []
    [gap] = gaps_of(stored(UidSet(), uid_validity=0), there)
    assert gap.kind is GapKind.GENERATION
    [gap] = gaps_of(stored(UidSet([1]), of_old=UidSet([8, 9])), there)
    assert (gap.kind, str(gap.uids)) == (GapKind.SURPLUS, "8:9")


# -- messages ---------------------------------------------------------------------------------------------------------


def test_why_a_message_is_not_held() -> None:
    row = stored(UidSet([1]), uid_next=5, uncovered=UidSet([2, 3]), parked={Uid(3): "too large", Uid(4): "left over"})
    page = Page(UidSet.span(1, 5), {Uid(uid): SEEN for uid in range(1, 6)}, {Uid(1): SEEN})
    assert [(gap.kind, str(gap.uids), gap.detail) for gap in page_gaps(row, page)] == [
        (GapKind.MISSING, "4", "the cursor has passed it, and nothing would ever fetch it"),
        (GapKind.PENDING, "2", "not fetched yet"),
        (GapKind.PENDING, "5", "not seen by a pass yet"),
        (GapKind.PARKED, "3", "could not be fetched: too large"),
    ]


def test_both_sets_of_flags_are_shown() -> None:
    page = Page(
        UidSet.span(1, 4),
        {Uid(1): SEEN, Uid(2): SEEN, Uid(3): None, Uid(4): frozenset({"bad\0word"})},
        {Uid(1): SEEN, Uid(2): frozenset({"b", "a"}), Uid(3): frozenset(), Uid(4): frozenset({"bad\ufffdword"})},
    )
    [gap] = page_gaps(stored(UidSet.span(1, 4)), page)
    assert (gap.kind, str(gap.uids)) == (GapKind.FLAGS, "2")
    assert gap.detail == r"on the server (\Seen), in the store (a b)"


WORDS = st.frozensets(st.sampled_from([r"\Seen", r"\Flagged", "todo", "$Junk"]))


@given(data=st.data(), flags=st.dictionaries(st.integers(1, 60), WORDS, max_size=40), size=st.integers(1, 30))
def test_every_difference_is_named_and_nothing_else(data: st.DataObject, flags: dict[int, Flags], size: int) -> None:
    """A mailbox in step; then some messages are lost, invented, reflagged or put off, each in the store alone."""
    uids = sorted(flags)
    fate = {uid: data.draw(st.sampled_from(["well", "well", "missing", "pending", "parked", "flags"])) for uid in uids}
    surplus = data.draw(st.sets(st.integers(1, 60).filter(lambda uid: uid not in flags), max_size=10))
    of = {name: UidSet(uid for uid in uids if fate[uid] == name) for name in ("missing", "pending", "parked", "flags")}
    held = {Uid(uid): flags[uid] for uid in uids if fate[uid] in ("well", "flags")}
    held |= {uid: held[uid] ^ {"wrong"} for uid in of["flags"]} | {Uid(uid): SEEN for uid in surplus}
    row = stored(
        UidSet(held),
        uid_next=61,
        uncovered=of["pending"] | of["parked"],
        messages=len(UidSet(held) | of["pending"] | of["parked"]),
        parked=dict.fromkeys(of["parked"], "why"),
    )
    there = server(UidSet(flags), uid_next=61)
    findings = Findings()
    assert compare_mailbox(row, there, findings)
    for part in pages(there.existing | row.living, size):
        page = Page(
            part,
            {uid: flags[uid] for uid in part if uid in flags},
            {uid: held[uid] for uid in part if uid in held},
        )
        compare_page(row, page, findings)
    named: dict[GapKind, UidSet] = {}
    for gap in findings.gaps():
        named[gap.kind] = named.get(gap.kind, UidSet()) | gap.uids
    expected = {GapKind(name): those for name, those in of.items() if those}
    if surplus:
        expected[GapKind.SURPLUS] = UidSet(surplus)
    assert named == expected


def test_two_hundred_thousand_messages_are_a_few_gaps() -> None:
    """Also where every second UID is missing: one gap, not 50,000 lines."""
    everything = UidSet.span(1, 200_000)
    living = UidSet.from_ranges([(1, 99_999), *((uid, uid) for uid in range(100_001, 200_000, 2))])
    row = stored(living, uid_next=200_001)
    findings = Findings()
    assert compare_mailbox(row, server(everything), findings)
    for part in pages(everything, 5000):
        page = Page(part, dict.fromkeys(part, SEEN), dict.fromkeys(part & living, SEEN))
        compare_page(row, page, findings)
    [gap] = findings.gaps()
    assert (gap.kind, gap.count) == (GapKind.MISSING, 50_001)


# -- two looks --------------------------------------------------------------------------------------------------------


def gap(kind: GapKind, uids: str = "", path: str = "INBOX", detail: str = "") -> Gap:
    return Gap(kind, path, UidSet.parse(uids), detail)


def test_only_what_is_seen_twice_counts() -> None:
    before = [gap(GapKind.PENDING, "1:5"), gap(GapKind.FLAGS, "7"), gap(GapKind.GENERATION, path="Old")]
    now = [
        gap(GapKind.PARKED, "3", detail="too large"),
        gap(GapKind.MISSING, "5:6"),
        gap(GapKind.FLAGS, "7", path="Sent"),
        gap(GapKind.GENERATION, path="Old"),
    ]
    stayed, fresh = still_there(now, before)
    assert stayed == [
        gap(GapKind.PARKED, "3", detail="too large"),
        gap(GapKind.MISSING, "5"),
        gap(GapKind.GENERATION, path="Old"),
    ]
    assert fresh == [gap(GapKind.MISSING, "6"), gap(GapKind.FLAGS, "7", path="Sent")]
    assert no_longer(before, now) == [gap(GapKind.PENDING, "1:2,4"), gap(GapKind.FLAGS, "7")]


# -- samples ----------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 5000), max_size=200), st.integers(1, 60))
def test_pages_are_all_of_it_in_order(uids: set[int], size: int) -> None:
    parts = list(pages(UidSet(uids), size))
    assert [uid for part in parts for uid in part] == sorted(uids)
    assert all(len(part) == size for part in parts[:-1])


@given(st.sets(st.integers(1, 5000), max_size=200), st.integers(0, 30), st.integers(0, 30), st.integers())
def test_a_sample_is_the_newest_and_some_others(uids: set[int], newest: int, count: int, seed: int) -> None:
    whole = UidSet(uids)
    sampling = Sampling(newest=newest, random=count, seed=seed)
    chosen = sampling.choose(whole, "INBOX")
    assert len(chosen) == min(len(uids), newest + count)
    assert not chosen - whole
    assert not whole.newest(newest) - chosen
    assert sampling.choose(whole, "INBOX") == chosen
    assert Sampling(full=True).choose(whole, "INBOX") == whole


def test_without_a_seed_the_sample_differs() -> None:
    whole = UidSet.span(1, 100_000)
    assert len({str(Sampling(newest=0, random=5).choose(whole, "INBOX")) for _ in range(3)}) > 1
