"""Other filters asked about the same mail: SpamAssassin and rspamd, if they are installed.

Each is started for the evaluation alone, on loopback, with a configuration of its own in a folder of its own, and ends
with it. Neither asks the network: no DNS, no block lists, no learned statistics. So both are weaker here than where
they run with all that, and they look for spam, of which phishing is a part.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, perf_counter, sleep
from types import MappingProxyType
from typing import Final, Protocol

from mailmill.app.threat_evaluation.cases import PeerOpinion
from mailmill.errors import MailmillError

START_SECONDS: Final = 90.0
ANSWER_SECONDS: Final = 120.0
MAX_ANSWER_BYTES: Final = 8 << 20

_LOOPBACK: Final = "127.0.0.1"
_LOOK_SECONDS: Final = 0.2
_END_SECONDS: Final = 10.0


class PeerError(MailmillError):
    """Another filter is not installed, did not start, or did not answer."""

    code = "peer"


class Peer(Protocol):
    """A filter that runs. ``name`` has its version."""

    name: str

    def ask(self, raw: bytes) -> PeerOpinion:
        """Its word on one message. Raises PeerError."""


class SpamAssassin:
    """``spamd`` with local tests only. Its one threshold, ``required_score`` (5), stands for suspicious."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._port = port

    def ask(self, raw: bytes) -> PeerOpinion:
        began = perf_counter()
        head, _ = _exchange(self._port, b"CHECK SPAMC/1.2\r\nContent-length: %d\r\n\r\n" % len(raw) + raw)
        seconds = perf_counter() - began
        # Spam: True ; 15.0 / 5.0
        line = next((one for one in head.splitlines() if one.lower().startswith(b"spam:")), b"")
        word, _, numbers = line.partition(b":")[2].partition(b";")
        try:
            score = float(numbers.partition(b"/")[0])
        except ValueError:
            raise PeerError(f"spamd answered {head[:80]!r}") from None
        return PeerOpinion(score, suspicious=word.strip().lower() == b"true", malicious=None, seconds=seconds)


class Rspamd:
    """``rspamd`` without its modules that ask the network. Its action ``add header`` (6) stands for suspicious,
    ``reject`` (15) for malicious."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._port = port

    def ask(self, raw: bytes) -> PeerOpinion:
        began = perf_counter()
        request = b"POST /checkv2 HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw
        _, body = _exchange(self._port, request)
        seconds = perf_counter() - began
        try:
            answer = json.loads(body)
            score, action = float(answer["score"]), str(answer["action"])
        except (ValueError, KeyError, TypeError):
            raise PeerError(f"rspamd answered {body[:80]!r}") from None
        rejected = action == "reject"
        marked = rejected or action in ("add header", "rewrite subject")
        return PeerOpinion(score, suspicious=marked, malicious=rejected, seconds=seconds)


@contextmanager
def spamassassin() -> Iterator[Peer]:
    """Raises PeerError where it is not installed or does not start."""
    program = _program("spamd", "SpamAssassin")
    with _folder() as folder:
        port = _free_port()
        command = [
            program, "--local", "--nouser-config", "--listen", _LOOPBACK, "--port", str(port),
            "--allowed-ips", _LOOPBACK, "--min-children", "1", "--max-children", "1", "--syslog", "null",
            "--helper-home-dir", str(folder), "--pidfile", str(folder / "pid"), "--cf", "use_bayes 0",
            *(["--username", "nobody"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        with _running(command, port, folder):
            yield SpamAssassin(f"spamassassin {_version([program, '--version'])}", port)


@contextmanager
def rspamd() -> Iterator[Peer]:
    """Raises PeerError where it is not installed or does not start."""
    program = _program("rspamd", "rspamd")
    with _folder() as folder:
        port = _free_port()
        for name, text in rspamd_files(port).items():
            file = folder / "override.d" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        variables = ("LOCAL_CONFDIR", "DBDIR", "RUNDIR", "LOGDIR")
        command = [program, "--no-fork", *(f"--var={name}={folder}" for name in variables)]
        if os.geteuid() == 0:
            command += ["--user", "nobody", "--group", "nogroup"]
        with _running(command, port, folder):
            yield Rspamd(f"rspamd {_version([program, '--version'])}", port)


PEERS: Final = MappingProxyType({"spamassassin": spamassassin, "rspamd": rspamd})
"""By the name that ``--compare`` knows."""


def rspamd_files(port: int) -> Mapping[str, str]:
    """What overrides the distribution's configuration, by file name below ``override.d``."""
    asks_the_network = (
        "arc", "asn", "aws_s3", "bimi", "dcc", "dkim", "dkim_signing", "dmarc", "external_relay", "fuzzy_check",
        "greylist", "hfilter", "history_redis", "mx_check", "neural", "once_received", "p0f", "phishing", "ratelimit",
        "rbl", "replies", "reputation", "rspamd_update", "spf", "surbl", "url_redirector",
    )  # fmt: skip
    return {
        **{f"{module}.conf": "enabled = false;\n" for module in asks_the_network},
        **{f"worker-{worker}.inc": "enabled = false; count = -1;\n" for worker in ("controller", "proxy", "fuzzy")},
        "worker-normal.inc": f'bind_socket = "{_LOOPBACK}:{port}"; count = 1;\n',
        "options.inc": f'dns {{ nameserver = ["{_LOOPBACK}:9"]; timeout = 50ms; retransmits = 1; }}\n'
        'filters = "chartable,regexp";\n',
        "logging.inc": 'type = "console"; level = "error";\n',
    }


def _program(name: str, title: str) -> str:
    # Daemons are often not on the path of a user.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise PeerError(f"{title} is not installed: there is no {name}", hint=f"install it, or leave {name} out")
    return found


def _version(command: list[str]) -> str:
    try:
        said = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = said.decode("ascii", "replace").split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "")


@contextmanager
def _folder() -> Iterator[Path]:
    """A new folder that a daemon without privileges may write to."""
    with tempfile.TemporaryDirectory(prefix="mailmill-peer-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        yield folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    """The program, from when it answers on ``port`` to its end and that of all that it started."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a program found on the path, asked for by name
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or monotonic() > deadline:
                raise PeerError(f"{Path(command[0]).name} did not start: {_last_line(log)}")
            sleep(_LOOK_SECONDS)
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path) -> str:
    text = log.read_bytes()[-2_000:].decode("utf-8", "replace").strip()
    return text.rpartition("\n")[2] or "it said nothing"


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _exchange(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer; the other side closes the connection."""
    answer = bytearray()
    deadline = monotonic() + ANSWER_SECONDS
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=ANSWER_SECONDS) as link:
            link.sendall(request)
            while piece := link.recv(64 << 10):
                answer += piece
                if len(answer) > MAX_ANSWER_BYTES or monotonic() > deadline:
                    raise PeerError("its answer has no end")
    except OSError as error:
        raise PeerError(f"no answer: {error.strerror or error}") from error
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return head, body
