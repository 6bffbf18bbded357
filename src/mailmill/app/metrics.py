"""What ``/metrics`` tells. Every name here is documented in ``docs/metrics.md`` (a test compares the two)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


@dataclass(frozen=True, slots=True)
class AccountGauge:
    account: str
    state: str
    silent_seconds: float | None
    connections: int
    open_requests: int = 0
    gaps: Mapping[str, int] = field(default_factory=dict)
    verified_at: float | None = None


@dataclass(frozen=True, slots=True)
class HostGauge:
    host: str
    logins: Mapping[str, int]
    waiting: int
    connections: int
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class QueueGauge:
    """One processor's rows in one state, and the age of the oldest where it is known."""

    processor: str
    state: str
    rows: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class BacklogGauge:
    """What waits for a destination."""

    destination: str
    pending: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class FleetGauge:
    """Nodes by how they are, the shards that this one has, and those that nobody has."""

    nodes: Mapping[str, int]
    owned: int
    unowned: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is read from the store and the accounts at the moment of the scrape."""

    accounts: tuple[AccountGauge, ...] = ()
    queue: tuple[QueueGauge, ...] = ()
    quarantined: Mapping[str, int] = field(default_factory=dict)
    deliveries: Mapping[str, int] = field(default_factory=dict)
    backlogs: tuple[BacklogGauge, ...] = ()
    events_unplanned: int = 0
    event_lag_seconds: float = 0.0
    parked: int = 0
    hosts: tuple[HostGauge, ...] = ()
    fleet: FleetGauge = field(default_factory=lambda: FleetGauge({}, 0, 0))
    blobs_reachable: bool = True
    threads_stuck: int = 0


class Metrics:
    """One registry per application, so that several may live in one process (tests, the demo)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._snapshot = Snapshot()
        self.stored = Counter("mailmill_messages_stored", "New messages stored.", registry=self._registry)
        self.arrival_to_stored = self._histogram(
            "mailmill_arrival_to_stored_seconds", "From the server's hint to the commit that holds the message."
        )
        self.stored_to_processed = self._histogram(
            "mailmill_stored_to_processed_seconds",
            "From the commit of a message to the record of a processor's result.",
        )
        self.picked_up = self._histogram(
            "mailmill_work_picked_up_seconds", "From work that could run to the worker's claim of it."
        )
        self.processed_to_delivered = self._histogram(
            "mailmill_processed_to_delivered_seconds", "From an event to its delivery to a destination."
        )
        self.processor_seconds = Histogram(
            "mailmill_processor_seconds",
            "How long one run of a processor took.",
            ["processor"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.blob_seconds = Histogram(
            "mailmill_blob_seconds",
            "How long raw messages took to be stored or read, a batch of them at a time.",
            ["operation"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.loop_lag = self._histogram(
            "mailmill_event_loop_lag_seconds", "How late the event loop woke a timer: what every request waits besides."
        )
        self.database_write = self._histogram(
            "mailmill_database_write_seconds",
            "From asking for a transaction that writes to its commit: the wait for its turn, its statements, the disk.",
        )
        self.runs_failed = Counter(
            "mailmill_work_failed_runs",
            "Runs of a processor that raised, returned what is not JSON, or took too long.",
            ["processor"],
            registry=self._registry,
        )
        self.given_up = Counter(
            "mailmill_work_given_up", "Work that failed for good here.", ["processor"], registry=self._registry
        )
        self.taken_back = Counter(
            "mailmill_work_taken_back",
            "Work taken back by this process from workers that died or held it too long.",
            registry=self._registry,
        )
        self._counters = {"failed": self.runs_failed, "gave_up": self.given_up}
        self._stages = {
            "arrival_to_stored": self.arrival_to_stored,
            "picked_up": self.picked_up,
            "recorded": self.stored_to_processed,
            "processed_to_delivered": self.processed_to_delivered,
            "loop_lag": self.loop_lag,
            "database_write": self.database_write,
        }
        self._registry.register(_Scrape(self))

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SECONDS, registry=self._registry)

    def observe(self, stage: str, seconds: float) -> None:
        """The engines' hook; ``stage`` is theirs to name (``ran:PROCESSOR``, ``recorded`` …)."""
        kind, _, name = stage.partition(":")
        if kind == "ran":
            self.processor_seconds.labels(name).observe(max(0.0, seconds))
        elif kind == "blobs":
            self.blob_seconds.labels(name).observe(max(0.0, seconds))
        elif kind in self._counters:
            self._counters[kind].labels(name).inc()
        elif kind == "taken_back":
            self.taken_back.inc()
        else:
            self._stages[kind].observe(max(0.0, seconds))

    def render(self, snapshot: Snapshot) -> bytes:
        """The text of a scrape (Prometheus exposition format 0.0.4)."""
        self._snapshot = snapshot
        return generate_latest(self._registry)

    def families(self) -> Iterable[Metric]:
        snapshot = self._snapshot
        yield from self._hosts(snapshot.hosts)
        yield from self._state(snapshot)
        yield from self._work(snapshot)
        yield from self._fleet(snapshot.fleet)
        yield GaugeMetricFamily(
            "mailmill_blobs_reachable",
            "1 while raw messages can be stored and read, as far as the last try has shown.",
            value=float(snapshot.blobs_reachable),
        )
        yield GaugeMetricFamily(
            "mailmill_processor_threads_stuck",
            "Threads of `def` processors that are past their time and have not come back.",
            value=snapshot.threads_stuck,
        )

    def _hosts(self, hosts: Iterable[HostGauge]) -> Iterable[Metric]:
        logins = CounterMetricFamily(
            "mailmill_host_logins",
            "Logins at a host by how they ended; `heldBack` were not begun, to spare the host.",
            labels=["host", "outcome"],
        )
        waiting = GaugeMetricFamily("mailmill_host_waiting", "Accounts in line for a login at a host.", labels=["host"])
        connections = GaugeMetricFamily(
            "mailmill_host_connections", "Connections to a host, of all accounts together.", labels=["host"]
        )
        pause = GaugeMetricFamily(
            "mailmill_host_pause_seconds", "How much longer a failing host is left in peace.", labels=["host"]
        )
        for host in hosts:
            for outcome, count in host.logins.items():
                logins.add_metric([host.host, outcome], count)
            waiting.add_metric([host.host], host.waiting)
            connections.add_metric([host.host], host.connections)
            pause.add_metric([host.host], host.pause_seconds)
        return logins, waiting, connections, pause

    def _state(self, snapshot: Snapshot) -> Iterable[GaugeMetricFamily]:
        silent = GaugeMetricFamily(
            "mailmill_account_seconds_since_round_trip",
            "Seconds since the server last proved to be there (-1: not connected).",
            labels=["account"],
        )
        connected = GaugeMetricFamily(
            "mailmill_account_connected", "1 while the account is connected or syncing.", labels=["account", "state"]
        )
        connections = GaugeMetricFamily(
            "mailmill_account_connections", "Open IMAP connections of an account.", labels=["account"]
        )
        open_requests = GaugeMetricFamily(
            "mailmill_requests_open",
            "Changes that were asked for and are not done on the server yet.",
            labels=["account"],
        )
        gaps = GaugeMetricFamily(
            "mailmill_verify_gaps",
            "Differences between server and store that the last look found; a kind without any is left out.",
            labels=["account", "kind"],
        )
        verified = GaugeMetricFamily(
            "mailmill_verify_last_timestamp_seconds",
            "When the last look at the account was over (seconds since the epoch).",
            labels=["account"],
        )
        for account in snapshot.accounts:
            for kind, count in account.gaps.items():
                gaps.add_metric([account.account, kind], count)
            if account.verified_at is not None:
                verified.add_metric([account.account], account.verified_at)
            silent.add_metric([account.account], -1.0 if account.silent_seconds is None else account.silent_seconds)
            up = account.state in {"connected", "syncing"}
            connected.add_metric([account.account, account.state], float(up))
            connections.add_metric([account.account], account.connections)
            open_requests.add_metric([account.account], account.open_requests)
        parked = GaugeMetricFamily(
            "mailmill_parked_messages",
            "Messages the server lists but that could not be fetched.",
            value=snapshot.parked,
        )
        return silent, connected, connections, open_requests, parked, gaps, verified

    def _work(self, snapshot: Snapshot) -> Iterable[GaugeMetricFamily]:
        rows = GaugeMetricFamily(
            "mailmill_queue_rows",
            "Rows of work by processor and state; `backlog` is what is pending behind new mail.",
            labels=["processor", "state"],
        )
        oldest = GaugeMetricFamily(
            "mailmill_queue_oldest_seconds",
            "Age of the oldest work of a processor that could run now (`pending`, `backlog`) or that runs.",
            labels=["processor", "state"],
        )
        for each in snapshot.queue:
            rows.add_metric([each.processor, each.state], each.rows)
            if each.oldest_seconds is not None:
                oldest.add_metric([each.processor, each.state], each.oldest_seconds)
        quarantined = GaugeMetricFamily(
            "mailmill_queue_quarantined",
            "Failed work that had killed a worker.",
            labels=["processor"],
        )
        for processor, count in snapshot.quarantined.items():
            quarantined.add_metric([processor], count)
        deliveries = GaugeMetricFamily("mailmill_deliveries", "Deliveries by state.", labels=["state"])
        for state, count in snapshot.deliveries.items():
            deliveries.add_metric([state], count)
        backlog = GaugeMetricFamily(
            "mailmill_delivery_backlog", "Deliveries that wait for a destination.", labels=["destination"]
        )
        waited = GaugeMetricFamily(
            "mailmill_delivery_oldest_seconds",
            "Age of the oldest delivery that waits for a destination.",
            labels=["destination"],
        )
        for destination in snapshot.backlogs:
            backlog.add_metric([destination.destination], destination.pending)
            waited.add_metric([destination.destination], destination.oldest_seconds)
        unplanned = GaugeMetricFamily(
            "mailmill_events_unplanned",
            "Events that the outbox has not looked at yet.",
            value=snapshot.events_unplanned,
        )
        lag = GaugeMetricFamily(
            "mailmill_event_lag_seconds", "Age of the oldest of them.", value=snapshot.event_lag_seconds
        )
        return rows, oldest, quarantined, deliveries, backlog, waited, unplanned, lag

    def _fleet(self, fleet: FleetGauge) -> Iterable[GaugeMetricFamily]:
        nodes = GaugeMetricFamily(
            "mailmill_nodes", "Nodes that share the database: `alive`, `stopping` or `silent`.", labels=["state"]
        )
        for state, count in fleet.nodes.items():
            nodes.add_metric([state], count)
        owned = GaugeMetricFamily(
            "mailmill_shards_owned", "Shards whose accounts this process keeps in sync.", value=fleet.owned
        )
        unowned = GaugeMetricFamily(
            "mailmill_shards_unowned", "Shards that no node has: their accounts stand still.", value=fleet.unowned
        )
        return nodes, owned, unowned


class _Scrape(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()
