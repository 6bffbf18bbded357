"""The layers of the system, read from the imports: an upward or sideways edge fails here.

The map is the whole truth: a room that is not in it fails too, so a new one takes its place on purpose.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mailmill

SOURCE = Path(mailmill.__file__).parent
MAX_LINES = 600

_BASE = {"clock", "errors", "model", "programs", "uid_set"}
_ROOMS = {"message_parser", "imap", "smtp", "store"}
_ENGINES = {"sync", "processing", "alerts", "sending"}

# room → the rooms it may import; its own is always allowed.
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(_BASE, _BASE),
    **dict.fromkeys(_ROOMS, _BASE),
    **dict.fromkeys(_ENGINES, _BASE | _ROOMS),
    "settings": _BASE,
    "app": _BASE | _ROOMS | _ENGINES | {"settings"},
    "api": _BASE | {"app"},
    "mcp": _BASE | {"app"},
    # `mailmill run` mounts the API in its own process and reads the configuration that it hands to the app.
    "cli": _BASE | {"app", "api", "settings"},
    "__main__": {"cli"},
    # `from mailmill import processor`, loaded on first use; the root holds no other code.
    "__init__": {"processing"},
}

# Single files that may reach further: (file or folder, module, why).
EXCEPTIONS: list[tuple[str, str, str]] = [
    ("cli/diagnosis/network.py", "mailmill.imap", "`doctor` tries a server without a service or a store"),
    ("cli/diagnosis/storage.py", "mailmill.store", "`doctor` looks at a store that no service has opened"),
    ("cli/diagnosis/postgres.py", "mailmill.store", "the same, where the store is a server"),
    ("cli/diagnosis/master_key.py", "mailmill.store", "the same: is the key the one that the store was written with?"),
    ("cli/commands/message.py", "mailmill.processing.html_text", "a pure function: HTML to text for a terminal"),
]

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}


@dataclass(frozen=True, slots=True)
class Import:
    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else file.stem


def imports_of(text: str, file: str) -> Iterator[Import]:
    """Every import of the project in a file, those inside of functions and under TYPE_CHECKING included."""
    package = ["mailmill", *Path(file).parent.parts]
    for node in ast.walk(ast.parse(text, filename=file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mailmill":
                    yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module or "") if part)
            if module == "mailmill":
                yield from (Import(file, node.lineno, f"mailmill.{alias.name}") for alias in node.names)
            elif module.startswith("mailmill."):
                yield Import(file, node.lineno, module)


def fault_of(room: str, found: Import) -> str | None:
    """What is wrong with an import, or None."""
    target = found.module.split(".")[1] if "." in found.module else ""
    if target.startswith("__") or target in ("", room):
        return None
    if target in MAY_IMPORT.get(room, set()):
        return None
    for file, module, _ in EXCEPTIONS:
        if found.file == file and (found.module == module or found.module.startswith(f"{module}.")):
            return None
    return f"{found}: `{room}` may not import `{target}`"


def test_imports_point_one_way() -> None:
    faults = [
        fault
        for file in source_files()
        for found in imports_of(file.read_text(encoding="utf-8"), str(file.relative_to(SOURCE)))
        if (fault := fault_of(room_of(file), found))
    ]
    assert not faults, "\n".join(faults)


def test_every_room_has_its_place() -> None:
    rooms = {room_of(file) for file in source_files()}
    assert rooms <= MAY_IMPORT.keys(), f"add to the map, with what it may import: {rooms - MAY_IMPORT.keys()}"


def test_the_map_has_no_way_up() -> None:
    """No two rooms may import each other, the base values apart, over any number of steps."""

    def reach(room: str) -> set[str]:
        seen: set[str] = set()
        queue = [room]
        while queue:
            for target in MAY_IMPORT[queue.pop()] - seen:
                seen.add(target)
                queue.append(target)
        return seen

    for room in MAY_IMPORT.keys() - _BASE:
        assert room not in reach(room), room


def test_every_exception_is_used() -> None:
    for file, module, why in EXCEPTIONS:
        path = SOURCE / file
        assert path.exists(), f"{file} is gone ({why})"
        assert any(found.module.startswith(module) for found in imports_of(path.read_text(encoding="utf-8"), file)), (
            f"{file} no longer imports {module}: take the exception out"
        )


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    odd = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*")
        if path.stem in FORBIDDEN_NAMES or (path.suffix == ".py" and set(path.stem.split("_")) & {"utils", "helpers"})
    ]
    assert not odd, odd


def test_files_are_small() -> None:
    large = {
        str(file.relative_to(SOURCE)): lines
        for file in source_files()
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not large, f"over {MAX_LINES} lines, so with a second reason to change: {large}"


@pytest.mark.parametrize(
    ("file", "code", "module"),
    [
        ("store/queue.py", "from mailmill.imap.wire import Wire", "mailmill.imap.wire"),
        ("store/queue.py", "from mailmill import imap", "mailmill.imap"),
        ("store/queue.py", "import mailmill.sync.plan", "mailmill.sync.plan"),
        ("store/queue.py", "from ..imap import wire", "mailmill.imap"),
        ("store/queue.py", "def late():\n    from mailmill.app import use_cases", "mailmill.app"),
        ("sync/plan.py", "from mailmill.processing.registry import load", "mailmill.processing.registry"),
        ("imap/pool.py", "from mailmill.settings import Settings", "mailmill.settings"),
        ("api/routes.py", "from mailmill.store.queue import claim", "mailmill.store.queue"),
        ("cli/main.py", "from mailmill.imap.connection import ImapConnection", "mailmill.imap.connection"),
        ("model.py", "from mailmill.store import tables", "mailmill.store"),
    ],
)
def test_the_test_sees_a_wrong_edge(file: str, code: str, module: str) -> None:
    found = list(imports_of(code, file))
    assert [one.module for one in found] == [module]
    assert fault_of(room_of(SOURCE / file), found[0]) is not None


def test_the_test_sees_no_fault_in_a_right_edge() -> None:
    (found,) = imports_of("from mailmill.store.queue import claim", "processing/worker.py")
    assert fault_of("processing", found) is None
