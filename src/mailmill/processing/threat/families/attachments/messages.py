"""Messages within the message (``message/rfc822``, .eml, .msg): what they carry past a look at the outer one alone.

A report of the mail system (a bounce) and a forwarded message hold one by right: what counts is what that one carries.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailmill.message_parser import Caps, parse_message
from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.attached_files import AttachedFile, inspect
from mailmill.processing.threat.evidence.hosts import mail_domain, organisation_of
from mailmill.processing.threat.families.attachments import pages, types
from mailmill.processing.threat.scoring import finding

MAX_MESSAGE_BYTES = 2 << 20
MAX_MESSAGES = 5
MAX_DEPTH = 3
MAX_FILES = 30
_LITTLE_TEXT_CHARS = 300
_CAPS = Caps(message_bytes=MAX_MESSAGE_BYTES, parts=200, decoded_bytes=4 * MAX_MESSAGE_BYTES)
_DANGEROUS = frozenset(
    f"attachments.{name}"
    for name in (
        "executable", "script", "shortcut", "double_extension", "direction_override", "disk_image", "notebook_program",
    )
)  # fmt: skip
_ACTIVE_PAGE = frozenset(
    f"attachments.{name}" for name in ("html_password", "html_smuggling", "html_hidden_code", "active_svg")
)


def within(context: ThreatContext) -> Iterator[Finding]:
    """Programs and active pages attached to a message within; a message that is only the cover of another with
    links."""
    nested = [file for file in context.files if _is_message(file)][:MAX_MESSAGES]
    for file in nested:
        yield from _attached(file, file.content, MAX_DEPTH)
    if len(nested) == len(context.files) == 1 and not _is_report(context):
        yield from _cover(context, nested[0])


def _attached(file: AttachedFile, raw: bytes, depth: int) -> Iterator[Finding]:
    message = parse_message(raw, _CAPS)
    for attachment in message.attachments[:MAX_FILES]:
        inner = inspect(attachment)
        for detector in types.FILE_DETECTORS:
            for one in detector(inner):
                if one.id in _DANGEROUS:
                    yield finding("attachments.nested_program", f"{one.evidence} in {file.shown}")
        if pages.is_page(inner):
            for one in pages.active(inner.shown, pages.text_of(inner)):
                if one.id in _ACTIVE_PAGE:
                    yield finding("attachments.nested_page", f"{one.evidence} in {file.shown}")
        if depth > 1 and _is_message(inner):
            yield from _attached(file, inner.content, depth - 1)


def _cover(context: ThreatContext, file: AttachedFile) -> Iterator[Finding]:
    """Little text, and one message from somebody else that has links."""
    if len(context.text.strip()) > _LITTLE_TEXT_CHARS:
        return
    if file.inside.targets:
        yield finding("attachments.nested_message", f"{file.shown} leads to {file.inside.targets[0].url}")
        return
    inner = parse_message(file.content, _CAPS)
    author = next((one.address for one in inner.summary.from_), "")
    organisation = organisation_of(mail_domain(author[:1_000]))
    links = "http" in inner.text_html.lower() or "http" in inner.text_plain.lower()
    if links and organisation not in (context.sender.organisation, context.own_organisation):
        yield finding("attachments.nested_message", f"{file.shown} from {author}")


def _is_message(file: AttachedFile) -> bool:
    return (
        file.content_type in ("message/rfc822", "message/global")
        or file.extension in ("eml", "msg")
        or "nested_message" in file.inside.seen
    )


def _is_report(context: ThreatContext) -> bool:
    """A bounce or another report of a mail system (RFC 3464, 6522): its sender's path is empty."""
    kind = (context.message.header("Content-Type") or "")[:200].lower()
    path = context.message.header("Return-Path")
    return kind.startswith("multipart/report") or (path is not None and path.strip() in ("<>", ""))


DETECTORS = (within,)
