"""``mailmill run``: the service, until it is told to stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from mailmill.cli.invocation import JsonOption, invocation_of

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from mailmill.app.application import Application


def run(context: typer.Context, json: JsonOption = False) -> None:
    """Run the service: sync, process, alert and answer, until Ctrl-C or SIGTERM."""
    invocation = invocation_of(context)
    settings = invocation.settings()

    from mailmill.app import logs
    from mailmill.app.supervisor import run_service
    from mailmill.cli.serving import serve

    service = settings.service
    logs.configure(
        level="debug" if invocation.debug else service.log_level,
        form="json" if json else service.log_format,
        file=service.log_file,
    )

    def announce(link: str) -> None:
        if json:
            invocation.output().json({"page": link}, indent=None)
        else:
            # The whole line in one write: the logs go to the same stream from other threads, and a log line glued to
            # the link would break it.
            sys.stderr.write(f"mailmill is running. Its page (the link works once): {link}\n")
            sys.stderr.flush()

    def serving(application: Application) -> AbstractAsyncContextManager[None]:
        return serve(application, announce=announce)

    invocation.run(run_service(settings, serve=serving))
