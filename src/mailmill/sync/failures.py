"""One function that turns an error into a decision, and the arithmetic of backing off. Pure."""

from __future__ import annotations

import random
from enum import StrEnum

from mailmill.errors import (
    AuthenticationError,
    CertificateError,
    CommandError,
    ConnectError,
    ConnectionLostError,
    ContradictionError,
    InsecureError,
    LimitError,
    MessageTooLargeError,
    PoolTimeoutError,
    ProtocolError,
    StorageFullError,
    StorageUnavailableError,
    UnsupportedError,
)

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0


class Action(StrEnum):
    """What to do after an error."""

    RETRY = "retry"  # the connection is fine; the next pass tries again
    RECONNECT = "reconnect"  # the connection is gone; a new one at once, then with growing delays
    BACK_OFF = "backOff"  # nothing to gain from trying soon
    GIVE_UP_MESSAGE = "giveUpMessage"  # park this one, go on with the others
    STOP_ACCOUNT = "stopAccount"  # only a person can mend it


def classify(error: BaseException) -> Action:
    """The decision for ``error``. Unknown errors back off: a bug of ours must not become a storm of logins."""
    match error:
        case AuthenticationError() | InsecureError():
            return Action.STOP_ACCOUNT
        case MessageTooLargeError():
            return Action.GIVE_UP_MESSAGE
        case ContradictionError():
            return Action.RETRY
        case LimitError() | ProtocolError() | ConnectionLostError():
            return Action.RECONNECT
        case CommandError() | PoolTimeoutError() | UnsupportedError():
            return Action.RETRY
        case CertificateError() | ConnectError() | StorageFullError() | StorageUnavailableError():
            return Action.BACK_OFF
        case _:
            return Action.BACK_OFF


def delay_seconds(failures: int, action: Action, *, jitter: random.Random) -> float:
    """Full-jitter exponential delay before try number ``failures + 1`` (``failures`` ≥ 1).

    The first reconnect after a cut comes almost at once; all that follow spread out, up to five minutes.
    """
    if action is Action.RECONNECT and failures == 1:
        return jitter.uniform(0, 0.2)
    ceiling = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 16))
    return jitter.uniform(ceiling / 10, ceiling)
