"""After a sleep every account proves its link, spread over a while."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from mailmill.app.application import Application
from mailmill.app.supervisor import _wake


def application(accounts: int, *, syncing: bool = True) -> Application:
    made = {
        f"a{number}": SimpleNamespace(kept=syncing, sync=SimpleNamespace(woke=number)) for number in range(accounts)
    }
    return cast(Application, SimpleNamespace(accounts=made))


def wake(app: Application) -> list[tuple[float, Any]]:
    """When which account would be woken."""
    calls: list[tuple[float, Any]] = []
    _wake(app, 28_800.0, lambda seconds, callback: calls.append((seconds, callback)))
    return calls


def test_each_account_is_woken_once_and_a_few_at_once() -> None:
    calls = wake(application(3))
    assert [callback for _, callback in calls] == [0, 1, 2]
    assert max(seconds for seconds, _ in calls) < 0.1


def test_thousands_are_spread_over_half_a_minute() -> None:
    delays = [seconds for seconds, _ in wake(application(10_000))]
    assert delays == sorted(delays)
    assert 29 < delays[-1] < 30
    assert sum(delay < 1 for delay in delays) < 400


def test_who_syncs_nothing_wakes_nobody() -> None:
    assert wake(application(3, syncing=False)) == []
