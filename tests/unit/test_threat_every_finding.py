"""The rule for detectors: of every finding at least three messages that have it, and three honest ones that nearly do.

What is counted are the rows of parametrized tests: a column ``finding_id`` names what a row must find, a column
``twin_of`` the findings (one, or several between blanks) that a row resembles and must not have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import test_threat_attachments
import test_threat_attachments_inside
import test_threat_authentication
import test_threat_correspondence
import test_threat_domains
import test_threat_honest_files
import test_threat_html
import test_threat_impersonation
import test_threat_language
import test_threat_letters
import test_threat_links
import test_threat_own_detectors
import test_threat_own_rules
import test_threat_padding
import test_threat_pictures
import test_threat_posed_letters
import test_threat_prompt_injection
import test_threat_sender
import test_threat_unrelated_name

from mailmill.processing.threat.scoring import DEFAULT_TABLE

LEAST = 3
FAMILIES: dict[ModuleType, str] = {
    test_threat_attachments: "attachments",
    test_threat_attachments_inside: "attachments",
    test_threat_authentication: "authentication",
    test_threat_correspondence: "sender",
    test_threat_domains: "domains",
    test_threat_honest_files: "attachments",
    test_threat_html: "html",
    test_threat_impersonation: "impersonation",
    test_threat_language: "language",
    test_threat_letters: "language",
    test_threat_links: "links",
    test_threat_own_detectors: "",  # their ids are written in full
    test_threat_own_rules: "own_rules",
    test_threat_padding: "padding",
    test_threat_pictures: "pictures",
    test_threat_posed_letters: "language",
    test_threat_prompt_injection: "prompt_injection",
    test_threat_sender: "sender",
    test_threat_unrelated_name: "sender",
}


def tables(test: Any) -> Iterator[tuple[list[str], list[Any]]]:
    """(names, rows) of each table of a test; a row is a tuple."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            named, rows = mark.args
            names = [named] if isinstance(named, str) else list(named)
            yield names, [(row,) if isinstance(named, str) else row for row in rows]


def count(column: str) -> Counter[str]:
    """Cases by the id in ``column``. Tables that stand on one another multiply."""
    cases: Counter[str] = Counter()
    for module, family in FAMILIES.items():
        for test in vars(module).values():
            of_test = list(tables(test))
            whole = math.prod(len(rows) for _, rows in of_test)
            for names, rows in of_test:
                for row in rows if column in names else ():
                    for name in row[names.index(column)].split():
                        cases[name if "." in name else f"{family}.{name}"] += whole // len(rows)
    return cases


@pytest.mark.parametrize("column", ["finding_id", "twin_of"])
def test_every_finding_has_its_cases(column: str) -> None:
    cases = count(column)
    assert set(cases) <= set(DEFAULT_TABLE.weights)
    assert {name: cases[name] for name in DEFAULT_TABLE.weights if cases[name] < LEAST} == {}
