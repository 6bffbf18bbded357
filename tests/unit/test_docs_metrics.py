"""Metrics against their pages.

``docs/metrics.md`` names every metric there is, and no other; the operations guide and the rules for Prometheus ask for
what is there, and every alert of one stands in the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mailmill.app.metrics import (
    AccountGauge,
    BacklogGauge,
    FleetGauge,
    HostGauge,
    Metrics,
    QueueGauge,
    Snapshot,
)
from mailmill.cli.main import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
RULES = (ROOT / "deploy" / "prometheus-rules.yml").read_text(encoding="utf-8")

SNAPSHOT = Snapshot(
    accounts=(
        AccountGauge(
            account="work",
            state="connected",
            silent_seconds=1.0,
            connections=1,
            open_requests=1,
            gaps={"missing": 1},
            verified_at=1.0,
        ),
    ),
    queue=(QueueGauge("threat", "pending", 1, 0.0),),
    quarantined={"threat": 1},
    deliveries={"pending": 0},
    backlogs=(BacklogGauge("hook", 1, 0.0),),
    hosts=(HostGauge(host="imap.example.org", logins={"ok": 1}, waiting=0, connections=1, pause_seconds=0.0),),
    fleet=FleetGauge({"alive": 1}, 64, 0),
)


def scraped() -> dict[str, set[str]]:
    """Metric → its labels, as a scrape shows them. ``…_created`` goes with its metric."""
    metrics = Metrics()
    for stage in ("ran:threat", "blobs:get", "failed:threat", "gave_up:threat"):
        metrics.observe(stage, 0.1)
    text = metrics.render(SNAPSHOT).decode()
    names = {name for name in re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE) if not name.endswith("_created")}
    found: dict[str, set[str]] = {}
    for name in names:
        labels = re.findall(rf"^{name}(?:_count)?(?:\{{([^}}]*)\}})? ", text, re.MULTILINE)
        assert labels, f"{name} has no sample here: give it one"
        found[name] = set(re.findall(r'(\w+)="', labels[0]))
    return found


SCRAPED = scraped()


def documented() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(mailmill_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES)["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_every_metric_is_documented_with_its_labels() -> None:
    assert len(SCRAPED) > 10
    assert documented() == SCRAPED


@pytest.mark.parametrize("text", [PAGE, GUIDE, RULES], ids=["metrics.md", "operations.md", "prometheus-rules.yml"])
def test_what_is_asked_for_is_there(text: str) -> None:
    asked = set(re.findall(r"\bmailmill_\w+", text))
    known = {name + suffix for name in SCRAPED for suffix in ("", "_bucket", "_sum", "_count")}
    known |= {f"{name.removesuffix('_total')}_created" for name in SCRAPED}
    assert asked
    assert asked - known == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_a_rule_selects_and_groups_by_labels_that_are_there(rule: dict[str, Any]) -> None:
    expression = str(rule["expr"])
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert expression.count("(") == expression.count(")")
    of_target = {"instance", "job", "le"}
    labels: set[str] = set()
    for name, selected in re.findall(r"\b(mailmill_\w+|up)(\{[^}]*\})?", expression):
        there = of_target | SCRAPED.get(re.sub(r"_(bucket|sum|count)$", "", name), set())
        assert set(re.findall(r"(\w+)!?=", selected)) <= there, name
        labels |= there
    grouped = {name.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for name in group.split(",")}
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert grouped <= labels
    assert told <= (grouped or labels)


def test_rules_and_page_tell_of_the_same_alerts() -> None:
    table = PAGE.partition("## What to alert on")[2]
    asked_by_page = [
        set(re.findall(r"\bmailmill_\w+|\bup\b", row))
        for row in re.findall(r"^\|[^|]*\| (`[^|]*)\|", table, re.MULTILINE)
    ]
    asked_by_rules = [set(re.findall(r"\bmailmill_\w+|\bup\b", str(rule["expr"]))) for rule in rules()]
    assert [metrics for metrics in asked_by_page if metrics not in asked_by_rules] == []
    assert [metrics for metrics in asked_by_rules if metrics not in asked_by_page] == []


def test_the_commands_of_the_guide_are_there_with_their_options() -> None:
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"(?:^|&& )mailmill ([a-z][^#\n&]*)", blocks, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        words = line.split()
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not getattr(command, "commands", {}), line
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_links_into_the_guide_are_about_what_is_there() -> None:
    """Every drill says what to type, and what is then to be seen."""
    drills = GUIDE.partition("## Drills")[2]
    for drill in re.split(r"^### ", drills, flags=re.MULTILINE)[1:]:
        assert "```" in drill, drill.splitlines()[0]
        assert len(drill.split("```")[-1].split()) > 10, drill.splitlines()[0]
