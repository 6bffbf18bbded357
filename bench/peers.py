"""The peers, installed apart from the project.

aioimaplib (GPL-3), imapclient, Celery and Procrastinate in a Python environment of their own, imapflow in a
``node_modules`` of its own, both below ``bench/.cache``; mbsync from Debian's isync on PATH.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import REPOSITORY
from bench.processes import BenchError

_REQUIREMENTS = REPOSITORY / "requirements" / "bench-peers.txt"
_ENVIRONMENT = REPOSITORY / "bench" / ".cache" / "peers-venv"
_NODE_WANTED = REPOSITORY / "bench" / "node"
_NODE_FOLDER = REPOSITORY / "bench" / ".cache" / "node"
_INSTALL_SECONDS = 600


async def python() -> Path:
    """The interpreter of the peers' environment, made at the first use. Raises BenchError where it cannot be."""
    return await asyncio.to_thread(_python)


async def imapflow() -> tuple[Path, Path]:
    """node, and the folder whose ``node_modules`` has imapflow, installed at the first use. Raises BenchError."""
    return await asyncio.to_thread(_imapflow)


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
        _install(command)
    stamp.write_text(wanted)
    return program


def _imapflow() -> tuple[Path, Path]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise BenchError("node and npm are not installed: apt-get install nodejs npm")
    files = [_NODE_WANTED / "package.json", _NODE_WANTED / "package-lock.json"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = _NODE_FOLDER / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(_NODE_FOLDER, ignore_errors=True)
        _NODE_FOLDER.mkdir(parents=True)
        for file in files:
            shutil.copy(file, _NODE_FOLDER)
        # What is installed is what the lock file names, by its hashes; no package runs a script of its own.
        _install([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], _NODE_FOLDER)
        stamp.write_text(wanted)
    return Path(node), _NODE_FOLDER


def _install(command: Sequence[str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError(f"the peers cannot be installed: {command[0]} did not end") from None
    if done.returncode:
        raise BenchError(f"the peers cannot be installed: {(done.stdout + done.stderr).strip()[-500:]}")
