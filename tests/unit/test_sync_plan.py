"""What is asked of the server, tier by tier."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailmill.model import MailboxStatus
from mailmill.store.mailboxes import Cursor
from mailmill.sync.plan import FlagScope, Tier, is_unchanged, plan_mailbox
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
