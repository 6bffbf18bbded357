"""Commands and their ends on one connection: bursts, literals that wait for ``+``, IDLE and what pipelines with it.

A `Dialogue` knows how commands are exchanged and nothing of what they mean. One exchange at a time: a command that is
begun while another is under way means two owners, and ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mailmill.clock import boot_seconds
from mailmill.errors import CommandError, ConnectionLostError, ProtocolError
from mailmill.imap import commands
from mailmill.imap.collectors import Collector
from mailmill.imap.commands import Command
from mailmill.imap.link import LONGEST_ANSWER_SECONDS, Link
from mailmill.imap.notify import Told
from mailmill.imap.providers import Provider
from mailmill.imap.session import Exchange, Session
from mailmill.model import Endpoint


class Dialogue:
    """``round_trips`` counts the times that we wrote and then had to wait; ``last_proven_at`` is loop time."""

    def __init__(self, endpoint: Endpoint, session: Session, link: Link, provider: Provider) -> None:
        self.endpoint = endpoint
        self.session = session
        self.link = link
        self.provider = provider
        self.round_trips = 0
        self._idle: Exchange | None = None
        self.proven()

    @property
    def idling(self) -> bool:
        return self._idle is not None and not self._idle.done and not self.link.closed

    # -- commands ------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether an exchange other than IDLE is under way."""
        return any(exchange is not self._idle and not exchange.done for exchange in self.session.pending)

    async def run(self, command: Command) -> None:
        [exchange] = await self.burst([(command, Collector())])
        require_ok(exchange)

    async def burst(
        self, requests: Sequence[tuple[Command, Collector]], *, resume_idle: bool = False
    ) -> list[Exchange]:
        """All commands in one write where literals allow, and their ends; ``resume_idle`` sends IDLE along."""
        pipelined = resume_idle and self.provider.pipelines_idle
        exchanges = await self.send(requests, then_idle=pipelined)
        await self.finish()
        if pipelined:
            self.link.rest()
        elif resume_idle:
            await self.idle()
        return exchanges

    async def send(
        self, requests: Sequence[tuple[Command, Collector]], *, continuations: int = 0, then_idle: bool = False
    ) -> list[Exchange]:
        """Write commands, leaving IDLE first, all in one write if it can be.

        It cannot where IDLE has not begun yet, where the provider does not take commands after DONE, and where a
        literal needs the server's ``+``.
        """
        self._check_free()
        waiting = bytearray()
        left = await self._leaving_idle()
        if left is not None:
            waiting += b"DONE\r\n"
            if not self.provider.pipelines_idle:
                self.write(waiting)
                await self.finish()
        exchanges: list[Exchange] = []
        for command, collector in requests:
            exchange, pieces = self.session.begin(command, collector, continuations=continuations)
            exchanges.append(exchange)
            for index, piece in enumerate(pieces):
                if index:
                    self.write(waiting)
                    await self._wait(self._ended_or_continued(exchange, index))
                    if self._is_refused(exchange):
                        break
                    self.check_bye()
                waiting += piece
        if then_idle:
            self._idle, pieces = self.session.begin(commands.simple("IDLE"), continuations=1)
            waiting += pieces[0]
        if waiting:
            self.write(waiting)
        return exchanges

    async def upload(self, command: Command, data: bytes, collector: Collector, *, waits: bool) -> Exchange:
        """One command whose last words announce ``data``, in memory once; ``waits`` for the server's ``+`` before it.

        A server that refuses the command before that ``+`` is sent none of ``data``. One that refuses a literal it did
        not ask to wait for still reads it all (RFC 7888 §4), so it gets it all.
        """
        session, link = self.session, self.link
        [exchange] = await self.send([(command, collector)], continuations=int(waits))
        if waits and not exchange.done:
            await self._wait(self._ended_or_continued(exchange, exchange.continuations))
            self.check_bye()
        if not self._is_refused(exchange):
            await link.upload(data, lambda: session.bye is not None or (waits and exchange.done))
            self.check_bye()
            if self._is_refused(exchange) and waits:
                # It might take the rest of the message for commands.
                link.lose(ProtocolError(f"{self.endpoint}: the server ended {command.verb} while it was being sent"))
            link.write(b"\r\n")
            self.round_trips += int(waits)
        await self.finish()
        return exchange

    async def finish(self) -> None:
        """Until every command has ended but an IDLE that is to go on."""
        session = self.session
        await self._wait(lambda: self._all_ended() or session.bye is not None)
        if not self._all_ended():
            self.check_bye()
        self.proven()

    def _all_ended(self) -> bool:
        return all(exchange is self._idle for exchange in self.session.pending)

    # -- IDLE (RFC 2177) -----------------------------------------------------------------------------------------------

    async def idle(self) -> None:
        """Enter IDLE (RFC 2177) and wait for the server's ``+``. No-op while idling."""
        if self.idling:
            return
        self._idle = None
        [exchange] = await self.send([(commands.simple("IDLE"), Collector())], continuations=1)
        await self._idle_begun(exchange)
        if exchange.done:
            require_ok(exchange)
            if not exchange.continued:
                raise CommandError("IDLE", "OK", "", "ended without having begun")
        self._idle = exchange
        self.link.rest()

    def take_told(self) -> Told:
        """What the server has said unasked, by mailbox, since the last look; the next look begins here."""
        self.session.hint = False
        return self.session.news.take()

    def take_hint(self) -> bool:
        """Whether the server has said anything of interest since the last look; the next look begins here."""
        hint, self.session.hint = self.session.hint, False
        return hint

    async def wait_hint(self, timeout_seconds: float) -> bool:
        """True as soon as the server has said anything of interest since the last call, False at the timeout.

        Raises ConnectionLostError when the connection ends, CommandError where the server refused to idle on. May be
        cancelled without harm.
        """
        session = self.session

        def something() -> bool:
            return session.hint or session.bye is not None or (self._idle is not None and self._idle.done)

        try:
            async with asyncio.timeout(timeout_seconds):
                await self.link.wait(something, silence=False)
        except TimeoutError:
            return False
        if session.hint:
            session.hint = False
            return True
        self.check_bye()
        ended, self._idle = self._idle, None
        if ended is not None:
            # Some servers end IDLE by themselves after a while. What they would have said is worth a look.
            require_ok(ended)
        return True

    async def done(self) -> None:
        """Leave IDLE. No-op otherwise."""
        left = await self._leaving_idle()
        if left is not None:
            self.write(bytearray(b"DONE\r\n"))
            await self.finish()

    async def _leaving_idle(self) -> Exchange | None:
        """The IDLE that DONE must end, once it has begun: a DONE before the ``+`` would be a command of its own."""
        idle, self._idle = self._idle, None
        if idle is None or idle.done:
            return None
        await self._idle_begun(idle)
        return None if idle.done else idle

    async def _idle_begun(self, exchange: Exchange) -> None:
        await self._wait(self._ended_or_continued(exchange, 1))
        if not exchange.done and not exchange.continued:
            self.check_bye()
        self.proven()

    async def _wait(self, condition: Callable[[], bool]) -> None:
        # Not for bodies: a long message over a slow line may take its time.
        await self.link.wait(condition, longest_seconds=LONGEST_ANSWER_SECONDS)

    def _is_refused(self, exchange: Exchange) -> bool:
        """Whether the server ended a command before it had all of it. Raises ProtocolError where it said OK: it has not
        done what it was not told.
        """
        if exchange.tagged is not None and exchange.tagged.status == "OK":
            self.link.lose(
                ProtocolError(f"{self.endpoint}: the server said OK to {exchange.verb} before it had all of it")
            )
            self.link.check()
        return exchange.done

    def _ended_or_continued(self, exchange: Exchange, times: int) -> Callable[[], bool]:
        session = self.session
        return lambda: exchange.done or exchange.continued >= times or session.bye is not None

    def write(self, waiting: bytearray) -> None:
        self.link.write(bytes(waiting))
        waiting.clear()
        self.round_trips += 1

    def proven(self) -> None:
        """A round trip is complete: the server is there and hears us."""
        self.last_proven_at = asyncio.get_running_loop().time()
        self._proven_at_boot = boot_seconds()

    @property
    def unproven_seconds(self) -> float:
        """Since the last completed round trip, the machine's sleep included."""
        return boot_seconds() - self._proven_at_boot

    async def probe(self, answer_seconds: float) -> None:
        """A round trip that must not take longer than ``answer_seconds``, in one write where it idles."""
        patience = self.link.silence_seconds
        self.link.silence_seconds = min(patience, answer_seconds)
        try:
            exchanges = await self.burst([(commands.simple("NOOP"), Collector())], resume_idle=self.idling)
        finally:
            self.link.silence_seconds = patience
        require_ok(exchanges[0])

    def _check_free(self) -> None:
        self.link.check()
        self.check_bye()
        if not self._all_ended():
            error = ProtocolError(f"{self.endpoint}: a command was begun while another was under way")
            self.link.lose(error)
            raise error

    def check_bye(self) -> None:
        bye = self.session.bye
        if bye is not None:
            self.link.lose(ConnectionLostError(f"{self.endpoint}: the server said goodbye: {bye.text}"))
            self.link.check()


def require_ok(exchange: Exchange) -> None:
    """Raises CommandError where the command ended in NO or BAD."""
    tagged = exchange.tagged
    if tagged is not None and tagged.status != "OK":
        raise CommandError(exchange.verb, tagged.status, tagged.code, tagged.text)
