"""Free ports, waiting until something listens on one, and children that do not outlive the tests."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from pathlib import Path

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """``count`` ports that nobody listens on now. Another process may take one before its use: retry on failure."""
    held = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in held:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def wait_listening(port: int, process: subprocess.Popen[bytes], timeout_seconds: float = 20) -> bool:
    """True as soon as ``port`` greets with a byte, False when ``process`` ended before or the time is up.

    A listener that accepts is not yet a server that serves; its greeting is the proof.
    """
    deadline = time.monotonic() + timeout_seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=5) as link:
                if link.recv(1):
                    return True
        except OSError:
            pass
        time.sleep(0.01)
    return False


class Watchdog:
    """Ends a child, and removes its folder, when this process dies without a chance to do so (killed, cut off in CI).

    A shell reads from a pipe that only we hold open: its end is our end, however we went.
    """

    def __init__(self, child: subprocess.Popen[bytes], folder: Path | None = None) -> None:
        cleaning = f"; rm -rf {shlex.quote(str(folder))}" if folder is not None else ""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _; kill {child.pid} && sleep 2; kill -9 {child.pid}{cleaning}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """To be called before the child is ended in good order."""
        self._shell.kill()
        self._shell.wait()
        assert self._shell.stdin is not None
        self._shell.stdin.close()


def stop_process(process: subprocess.Popen[bytes], grace_seconds: float = 10) -> None:
    """End a child: asked first, killed after ``grace_seconds``; waited for in either case."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
