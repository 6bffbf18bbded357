"""Every error leads to one decision, and waiting spreads out."""

from __future__ import annotations

import random

import pytest

from mailmill import errors
from mailmill.sync.failures import LONGEST_DELAY_SECONDS, Action, classify, delay_seconds


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (errors.AuthenticationError("no"), Action.STOP_ACCOUNT),
        (errors.InsecureError("plain"), Action.STOP_ACCOUNT),
        (errors.ConnectionLostError("cut"), Action.RECONNECT),
        (errors.LimitError("1 GB"), Action.RECONNECT),
        (errors.CommandError("SELECT", "NO", "", "busy"), Action.RETRY),
        (errors.UnsupportedError("no MOVE"), Action.RETRY),
        (errors.ConnectError("refused"), Action.BACK_OFF),
        (errors.CertificateError("expired"), Action.BACK_OFF),
        (errors.StorageFullError("disk"), Action.BACK_OFF),
        (errors.MessageTooLargeError("big"), Action.GIVE_UP_MESSAGE),
        (ValueError("a bug of ours"), Action.BACK_OFF),
    ],
)
def test_classification(error: Exception, action: Action) -> None:
    assert classify(error) is action


def test_only_the_first_reconnect_comes_at_once() -> None:
    jitter = random.Random(1)
    assert delay_seconds(1, Action.RECONNECT, jitter=jitter) < 0.5
    assert min(delay_seconds(2, Action.RECONNECT, jitter=jitter) for _ in range(50)) >= 0.4
    assert min(delay_seconds(1, Action.BACK_OFF, jitter=jitter) for _ in range(50)) >= 0.2


def test_delays_grow_to_a_ceiling_and_differ() -> None:
    jitter = random.Random(2)
    late = [delay_seconds(60, Action.BACK_OFF, jitter=jitter) for _ in range(200)]
    assert max(late) <= LONGEST_DELAY_SECONDS
    assert max(late) - min(late) > LONGEST_DELAY_SECONDS / 2
