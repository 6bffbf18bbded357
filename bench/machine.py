"""Where it was measured: figures mean nothing without it."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import REPOSITORY


def describe() -> dict[str, str]:
    """What can move a figure: processors, memory, kernel, versions of both sides. Order is that of display."""
    facts = {
        "cores": f"{os.cpu_count()} ({_processor()})",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "uvloop": _version("uvloop"),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": _said([_postgres(), "--version"]),
        "redis": _said(["redis-server", "--version"]),
        "dovecot": _said(["dovecot", "--version"]),
        "mbsync": _said(["mbsync", "--version"]),
        "node": _said(["node", "--version"]),
        "mailmill": f"{_version('mailmill')} ({_commit()})",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _postgres() -> str:
    """Debian keeps it out of PATH, a folder for each version."""
    return str(max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default="postgres"))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def _commit() -> str:
    commit = _said(["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"])
    changed = _said(["git", "-C", str(REPOSITORY), "status", "--porcelain", "--", "src"])
    return f"{commit}{' and changes' if changed else ''}"


def _said(command: list[str]) -> str:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env={**os.environ, "PATH": path})
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0]
