"""What a pass did: the numbers behind ``mailmill sync --json``."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailmill.errors import MailmillError


@dataclass(slots=True)
class PassReport:
    """One account's pass. Counts are of messages; ``bytes_received`` and ``round_trips`` are of all its connections."""

    account: str
    mailboxes: int = 0
    new: int = 0
    updated: int = 0
    expunged: int = 0
    bytes_received: int = 0
    round_trips: int = 0
    connections_opened: int = 0
    seconds: float = 0.0
    errors: list[MailmillError] = field(default_factory=list)

    @property
    def error(self) -> MailmillError | None:
        return self.errors[0] if self.errors else None

    def add(self, *, new: int = 0, updated: int = 0, expunged: int = 0) -> None:
        self.new += new
        self.updated += updated
        self.expunged += expunged

    def absorb(self, other: PassReport) -> None:
        """Add what a follow-up pass did."""
        self.add(new=other.new, updated=other.updated, expunged=other.expunged)
        self.bytes_received += other.bytes_received
        self.round_trips += other.round_trips
        self.seconds += other.seconds
        self.errors += other.errors
