"""Runs an evaluation, in one process and one thread, so that its times are those of one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, thread_time
from types import MappingProxyType

from mailmill.app.mail_files import Mail, NoMail, find_files, read_file
from mailmill.app.threat_evaluation.cases import Case, Folder, Opinion, Trouble
from mailmill.app.threat_evaluation.peers import Peer, PeerError
from mailmill.app.threat_scanner import Scanner
from mailmill.message_parser import ParsedMessage
from mailmill.model import Finding, Verdict

_ORIGIN_FIELDS = frozenset(("authentication-results", "arc-authentication-results", "received-spf"))

_WARMING = (
    b"From: Ada <ada@example.com>\r\nSubject: Tea\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    b'<p>At four? <a href="https://example.com/menu">The menu</a></p>\r\n'
)


def evaluate(
    folders: Sequence[Folder],
    scanner: Scanner,
    *,
    peers: Sequence[Peer] = (),
    progress: Callable[[int], None] = lambda _size_bytes: None,
) -> Iterator[Case | Trouble]:
    """Every message of ``folders``, judged. ``progress`` is told the bytes of each file once it is done with.

    A message that cannot be judged comes out as a :class:`Trouble`; so do, beside the case, what a peer did not answer
    and a detector's failure.
    """
    _judge(scanner, folders[0], "", _WARMING)  # what is loaded at first use is no message's time
    for folder in folders:
        for file in find_files([folder.name]):
            if isinstance(file, NoMail):
                yield Trouble(folder, file.name, file.reason, file.failed)
                continue
            for item in read_file(file):
                place = _below(folder, item)
                if isinstance(item, NoMail):
                    yield Trouble(folder, place, item.reason, item.failed)
                    continue
                try:
                    case = _judge(scanner, folder, place, item.raw)
                except Exception as error:  # noqa: BLE001 - a fault of ours is a figure of the evaluation
                    yield Trouble(folder, place, f"{type(error).__name__}: {error}", failed=True)
                    continue
                for one in case.findings:
                    if one.id.endswith(".detector_failed"):
                        yield Trouble(folder, place, f"a detector failed: {one.evidence}", failed=True)
                for peer in peers:
                    try:
                        said = peer.ask(item.raw)
                    except PeerError as error:
                        yield Trouble(folder, place, f"{peer.name}: {error}", failed=True)
                    else:
                        case = replace(case, peers=MappingProxyType({**case.peers, peer.name: said}))
                yield case
            progress(file.size_bytes or 0)


def without_origin(message: ParsedMessage) -> ParsedMessage:
    """The message without what servers said of its origin, as one meets it where no server checks."""
    return replace(message, headers=tuple(one for one in message.headers if one[0].lower() not in _ORIGIN_FIELDS))


def _judge(scanner: Scanner, folder: Folder, place: str, raw: bytes) -> Case:
    began, cpu_began = perf_counter(), thread_time()
    message = scanner.read(raw)
    context = scanner.prepare(message)
    findings = scanner.find(context)
    verdict = scanner.judge(context, findings)
    seconds, cpu_seconds = perf_counter() - began, thread_time() - cpu_began
    families = {one.family for one in findings}
    without = {family: _opinion(scanner.judge(context, _leaving_out(family, findings))) for family in sorted(families)}
    # Files were read inside for the first context; the reader remembers.
    unproven = scanner.prepare(without_origin(message))
    return Case(
        folder=folder,
        place=place,
        opinion=_opinion(verdict),
        findings=verdict.findings,
        unproven=_opinion(scanner.judge(unproven, scanner.find(unproven))),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        has_files=bool(message.attachments),
        without=MappingProxyType(without),
    )


def _opinion(verdict: Verdict) -> Opinion:
    return Opinion(verdict.verdict, verdict.score)


def _leaving_out(family: str, findings: Sequence[Finding]) -> list[Finding]:
    return [one for one in findings if one.family != family]


def _below(folder: Folder, item: Mail | NoMail) -> str:
    place = item.place if isinstance(item, Mail) else item.name
    try:
        return str(Path(place).relative_to(folder.name))
    except ValueError:
        return place
