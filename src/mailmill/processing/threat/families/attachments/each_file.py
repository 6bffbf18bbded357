"""A detector of one file, made one of the message."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.attached_files import AttachedFile


def each(detector: Callable[[AttachedFile], Iterator[Finding]]) -> Callable[[ThreatContext], Iterator[Finding]]:
    def over_attachments(context: ThreatContext) -> Iterator[Finding]:
        for file in context.files:
            yield from detector(file)

    over_attachments.__name__ = detector.__name__
    over_attachments.__doc__ = detector.__doc__
    return over_attachments
