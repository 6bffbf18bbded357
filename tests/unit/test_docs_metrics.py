"""``docs/metrics.md`` names every metric there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from mailmill.app.metrics import AccountGauge, HostGauge, Metrics, Snapshot

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")

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
    queue={"pending": 0},
    oldest_seconds=0.0,
    deliveries={"pending": 0},
    parked=0,
    hosts=(HostGauge(host="imap.example.org", logins={"ok": 1}, waiting=0, connections=1, pause_seconds=0.0),),
)


def scraped() -> dict[str, set[str]]:
    """Metric → its labels, as a scrape shows them. ``…_created`` goes with its metric."""
    metrics = Metrics()
    metrics.observe("ran:threat", 0.1)
    text = metrics.render(SNAPSHOT).decode()
    names = {name for name in re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE) if not name.endswith("_created")}
    found: dict[str, set[str]] = {}
    for name in names:
        labels = re.findall(rf"^{name}(?:_count)?(?:\{{([^}}]*)\}})? ", text, re.MULTILINE)
        found[name] = set(re.findall(r'(\w+)="', labels[0])) if labels else set()
    return found


def documented() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(mailmill_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_is_documented_with_its_labels() -> None:
    there = scraped()
    assert len(there) > 10
    assert documented() == there


def test_the_alerts_ask_for_metrics_that_are_there() -> None:
    asked = set(re.findall(r"\bmailmill_\w+", PAGE))
    known = {name + suffix for name in scraped() for suffix in ("", "_bucket", "_sum", "_count")}
    assert asked - known == set()
