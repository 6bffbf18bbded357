"""Rows in the words of the public contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailmill.app import views
from mailmill.app.access_token import ensure_token
from mailmill.app.metrics import AccountGauge, BacklogGauge, FleetGauge, Metrics, QueueGauge, Snapshot
from mailmill.errors import CommandError, StoreError
from mailmill.message_parser import parse_message
from mailmill.store.blobs import BlobRef
from mailmill.store.message_listing import ListedMessage
from mailmill.store.message_queries import MessageRow, ResultRow
from mailmill.sync.report import PassReport

CONTRACT_KEYS = {
    "account",
    "mailboxes",
    "new",
    "updated",
    "expunged",
    "bytes",
    "seconds",
    "round_trips",
    "connections_opened",
    "error",
}


def test_times_are_iso_8601_in_utc() -> None:
    assert views.iso(0) == "1970-01-01T00:00:00.000Z"
    assert views.iso(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
    assert views.iso(None) is None
    assert views.iso(1e20) is None


def test_a_pass_report_has_the_contract_s_keys() -> None:
    report = PassReport("work", mailboxes=3, new=2)
    error = CommandError("SELECT", "NO", "", "not now")
    error.account, error.mailbox = "work", "Lists"
    shown = views.pass_report(report)
    assert set(shown) == CONTRACT_KEYS
    assert shown["error"] is None
    report.errors.append(error)
    shown = views.pass_report(report)
    assert shown["error"]["code"] == "command"
    assert "'Lists'" in shown["error"]["message"]


FINDING = {"id": "links.shortener", "family": "links", "severity": "low", "score": 12.0, "evidence": "<b>x</b>"}
THREAT = {"verdict": "clean", "score": 12.0, "findings": [FINDING], "reasons": ["Short."], "promptInjection": True}

MESSAGE = MessageRow(
    id=7,
    account_id=1,
    account="work",
    email_id=None,
    x_gm_msgid=None,
    thread_id=None,
    size_bytes=10,
    internal_date=1.0,
    date_header=None,
    subject="Hello",
    from_name="",
    from_address="a@example.org",
    message_id_header="",
    in_reply_to="",
    historical=False,
    stored_at=1.0,
    processed_at=None,
    deleted_at=None,
    raw_expired_at=None,
    status="completed",
    blob=BlobRef(b"", "", 0, 0),
)


def test_a_listing_carries_the_mark_and_the_reasons_but_no_stranger_s_evidence() -> None:
    shown = views.listed_message(ListedMessage(MESSAGE, None, {"threat": THREAT}))
    assert shown["threat"] == {"verdict": "clean", "score": 12.0, "reasons": ["Short."], "promptInjection": True}
    assert views.listed_message(ListedMessage(MESSAGE, None, {}))["threat"] is None


def test_a_message_carries_all_of_its_threat_result_of_the_newest_version() -> None:
    old = {"verdict": "malicious", "score": 90.0, "findings": []}
    results = [ResultRow("threat", version, value, 1, 0.1, 1.0) for version, value in ((2, THREAT), (1, old))]
    shown = views.message_detail(MESSAGE, [], results, [], parse_message(b""), "", html_cut=False)
    assert shown["threat"] == THREAT
    shown = views.message_detail(MESSAGE, [], results[1:], [], parse_message(b""), "", html_cut=False)
    assert shown["threat"] == old | {"reasons": [], "promptInjection": None}, "nobody looked: that is no False"


def test_metrics_show_what_was_observed() -> None:
    metrics = Metrics()
    metrics.observe("recorded", 0.2)
    metrics.observe("ran:threat", 0.01)
    for stage in ("failed:threat", "failed:threat", "gave_up:threat", "taken_back", "database_write"):
        metrics.observe(stage, 0.1)
    metrics.stored.inc(3)
    text = metrics.render(
        Snapshot(
            accounts=(AccountGauge("work", "connected", 1.5, 2), AccountGauge("home", "connectError", None, 0)),
            queue=(QueueGauge("threat", "pending", 7, 4.0), QueueGauge("threat", "failed", 1, None)),
            quarantined={"threat": 2},
            backlogs=(BacklogGauge("hook", 5, 6.0),),
            events_unplanned=9,
            event_lag_seconds=3.0,
            fleet=FleetGauge({"alive": 2}, 32, 1),
            deliveries={"failed": 1},
            parked=2,
        )
    ).decode()
    for line in (
        "mailmill_messages_stored_total 3.0",
        "mailmill_stored_to_processed_seconds_count 1.0",
        'mailmill_processor_seconds_count{processor="threat"} 1.0',
        'mailmill_account_seconds_since_round_trip{account="work"} 1.5',
        'mailmill_account_seconds_since_round_trip{account="home"} -1.0',
        'mailmill_account_connected{account="home",state="connectError"} 0.0',
        'mailmill_queue_rows{processor="threat",state="pending"} 7.0',
        'mailmill_queue_oldest_seconds{processor="threat",state="pending"} 4.0',
        'mailmill_queue_quarantined{processor="threat"} 2.0',
        'mailmill_work_failed_runs_total{processor="threat"} 2.0',
        'mailmill_work_given_up_total{processor="threat"} 1.0',
        "mailmill_work_taken_back_total 1.0",
        "mailmill_database_write_seconds_count 1.0",
        'mailmill_delivery_backlog{destination="hook"} 5.0',
        'mailmill_delivery_oldest_seconds{destination="hook"} 6.0',
        "mailmill_events_unplanned 9.0",
        "mailmill_event_lag_seconds 3.0",
        'mailmill_nodes{state="alive"} 2.0',
        "mailmill_shards_owned 32.0",
        "mailmill_shards_unowned 1.0",
        'mailmill_deliveries{state="failed"} 1.0',
        "mailmill_parked_messages 2.0",
    ):
        assert line in text


def test_a_stage_nobody_knows_is_a_bug_not_silence() -> None:
    with pytest.raises(KeyError):
        Metrics().observe("no_such_stage", 1.0)


def test_the_token_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path
    token = ensure_token(folder)
    assert len(token) > 40
    assert ensure_token(folder) == token
    assert (folder / "api-token").stat().st_mode & 0o777 == 0o600
    (folder / "api-token").write_text("")
    with pytest.raises(StoreError, match="does not hold a token"):
        ensure_token(folder)
