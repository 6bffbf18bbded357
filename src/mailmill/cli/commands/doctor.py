"""``mailmill doctor``: what is installed, reachable and writable, and what to do about what is not."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import typer

from mailmill.cli.invocation import Invocation, JsonOption, invocation_of
from mailmill.errors import ConfigurationError, MailmillError

if TYPE_CHECKING:
    from mailmill.cli.diagnosis.findings import Check
    from mailmill.cli.output import Output

SIGNS = {"ok": "✓", "warn": "!", "fail": "✗"}


def doctor(context: typer.Context, json: JsonOption = False) -> int:
    """Look at what mailmill needs and say what to do about what is not well. Changes nothing."""
    from mailmill.cli.diagnosis.findings import exit_code_of

    invocation = invocation_of(context)
    output = invocation.output()
    invocation.quiet_logs()
    if output.shows_progress:
        with output.remarks.status("looking around"):
            checks = invocation.run(_look(invocation))
    else:
        checks = invocation.run(_look(invocation))
    if json:
        worst = max(checks, key=lambda check: list(SIGNS).index(check.level)).level
        output.json({"worst": worst, "checks": [check.as_json() for check in checks]})
    else:
        _show(output, checks)
    return exit_code_of(checks)


async def _look(invocation: Invocation) -> list[Check]:
    from mailmill.cli.diagnosis import (
        findings,
        machine,
        master_key,
        network,
        own_processors,
        postgres,
        raw_messages,
        storage,
        threat_rules,
    )
    from mailmill.cli.service_client import open_client, service_runs
    from mailmill.settings import load_settings

    checks = await asyncio.to_thread(machine.look)
    try:
        settings = await asyncio.to_thread(load_settings, invocation.config, os.environ)
    except ConfigurationError as error:
        return checks + [findings.fail("Configuration", problem, error.hint, error.code) for problem in error.problems]
    source = str(settings.config_file or "environment and defaults (no file)")
    checks.append(findings.ok("Configuration", source))
    checks += [findings.warn("Configuration", warning) for warning in settings.warnings]
    rules = await asyncio.to_thread(threat_rules.look, settings)
    checks += rules
    try:
        runs = await service_runs(settings.service.socket_path)
    except MailmillError as error:
        return [*checks, findings.from_error("Service", error)]
    if not runs and all(check.level != "fail" for check in rules):
        # A service that runs has imported them, perhaps from a PYTHONPATH that is not ours.
        checks += await asyncio.to_thread(own_processors.look, settings)
    checks += await asyncio.to_thread(storage.look, settings, service_runs=runs)
    checks += await postgres.look(settings)
    checks += await master_key.look(settings)
    checks += await raw_messages.look(settings)
    if not runs:
        return checks + await network.look(settings, os.environ, None)
    async with open_client(settings) as client:
        return checks + await network.look(settings, os.environ, client if client.service_runs else None)


def _show(output: Output, checks: list[Check]) -> None:
    from mailmill.cli.output import Cell, stated

    width = max(len(check.subject) for check in checks)
    for check in checks:
        output.line(
            stated(check.level, f"{SIGNS[check.level]} "), Cell(f"{check.subject:<{width}}  ", "bold"), check.text
        )
        if check.remedy:
            output.line(" " * (width + 4), Cell(f"→ {check.remedy}", "cyan"))
    failed = sum(check.level == "fail" for check in checks)
    warned = sum(check.level == "warn" for check in checks)
    output.remark("all is well" if not failed and not warned else f"{failed} failed, {warned} to look at")
