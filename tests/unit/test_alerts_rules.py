"""Who wants an event, when it is tried again, and when a destination is left alone."""

from __future__ import annotations

import pytest

from mailmill.alerts.health import FAILURES, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Health
from mailmill.alerts.rules import LONGEST_WAIT_SECONDS, Destination, is_refusal, matching, retry_after
from mailmill.errors import DeliveryError
from mailmill.store.event_log import EventRow


def event(name: str = "messageNew", *, tenant: str = "default", historical: bool = False) -> EventRow:
    return EventRow(
        id=1,
        position=1,
        tenant_id=tenant,
        event=name,
        created_at=0.0,
        account_id=1,
        path="INBOX",
        special_use=None,
        message_id=1,
        historical=historical,
        data={},
    )


def wants(row: EventRow, account: str | None = "work", **destination: object) -> bool:
    return matching(row, [Destination("hook", **destination)], account) == ["hook"]  # type: ignore[arg-type]


def test_matching() -> None:
    assert wants(event())
    assert wants(event(), events=frozenset({"messageNew", "threatFound"}))
    assert not wants(event("messageUpdated"), events=frozenset({"messageNew"}))
    assert wants(event(), accounts=("home", "wo*"))
    assert not wants(event(), accounts=("home",))
    assert not wants(event(), accounts=("WORK",))
    assert wants(event(), account=None)
    assert not wants(event(), account=None, accounts=("*",))
    assert not wants(event(tenant="other"))
    assert not wants(event(historical=True)), "history is not delivered"


def test_matching_names_each_destination_that_wants_it() -> None:
    destinations = [Destination("a"), Destination("b", events=frozenset({"threatFound"})), Destination("c")]
    assert matching(event(), destinations, None) == ["a", "c"]


def test_secrets_show_nowhere() -> None:
    shown = repr(Destination("a", url="https://example.org/T0KEN", secret="whsec_c2VjcmV0"))
    assert "c2VjcmV0" not in shown
    assert "T0KEN" not in shown


HOOK = Destination("hook")


def test_the_wait_grows_with_full_jitter_up_to_six_hours() -> None:
    error = DeliveryError("down", status=503)
    longest = [retry_after(HOOK, error, attempts, 1.0) for attempts in range(1, 13)]
    assert longest[:4] == [5.0, 20.0, 80.0, 320.0]
    assert longest[10] == LONGEST_WAIT_SECONDS
    assert longest[11] is None, "twelve attempts, then it is given up"
    assert retry_after(HOOK, error, 5, 0.0) == 0.0
    assert retry_after(Destination("x", max_attempts=1), error, 1, 0.5) is None


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_a_refusal_is_tried_as_long_as_anything_else(status: int) -> None:
    error = DeliveryError("no", status=status)
    assert is_refusal(error), "nothing against its health"
    assert retry_after(HOOK, error, 11, 0.5) == retry_after(HOOK, DeliveryError("down", status=503), 11, 0.5)
    assert retry_after(HOOK, error, 11, 0.5) is not None
    assert retry_after(HOOK, error, 12, 0.5) is None


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 503])
def test_what_is_temporary_is_tried_on(status: int | None) -> None:
    error = DeliveryError("later", status=status)
    assert not is_refusal(error)
    assert retry_after(HOOK, error, 11, 0.5) is not None


def test_permanent_is_permanent() -> None:
    assert retry_after(HOOK, DeliveryError("gone", status=410, permanent=True), 1, 0.5) is None


def test_retry_after_lengthens_the_wait_within_bounds() -> None:
    assert retry_after(HOOK, DeliveryError("x", status=429, retry_after_seconds=60.0), 1, 0.5) == 60.0
    assert retry_after(HOOK, DeliveryError("x", status=429, retry_after_seconds=0.0), 1, 0.5) == 2.5
    assert retry_after(HOOK, DeliveryError("x", status=429, retry_after_seconds=1e9), 1, 0.5) == LONGEST_WAIT_SECONDS


def fail(health: Health, times: int, now: float) -> None:
    for _ in range(times):
        health.failed(now, now, 1.0)


def test_a_well_destination_gets_its_concurrency() -> None:
    health = Health(3)
    assert [health.allowance(flying, 0.0) for flying in (0, 2, 3, 4)] == [3, 1, 0, 0]
    fail(health, FAILURES - 1, 0.0)
    health.succeeded()
    fail(health, FAILURES - 1, 0.0)
    assert health.well, "failures count in a row only"


def test_after_failures_in_a_row_one_probe_at_a_time() -> None:
    health = Health(8)
    fail(health, FAILURES, 0.0)
    assert health.resume_at == FIRST_PAUSE_SECONDS
    assert health.allowance(0, FIRST_PAUSE_SECONDS - 0.1) == 0
    assert health.allowance(0, FIRST_PAUSE_SECONDS) == 1
    assert health.allowance(1, FIRST_PAUSE_SECONDS) == 0
    health.succeeded()
    assert health.allowance(1, FIRST_PAUSE_SECONDS) == 7


def test_the_pause_doubles_per_probe_and_not_per_request_that_fell_with_it() -> None:
    health = Health(8)
    fail(health, 8, 0.0)
    assert health.resume_at == FIRST_PAUSE_SECONDS
    health.failed(health.resume_at, health.resume_at, 1.0)
    assert health.resume_at == 3 * FIRST_PAUSE_SECONDS
    for _ in range(20):
        before = health.resume_at
        health.failed(before, before, 1.0)
    assert health.resume_at - before == LONGEST_PAUSE_SECONDS


def test_a_destination_that_asks_for_a_pause_gets_it_at_once() -> None:
    health = Health(8)
    health.failed(0.0, 0.0, 1.0, wait_seconds=30.0)
    assert not health.well
    assert health.resume_at == 30.0
