"""Mailboxes of a hundred thousand small messages, on Dovecots that keep them in few files (mdbox).

Two servers on the same mail: one announces all it can, one leaves QRESYNC out. Mail comes in by IMAP itself:
MULTIAPPEND (RFC 3502) with LITERAL+, five hundred messages a command. Nothing here is timed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from bench import corpus
from bench.processes import BenchError
from servers.dovecot import Dovecot
from servers.ports import LOOPBACK

MAILBOX = "INBOX"

_APPENDED_AT_ONCE = 500
_STORED_AT_ONCE = 1000
_ANSWER_SECONDS = 120


class Roomy:
    """``with Roomy() as roomy``: ``roomy.fill(user, count)``, then connect to ``qresync`` or ``condstore``."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.qresync: Dovecot
        self.condstore: Dovecot

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="mm-bench-mail-", dir=os.environ.get("TMPDIR", "/var/tmp")))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            # The servers run as a user of their own.
            folder.chmod(0o777)
            extra = f"mail_location = mdbox:{folder}/%u\nmdbox_rotate_size = 64M\nmail_fsync = never"
            self.qresync = stack.enter_context(Dovecot(extra=extra))
            self.condstore = stack.enter_context(Dovecot(tier="condstore", extra=extra))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fill(self, user: str, count: int, *, seed: int) -> None:
        """``count`` small messages for ``user``, who has none yet: UIDs 1 to ``count``."""
        with _Client(self.qresync.port, user, self.qresync.password) as client:
            for first in range(0, count, _APPENDED_AT_ONCE):
                client.append(corpus.small(n, seed=seed) for n in range(first, min(count, first + _APPENDED_AT_ONCE)))

    def store_flags(self, user: str, uids: Sequence[int], change: str) -> None:
        r"""``change`` is ``+FLAGS.SILENT (\Flagged)`` and the like, as another client would send it."""
        with _Client(self.qresync.port, user, self.qresync.password) as client:
            client.command(f"SELECT {MAILBOX}".encode())
            for first in range(0, len(uids), _STORED_AT_ONCE):
                some = ",".join(map(str, uids[first : first + _STORED_AT_ONCE]))
                client.command(f"UID STORE {some} {change}".encode())


class _Client:
    """A blocking client that looks only at how commands end."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=_ANSWER_SECONDS)
        self._file = self._socket.makefile("rb")
        self._file.readline()
        self.command(f"LOGIN {user} {password}".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def append(self, raws: Iterable[bytes]) -> None:
        self.command(b"APPEND " + MAILBOX.encode() + b"".join(b" {%d+}\r\n%b" % (len(raw), raw) for raw in raws))

    def command(self, command: bytes) -> None:
        self._socket.sendall(b"a " + command + b"\r\n")
        while not (line := self._file.readline()).startswith(b"a "):
            if not line:
                raise BenchError("the IMAP server hung up")
        if not line.startswith(b"a OK"):
            raise BenchError(f"{command[:40]!r}: {line.decode(errors='replace')}")
