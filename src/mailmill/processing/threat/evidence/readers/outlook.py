"""Messages as Outlook saves them (.msg): their attachments' names and first bytes, and where their text leads.

Source: [MS-OXMSG] 2.1 and 2.2: a property is a stream ``__substg1.0_`` with its number and type; [MS-OXPROPS].
"""

from __future__ import annotations

import re
from typing import Final

from mailmill.processing.threat.evidence.attached_files import kind_of
from mailmill.processing.threat.evidence.inside import Target
from mailmill.processing.threat.evidence.names_within import seen_in_names
from mailmill.processing.threat.evidence.readers.findings import Findings
from mailmill.processing.threat.evidence.readers.streams import Streams

MAX_BODY_BYTES: Final = 1 << 20
_MAX_STREAMS: Final = 500

_PROPERTIES: Final = "__properties_version1.0"
_NAME_PROPERTIES: Final = ("__substg1.0_3707001f", "__substg1.0_3704001f", "__substg1.0_3707001e")
_DATA_PROPERTY: Final = "__substg1.0_37010102"
_BODY_PROPERTIES: Final = ("__substg1.0_1000001f", "__substg1.0_1000001e", "__substg1.0_10130102")
_URL = re.compile(r"https?://[^\s\"'<>\x00-\x1f]{3,1900}", re.IGNORECASE)


def is_message(paths: list[list[str]]) -> bool:
    return [_PROPERTIES] in [[part.lower() for part in path] for path in paths if len(path) == 1]


def read_message(streams: Streams, findings: Findings) -> None:
    """``nested_message``, the words of :func:`seen_in_names` for its attachments, its links as targets."""
    findings.see("nested_message", "an Outlook message")
    names: list[str] = []
    for path in streams.paths[:_MAX_STREAMS]:
        name = path[-1].lower()
        if name in _NAME_PROPERTIES:
            names.append(_text(streams.read(path, 1_000), name))
        elif name == _DATA_PROPERTY:
            kind = kind_of(streams.read(path, 4_096))
            if kind in ("program", "shortcut"):
                findings.see(kind, "attached to the message within")
        elif name in _BODY_PROPERTIES:
            body = _text(streams.read(path, MAX_BODY_BYTES), name)
            for match in _URL.finditer(body):
                findings.target(Target("message_link", match.group()))
            if name != _BODY_PROPERTIES[2]:
                findings.say(body)
    for word, evidence in seen_in_names(names).items():
        findings.see(word, evidence)
    for one in names:
        findings.member(one)


def _text(data: bytes, name: str) -> str:
    return data.decode("utf-16-le" if name.endswith("1f") else "latin-1", "replace").rstrip("\x00")
