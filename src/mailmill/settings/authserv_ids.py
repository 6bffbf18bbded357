"""Names of servers whose Authentication-Results are believed (RFC 8601 §2.5, §5). Pure."""

from __future__ import annotations

import re
from typing import Final

MAX_CHARS: Final = 255

AUTHSERV_ID_FORMS: Final = (
    "a name such as mx.example.org, as it stands in the header of mail you received, or *.example.org for all of a "
    "domain's hosts"
)

# Letters of any script (RFC 8616 §3), and the underscores and single words that servers call themselves by.
_LABEL: Final = r"\w(?:[\w-]{0,61}\w)?"
# "*.org" would believe whoever has a domain there.
_FORM: Final = re.compile(rf"\*\.{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?:\.{_LABEL})*")


def check_authserv_id(text: str) -> str:
    """The name without blanks around it. Raises ValueError for what no server is called."""
    name = text.strip()
    if len(name) > MAX_CHARS or not _FORM.fullmatch(name):
        raise ValueError(f"wants {AUTHSERV_ID_FORMS}")
    return name
