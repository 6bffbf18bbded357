"""What the names of files in a container say, taken together. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailmill.processing.threat.knowledge.reference import (
    DISK_IMAGE_EXTENSIONS,
    DOCUMENT_EXTENSIONS,
    EXECUTABLE_EXTENSIONS,
    HTML_EXTENSIONS,
    SCRIPT_EXTENSIONS,
    SHORTCUT_EXTENSIONS,
)

FEW = 3
"""Up to so many files in a container, a script is what it is sent for; among more, it may be a part of somebody's
work."""

_OVERRIDES = ("\u202e", "\u202d", "\u2067")
_MARKS = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f]")
# Names that end so are often no programs (domains, sources): among few files they count, among many not.
_COMMON_IN_SOURCES = SCRIPT_EXTENSIONS | {
    *("reg", "url", "jar", "deb", "rpm", "elf", "app", "com", "run", "command", "dll", "desktop", "application", "sys")
}
_PAGES = HTML_EXTENSIONS | {"svg", "svgz"}
_ABSOLUTE = re.compile(r"^(?:[/\\]|[a-z]:[/\\])", re.IGNORECASE)
# Beside what it is about, an archive often holds a word of its packer: these do not count as content.
_BESIDE = re.compile(r"(?:^|/)(?:__MACOSX/|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)


def seen_in_names(names: Sequence[str]) -> dict[str, str]:
    """What stands out, each with the first name that shows it: ``program``, ``script``, ``shortcut``, ``disk_image``,
    ``double_extension``, ``direction_override``, ``traversal``, ``page_only`` (it holds web pages and nothing else).

    Folders (names that end in ``/``) are no files.
    """
    files = [name for name in names if not name.endswith("/") and not _BESIDE.search(name)]
    few = len(files) <= FEW
    seen: dict[str, str] = {}
    for name in files:
        plain = _MARKS.sub("", name).lower().rstrip(". ")
        pieces = plain.replace("\\", "/").rpartition("/")[2].split(".")
        extension = pieces[-1].strip() if len(pieces) > 1 else ""
        word = _word_for(extension, few=few)
        if word:
            seen.setdefault(word, name)
            if len(pieces) > 2 and pieces[-2].strip() in DOCUMENT_EXTENSIONS:
                seen.setdefault("double_extension", name)
            if any(mark in name for mark in _OVERRIDES):
                seen.setdefault("direction_override", name)
        if _ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name):
            seen.setdefault("traversal", name)
    if files and few and all(_extension(name) in _PAGES for name in files):
        seen["page_only"] = files[0]
    return seen


def _word_for(extension: str, *, few: bool) -> str:
    if extension in _COMMON_IN_SOURCES and not few:
        return ""
    if extension in SHORTCUT_EXTENSIONS:
        return "shortcut"
    if extension in SCRIPT_EXTENSIONS:
        return "script"
    if extension in DISK_IMAGE_EXTENSIONS:
        return "disk_image"
    return "program" if extension in EXECUTABLE_EXTENSIONS else ""


def _extension(name: str) -> str:
    return name.lower().rstrip(". ").rpartition(".")[2] if "." in name else ""
