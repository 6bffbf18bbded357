"""Who holds a file locked, as Linux tells it of all processes: asked when a data folder is in use that nobody should
be using.

`/proc/locks` names whoever took the lock, which may be dead: a lock is its open file's, and a fork has that too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def holders(file: Path) -> list[dict[str, Any]]:
    """The processes with an open ``file`` that is locked, and what each of them is at; as far as one may know."""
    return [_seen(process) for process in Path("/proc").iterdir() if process.name.isdigit() and _holds(process, file)]


def told(found: list[dict[str, Any]]) -> str:
    """One line of it."""
    return (
        "; ".join(
            f"{each['pid']} ({each['state']}, in {each['waits_in']}, child of {each['parent']}): {each['command']}"
            for each in found
        )
        or "nobody who could be found"
    )


def _holds(process: Path, file: Path) -> bool:
    return any("lock:" in _text(process / "fdinfo" / descriptor) for descriptor in _opened(process, file))


def _opened(process: Path, file: Path) -> Iterator[str]:
    # Processes and descriptors go while they are looked at.
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.readlink() == file:
                    yield descriptor.name


def _seen(process: Path) -> dict[str, Any]:
    status = dict(line.split(":\t", 1) for line in _text(process / "status").splitlines() if ":\t" in line)
    return {
        "pid": int(process.name),
        "parent": int(status.get("PPid", 0)),
        "state": status.get("State", "gone"),
        "command": _text(process / "cmdline").replace("\0", " ").strip(),
        "waits_in": _text(process / "wchan"),
        "stack": _text(process / "stack").splitlines(),
        "threads": {thread.name: _text(thread / "wchan") for thread in _threads(process)},
    }


def _threads(process: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list((process / "task").iterdir())
    return []


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(errors="replace")
    return ""
