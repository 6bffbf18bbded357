"""Archives: what they hold, and what they are made to do to who opens them. The names of a ZIP are known without the
child; all else is what it read (:mod:`...evidence.readers.archive`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mailmill.model import Finding
from mailmill.processing.threat.evidence.attached_files import AttachedFile
from mailmill.processing.threat.evidence.names_within import seen_in_names
from mailmill.processing.threat.families.attachments.each_file import each
from mailmill.processing.threat.knowledge.reference import MACRO_EXTENSIONS
from mailmill.processing.threat.scoring import finding

# ZIPs by format: what they hold by right is no program in hiding.
_ZIP_DOCUMENTS = MACRO_EXTENSIONS | {
    *("docx", "xlsx", "pptx", "dotx", "xltx", "potx", "ppsx", "odt", "ods", "odp", "epub", "jar", "apk", "ipa", "xpi"),
    *("whl", "nupkg", "vsix", "kmz", "pages", "numbers", "key"),
}
_PROGRAMS = ("program", "shortcut", "script", "disk_image")


def holds_program(file: AttachedFile) -> Iterator[Finding]:
    """An archive with a program, script, shortcut or disk image in it, also in an archive within."""
    seen = _seen(file)
    for word in _PROGRAMS:
        if word in seen:
            yield finding("attachments.archive_with_program", f"{file.shown} holds {seen[word]}")
            break
    if "double_extension" in seen:
        yield finding("attachments.double_extension", f"{seen['double_extension']} in {file.shown}")
    if "direction_override" in seen:
        yield finding("attachments.direction_override", f"{seen['direction_override']} in {file.shown}")


def holds_page(file: AttachedFile) -> Iterator[Finding]:
    """An archive whose only content is a web page: packed so that nobody looks at it on the way."""
    seen = _seen(file)
    if "page_only" in seen:
        yield finding("attachments.archive_with_page", f"{file.shown} holds {seen['page_only']}")


def harms(file: AttachedFile) -> Iterator[Finding]:
    """An archive made to unpack into very much, or to write outside the folder it is unpacked in."""
    seen = _seen(file)
    if "bomb" in seen:
        yield finding("attachments.archive_bomb", f"{file.shown} {seen['bomb']}")
    elif "deep" in seen:
        yield finding("attachments.archive_deep", f"{file.shown}: {seen['deep']}")
    for word in ("traversal", "link_out"):
        if word in seen:
            yield finding("attachments.archive_traversal", f"{file.shown} holds {seen[word]}")
            return


def _seen(file: AttachedFile) -> Mapping[str, str]:
    if file.extension in _ZIP_DOCUMENTS:
        return {}
    return {**seen_in_names(file.names), **file.inside.seen}


DETECTORS = tuple(each(one) for one in (holds_program, holds_page, harms))
