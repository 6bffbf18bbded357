"""Office documents: what of them runs, fetches or hides. By the first bytes, whatever the name says.

The words in ``seen``: ``macros``, ``auto_exec`` (they start by themselves), ``macro_calls`` (they start programs or
fetch something), ``source_removed``, ``xlm_macros`` (Excel's old macro sheets), ``hidden_sheet``, ``dde``,
``remote_template``, ``outside_object``, ``embedded_program``, ``embedded_file``, ``embedded_object``,
``object_updates``, ``equation_editor``, ``page_within``, ``asks_to_enable``, ``encrypted``, ``broken``; for an Outlook
message ``nested_message`` and what :func:`seen_in_names` sees in its attachments. Links are targets (``office_link``,
``message_link``), words are ``text``.
"""

from __future__ import annotations

import re

from mailmill.processing.threat.evidence.inside import Inside
from mailmill.processing.threat.evidence.readers.findings import Findings

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ASKS_TO_ENABLE = re.compile(
    r"enable\s{1,5}(?:editing|content|macros?)|inhalte?\s{1,5}aktivieren|bearbeitung\s{1,5}aktivieren"
    r"|activer\s{1,5}(?:le\s{1,5}contenu|la\s{1,5}modification|les\s{1,5}macros)|habilitar\s{1,5}(?:contenido|edici[oó]n|macros)"
    r"|habilitar\s{1,5}(?:conte[uú]do|edi[cç][aã]o)|abilita\s{1,5}(?:contenuto|modifica|macro)",
    re.IGNORECASE,
)


def read(_name: str, content: bytes) -> Inside:
    """What an Office document holds; one that is broken is searched for what there is of it."""
    findings = Findings()
    if content.startswith(b"PK"):
        from mailmill.processing.threat.evidence.readers.ooxml import read_ooxml

        read_ooxml(content, findings)
    elif content.startswith(_OLE):
        from mailmill.processing.threat.evidence.readers.ole import read_ole

        read_ole(content, findings)
    elif content.startswith(b"{\\rt"):
        from mailmill.processing.threat.evidence.readers.rtf import read_rtf

        read_rtf(content, findings)
    else:
        from mailmill.processing.threat.evidence.readers.tables import read_table

        read_table(content, findings)
    lure = _ASKS_TO_ENABLE.search(findings.text)
    if lure is not None:
        findings.see("asks_to_enable", lure.group())
    return findings.inside()
