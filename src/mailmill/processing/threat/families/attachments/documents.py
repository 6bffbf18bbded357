"""Office documents: macros, fields that start programs, parts from outside, locks. What is in them is read by
the child (:mod:`...evidence.readers.office`); by name and first bytes alone only macros are seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.attached_files import AttachedFile
from mailmill.processing.threat.evidence.stated_password import stated_password
from mailmill.processing.threat.families.attachments.each_file import each
from mailmill.processing.threat.knowledge.reference import MACRO_EXTENSIONS
from mailmill.processing.threat.scoring import finding

MAX_OLE_BYTES = 8 << 20

# The stream name of a VBA project in an OLE directory is UTF-16.
_OLE_VBA = "_VBA_PROJECT".encode("utf-16-le")
_IN_ARCHIVE = "document_"
_LOCKED = frozenset({"encrypted", "document_encrypted"})

_WORDS: Mapping[str, str] = {
    "xlm_macros": "attachments.old_macros",
    "source_removed": "attachments.macro_source_removed",
    "dde": "attachments.dde",
    "remote_template": "attachments.remote_template",
    "outside_object": "attachments.outside_object",
    "embedded_program": "attachments.embedded_program",
    "object_updates": "attachments.object_updates",
    "equation_editor": "attachments.equation_editor",
}


def macros(file: AttachedFile) -> Iterator[Finding]:
    """Macros; worse where they start by themselves and start programs or fetch something."""
    seen = _seen(file)
    named = file.extension in MACRO_EXTENSIONS
    project = any(name.lower().endswith("vbaproject.bin") for name in file.names)
    stream = file.kind == "ole" and file.content.find(_OLE_VBA, 0, MAX_OLE_BYTES) >= 0
    if not (named or project or stream or "macros" in seen or "xlm_macros" in seen):
        return
    if named or project or stream or "macros" in seen:
        how = "macro-enabled by name" if named and not (project or stream or "macros" in seen) else "VBA project inside"
        yield finding("attachments.macros", f"{file.shown} ({how})")
    starts, calls = seen.get("auto_exec"), seen.get("macro_calls")
    if starts and calls:
        yield finding("attachments.macros_start_programs", f"{file.shown}: {starts} → {calls}")
    elif starts:
        yield finding("attachments.macros_start_by_themselves", f"{file.shown}: {starts}")
    elif calls:
        yield finding("attachments.macros_call_programs", f"{file.shown}: {calls}")
    if "asks_to_enable" in seen:
        yield finding("attachments.asks_to_enable", f'{file.shown} says "{seen["asks_to_enable"]}"')


def active_parts(file: AttachedFile) -> Iterator[Finding]:
    """DDE, templates and objects from outside, programs within, objects that run when the document is opened."""
    seen = _seen(file)
    for word, finding_id in _WORDS.items():
        if word in seen:
            yield finding(finding_id, f"{file.shown}: {seen[word]}")


def locked(context: ThreatContext) -> Iterator[Finding]:
    """An archive or a document that nobody can look into; worse where the message itself says the password."""
    for file in context.files:
        archive = file.locked or (_is_archive(file) and bool(file.inside.seen.keys() & _LOCKED))
        # A locked PDF is told of by the family ``pictures``.
        document = file.kind == "ole" and "encrypted" in file.inside.seen
        if not archive and not document:
            continue
        yield finding("attachments.encrypted_archive" if archive else "attachments.encrypted_document", file.shown)
        password = stated_password(context.subject, context.text)
        if password:
            yield finding(
                "attachments.locked_with_password", f"{file.shown}; the message says the password: {password}"
            )


def _seen(file: AttachedFile) -> Mapping[str, str]:
    """The words of the reader, those of documents in an archive among them."""
    return {word.removeprefix(_IN_ARCHIVE): evidence for word, evidence in file.inside.seen.items()}


def _is_archive(file: AttachedFile) -> bool:
    return file.kind in ("zip", "archive", "disk image") and file.extension not in ("docx", "xlsx", "pptx")


DETECTORS = (each(macros), each(active_parts), locked)
