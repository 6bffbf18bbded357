"""The caps on what a server may make us hold. Everything a server supplies is bounded by one of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of one response, in bytes unless the name says otherwise.

    ``line_bytes``: one line without its literals (a SEARCH answer of 200,000 UIDs takes 1.6 MB).
    ``literal_bytes``: one literal, refused when it is announced and so before anything is held of it.
    ``response_bytes``: lines and literals of one response together.
    ``literals``: how many literals one response may have. ``nesting``: how deep its lists may go.
    ``receive_buffer_bytes``: the receive buffer while data flows; at rest it shrinks to a few KiB.
    """

    line_bytes: int = 16 * 1024 * 1024
    literal_bytes: int = 256 * 1024 * 1024
    response_bytes: int = 320 * 1024 * 1024
    literals: int = 10_000
    nesting: int = 64
    receive_buffer_bytes: int = 256 * 1024


DEFAULT_LIMITS = Limits()
