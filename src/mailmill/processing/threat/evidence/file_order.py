"""Which attached files of a message are looked at first, where not all of them may be. Pure.

Law: how dangerous a file can be counts first, by its name and first bytes; then the smaller one, which a heap of large
ones cannot keep out; where it stands in the message counts last. So nobody pushes a file out of sight with decoys that
are less dangerous than it, or larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailmill.message_parser import Attachment
from mailmill.processing.threat.evidence.attached_files import kind_of
from mailmill.processing.threat.evidence.readers import reader_for
from mailmill.processing.threat.knowledge.reference import (
    DISK_IMAGE_EXTENSIONS,
    EXECUTABLE_EXTENSIONS,
    HTML_EXTENSIONS,
    MACRO_EXTENSIONS,
    NOTE_EXTENSIONS,
    SCRIPT_EXTENSIONS,
    SHORTCUT_EXTENSIONS,
)

_RUNS: Final = (
    EXECUTABLE_EXTENSIONS
    | SCRIPT_EXTENSIONS
    | SHORTCUT_EXTENSIONS
    | DISK_IMAGE_EXTENSIONS
    | MACRO_EXTENSIONS
    | HTML_EXTENSIONS
    | NOTE_EXTENSIONS
)
_RUNNING_KINDS: Final = frozenset({"program", "shortcut", "disk image", "notebook", "page"})
_RUNNING, _LAST = 0, 4
_BY_READER: Final = {"office": 1, "archive": 1, "pdf": 2, "": 3, "picture": _LAST}


def by_danger(attachments: Sequence[Attachment]) -> list[int]:
    """The places of the attachments, those to be looked at first in front."""
    return sorted(
        range(len(attachments)), key=lambda place: (_danger(attachments[place]), len(attachments[place].content), place)
    )


def most_dangerous(attachments: Sequence[Attachment], most: int) -> tuple[Attachment, ...]:
    """The ``most`` attachments that are to be looked at, in the order of the message."""
    if len(attachments) <= most:
        return tuple(attachments)
    return tuple(attachments[place] for place in sorted(by_danger(attachments)[:most]))


def _danger(attachment: Attachment) -> int:
    extension = attachment.filename[-50:].rstrip(". ").rpartition(".")[2].lower()
    if extension in _RUNS or kind_of(attachment.content) in _RUNNING_KINDS:
        return _RUNNING
    return _BY_READER.get(reader_for(attachment.filename, attachment.content), _LAST)
