"""The loop's own threads. What of them holds up the end of the service is in test_app_supervisor."""

from __future__ import annotations

import threading

import pytest

from mailmill.app.daemon_threads import DaemonThreads


def test_a_thread_that_could_not_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = DaemonThreads(1)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(threading.Thread, "start", refuse)
        threads.submit(int)
    assert threads.submit(int, "7").result(30) == 7
    threads.shutdown()
