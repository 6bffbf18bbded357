"""What `FakeImap` does wrong, for `FakeImap.fault`: each makes an act that gets the right answer and sends another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.fake_imap import Act, Answer, Client
    from servers.scripted import Command


def cut(at: int) -> Act:
    """The answer as far as its byte ``at``, then the end of the connection."""

    async def act(client: Client, _command: Command, answer: Answer) -> None:
        await client.talk.cut(b"".join(answer), at)
        raise ConnectionResetError("cut as asked")

    return act


def altered(change: Callable[[Answer], Answer]) -> Act:
    """Another answer, made of the right one."""

    async def act(client: Client, _command: Command, answer: Answer) -> None:
        await client.send(change(answer))

    return act


def replaced(pattern: bytes, by: bytes, *, required: bool = True) -> Act:
    """The right answer with every match of ``pattern`` in a response replaced. Where it is ``required``, an answer
    with nothing to replace fails the test.
    """

    async def act(client: Client, _command: Command, answer: Answer) -> None:
        changed = [re.sub(pattern, by, response, flags=re.DOTALL) for response in answer]
        assert changed != answer or not required, f"nothing in {answer!r} is like {pattern!r}"
        await client.send(changed)

    return act


def refused(status: str = "NO", text: str = "not now") -> Act:
    """Tagged NO or BAD and nothing else."""

    async def act(client: Client, command: Command, _answer: Answer) -> None:
        await client.talk.tagged(command, status, text)

    return act


def deaf(reached: asyncio.Event, first: bytes = b"") -> Act:
    """``first``, and then not a word, for ever, while the connection stays open."""

    async def act(client: Client, _command: Command, _answer: Answer) -> None:
        await client.send([first])
        reached.set()
        await client.talk.silence()
        raise ConnectionResetError("the client gave up")

    return act
