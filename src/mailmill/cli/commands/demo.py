"""``mailmill demo``: the whole service on sample mail, with no account of one's own."""

from __future__ import annotations

import typer

from mailmill.cli.invocation import JsonOption, invocation_of


def demo(context: typer.Context, json: JsonOption = False) -> None:
    """Try mailmill on sample mail that keeps arriving; Ctrl-C ends it and leaves nothing behind."""
    from mailmill.app.demo import run_demo
    from mailmill.cli.serving import serve

    invocation = invocation_of(context)
    invocation.run(run_demo(serve=serve, as_json=json))
