"""The peers, installed apart: aioimaplib (GPL-3) in an environment of its own, mbsync from Debian's isync on PATH."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from bench import REPOSITORY
from bench.processes import BenchError

_REQUIREMENTS = REPOSITORY / "requirements" / "bench-peers.txt"
_ENVIRONMENT = REPOSITORY / "bench" / ".cache" / "peers-venv"


async def python() -> Path:
    """The interpreter of the peers' environment, made at the first use. Raises BenchError where it cannot be."""
    return await asyncio.to_thread(_python)


def mbsync() -> Path:
    """Raises BenchError where it is not installed."""
    found = shutil.which("mbsync")
    if found is None:
        raise BenchError("mbsync is not installed: apt-get install isync")
    return Path(found)


def mbsync_config(folder: Path, *, host: str, port: int, user: str, password: str) -> Path:
    """One-way into a Maildir in ``folder``, all mailboxes, everything else at its default (so with fsync)."""
    folder.mkdir(parents=True)
    text = f"""
IMAPAccount server
Host {host}
Port {port}
User {user}
Pass {password}
SSLType None
AuthMechs LOGIN

IMAPStore far
Account server

MaildirStore near
Path {folder}/
Inbox {folder}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Near
Sync Pull
SyncState *
"""
    file = folder / "mbsyncrc"
    file.write_text(text)
    file.chmod(0o600)
    return file


def _python() -> Path:
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    stamp, program = _ENVIRONMENT / "installed", _ENVIRONMENT / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return program
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes", "-r"]
    for command in (
        [sys.executable, "-m", "venv", str(_ENVIRONMENT)],
        [str(program), *pip, str(_REQUIREMENTS)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise BenchError(f"the peers cannot be installed: {(done.stdout + done.stderr).strip()[-500:]}")
    stamp.write_text(wanted)
    return program
