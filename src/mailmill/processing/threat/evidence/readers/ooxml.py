"""Office files that are ZIPs of XML (ECMA-376): macros, hidden sheets, fields that run, parts that come from outside.

The XML is searched, not parsed: no entity is ever resolved, and a part that is broken on purpose is read as well.
"""

from __future__ import annotations

import re
from html import unescape
from itertools import islice
from typing import Final

from mailmill.processing.threat.evidence.inside import Target
from mailmill.processing.threat.evidence.readers import ole
from mailmill.processing.threat.evidence.readers.findings import Findings
from mailmill.processing.threat.evidence.zip_entries import entries, unpack

MAX_PARTS: Final = 2_000
MAX_PART_BYTES: Final = 8 << 20
MAX_TOTAL_BYTES: Final = 64 << 20
MAX_RUNS: Final = 3_000
_OLE: Final = b"\xd0\xcf\x11\xe0"
_ODF: Final = b"mimetypeapplication/vnd.oasis.opendocument"

_RELATIONSHIP = re.compile(r"<(?:\w{1,20}:)?Relationship\s[^<>]{1,6000}>")
_ATTRIBUTE = re.compile(r"\b(Type|Target|TargetMode)\s{0,5}=\s{0,5}(?:\"([^\"]{0,4000})\"|'([^']{0,4000})')")
_FROM_ELSEWHERE = re.compile(
    r"^\s{0,10}(?:https?|ftp|mhtml|ms-\w{2,20}|x-usc|script|mk)\s{0,2}:|^\\\\[^\\]+@", re.IGNORECASE
)
_INSTRUCTION = re.compile(r"<w:instrText[^<>]{0,200}>([^<]{0,4000})<")
_SIMPLE_FIELD = re.compile(r"<w:fldSimple\s[^<>]{0,2000}?w:instr\s{0,3}=\s{0,3}\"([^\"]{0,2000})\"")
_DDE = re.compile(r"\bDDE(?:AUTO)?\b.{0,300}", re.IGNORECASE | re.DOTALL)
_QUOTED_URL = re.compile(r"HYPERLINK\s{1,20}\"?(https?://[^\"\s]{3,1900})", re.IGNORECASE)
_DDE_LINK = re.compile(r"<(?:\w{1,20}:)?ddeLink\s[^<>]{0,2000}>")
_DDE_PART = re.compile(r"dde(?:Service|Topic)=\"([^\"]{0,1000})\"")
_VERY_HIDDEN = re.compile(r"<(?:\w{1,20}:)?sheet\s[^<>]{0,2000}state=\"veryHidden\"", re.IGNORECASE)
_SHEET_NAME = re.compile(r"name=\"([^\"]{0,200})\"")
_AUTO_NAME = re.compile(r"_xlnm\.Auto_?(?:Open|Close|Activate)", re.IGNORECASE)
_TEXT = re.compile(r"<(?:w:|a:|x:)?t(?:\s[^<>]{0,200})?>([^<]{1,4000})<")

_ODF_LINK = re.compile(r"<text:a\s[^<>]{0,2000}?xlink:href=\"(https?://[^\"]{3,1900})\"", re.IGNORECASE)

_OUTSIDE: Final = {
    "attachedtemplate": "remote_template",
    "oleobject": "outside_object",
    "frame": "outside_object",
    "subdocument": "outside_object",
    "control": "outside_object",
}


def read_ooxml(content: bytes, findings: Findings) -> None:
    """See what a package holds, part by part, within ``MAX_TOTAL_BYTES`` unpacked."""
    left = MAX_TOTAL_BYTES
    for entry in entries(content, MAX_PARTS):
        if entry.encrypted:
            findings.see("encrypted", "parts of the document")
            continue
        name = entry.name.lower().replace("\\", "/")
        if left <= 0 or not name.endswith((".xml", ".rels", ".bin", ".rtf", ".mht", ".html", ".htm")):
            continue
        part = unpack(content, entry, min(MAX_PART_BYTES, left))
        left -= len(part)
        _part(name, part, findings)
    if content.startswith(_ODF, 30):
        _open_document(content, findings)


def _part(name: str, part: bytes, findings: Findings) -> None:
    if name.endswith(".rels"):
        _relationships(part.decode("utf-8", "replace"), findings)
    elif name.endswith(".bin"):
        _binary(name, part, findings)
    elif "/macrosheets/" in name or "/intlmacrosheets/" in name:
        findings.see("xlm_macros", name)
    elif name.endswith("workbook.xml"):
        _workbook(part.decode("utf-8", "replace"), findings)
    elif "/externallinks/" in name:
        for link in _DDE_LINK.finditer(part.decode("utf-8", "replace")):
            findings.see_dde(" ".join(unescape(one) for one in _DDE_PART.findall(link.group())))
    elif name.endswith((".rtf", ".mht", ".html", ".htm")):
        findings.see("page_within", name)
    elif name.startswith("word/") or "slides/" in name or name.endswith("sharedstrings.xml"):
        _text(part.decode("utf-8", "replace"), findings)


def _relationships(xml: str, findings: Findings) -> None:
    for match in _RELATIONSHIP.finditer(xml):
        given = {name: unescape(double or single) for name, double, single in _ATTRIBUTE.findall(match.group())}
        if given.get("TargetMode", "").lower() != "external":
            continue
        kind = given.get("Type", "").rpartition("/")[2].lower()
        target = given.get("Target", "").strip()
        if kind == "hyperlink":
            if target.lower().startswith(("http:", "https:")):
                findings.target(Target("office_link", target))
        elif kind in _OUTSIDE and _FROM_ELSEWHERE.match(target):
            findings.see(_OUTSIDE[kind], target)


def _binary(name: str, part: bytes, findings: Findings) -> None:
    if "/macrosheets/" in name:  # the sheets of an .xlsb are no XML
        findings.see("xlm_macros", name)
    elif part.startswith(_OLE):
        if name.endswith("vbaproject.bin"):
            findings.see("macros", "a VBA project")
        ole.read_ole(part, findings)
    elif name.endswith("vbaproject.bin"):
        findings.see("macros", "a VBA project")


def _workbook(xml: str, findings: Findings) -> None:
    hidden = _VERY_HIDDEN.search(xml)
    if hidden is not None:
        name = _SHEET_NAME.search(hidden.group())
        findings.see("hidden_sheet", unescape(name.group(1)) if name else "a sheet")
    if _AUTO_NAME.search(xml):
        findings.see("auto_exec", "Auto_Open")


def _text(xml: str, findings: Findings) -> None:
    """Fields may be cut into many runs: their instructions are read joined."""
    simple = " ".join(unescape(one) for one in _SIMPLE_FIELD.findall(xml))
    instructions = "".join(unescape(one) for one in _INSTRUCTION.findall(xml))
    for fields in (simple, instructions):
        command = _DDE.search(fields)
        if command is not None:
            findings.see_dde(command.group())
        for url in _QUOTED_URL.findall(fields):
            findings.target(Target("office_link", url))
    findings.say(" ".join(unescape(match.group(1)) for match in islice(_TEXT.finditer(xml), MAX_RUNS)))


def _open_document(content: bytes, findings: Findings) -> None:
    """OpenDocument keeps its macros as ``Basic/`` and ``Scripts/`` within the package (ODF 1.3, part 2)."""
    for entry in entries(content, MAX_PARTS):
        name = entry.name
        if name.startswith(("Basic/", "Scripts/")) and name.endswith((".xml", ".py", ".js", ".bsh")):
            if name.rpartition("/")[2] not in ("script-lc.xml", "script-lb.xml"):
                findings.see("macros", name)
        elif name == "content.xml":
            xml = unpack(content, entry, MAX_PART_BYTES).decode("utf-8", "replace")
            for url in _ODF_LINK.findall(xml)[:100]:
                findings.target(Target("office_link", unescape(url)))
            if "<script:event-listener" in xml:
                findings.see("auto_exec", "an event of the document")
