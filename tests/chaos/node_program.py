"""A node of a fleet that can be killed and started again and again: the service whole, in forks of one process.

``node_program.py CONFIG ORDERS`` says ``{"ready": true}`` when all is imported, which is paid for once, and waits for
lives, one a line on stdin: ``{"journal": FOLDER, "life": NAME}``. It forks a child for each, which reads CONFIG and
runs the service with its commit points wrapped (`commit_points`), says ``{"pid": …}``, and ``{"ended": exit code}``
when the child is gone, minus the signal's number where it was killed. Both die with their parents.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

import chaos.trivial_processors  # noqa: F401 - imported once, for all lives
import mailmill.processing.builtin
import mailmill.store.postgres_database  # noqa: F401 - as above
from chaos.commit_points import CommitPoints
from chaos.holders import holders
from chaos.journal import Journal
from chaos.orders import Orders
from mailmill.alerts import dispatcher, pump
from mailmill.app import application, logs, supervisor
from mailmill.cli.serving import serve
from mailmill.errors import MailmillError, StoreInUseError
from mailmill.processing.worker import WorkerSettings
from mailmill.settings import load_settings
from mailmill.store import sqlite_database
from mailmill.sync import account_sync, write_plan

_PR_SET_PDEATHSIG = 1
# A node that shows no life for half of it takes none for dead: it may be the machine that is too busy.
_DEAD_AFTER_SECONDS = 6.0


def hasten() -> None:
    """What is found dead after a minute is found dead after a few seconds, and nobody waits long to try again."""
    application.WorkerSettings = partial(  # type: ignore[misc,assignment]
        WorkerSettings,
        threads=2,
        children=1,
        poll_seconds=1.0,
        heartbeat_seconds=0.5,
        dead_after_seconds=_DEAD_AFTER_SECONDS,
    )
    dispatcher.HEARTBEAT_SECONDS = 0.5  # type: ignore[misc]
    dispatcher.DEAD_AFTER_SECONDS = _DEAD_AFTER_SECONDS  # type: ignore[misc]
    dispatcher.POLL_SECONDS = pump.POLL_SECONDS = 1.0  # type: ignore[misc]
    account_sync.delay_seconds = _at_most(0.5, account_sync.delay_seconds)
    write_plan.retry_seconds = _at_most(0.5, write_plan.retry_seconds)
    # As it is, the WAL mostly has room of its own, and a checkpoint is rare: a full disk would seldom show.
    sqlite_database._WRITER_PRAGMAS = (
        *sqlite_database._WRITER_PRAGMAS,
        "PRAGMA wal_autocheckpoint=250",
        "PRAGMA journal_size_limit=0",
    )


def _at_most(longest: float, real: Callable[..., float]) -> Callable[..., float]:
    return lambda *arguments, **options: min(longest, real(*arguments, **options))


def live(config: Path, order: Path, job: dict[str, Any]) -> None:
    journal = Journal(Path(job["journal"]), job["life"])
    CommitPoints(journal, Orders(order)).install()
    hasten()
    settings = load_settings(config, os.environ)
    logs.configure(level=settings.service.log_level, form=settings.service.log_format, file=None)
    try:
        uvloop.run(supervisor.run_service(settings, serve=partial(serve, announce=lambda _link: None)))
    except Exception as error:
        if isinstance(error, StoreInUseError):
            # The life before this one is over: whoever holds the folder is none that should.
            journal.write("in use", holders=holders(settings.service.data_dir / "lock"))
        journal.write("gave up", codes=sorted(codes(error)))
        raise


def codes(error: BaseException) -> set[str]:
    """The codes of the errors that it is made of; of what was not raised on purpose, its kind."""
    if isinstance(error, BaseExceptionGroup):
        return {code for each in error.exceptions for code in codes(each)}
    return {error.code if isinstance(error, MailmillError) else type(error).__name__}


def main() -> None:
    config, order = Path(sys.argv[1]), Path(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    say(ready=True)
    for line in sys.stdin.buffer:
        parent = os.getpid()
        child = os.fork()
        if not child:
            code = 1
            try:
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:
                    live(config, order, json.loads(line))
                    code = 0
            except BaseException:  # noqa: BLE001 - a fork must never return into its parent's loop
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        say(pid=child)
        say(ended=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
