"""Detectors that installed packages offer (entry points ``mailmill.detectors``), and the bounds they run in.

Laws: what such a detector raises, and what takes it too long, costs that detector's word on that message and nothing
else. A thread cannot be ended: one that does not come back is left to itself, and after ``MAX_STUCK`` of them the
detector is not called until one of them does.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable
from importlib import metadata
from itertools import islice
from typing import Any, Final

import structlog

from mailmill.errors import ConfigurationError
from mailmill.model import Finding, Severity
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.options import ENTRY_POINTS
from mailmill.processing.threat.scoring import OWN_RULES, finding, plain

DETECTOR_SECONDS: Final = 1.0
MAX_FINDINGS: Final = 20
MAX_STUCK: Final = 4
FAILED: Final = "own_rules.detector_failed"

_RESERVED = ("engine", OWN_RULES)
_ID = re.compile(r"[a-z][a-z0-9_]{0,39}(?:\.[a-z][a-z0-9_]{0,39}){1,3}")

_log = structlog.get_logger(__name__)


def load_detectors() -> tuple[OwnDetector, ...]:
    """All that installed packages offer, by name. Raises ConfigurationError naming the entry point that is none."""
    found: list[OwnDetector] = []
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
        try:
            offered = point.load()
        except Exception as error:
            raise _refused(point, f"cannot be imported: {type(error).__name__}: {error}") from error
        functions = tuple(offered) if isinstance(offered, tuple | list) else (offered,)
        if not functions or not all(callable(function) for function in functions):
            raise _refused(point, "is neither a function nor a tuple of functions")
        found += (OwnDetector(function, _name_of(point.name, function)) for function in functions)
    return tuple(found)


class OwnDetector:
    """A function of somebody else's, ``(ThreatContext) -> Iterable[Finding]``, that cannot harm the scan."""

    def __init__(
        self, function: Callable[[ThreatContext], Iterable[Finding]], name: str, *, seconds: float = DETECTOR_SECONDS
    ) -> None:
        self.name = name
        self._function = function
        self._seconds = seconds
        self._lock = threading.Lock()
        self._stuck = 0
        self._told: set[str] = set()

    def __call__(self, context: ThreatContext) -> list[Finding]:
        """At most ``MAX_FINDINGS``, bounded and clean; a finding ``own_rules.detector_failed`` where it failed."""
        if self._stuck >= MAX_STUCK:
            return [self._failed("not called: runs of it have not come back")]
        run = _Run(self._function, context)
        thread = threading.Thread(target=run, name=f"mailmill-detector-{self.name}", daemon=True)
        thread.start()
        if not run.ended.wait(self._seconds):
            self._leave(run)
            return [self._failed(f"took longer than {self._seconds:g} s")]
        if run.error is not None:
            return [*run.findings, self._failed(_words_of(run.error))]
        return run.findings

    def _leave(self, run: _Run) -> None:
        with self._lock:
            self._stuck += 1
        run.when_ended(self._came_back)

    def _came_back(self) -> None:
        with self._lock:
            self._stuck -= 1

    def _failed(self, problem: str) -> Finding:
        with self._lock:
            is_new = problem not in self._told and len(self._told) < MAX_FINDINGS
            if is_new:
                self._told.add(problem)
        if is_new:
            _log.warning("a detector of your own failed", detector=self.name, error=problem)
        return finding(FAILED, f"{self.name}: {problem}")


class _Run:
    """One call, made in a thread of its own."""

    def __init__(self, function: Callable[[ThreatContext], Iterable[Finding]], context: ThreatContext) -> None:
        self.findings: list[Finding] = []
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self._function = function
        self._context = context
        self._lock = threading.Lock()
        self._then: Callable[[], None] | None = None

    def __call__(self) -> None:
        try:
            for one in islice(self._function(self._context) or (), MAX_FINDINGS):
                self.findings.append(_checked(one))
        except BaseException as error:  # noqa: BLE001 - SystemExit too: it is the detector's failure, not the thread's
            self.error = error
        with self._lock:
            self.ended.set()
            then = self._then
        if then is not None:
            then()

    def when_ended(self, then: Callable[[], None]) -> None:
        """Call ``then`` once, when the run has ended or now."""
        with self._lock:
            if not self.ended.is_set():
                self._then = then
                return
        then()


def _checked(one: Any) -> Finding:
    """A finding with every bound kept. Raises TypeError or ValueError for what is none."""
    if not isinstance(one, Finding):
        raise TypeError(f"gave {type(one).__name__} instead of a Finding")
    if not isinstance(one.id, str) or not _ID.fullmatch(one.id):
        raise ValueError(f"gave the id {one.id!r:.100}, which is not like family.name")
    if one.id.partition(".")[0] in _RESERVED:
        # Among them is the one that says a sender is allowed.
        raise ValueError(f"gave the id {one.id!r}, of a family that is the engine's own")
    if isinstance(one.score, bool) or not isinstance(one.score, int | float) or not math.isfinite(one.score):
        raise ValueError(f"gave {one.id} a score that is no number")
    score = min(100.0, max(0.0, float(one.score)))
    return Finding(
        one.id, one.id.partition(".")[0], Severity(one.severity), score, plain(str(one.evidence)), plain(str(one.words))
    )


def _words_of(error: BaseException) -> str:
    try:
        return plain(f"{type(error).__name__}: {error}")
    except BaseException:  # noqa: BLE001 - the __str__ of somebody else's error may raise anything
        return type(error).__name__


def _name_of(point: str, function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return point if name == point else f"{point} ({name})"


def _refused(point: metadata.EntryPoint, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"the detector {point.name!r} ({point.value}) {problem}",
        hint="mend the package that offers it, or uninstall it (docs/write-a-detector.md)",
        key="threat",
    )
