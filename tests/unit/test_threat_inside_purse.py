"""What the files of one message may cost, and how it is shared out."""

from __future__ import annotations

import pytest

from mailmill.processing.threat.evidence.inside_purse import LOST_CHILD_SECONDS, MESSAGE_BYTES, SHARE_SECONDS, Purse


def test_a_file_by_itself_gets_what_any_file_may_take() -> None:
    assert Purse(seconds=3.0, file_seconds=2.0).share(1) == 2.0
    assert Purse(seconds=1.0, file_seconds=2.0).share(1) == 1.0


def test_many_files_share_and_each_gets_a_least() -> None:
    assert Purse(seconds=3.0, file_seconds=2.0).share(3) == 1.0
    assert Purse(seconds=3.0, file_seconds=2.0).share(100) == SHARE_SECONDS


def test_what_is_not_taken_is_left_to_the_others() -> None:
    purse = Purse(seconds=3.0, file_seconds=2.0)
    purse.pay(0.2)
    assert purse.share(2) == pytest.approx(1.4)


def test_a_purse_that_is_empty_gives_nothing() -> None:
    purse = Purse(seconds=3.0, file_seconds=2.0)
    purse.pay(2.0)
    assert purse.share(1) == pytest.approx(1.0)
    purse.pay(1.0 - LOST_CHILD_SECONDS, lost_child=True)
    assert purse.share(1) == 0.0
    purse.pay(5.0)
    assert purse.share(1) == 0.0


def test_nobody_pays_less_than_nothing() -> None:
    purse = Purse(seconds=1.0, file_seconds=1.0)
    purse.pay(-50.0)
    assert purse.share(1) == 1.0


def test_bytes_are_taken_as_long_as_there_is_room() -> None:
    purse = Purse()
    assert purse.take_bytes(MESSAGE_BYTES - 10)
    assert not purse.take_bytes(11)
    assert purse.take_bytes(10)
    assert not purse.take_bytes(1)


@pytest.mark.parametrize(("seconds", "whole"), [(2.0, True), (0.5, False)])
def test_whether_a_file_had_all_that_any_may_have(seconds: float, whole: bool) -> None:
    assert Purse(seconds=3.0, file_seconds=2.0).is_whole(seconds) is whole
