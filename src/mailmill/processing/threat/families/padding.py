"""Family ``padding``: so much of nothing that what matters could stand beyond what is looked at.

All that a sender writes is looked at within bounds. Honest mail stays far below them; whoever fills them with what no
reader sees wants filters to give up.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import MAX_FILES, ThreatContext
from mailmill.processing.threat.scoring import finding

LITTLE_TEXT_CHARS = 2_000
"""Whoever shows more than that before the bounds are met has a long message, rather than a padded one."""

_UNREAD_STRUCTURE = ("parts: the rest was not read", "look like delimiters", "header is too long", "multiparts nested")
_UNREAD_TEXT = "of text: the rest was left out"


def text(context: ThreatContext) -> Iterator[Finding]:
    """The text is cut, and what was read of it shows little."""
    cut = any(_UNREAD_TEXT in defect for defect in context.message.defects)
    if (context.html.truncated or cut) and len(context.html.visible) < LITTLE_TEXT_CHARS:
        size = len(context.message.text_html) + len(context.message.text_plain)
        yield finding("padding.text", f"{len(context.html.visible):,} characters to see in the first of {size:,}")


def structure(context: ThreatContext) -> Iterator[Finding]:
    """More parts, nesting or header than is read."""
    for defect in context.message.defects:
        if any(word in defect for word in _UNREAD_STRUCTURE):
            yield finding("padding.structure", defect)
            return


def files(context: ThreatContext) -> Iterator[Finding]:
    """More attached files than are looked at, or files that take more to read than all of a message's may. Digests of
    mailing lists hold that many messages."""
    count = sum(1 for one in context.message.attachments if not one.content_type.startswith("message/"))
    if count > MAX_FILES and not context.by_list:
        yield finding("padding.files", f"{count:,} files")
        return
    unread = [file for file in context.files if "not_reached" in file.inside.seen]
    if unread:
        told = f"{unread[0].shown}: {unread[0].inside.seen['not_reached']}"
        yield finding("padding.files", f"{len(unread):,} of {len(context.files):,} not looked into, such as {told}")


DETECTORS = (text, structure, files)
