"""Python, the packages, the clock."""

from __future__ import annotations

import platform
import re
import sys
import time
from importlib import metadata
from pathlib import Path

import mailmill.errors
from mailmill.cli.diagnosis.findings import Check, fail, ok, warn

OLDEST_PYTHON = (3, 11)
EXTRAS = {"demo": ("pymap", "for: mailmill demo")}


def look() -> list[Check]:
    return [python_version(sys.version_info[:2]), *packages(), clock(time.time())]


def python_version(version: tuple[int, int]) -> Check:
    shown = platform.python_version()
    if version < OLDEST_PYTHON:
        return fail("Python", f"{shown} is too old", "use Python 3.11 or newer", "configuration")
    return ok("Python", f"{shown} ({platform.system()} {platform.machine()})")


def packages() -> list[Check]:
    """What mailmill requires, and what its extras would add."""
    try:
        required = metadata.requires("mailmill") or []
    except metadata.PackageNotFoundError:
        return [warn("Packages", "mailmill is not installed as a package", "run it from its virtual environment")]
    names = [match[0] for each in required if "extra ==" not in each and (match := re.match(r"[\w.-]+", each))]
    missing = [name for name in names if _installed(name) is None]
    checks = [
        fail("Packages", f"missing: {', '.join(missing)}", "install mailmill again into its virtual environment")
        if missing
        else ok("Packages", f"mailmill {metadata.version('mailmill')}, all {len(names)} packages it needs")
    ]
    for extra, (package, purpose) in EXTRAS.items():
        held = _installed(package)
        if held is None:
            checks.append(warn(package, f"not installed ({purpose})", f"pip install 'mailmill[{extra}]'"))
        else:
            checks.append(ok(package, f"{held} ({purpose})"))
    return checks


def clock(now: float) -> Check:
    """A clock behind makes certificates invalid and signatures stale. It cannot be before we were installed."""
    installed = Path(mailmill.errors.__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < installed - 86_400:
        return fail("Clock", f"{shown} is before mailmill was installed", "set the clock; run a time service (NTP)")
    return ok("Clock", shown)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
