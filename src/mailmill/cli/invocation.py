"""What one call of ``mailmill`` was asked, and how its work is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mailmill.cli.safe_text import one_line

if TYPE_CHECKING:
    from mailmill.cli.output import Output
    from mailmill.cli.service_client import ServiceClient
    from mailmill.settings import Settings

_Result = TypeVar("_Result")


@dataclass(slots=True)
class Invocation:
    """The options that every command shares. Made by ``main``, kept as the context's object."""

    config: Path | None = None
    json: bool = False
    debug: bool = False

    def settings(self) -> Settings:
        """The configuration; its warnings go to stderr. Raises ConfigurationError."""
        from mailmill.settings import load_settings

        settings = load_settings(self.config, os.environ)
        for warning in settings.warnings:
            print(f"warning: {one_line(warning)}", file=sys.stderr)  # noqa: T201  # stderr is where remarks belong
        return settings

    def output(self) -> Output:
        from mailmill.cli.output import Output

        return Output(as_json=self.json)

    def call(
        self, work: Callable[[ServiceClient, Settings], Awaitable[_Result]], *, makes_store: bool = True
    ) -> _Result:
        """Run ``work`` with a client for the service of this configuration. ``makes_store``: see `open_client`."""
        from mailmill.cli.service_client import open_client

        settings = self.settings()
        self.quiet_logs()

        async def run() -> _Result:
            async with open_client(settings, makes_store=makes_store) as client:
                return await work(client, settings)

        return self.run(run())

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run ``coroutine`` on a fresh uvloop."""
        import uvloop

        return uvloop.run(coroutine)

    def quiet_logs(self) -> None:
        """For the commands that open the application in this process; ``run`` sets up its own logs."""
        from mailmill.cli import logs

        logs.quiet(debug=self.debug)


def remember_json(context: typer.Context, value: bool) -> bool:
    """Kept on the invocation, so that an error leaves as JSON too."""
    invocation = context.find_object(Invocation)
    if value and invocation is not None:
        invocation.json = True
    return value


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.", callback=remember_json)]


def invocation_of(context: typer.Context) -> Invocation:
    return context.find_object(Invocation) or Invocation()
