"""docs/threats.md against the scoring table and the families. Run as a program it writes the table of findings anew."""

from __future__ import annotations

import re
from pathlib import Path

from mailmill.processing.threat.engine import FAMILIES
from mailmill.processing.threat.scoring import DEFAULT_TABLE, Weight, read_table

PAGE = Path(__file__).parents[2] / "docs" / "threats.md"
BEGIN, END = "<!-- findings -->\n", "<!-- end of findings -->\n"


def table() -> str:
    """Every finding of the scoring table, in its order, a table for each family."""
    families: dict[str, list[str]] = {}
    for finding_id, weight in DEFAULT_TABLE.weights.items():
        families.setdefault(finding_id.partition(".")[0], []).append(row(finding_id, weight))
    head = "| Finding | Points | Severity | In words | |\n|---|---:|---|---|---|\n"
    return "\n".join(f"### `{family}`\n\n{head}{''.join(rows)}" for family, rows in families.items())


def row(finding_id: str, weight: Weight) -> str:
    notes = [word for word, holds in (("softened", weight.softened), ("conclusive", weight.conclusive)) if holds]
    words = weight.words.replace("|", "\\|")
    return f"| `{finding_id}` | {weight.points:g} | {weight.severity.value} | {words} | {', '.join(notes)} |\n"


def written() -> str:
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def test_every_finding_is_listed_as_it_counts() -> None:
    assert written() == f"\n{table()}\n", f"run: python {Path(__file__).name} (it writes the table anew)"


def test_every_family_is_described() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## What it looks for")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    found = {finding_id.partition(".")[0] for finding_id in DEFAULT_TABLE.weights} | set(FAMILIES)
    assert set(described) == found - {"engine"}
    assert len(described) == len(set(described))


def test_the_numbers_of_the_page_are_those_of_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"From {DEFAULT_TABLE.suspicious_from:g} points on a message is suspicious." in text
    assert f"From {DEFAULT_TABLE.malicious_from:g} on it is malicious" in text
    assert f"counts {DEFAULT_TABLE.softening:g} times its points" in text
    assert DEFAULT_TABLE.supporting == {"language"} and "(`language` is never one of the two)" in text


def test_the_example_is_a_scoring_file() -> None:
    [block] = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    changed = read_table(block, over=DEFAULT_TABLE)
    assert changed.suspicious_from == 50.0
    assert changed.weight("links.shortener").points == 0
    assert changed.weight("links.shortener").words == DEFAULT_TABLE.weight("links.shortener").words


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
