"""How often to look at what is not pushed, and which way news may come."""

from __future__ import annotations

import pytest

from mailmill.imap.session import Features
from mailmill.sync.watch import Push, best_push, sweep_seconds


@pytest.mark.parametrize(
    ("wanted", "commands", "poll", "seconds"),
    [
        (60, 1, 300, 60),  # LIST-STATUS: one command, however many mailboxes
        (60, 40, 300, 60),
        (60, 120, 300, 120),  # no more than one command a second
        (60, 1000, 300, 300),  # never less often than everything is looked at anyway
        (60, 1, 30, 30),
        (5, 1, 300, 5),  # as often as wanted, where it costs one command
    ],
)
def test_sweeps_are_as_often_as_wanted_and_borne(wanted: float, commands: int, poll: float, seconds: float) -> None:
    assert sweep_seconds(wanted, commands=commands, poll_seconds=poll) == seconds


@pytest.mark.parametrize(
    ("features", "push"),
    [
        (Features(), Push.POLL),
        (Features(notify=True), Push.POLL),  # Dovecot needs IDLE besides
        (Features(idle=True), Push.IDLE),
        (Features(idle=True, notify=True), Push.NOTIFY),
    ],
)
def test_the_best_way_that_the_server_has(features: Features, push: Push) -> None:
    assert best_push(features) is push
