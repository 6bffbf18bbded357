"""What went wrong with a row of work, as the list that ``work.errors`` and ``result.errors`` hold (pure).

JSON: ``[{"at": seconds since the epoch, "kind": "attempt" | "crash", "error": text}, …]``, oldest first, the last
:data:`MAX_ERRORS` of them: an attempt is a run that raised or took too long, a crash a worker that died.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

from mailmill.store import dialect

MAX_ERRORS: Final = 10
MAX_CHARACTERS: Final = 500

Kind = Literal["attempt", "crash"]


@dataclass(frozen=True, slots=True)
class WorkError:
    """One run that came to nothing."""

    at: float
    kind: Kind
    error: str


def read(errors: str) -> tuple[WorkError, ...]:
    """The list that a column holds, oldest first."""
    return tuple(WorkError(float(one["at"]), one["kind"], str(one["error"])) for one in json.loads(errors))


def added(errors: str, new: WorkError) -> str:
    """The list with one more, the oldest gone where it would be too long."""
    known = json.loads(errors)[-(MAX_ERRORS - 1) :]
    text = dialect.storable(new.error)
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS - 1]}…"
    return json.dumps([*known, {"at": round(new.at, 3), "kind": new.kind, "error": text}], ensure_ascii=False)
