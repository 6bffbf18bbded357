"""moto's S3 in a child process: a real server of another make that speaks the protocol over HTTP.

::

    with S3() as server:                                     # session fixture `s3` in tests/conftest.py
        bucket = await server.new_bucket()
        segments = ObjectSegments(server.location(bucket), IMPATIENT)

It keeps everything in memory: what is stopped has forgotten all. The requests that the tests make themselves (making
buckets, looking behind what mailmill wrote) are plain HTTP, so that nothing of what is tested vouches for itself.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
import urllib.request
from types import TracebackType
from typing import IO, Self
from urllib.error import URLError
from xml.etree import ElementTree

from mailmill.store.object_location import ObjectKind, ObjectLimits, ObjectLocation
from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process

ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI-secret-EXAMPLEKEY"  # the words of AWS's own documentation

IMPATIENT = ObjectLimits(
    connect_seconds=1,
    request_seconds=1,
    retries=2,
    retry_seconds=2,
    first_pause_seconds=0.01,
    longest_pause_seconds=0.05,
)
"""For tests of what does not answer."""


class S3:
    """One server. Raises RuntimeError with what it printed where it does not start."""

    def __init__(self) -> None:
        self.host = LOOPBACK
        self.port = 0
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._buckets = itertools.count(1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, empty, or start again after ``stop`` on the same port. Ready when it returns."""
        said = ""
        for _ in range(5):
            self.port = self.port or free_ports(1)[0]
            self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives until stop()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "moto.server", "-H", self.host, "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._watchdog = Watchdog(self._process)
            if self._answers():
                return
            said = self.output()
            self.stop()
            self.port = 0
        raise RuntimeError(f"moto's server did not start:\n{said[-2000:]}")

    def stop(self) -> None:
        """End the server; all that it held is gone with it."""
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._process is not None:
            stop_process(self._process, grace_seconds=1)
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    def output(self) -> str:
        """What the server printed so far: a line for each request."""
        if self._output is None:
            return ""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def location(self, bucket: str, *, port: int | None = None, prefix: str = "some/prefix") -> ObjectLocation:
        """Where mailmill is to look; ``port`` is that of a proxy before the server."""
        return ObjectLocation(
            kind=ObjectKind.S3,
            bucket=bucket,
            prefix=prefix,
            endpoint=f"http://{self.host}:{port or self.port}",
            region="us-east-1",
            access_key_id=ACCESS_KEY_ID,
            secret_access_key=SECRET_ACCESS_KEY,
        )

    # -- behind mailmill's back ---------------------------------------------------------------------------------------

    async def new_bucket(self) -> str:
        """An empty bucket that nobody else uses."""
        name = f"mail-{next(self._buckets)}"
        await self._ask("PUT", f"/{name}")
        return name

    async def make_bucket(self, name: str) -> None:
        await self._ask("PUT", f"/{name}")

    async def keys(self, bucket: str) -> list[str]:
        """All keys of a bucket, in order."""
        listed = ElementTree.fromstring(await self._ask("GET", f"/{bucket}?list-type=2"))
        return sorted(str(key.text) for key in listed.iter() if key.tag.rpartition("}")[2] == "Key")

    async def read(self, bucket: str, key: str) -> bytes:
        return await self._ask("GET", f"/{bucket}/{key}")

    async def overwrite(self, bucket: str, key: str, body: bytes) -> None:
        await self._ask("PUT", f"/{bucket}/{key}", body)

    async def remove(self, bucket: str, key: str) -> None:
        await self._ask("DELETE", f"/{bucket}/{key}")

    async def deny(self) -> None:
        """From now on nobody is let in, since the server knows no keys. For a server of the test's own."""
        await self._ask("POST", "/moto-api/reset-auth", b"0")

    async def allow(self) -> None:
        """Take `deny` back."""
        await self._ask("POST", "/moto-api/reset-auth", b"inf")

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return await asyncio.to_thread(self._asked, method, path, body)

    def _asked(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://{self.host}:{self.port}{path}", data=body, method=method)
        # Without it urllib says that it is a form, and a form has no body.
        request.add_header("Content-Type", "application/octet-stream")
        if not path.startswith("/moto-api/"):
            # Which of its many services is meant, the server takes from the signature; it does not look further.
            request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20000101/us-east-1/s3/aws4_request")
        with urllib.request.urlopen(request, timeout=20) as answer:
            content: bytes = answer.read()
        return content

    def _answers(self, timeout_seconds: float = 30) -> bool:
        """True as soon as the server answers a request, False when it ended before or the time is up."""
        assert self._process is not None
        deadline = time.monotonic() + timeout_seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._asked("GET", "/moto-api/")
            except (URLError, OSError):
                time.sleep(0.02)
            else:
                return True
        return False
