"""What was counted and what the engines say, as the gauges of one scrape. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mailmill.app.metrics import BacklogGauge, FleetGauge, HostGauge, QueueGauge
from mailmill.store.accounts import SHARDS

if TYPE_CHECKING:
    from mailmill.app.figures import WorkFigures
    from mailmill.imap.host_budget import HostStats
    from mailmill.store.leases import Fleet


def of_work(figures: WorkFigures, *, now: float, node: str, syncs: bool) -> dict[str, Any]:
    """The fields of a `Snapshot` that tell of queue, outbox, event log and nodes, for the process ``node``."""
    deliveries, lag = figures.deliveries, figures.event_lag
    return {
        "queue": tuple(
            QueueGauge(each.processor, each.state, each.rows, _age(each.oldest_at, now)) for each in figures.depths
        ),
        "quarantined": figures.quarantined,
        "deliveries": {
            "pending": deliveries.pending,
            "sending": deliveries.sending,
            "delivered": deliveries.delivered,
            "failed": deliveries.failed,
        },
        "backlogs": tuple(
            BacklogGauge(each.destination, each.pending, _age(each.oldest_at, now) or 0.0) for each in figures.backlogs
        ),
        "events_unplanned": lag.events,
        "event_lag_seconds": _age(lag.oldest_at, now) or 0.0,
        "fleet": _fleet(figures.fleet, node=node, syncs=syncs),
    }


def of_hosts(hosts: Iterable[HostStats]) -> tuple[HostGauge, ...]:
    return tuple(
        HostGauge(
            host=host.host,
            logins={
                "ok": host.succeeded,
                "refused": host.refused,
                "failed": host.failed,
                "heldBack": host.held_back,
            },
            waiting=host.waiting,
            connections=host.connections,
            pause_seconds=host.pause_seconds,
        )
        for host in hosts
    )


def _fleet(fleet: Fleet | None, *, node: str, syncs: bool) -> FleetGauge:
    if fleet is None:  # one process, which is alone
        return FleetGauge({"alive": 1, "stopping": 0, "silent": 0}, SHARDS if syncs else 0, 0 if syncs else SHARDS)
    states = Counter({"alive": 0, "stopping": 0, "silent": 0})
    states.update(each.state for each in fleet.nodes)
    owners = list(fleet.owners.values())
    return FleetGauge(dict(states), owners.count(node), len(fleet.shards) - len(owners))


def _age(at: float | None, now: float) -> float | None:
    """Seconds since, never below zero: clocks of nodes differ, and a row may be gone by the time it is looked at."""
    return None if at is None else max(0.0, now - at)
