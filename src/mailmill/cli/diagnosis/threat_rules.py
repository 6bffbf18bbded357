"""What the user gave the threat engine: scoring table, YARA rules, lists, detectors of installed packages. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailmill.cli.diagnosis.findings import Check, fail, ok
from mailmill.errors import ConfigurationError

if TYPE_CHECKING:
    from mailmill.settings import Settings

SUBJECT = "Threat rules"


def look(settings: Settings) -> list[Check]:
    """One line for each that is wrong; nothing where the user gave none."""
    from mailmill.app.threat_options import try_threat_rules

    try:
        words = try_threat_rules(settings)
    except ConfigurationError as error:
        return [fail(SUBJECT, problem, error.hint, error.code) for problem in error.problems]
    return [ok(SUBJECT, words)] if words else []
