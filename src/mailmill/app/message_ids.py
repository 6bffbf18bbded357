"""Message ids as people and programs give them. Pure."""

from __future__ import annotations

from mailmill.errors import InvalidRequestError


def message_number(message_id: str) -> int:
    """The number that a listing showed. Raises InvalidRequestError."""
    if not message_id.isascii() or not message_id.isdigit() or len(message_id) > 18:
        raise InvalidRequestError(
            f"not a message id: {message_id[:40]!r}", hint="ids are the numbers that listings show"
        )
    return int(message_id)
