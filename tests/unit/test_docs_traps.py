"""docs/sync-traps.md and the tests that it names: neither without the other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sync-traps.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`(test_\w+)`", PAGE))


def in_modules(pattern: str) -> set[str]:
    modules = (ROOT / "tests" / "integration").glob(pattern)
    return {
        name
        for module in modules
        for name in re.findall(r"^async def (test_\w+)", module.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_test_that_is_named_is_there() -> None:
    assert not NAMED - in_modules("test_*.py")


def test_every_test_of_a_trap_is_named() -> None:
    assert not in_modules("test_traps_*.py") - NAMED
