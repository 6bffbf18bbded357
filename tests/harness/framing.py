"""What a `Framer` makes of bytes, response by response."""

from __future__ import annotations

from mailmill.imap.wire import Framer, Parts, split_run


def feed(framer: Framer, data: bytes) -> list[Parts]:
    """`Framer.feed`, with each run as the responses it consists of."""
    return [
        parts
        for framed in framer.feed(data)
        for parts in (split_run(framed) if isinstance(framed, bytes) else [framed])
    ]
