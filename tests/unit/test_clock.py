"""The clock by which leases end."""

from __future__ import annotations

import time

import pytest

from mailmill import clock


@pytest.mark.skipif(
    not hasattr(time, "CLOCK_BOOTTIME"), reason="this system counts no sleep: there is no CLOCK_BOOTTIME"
)
def test_sleep_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that slept for an hour CLOCK_BOOTTIME is an hour ahead of CLOCK_MONOTONIC."""
    monotonic = time.monotonic()
    clocks = {time.CLOCK_MONOTONIC: monotonic, time.CLOCK_BOOTTIME: monotonic + 3600}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic)
    assert clock.boot_seconds() == monotonic + 3600
