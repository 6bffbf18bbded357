"""Which ranges to ask for, so that few requests bring many messages and none brings too much. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mailmill.store.segments import BlobRef

SPAN_BYTES = 8 * 1024 * 1024
GAP_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``end`` (exclusive) of a segment, and the contents that lie wholly within."""

    segment: str
    start: int
    end: int
    refs: tuple[BlobRef, ...]


def spans(refs: Iterable[BlobRef], *, span_bytes: int = SPAN_BYTES, gap_bytes: int = GAP_BYTES) -> list[Span]:
    """Neighbours together, where no more than ``gap_bytes`` between them is read for nothing and all is no more than
    ``span_bytes``; a content larger than that by itself. What is empty needs no request.
    """
    found: list[Span] = []
    for ref in sorted({ref for ref in refs if ref.size_bytes}, key=lambda each: (each.segment, each.offset_bytes)):
        end = ref.offset_bytes + ref.size_bytes
        last = found[-1] if found else None
        if (
            last is not None
            and last.segment == ref.segment
            and ref.offset_bytes - last.end <= gap_bytes
            and max(end, last.end) - last.start <= span_bytes
        ):
            found[-1] = Span(ref.segment, last.start, max(end, last.end), (*last.refs, ref))
        else:
            found.append(Span(ref.segment, ref.offset_bytes, end, (ref,)))
    return found


def pieces(start: int, end: int, *, span_bytes: int = SPAN_BYTES) -> list[tuple[int, int]]:
    """The range in ranges of ``span_bytes`` at most."""
    return [(each, min(end, each + span_bytes)) for each in range(start, end, span_bytes)]
