"""How an account's connection at rest learns of news. It says *that* there is something; passes find out what.

Three ways, by what the server can do; `Push` names the one in use:

==========  =============================  ==========================================================
push        told at once                   the rest, and how late it may be
==========  =============================  ==========================================================
``notify``  every mailbox NOTIFY covers    a sweep of all others; all are looked at every poll interval
``idle``    the watched mailbox (INBOX)    a sweep of all others
``poll``    nothing                        a sweep of all
==========  =============================  ==========================================================

Laws:

- A notification is a hint, the pass is the guarantee. A server that tells nothing while passes find something, that
  refuses, that overflows or that cries wolf is watched the next lesser way; nothing is missed, it is only later.
- NOTIFY comes before the pass that starts a session: what the pass does not see yet is told.
- NOTIFY does not replace IDLE: servers tell of a mailbox selected later only while idling (Dovecot 2.3).
- The connection is proven at least every `WatchSettings.probe_seconds`, whatever was heard or not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from mailmill.errors import CommandError, ConnectionLostError
from mailmill.imap.connection import Features, ImapConnection, Told
from mailmill.model import MailboxStatus

# So many hints in a row, each at once and about nothing, and the session polls instead until the next full pass.
_BARREN_HINTS = 10
_QUICK_SECONDS = 1.0
# So many polls in a row that found what NOTIFY had not told, with not a word from it in between: it does not work here.
_MUTE_POLLS = 2
# A server may name ever new mailboxes; those that are not noted are swept as well.
_MOST_COVERED = 100_000


class Push(StrEnum):
    """How news comes: of all mailboxes, of the watched one, or only when we ask."""

    NOTIFY = "notify"
    IDLE = "idle"
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """``probe_seconds``: how long a link may go unproven. ``answer_seconds``: how long a probe may go unanswered;
    ``wake_answer_seconds``: after the machine slept, when most links are dead.
    """

    probe_seconds: float = 60.0
    answer_seconds: float = 20.0
    wake_answer_seconds: float = 10.0


class Watcher:
    """Watches on one connection, for one session. ``wanted`` ends every wait; ``push`` is the way in use.

    ``notify`` False: NOTIFY is not to be tried, because it has left a connection mute before.
    """

    def __init__(
        self,
        main: ImapConnection,
        wanted: asyncio.Event,
        settings: WatchSettings,
        *,
        account: str,
        notify: bool = True,
    ) -> None:
        self._main = main
        self._wanted = wanted
        self._settings = settings
        self._log = structlog.get_logger("mailmill.sync").bind(account=account)
        self._barren = 0
        self._idle_refused = False
        self._may_notify = notify and best_push(main.features) is Push.NOTIFY
        self._notifying = False
        self._covered: set[str] = set()
        self._was_told = False
        self._mute_polls = 0

    @property
    def push(self) -> Push:
        if not self._can_idle:
            return Push.POLL
        return Push.NOTIFY if self._notifying else Push.IDLE

    def pushes(self, paths: Iterable[str]) -> bool:
        """Whether the server tells of all ``paths`` by itself."""
        return self.push is Push.NOTIFY and self._covered.issuperset(paths)

    async def begin(self) -> None:
        """Before a full pass: ask for NOTIFY where it may be had, and try again what came to nothing before."""
        self._barren = 0
        if not self._may_notify or self._notifying:
            return
        try:
            self._covered = set(await self._main.notify_all())
        except CommandError as error:
            self._may_notify = False
            self._log.info("NOTIFY refused, watching one mailbox", error=str(error))
        else:
            self._notifying = True

    def polled(self, *, found: bool) -> None:
        """A pass that only the clock asked for is through. One that ``found`` what nobody told speaks against NOTIFY.

        Once may be chance: what came in the same moment is told later.
        """
        self._mute_polls = self._mute_polls + 1 if found and not self._was_told else 0
        self._was_told = False
        if self._notifying and self._mute_polls >= _MUTE_POLLS:
            self._log.warning("the server has NOTIFY and tells nothing, sweeping instead")
            self._notifying = self._may_notify = False

    async def overflowed(self) -> None:
        """The server tells no more (NOTIFICATIONOVERFLOW), nor of the selected mailbox: have it tell of that at least.

        Raises ConnectionLostError where it would not; a session without NOTIFY is needed then.
        """
        self._log.info("the server has too much to tell, watching one mailbox for a while")
        self._notifying = False
        try:
            await self._main.notify_selected()
        except CommandError as error:
            self._main.abort()
            raise ConnectionLostError(
                "the server stopped telling of news and would not begin again", hint="connecting anew, without NOTIFY"
            ) from error

    def was_worth_it(self, seconds: float, *, found: bool) -> None:
        """News that came after ``seconds`` was looked into. A server that ends every IDLE at once, with nothing to
        tell, would have us spin.
        """
        self._barren = self._barren + 1 if not found and seconds < _QUICK_SECONDS else 0

    async def wait(self, path: str | None, timeout_seconds: float, moved: Callable[[MailboxStatus], bool]) -> Told:
        """What the server tells; nothing when time is up or a pass is wanted. ``path`` is the mailbox to idle on, and
        ``moved`` says whether it changed while another was selected. Proves the link meanwhile.

        Raises `ImapError` where the link is dead: ConnectionLostError, at the latest ``answer_seconds`` after a probe.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_seconds
        while (left := until - loop.time()) > 0 and not self._wanted.is_set():
            unproven_for = self._main.unproven_seconds
            if unproven_for >= self._settings.probe_seconds:
                await self._main.probe(self._settings.answer_seconds)
                continue
            told = await self._wait_once(path, min(left, self._settings.probe_seconds - unproven_for), moved)
            if told:
                self._was_told = True
                if len(self._covered) < _MOST_COVERED:
                    self._covered |= told.paths
                return told
        return Told()

    @property
    def _can_idle(self) -> bool:
        return self._main.features.idle and not self._idle_refused and self._barren < _BARREN_HINTS

    async def _wait_once(self, path: str | None, seconds: float, moved: Callable[[MailboxStatus], bool]) -> Told:
        main = self._main
        if not self._can_idle or path is None:
            await wait_event(self._wanted, seconds)
            return main.take_told() if path is None else Told()
        if told := main.take_told():
            # From before, of whichever mailbox was selected then. To select one now would take it for seen.
            return told
        if (main.selected is None or main.selected.path != path) and moved(await main.select(path)):
            return Told(frozenset({path}))
        try:
            await main.idle()
        except CommandError as error:
            self._log.warning("IDLE refused, polling instead", error=str(error))
            self._idle_refused = True
            return Told()
        if not await self._hint(seconds):
            return Told()
        # Without a word of whom, as where the server has ended IDLE, it is the mailbox that we idle on.
        return main.take_told() or Told(frozenset({path}))

    async def _hint(self, timeout_seconds: float) -> bool:
        hint = asyncio.create_task(self._main.wait_hint(timeout_seconds))
        wanted = asyncio.create_task(self._wanted.wait())
        try:
            await asyncio.wait({hint, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wanted.cancel()
            if not hint.done():
                hint.cancel()
            await asyncio.gather(hint, wanted, return_exceptions=True)
        if hint.cancelled():
            return False
        try:
            return hint.result()
        except CommandError as error:
            # Begun, and refused after all: the connection is well. What came meanwhile is worth a look.
            self._log.warning("the server ended IDLE with an error", error=str(error))
            return True


def best_push(features: Features) -> Push:
    """How news may come from a server with ``features``, unless it refuses. Pure."""
    if not features.idle:
        return Push.POLL
    return Push.NOTIFY if features.notify else Push.IDLE


def sweep_seconds(wanted_seconds: float, *, commands: int, poll_seconds: float) -> float:
    """How often to look at what is not pushed: as often as wanted, but no more than one command a second on average
    where each mailbox takes its own (no LIST-STATUS), and never less often than everything is looked at anyway. Pure.
    """
    return min(max(wanted_seconds, float(commands) if commands > 1 else 0.0), poll_seconds)


async def wait_event(event: asyncio.Event, timeout_seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
