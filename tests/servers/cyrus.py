"""A private Cyrus 3, unpacked by ``tools/cyrus.sh``: own folder, own ports, own certificates, gone without a trace.

::

    with Cyrus() as server:                                  # session fixture `cyrus` in tests/conftest.py
        await server.add_message("alice", "INBOX", raw)      # any user name logs in, with any password
        connection = await ImapConnection.open(server.endpoint(Tls.IMPLICIT), settings)

It runs as one unprivileged user: the current one, or ``nobody`` where the tests run as root. Cyrus keeps mail in files
of its own make, so what another client or a delivery does to it here is done over IMAP (`over_imap`).
"""

from __future__ import annotations

import asyncio
import grp
import itertools
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from mailmill.model import Credentials, Endpoint, Tls
from servers.mail_server import Traits
from servers.over_imap import OverImap
from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process, wait_listening
from servers.tls import CertificateFiles, make_certificates

UNPACKED = Path(__file__).resolve().parents[2] / ".cache" / "cyrus"

_SERVICES = """
START {
  recover cmd="@PROGRAMS@/ctl_cyrusdb -C @ROOT@/imapd.conf -r"
}
SERVICES {
  imap cmd="@PROGRAMS@/imapd -C @ROOT@/imapd.conf -U 30" listen="127.0.0.1:@PORT@" prefork=0 maxchild=200
  imaps cmd="@PROGRAMS@/imapd -s -C @ROOT@/imapd.conf -U 30" listen="127.0.0.1:@TLS_PORT@" prefork=0 maxchild=200
}
EVENTS {
}
DAEMON {
  idled cmd="@PROGRAMS@/idled -C @ROOT@/imapd.conf"
}
"""

_CONFIGURATION = """
configdirectory: @ROOT@/conf
partition-default: @ROOT@/spool
defaultpartition: default
cyrus_user: @USER@
admins: @USER@
servername: localhost
allowplaintext: yes
sasl_pwcheck_method: alwaystrue
sasl_mech_list: PLAIN
sasl_auto_transition: no
tls_server_cert: @CERTIFICATE@
tls_server_key: @KEY@
tls_sessions_db_path: @ROOT@/conf/tls_sessions.db
virtdomains: off
altnamespace: yes
unixhierarchysep: yes
autocreate_quota: 0
autocreate_post: yes
autocreate_inbox_folders: Archive | Junk | Sent
xlist-archive: Archive
xlist-junk: Junk
xlist-sent: Sent
idlesocket: @ROOT@/run/idle
imapidlepoll: 5s
lmtpsocket: @ROOT@/run/lmtp
notifysocket: @ROOT@/run/notify
mboxname_lockpath: @ROOT@/run/lock
proc_path: @ROOT@/run/proc
conversations: 0
"""

AUTO_MAILBOXES = frozenset({"INBOX", "Sent", "Junk", "Archive"})


class Cyrus(OverImap):
    """One server. ``port`` talks in the clear and offers STARTTLS, ``tls_port`` is implicit TLS.

    ``extra`` is appended to ``imapd.conf`` (``suppress_capabilities: …`` cuts what is announced). Any user logs in with
    any password and finds INBOX and the three mailboxes that the tests' Dovecot makes too. Raises RuntimeError with
    what it printed where it does not start.
    """

    traits = Traits(tier="qresync")

    def __init__(self, *, extra: str = "") -> None:
        self.host = LOOPBACK
        self.port = 0
        self.tls_port = 0
        self._extra = extra
        self._user, self._group = _unprivileged()
        self._root = Path()
        self._unpacked = UNPACKED
        self._certificates: CertificateFiles | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
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
        if not (UNPACKED / ".edition").exists():
            raise RuntimeError("Cyrus is not there: run `make test`, or `tools/cyrus.sh`")
        first = self._certificates is None
        if first:
            self._make_folder()
        for _ in range(5 if first else 1):
            if first:
                self.port, self.tls_port = free_ports(2)
                self._write_configuration()
            self._process = self._master()
            self._watchdog = Watchdog(self._process, self._root)
            if wait_listening(self.port, self._process):
                return
            self.stop()
        raise RuntimeError(f"Cyrus did not start:\n{self.log()[-2000:]}")

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
        """What the processes printed. What they log goes to syslog, where the machine has one."""
        file = self._root / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    # -- where and who ------------------------------------------------------------------------------------------------

    @property
    def ca_file(self) -> Path:
        """The authority to trust (PEM)."""
        assert self._certificates is not None, "not started"
        return self._certificates.ca_file

    def endpoint(self, tls: Tls = Tls.NONE, *, trusted: bool = True) -> Endpoint:
        """Where to connect. ``trusted=False`` leaves the authority out, so that the certificate is refused."""
        port = self.tls_port if tls is Tls.IMPLICIT else self.port
        ca_file = str(self.ca_file) if trusted and tls is not Tls.NONE else None
        return Endpoint(self.host, port, tls, ca_file=ca_file)

    def credentials(self, user: str) -> Credentials:
        return Credentials(user, "x")

    def new_user(self) -> str:
        """A user name that nobody has used on this server: an empty account of its own for each test."""
        return f"user{next(self._users)}"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        # Not below pytest's tmp_path: that is closed to other users, and a path too long for Unix sockets.
        self._root = Path(tempfile.mkdtemp(prefix="mm-cyrus-"))
        # Without conf/socket the sessions cannot be told of changes while they idle.
        for name in ("run", "run/lock", "run/proc", "conf", "conf/socket", "spool"):
            (self._root / name).mkdir(mode=0o755)
        self._certificates = make_certificates(self._root)
        if os.getuid() == 0:
            for path in (self._root, *self._root.rglob("*")):
                shutil.chown(path, self._user, self._group)
            self._root.chmod(0o755)
            if not _open_to_all(UNPACKED):
                self._unpacked = self._root / "unpacked"
                shutil.copytree(UNPACKED, self._unpacked, symlinks=True)

    def _write_configuration(self) -> None:
        assert self._certificates is not None
        values = {
            "ROOT": str(self._root),
            "PROGRAMS": str(self._programs),
            "USER": self._user,
            "PORT": str(self.port),
            "TLS_PORT": str(self.tls_port),
            "CERTIFICATE": str(self._certificates.certificate_file),
            "KEY": str(self._certificates.key_file),
        }
        for name, text in (("cyrus.conf", _SERVICES), ("imapd.conf", _CONFIGURATION + self._extra + "\n")):
            (self._root / name).write_text(re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], text))

    @property
    def _programs(self) -> Path:
        return self._unpacked / "usr" / "lib" / "cyrus" / "bin"

    def _master(self) -> subprocess.Popen[bytes]:
        as_root = os.getuid() == 0
        libraries = sorted({str(file.parent) for file in self._unpacked.rglob("*.so*")})
        plugins = [*self._unpacked.glob("usr/lib/*/sasl2"), *Path("/usr/lib").glob("*/sasl2")]
        command = [f"{self._programs}/master", "-D", "-p", f"{self._root}/run/master.pid"]
        command += ["-C", f"{self._root}/imapd.conf", "-M", f"{self._root}/cyrus.conf"]
        with (self._root / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "LD_LIBRARY_PATH": ":".join(libraries),
                    "SASL_PATH": ":".join(str(folder) for folder in plugins),
                },
                user=self._user if as_root else None,
                group=self._group if as_root else None,
                extra_groups=[] if as_root else None,
                start_new_session=True,  # Ctrl-C in a terminal is for pytest, which then stops us in order
            )


def _open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _unprivileged() -> tuple[str, str]:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_name, grp.getgrgid(nobody.pw_gid).gr_name
