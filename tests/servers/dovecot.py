"""A private Dovecot 2.3: own folder, own ports, own certificates, gone without a trace.

::

    with Dovecot() as server:                                # session fixture `dovecot` in tests/conftest.py
        await server.add_message("alice", "INBOX", raw)      # any user name logs in with server.password
        connection = await ImapConnection.open(server.endpoint(Tls.IMPLICIT), settings)

Dovecot refuses to touch mail as root, so the whole server runs as one unprivileged user: the current one, or ``nobody``
where the tests run as root. That is Dovecot's documented rootless set-up (no chroot, one user for all services).

Helpers that reach behind IMAP (files in the maildir, ``doveadm``) are what another client or a mail delivery looks like
to us. Each is done when it returns; an idling client hears of it within Dovecot's own 0.5 s.
"""

from __future__ import annotations

import asyncio
import grp
import imaplib
import itertools
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mailmill.model import Credentials, Endpoint, Tls
from servers.mail_server import Tier, Traits
from servers.over_imap import quoted
from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process, wait_listening
from servers.tls import CertificateFiles, make_certificates

# What a lesser server announces. Dovecot understands everything all the same: a client must go by the capabilities.
_CAPABILITY: dict[Tier, str] = {
    "qresync": "",
    "condstore": "IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE UIDPLUS UNSELECT NAMESPACE ESEARCH CONDSTORE MOVE",
    "plain": "IMAP4rev1 ID IDLE UIDPLUS NAMESPACE",
}

_FLAG_LETTERS = {r"\Draft": "D", r"\Flagged": "F", r"\Answered": "R", r"\Seen": "S", r"\Deleted": "T"}

_CONFIGURATION = """
base_dir = @ROOT@/run
state_dir = @ROOT@/state
log_path = @ROOT@/log
protocols = imap
listen = 127.0.0.1
default_internal_user = @USER@
default_internal_group = @GROUP@
default_login_user = @USER@
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
ssl = yes
ssl_cert = <@CERTIFICATE@
ssl_key = <@KEY@
mail_location = maildir:@ROOT@/mail/%u:UTF-8
mail_uid = @USER@
mail_gid = @GROUP@
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 0
passdb {
  driver = static
  args = password=@PASSWORD@
}
userdb {
  driver = static
  args = uid=@USER@ gid=@GROUP@ home=@ROOT@/home/%u
}
default_process_limit = 3000
default_client_limit = 20000
service imap-login {
  chroot =
  inet_listener imap {
    port = @PORT@
  }
  inet_listener imaps {
    port = @TLS_PORT@
    ssl = yes
  }
  service_count = 0
  client_limit = 12000
}
service imap {
  process_limit = 3000
}
service anvil {
  chroot =
  client_limit = 20000
  # No growing delay after refused logins.
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
  client_limit = 20000
}
protocol imap {
  @CAPABILITY@
}
namespace inbox {
  inbox = yes
  separator = /
  mailbox Sent {
    special_use = \\Sent
    auto = create
  }
  mailbox Junk {
    special_use = \\Junk
    auto = create
  }
  mailbox Archive {
    special_use = \\Archive
    auto = create
  }
}
"""

AUTO_MAILBOXES = frozenset({"INBOX", "Sent", "Junk", "Archive"})


def installed() -> bool:
    """Whether Dovecot is on this machine; Debian's package puts it outside of a plain user's PATH."""
    return _program("dovecot") is not None


class Dovecot:
    """One server. ``port`` talks in the clear and offers STARTTLS, ``tls_port`` is implicit TLS.

    ``tier`` cuts what the server announces; ``extra`` is appended to the configuration. Any user logs in with
    ``password``. Raises RuntimeError with the end of Dovecot's log where it does not start.
    """

    def __init__(self, *, tier: Tier = "qresync", extra: str = "", password: str = "x") -> None:
        self.tier: Tier = tier
        self.traits = Traits(tier)
        self.password = password
        self.host = LOOPBACK
        self.port = 0
        self.tls_port = 0
        self._extra = extra
        self._user, self._group = _unprivileged()
        self._root = Path()
        self._certificates: CertificateFiles | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._serial = itertools.count(1)
        self._users = itertools.count(1)

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def start(self) -> None:
        """Start, or start again after ``stop`` on the same ports with the same mail. Ready when it returns."""
        if _program("dovecot") is None or _program("doveadm") is None:
            raise RuntimeError("Dovecot is not installed: run `make test`, or `apt-get install dovecot-imapd`")
        first = self._certificates is None
        if first:
            self._make_folder()
        for _ in range(5 if first else 1):
            if first:
                self.port, self.tls_port = free_ports(2)
                self._write_configuration()
            self._process = self._popen([_program("dovecot") or "dovecot", "-F", "-c", str(self.configuration_file)])
            self._watchdog = Watchdog(self._process, self._root)
            if wait_listening(self.port, self._process):
                return
            self.stop()
        raise RuntimeError(f"Dovecot did not start:\n{self.log()[-2000:]}")

    def stop(self) -> None:
        """End the server and cut all its connections; the mail stays until the context is left."""
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._process is not None:
            stop_process(self._process)
            self._process = None

    async def restart(self) -> None:
        """Stop and start on the same ports: every connection dies, all mail stays."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)

    def log(self) -> str:
        file = self._root / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    # -- where and who ------------------------------------------------------------------------------------------------

    @property
    def ca_file(self) -> Path:
        """The authority to trust (PEM)."""
        assert self._certificates is not None, "not started"
        return self._certificates.ca_file

    @property
    def configuration_file(self) -> Path:
        return self._root / "dovecot.conf"

    def endpoint(self, tls: Tls = Tls.NONE, *, trusted: bool = True) -> Endpoint:
        """Where to connect. ``trusted=False`` leaves the authority out, so that the certificate is refused."""
        port = self.tls_port if tls is Tls.IMPLICIT else self.port
        ca_file = str(self.ca_file) if trusted and tls is not Tls.NONE else None
        return Endpoint(self.host, port, tls, ca_file=ca_file)

    def credentials(self, user: str) -> Credentials:
        return Credentials(user, self.password)

    def new_user(self) -> str:
        """A user name that nobody has used on this server: an empty account of its own for each test."""
        return f"user{next(self._users)}"

    # -- mail, as a delivery or another client would bring it ---------------------------------------------------------

    async def add_message(
        self, user: str, mailbox: str, raw: bytes, flags: Iterable[str] = (), *, internal_date: float | None = None
    ) -> None:
        """Deliver one message; see ``add_messages``."""
        await self.add_messages(user, mailbox, [raw], flags, internal_date=internal_date)

    async def add_messages(
        self,
        user: str,
        mailbox: str,
        raws: Iterable[bytes],
        flags: Iterable[str] = (),
        *,
        internal_date: float | None = None,
    ) -> None:
        """Write messages straight into the maildir, in an order that Dovecot keeps when it gives UIDs.

        ``flags`` are system flags (keywords go through ``set_flags``); without any the message is new (``\\Recent``).
        ``internal_date`` is seconds since the epoch, now by default. The mailbox is created where it is missing.
        """
        await asyncio.to_thread(self.fill, user, mailbox, raws, flags, internal_date=internal_date)

    def fill(
        self,
        user: str,
        mailbox: str,
        raws: Iterable[bytes],
        flags: Iterable[str] = (),
        *,
        internal_date: float | None = None,
    ) -> None:
        """``add_messages`` for code that runs outside of an event loop (fixtures, benchmarks)."""
        folder = self._maildir(user, mailbox)
        if not (folder / "cur").is_dir():
            # What the configuration makes by itself exists already, by name at least.
            self._doveadm("mailbox", "create", "-u", user, mailbox, check=mailbox not in AUTO_MAILBOXES)
            self._doveadm("mailbox", "status", "-u", user, "messages", mailbox)
        letters = "".join(sorted(_FLAG_LETTERS[flag] for flag in flags))
        for raw in raws:
            # Dovecot gives UIDs in the order of the number that a maildir name begins with.
            name = f"{1_700_000_000 + next(self._serial)}.M0P{os.getpid()}.test"
            written = folder / "tmp" / name
            written.write_bytes(raw)
            if internal_date is not None:
                os.utime(written, (internal_date, internal_date))
            self._give(written)
            written.rename(folder / "cur" / f"{name}:2,{letters}" if letters else folder / "new" / name)
        # Files have no UID until somebody looks: without this a later APPEND would come before them.
        self._doveadm("mailbox", "status", "-u", user, "messages", mailbox)

    async def append(self, user: str, mailbox: str, raw: bytes, flags: Iterable[str] = ()) -> int:
        """IMAP APPEND by another client; returns the new UID."""
        return await asyncio.to_thread(self._append, user, mailbox, raw, tuple(flags))

    async def set_flags(
        self, user: str, mailbox: str, query: str, flags: Iterable[str], *, action: str = "add"
    ) -> None:
        """Add, remove or replace flags and keywords on what a doveadm-search-query finds (``all``, ``uid 3``)."""
        found = ["mailbox", mailbox, *query.split()]
        await self.doveadm("flags", action, "-u", user, " ".join(flags), *found)

    async def expunge(self, user: str, mailbox: str, query: str = "all") -> None:
        await self.doveadm("expunge", "-u", user, "mailbox", mailbox, *query.split())

    async def move(self, user: str, source: str, target: str, query: str = "all") -> None:
        await self.doveadm("move", "-u", user, target, "mailbox", source, *query.split())

    async def copy(self, user: str, source: str, target: str, query: str = "all") -> None:
        await self.doveadm("copy", "-u", user, target, "mailbox", source, *query.split())

    async def create_mailbox(self, user: str, mailbox: str) -> None:
        await self.doveadm("mailbox", "create", "-u", user, mailbox)

    async def rename_mailbox(self, user: str, old: str, new: str) -> None:
        await self.doveadm("mailbox", "rename", "-u", user, old, new)

    async def delete_mailbox(self, user: str, mailbox: str) -> None:
        await self.doveadm("mailbox", "delete", "-u", user, mailbox)

    async def reset_uid_validity(self, user: str, mailbox: str) -> int:
        """Give the mailbox another UIDVALIDITY, its mail unchanged, as a restored server would; returns the new one."""
        old = await self.status(user, mailbox, "uidvalidity")
        await self.doveadm("mailbox", "update", "-u", user, "--uid-validity", str(old + 1), mailbox)
        return await self.status(user, mailbox, "uidvalidity")

    async def rewrite(self, user: str, mailbox: str, old: bytes, new: bytes) -> None:
        """Change the bytes of stored messages under their UIDs, which no IMAP server may do. Same length only."""
        assert len(old) == len(new)

        def run() -> None:
            for file in self._maildir(user, mailbox).glob("[cn]*/*"):
                content = file.read_bytes()
                if old in content:
                    file.write_bytes(content.replace(old, new))

        await asyncio.to_thread(run)

    async def kick(self, user: str) -> None:
        """Cut all connections of a user; Dovecot says BYE first."""
        await self.doveadm("kick", user, check=False)

    # -- what the server holds ----------------------------------------------------------------------------------------

    async def status(self, user: str, mailbox: str, field: str = "messages") -> int:
        """One number of ``doveadm mailbox status``: messages, uidvalidity, uidnext, highestmodseq, unseen …"""
        out = await self.doveadm("mailbox", "status", "-u", user, field, mailbox)
        found = re.search(rf"{field}=(\d+)", out)
        assert found, out
        return int(found[1])

    async def flags(self, user: str, mailbox: str) -> dict[int, frozenset[str]]:
        """UID → flags of every message: the truth that a store is compared with."""
        out = await self.doveadm("-f", "tab", "fetch", "-u", user, "uid flags", "mailbox", mailbox, "all")
        rows = (line.split("\t") for line in out.splitlines()[1:])
        return {int(uid): frozenset(words.split()) - {r"\Recent"} for uid, words in rows}

    async def mailboxes(self, user: str) -> list[str]:
        return (await self.doveadm("mailbox", "list", "-u", user)).splitlines()

    async def doveadm(self, *arguments: str, check: bool = True) -> str:
        """Run ``doveadm`` on this server; its output. Raises RuntimeError where it fails and ``check`` is set."""
        return await asyncio.to_thread(self._doveadm, *arguments, check=check)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        # Not below pytest's tmp_path: that is closed to other users, and a path too long for Unix sockets.
        self._root = Path(tempfile.mkdtemp(prefix="mm-dovecot-"))
        for name in ("run", "state", "mail", "home"):
            (self._root / name).mkdir(mode=0o755)
        self._certificates = make_certificates(self._root)
        for path in (self._root, *self._root.iterdir()):
            self._give(path)
        self.ca_file.chmod(0o644)
        if os.getuid() == 0:
            self._root.chmod(0o755)

    def _write_configuration(self) -> None:
        assert self._certificates is not None
        capability = _CAPABILITY[self.tier]
        values = {
            "ROOT": str(self._root),
            "USER": self._user,
            "GROUP": self._group,
            "PASSWORD": self.password,
            "PORT": str(self.port),
            "TLS_PORT": str(self.tls_port),
            "CERTIFICATE": str(self._certificates.certificate_file),
            "KEY": str(self._certificates.key_file),
            "CAPABILITY": f"imap_capability = {capability}" if capability else "",
        }
        text = re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], _CONFIGURATION) + self._extra + "\n"
        self.configuration_file.write_text(text)
        self._give(self.configuration_file)

    def _give(self, path: Path) -> None:
        if os.getuid() == 0:
            shutil.chown(path, self._user, self._group)

    def _maildir(self, user: str, mailbox: str) -> Path:
        root = self._root / "mail" / user
        return root if mailbox == "INBOX" else root / ("." + mailbox.replace("/", "."))

    def _popen(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        as_root = os.getuid() == 0
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if "doveadm" in command[0] else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd=self._root,
            user=self._user if as_root else None,
            group=self._group if as_root else None,
            extra_groups=[] if as_root else None,
            start_new_session=True,  # Ctrl-C in a terminal is for pytest, which then stops us in order
        )

    def _doveadm(self, *arguments: str, check: bool = True) -> str:
        process = self._popen([_program("doveadm") or "doveadm", "-c", str(self.configuration_file), *arguments])
        try:
            out, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise RuntimeError(f"doveadm {' '.join(arguments)} did not end") from None
        text = out.decode(errors="replace")
        if check and process.returncode:
            raise RuntimeError(f"doveadm {' '.join(arguments)} ended with {process.returncode}: {text}")
        return text

    def _append(self, user: str, mailbox: str, raw: bytes, flags: tuple[str, ...]) -> int:
        with imaplib.IMAP4(self.host, self.port, timeout=30) as client:
            client.login(user, self.password)
            # imaplib writes None for "no date", its stubs want a string.
            kind, answer = client.append(quoted(mailbox), f"({' '.join(flags)})", "", raw)
            text = b" ".join(part for part in answer if isinstance(part, bytes)).decode(errors="replace")
            found = re.search(r"APPENDUID \d+ (\d+)", text)
            if kind != "OK" or not found:
                raise RuntimeError(f"APPEND to {mailbox}: {kind} {text}")
            return int(found[1])


def _unprivileged() -> tuple[str, str]:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_name, grp.getgrgid(nobody.pw_gid).gr_name


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
