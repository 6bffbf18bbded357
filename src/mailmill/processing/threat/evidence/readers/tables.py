"""Tables as text (CSV, SYLK, IQY): cells that a spreadsheet program takes for commands.

Sources: OWASP "CSV injection"; the SYLK file format (records ``C`` with an expression ``E``).
"""

from __future__ import annotations

import re
from typing import Final

from mailmill.processing.threat.evidence.inside import Target
from mailmill.processing.threat.evidence.readers.findings import Findings

MAX_CHARS: Final = 4 << 20

# A formula that names a program, a bar and a topic: =cmd|'/c calc'!A1
_DDE_CELL = re.compile(
    r"(?:^|[,;\t\"|=(+@-])\s{0,5}(cmd(?:\.exe)?|powershell|mshta|rundll32|regsvr32|wscript|cscript|certutil|msexcel|bash)"
    r"\s{0,5}\|[^\n]{1,300}",
    re.IGNORECASE | re.MULTILINE,
)
_LINK_CELL = re.compile(
    r"=\s{0,5}(?:HYPERLINK|WEBSERVICE|IMPORTXML|IMAGE)\s{0,5}\(\s{0,5}\"{1,2}(https?://[^\"\s]{3,1900})", re.I
)
_SYLK_MACRO = re.compile(
    r"^C;[^\n]{0,200};E\s{0,5}(?:EXEC|CALL|REGISTER|RUN|HALT)\s{0,5}\(", re.IGNORECASE | re.MULTILINE
)
_WEB_QUERY = re.compile(r"^WEB\s{0,5}\n1\s{0,5}\n(https?://[^\s]{3,1900})", re.IGNORECASE)


def read_table(content: bytes, findings: Findings) -> None:
    text = content[:MAX_CHARS].decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    command = _DDE_CELL.search(text)
    if command is not None:
        findings.see("dde", command.group().strip())
    for number, match in enumerate(_LINK_CELL.finditer(text)):
        if number >= 50:
            break
        findings.target(Target("office_link", match.group(1)))
    if text.startswith("ID;") and _SYLK_MACRO.search(text):
        findings.see("xlm_macros", "a table that runs a command")
    query = _WEB_QUERY.match(text)
    if query is not None:
        findings.see("outside_object", query.group(1))
        findings.target(Target("office_link", query.group(1)))
