"""What is asked of the server, tier by tier."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailmill.model import MailboxStatus, MessageMeta, Uid
from mailmill.store.mailboxes import Cursor
from mailmill.store.message_places import HeldIdentity
from mailmill.sync.plan import FlagScope, Tier, history_mark, is_another, is_unchanged, plan_mailbox
from mailmill.uid_set import UidSet

CURSOR = Cursor(uid_validity=7, uid_next=11, messages=10, highest_mod_seq=100)
STATUS = MailboxStatus("INBOX", messages=10, uid_next=11, uid_validity=7, highest_mod_seq=100)


def test_a_mailbox_that_matches_in_every_value_is_skipped() -> None:
    assert is_unchanged(CURSOR, STATUS)


@pytest.mark.parametrize(
    "change",
    [{"messages": 9}, {"uid_next": 12}, {"uid_validity": 6}, {"uid_validity": 8}, {"highest_mod_seq": 101}],
)
def test_any_difference_makes_it_worth_a_look(change: dict[str, int]) -> None:
    assert not is_unchanged(CURSOR, replace(STATUS, **change))


def test_without_a_mod_sequence_equal_counts_prove_nothing() -> None:
    plain = replace(STATUS, highest_mod_seq=None)
    assert not is_unchanged(replace(CURSOR, highest_mod_seq=None), plain)


@pytest.mark.parametrize("validity", [6, 8])
def test_any_other_uid_validity_is_a_new_generation(validity: int) -> None:
    plan = plan_mailbox(CURSOR, replace(STATUS, uid_validity=validity), Tier.QRESYNC, sweep_due=False)
    assert plan.reset
    assert plan.new == UidSet.span(1, 10)
    assert plan.flags is FlagScope.NONE


def test_a_mailbox_never_seen_is_no_reset() -> None:
    plan = plan_mailbox(Cursor(), STATUS, Tier.QRESYNC, sweep_due=True)
    assert not plan.reset
    assert plan.new == UidSet.span(1, 10)
    assert plan.flags is FlagScope.NONE


def test_qresync_asks_for_flags_and_expunges_at_once() -> None:
    plan = plan_mailbox(CURSOR, replace(STATUS, highest_mod_seq=120, uid_next=13), Tier.QRESYNC, sweep_due=True)
    assert plan.flags is FlagScope.CHANGED
    assert plan.changed_since == 100
    assert plan.vanished
    assert plan.new == UidSet.span(11, 12)


def test_condstore_asks_for_flags_alone() -> None:
    plan = plan_mailbox(CURSOR, replace(STATUS, highest_mod_seq=120), Tier.CONDSTORE, sweep_due=False)
    assert (plan.flags, plan.vanished) == (FlagScope.CHANGED, False)


@pytest.mark.parametrize(("sweep_due", "scope"), [(True, FlagScope.ALL), (False, FlagScope.WINDOW)])
def test_the_plain_tier_compares_a_window_often_and_all_on_the_timer(sweep_due: bool, scope: FlagScope) -> None:
    cursor, status = replace(CURSOR, highest_mod_seq=None), replace(STATUS, highest_mod_seq=None)
    assert plan_mailbox(cursor, status, Tier.PLAIN, sweep_due=sweep_due).flags is scope


def test_a_mailbox_without_mod_sequences_is_plain_whatever_the_server() -> None:
    plan = plan_mailbox(CURSOR, replace(STATUS, highest_mod_seq=None), Tier.QRESYNC, sweep_due=False)
    assert plan.flags is FlagScope.WINDOW


def test_mod_sequences_that_went_back_are_not_asked_from() -> None:
    plan = plan_mailbox(CURSOR, replace(STATUS, highest_mod_seq=90), Tier.QRESYNC, sweep_due=False)
    assert (plan.flags, plan.enumerate, plan.changed_since) == (FlagScope.ALL, True, None)


def test_mod_sequences_that_appear_are_a_baseline_only() -> None:
    plan = plan_mailbox(replace(CURSOR, highest_mod_seq=None), STATUS, Tier.QRESYNC, sweep_due=False)
    assert (plan.flags, plan.enumerate) == (FlagScope.ALL, True)


def test_uid_next_that_went_back_is_looked_into() -> None:
    plan = plan_mailbox(CURSOR, replace(STATUS, uid_next=9, messages=8), Tier.QRESYNC, sweep_due=False)
    assert plan.enumerate
    assert not plan.new


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("change", [{"uid_next": 9}, {"highest_mod_seq": 90}])
def test_numbers_that_go_back_put_identities_in_doubt(tier: Tier, change: dict[str, int]) -> None:
    plan = plan_mailbox(CURSOR, replace(STATUS, **change), tier, sweep_due=False)
    assert plan.recheck is (tier is not Tier.PLAIN or "uid_next" in change)


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("mod_seq", [100, 120])
def test_what_did_not_add_up_is_enumerated_again(tier: Tier, mod_seq: int) -> None:
    plan = plan_mailbox(replace(CURSOR, messages=-1), replace(STATUS, highest_mod_seq=mod_seq), tier, sweep_due=False)
    assert (plan.enumerate, plan.recheck) == (True, False)


HELD = HeldIdentity("M1", 100, 5.0)
SAME = MessageMeta(Uid(1), email_id="M1", size_bytes=100, internal_date=5.0)


@pytest.mark.parametrize(
    ("meta", "held", "another"),
    [
        (SAME, HELD, False),
        (SAME, None, False),
        (SAME._replace(email_id="M2"), HELD, True),
        (SAME._replace(size_bytes=7, internal_date=7.0), HELD, False),
        (SAME._replace(email_id=None, size_bytes=7), HELD, True),
        (SAME._replace(email_id=None, internal_date=7.0), HELD, True),
        (SAME._replace(email_id=None), HELD, False),
        (SAME._replace(size_bytes=7), replace(HELD, email_id=None), True),
        (MessageMeta(Uid(1)), HELD, False),
    ],
)
def test_what_tells_a_message_from_another(meta: MessageMeta, held: HeldIdentity | None, another: bool) -> None:
    assert is_another(meta, held) is another


@pytest.mark.parametrize(
    ("listed", "old", "mark"),
    [
        ("1:9", "", 0),
        ("1:9", "1:9", 10),
        ("1:9", "1:5", 6),
        ("1:9", "2:9", 0),
        ("3,7,9", "3,7", 9),
        ("1:9", "1:4,6", 5),
    ],
)
def test_history_ends_at_the_first_message_that_is_not_old(listed: str, old: str, mark: int) -> None:
    assert history_mark(UidSet.parse(listed), UidSet.parse(old)) == mark
