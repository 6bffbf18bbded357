"""Family ``language``, letters that honest people write too: who writes decides.

A landlord gives a new account, a client asks for a discreet transfer, an auditor for a list. Authentication carries
them (their findings are softened), until something tells that the sender is not who the letter would have come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.families import correspondence, sender, unrelated_name
from mailmill.processing.threat.families.language import told
from mailmill.processing.threat.scoring import finding

_LETTERS = frozenset(
    {
        "bank_change",
        "boss_in_a_hurry",
        "gift_cards",
        "legal_threat",
        "payroll_change",
        "records_asked",
        "secret_payment",
    }
)
_AGAINST_THE_SENDER = (
    unrelated_name.unrelated_name, sender.reply_to, sender.false_reply, correspondence.taken_over,
    correspondence.first_time,
)  # fmt: skip


def posed_letter(context: ThreatContext) -> Iterator[Finding]:
    """A letter about money, papers or silence from an authenticated sender whose name is not the address's, who wants
    answers elsewhere, feigns a thread, or whom the account has never heard of."""
    if not context.vouched:  # nothing was softened
        return
    letters = told(context)
    letter = next((evidence for name, evidence in letters.items() if name in _LETTERS), None)
    if letter is None:
        return
    against = next(chain.from_iterable(detector(context) for detector in _AGAINST_THE_SENDER), None)
    if against is not None:
        yield finding("language.posed_letter", f"{letter}; {against.evidence}")


DETECTORS = (posed_letter,)
