"""The data folder, the service that may hold it, the database. Blocking; called in a thread."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from mailmill.cli.diagnosis.findings import Check, fail, ok, warn
from mailmill.cli.safe_text import size
from mailmill.settings import Settings

LITTLE_SPACE_BYTES = 1024**3
NO_SPACE_BYTES = 64 * 1024**2
SQLITE = "sqlite+aiosqlite:///"


def look(settings: Settings, *, service_runs: bool) -> list[Check]:
    data_dir = settings.service.data_dir
    checks = [*data_folder(data_dir), _service(settings, service_runs)]
    if settings.service.log_file is not None:
        checks.append(_log_file(settings.service.log_file))
    url = settings.service.database_url.get_secret_value()
    if url.startswith(SQLITE):  # of the other: `postgres`
        checks.append(sqlite_database(Path(url.removeprefix(SQLITE).partition("?")[0]), data_dir))
    return checks


def data_folder(folder: Path) -> list[Check]:
    """Existence, owner, permissions, room."""
    try:
        info = folder.stat()
    except FileNotFoundError:
        parent = next(each for each in folder.parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return [ok("Data folder", f"{folder} (made at the first start)"), _space(parent)]
        return [
            fail("Data folder", f"{folder} cannot be made in {parent}", "set service.data_dir to a writable folder")
        ]
    except OSError as error:
        return [fail("Data folder", f"{folder}: {error.strerror}", "set service.data_dir to a folder of yours")]
    if not stat.S_ISDIR(info.st_mode):
        return [fail("Data folder", f"{folder} is no folder", "set service.data_dir to a folder")]
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return [
            fail("Data folder", f"{folder} is not writable for this user", "run as its owner, or set service.data_dir")
        ]
    checks = [ok("Data folder", str(folder))]
    if info.st_uid != os.geteuid():
        remedy = f"run mailmill as its owner, or: chown -R {os.geteuid()} {folder}"
        checks = [warn("Data folder", f"{folder} belongs to user {info.st_uid}, this is user {os.geteuid()}", remedy)]
    elif info.st_mode & 0o077:
        checks = [warn("Data folder", f"{folder} is open to other users", f"chmod 700 {folder}")]
    return [*checks, _space(folder)]


def _space(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    shown = f"{size(free)} free"
    if free < NO_SPACE_BYTES:
        return fail("Disk", shown, "free space on the disk of service.data_dir", "storageFull")
    if free < LITTLE_SPACE_BYTES:
        return warn("Disk", shown, "free space on the disk of service.data_dir soon")
    return ok("Disk", shown)


def _service(settings: Settings, service_runs: bool) -> Check:
    path = settings.service.socket_path
    if service_runs:
        return ok("Service", f"running, answers at {path}")
    left_over = " (a socket is left over from a crash; the next start replaces it)" if path.exists() else ""
    return ok("Service", f"not running{left_over}; start it with: mailmill run")


def _log_file(path: Path) -> Check:
    target = path if path.exists() else next(each for each in path.parents if each.exists())
    if os.access(target, os.W_OK) and not path.is_dir():
        return ok("Log file", str(path))
    return fail("Log file", f"{path} is not writable", "set service.log_file, or leave it out", "configuration")


def sqlite_database(path: Path, data_dir: Path) -> Check:
    """Opened read-only. Its schema may be behind (the next start migrates it), never ahead."""
    from mailmill.store.migrate import HEAD

    if not path.exists():
        if path.parent == data_dir or path.parent.is_dir():
            return ok("Database", f"{path} (made at the first start)")
        return fail("Database", f"the folder {path.parent} is missing", "make it, or correct service.database_url")
    try:
        with closing(sqlite3.connect(read_only_uri(path), uri=True, timeout=5)) as connection:
            held = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if held else None
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        remedy = "restore it from a backup, or move it away: the mail is fetched again from the servers"
        return fail("Database", f"{path}: {error}", remedy, "store")
    if damage != "ok":
        return fail("Database", f"{path} is damaged: {damage}", "restore it from a backup", "store")
    if row is None:
        return ok("Database", f"{path}, empty so far")
    if row[0] == HEAD:
        return ok("Database", f"{path}, schema {row[0]}, {size(path.stat().st_size)}")
    if row[0] < HEAD:
        return ok("Database", f"{path}, schema {row[0]}; the next start brings it to {HEAD}")
    return fail("Database", f"{path} has schema {row[0]}, newer than {HEAD}", "use the newer mailmill again", "store")


def read_only_uri(path: Path) -> str:
    """With a log and its index beside it a reader may join in; without, even a reader would create them."""
    live = path.with_name(path.name + "-wal").exists() and path.with_name(path.name + "-shm").exists()
    return f"file:{quote(str(path))}?{'mode=ro' if live else 'mode=ro&immutable=1'}"
