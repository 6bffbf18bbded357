"""The user's own processors: can they be imported, and are their settings theirs? Blocking; it runs their modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailmill.cli.diagnosis.findings import Check, fail, ok
from mailmill.errors import ConfigurationError

if TYPE_CHECKING:
    from mailmill.settings import Settings

SUBJECT = "Processors"


def look(settings: Settings) -> list[Check]:
    """One line for all, or for each problem; nothing where the user has none. Threat rules must be in order."""
    from mailmill.app.wiring import processors

    try:
        known = processors(settings)
    except ConfigurationError as error:
        return [fail(SUBJECT, problem, error.hint, error.code) for problem in error.problems]
    if not settings.processors.import_:
        return []
    return [ok(SUBJECT, ", ".join(f"{processor.name} {processor.version}" for processor in known))]
