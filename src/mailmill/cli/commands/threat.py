"""``mailmill threat``: the threat engine on mail in files: its verdicts, their reasons, and how good it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from mailmill.cli.errors import FAILED, OK, UsageError
from mailmill.cli.invocation import Invocation, JsonOption, invocation_of
from mailmill.cli.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailmill.app.mail_files import Mail
    from mailmill.app.threat_evaluation.peers import Peer
    from mailmill.app.threat_scanner import Scope
    from mailmill.cli.output import Output

app = typer.Typer(help="The threat engine on mail in files: verdicts, their reasons, and how good they are.")

OwnAddressOption = Annotated[
    str | None, typer.Option("--own-address", help="Whose mail it is.", metavar="ADDRESS", show_default=False)
]
AuthservOption = Annotated[
    str | None,
    typer.Option(
        "--authserv-id",
        help="Whose Authentication-Results are believed: your mail server's name in them, or *.DOMAIN.",
        metavar="ID",
        show_default=False,
    ),
]
MailArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Files, folders, Maildirs, mbox files; - is standard input.", metavar="PATH...", allow_dash=True
    ),
]

AtLeast = Literal["suspicious", "malicious"]


@app.command("scan")
def scan(
    context: typer.Context,
    paths: MailArgument,
    own_address: OwnAddressOption = None,
    authserv_id: AuthservOption = None,
    only: Annotated[AtLeast | None, typer.Option(help="Show only messages that are so or worse.")] = None,
    fail_on: Annotated[AtLeast | None, typer.Option(help="Exit code 1 if a message is so or worse.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, max=256, help="Work in so many processes; else one for each core.", metavar="N"
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Judge messages in files; no service is needed."""
    from mailmill.app.daemon_threads import DaemonThreads
    from mailmill.app.mail_files import Mail, NoMail, find_files, read_file, total_bytes
    from mailmill.app.threat_scan import jobs_worth, scan_each
    from mailmill.cli.threat_views import BADNESS, ScanView

    invocation = invocation_of(context)
    output = invocation.output()
    names = _existing(paths)
    scope = _scope(invocation, own_address, authserv_id)
    view = ScanView(output, scope, only=only)
    size_bytes = total_bytes(names)

    async def work() -> None:
        # Ctrl-C must not wait for a thread that waits for more input.
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        with _bar(output, "scanning", size_bytes) as advance:
            items = (
                item
                for file in find_files(names)
                for item in ([file] if isinstance(file, NoMail) else read_file(file, _standard_input()))
            )
            records = scan_each(items, scope, jobs=jobs_worth(jobs, size_bytes))
            async with aclosing(records):
                async for item, record in records:
                    view.add(item, record)
                    advance(len(item.raw) if isinstance(item, Mail) else 0)

    invocation.quiet_logs()
    invocation.run(work())
    view.end()
    reached = fail_on is not None and view.worst >= BADNESS[fail_on]
    return FAILED if view.failed or reached else OK


@app.command("explain")
def explain(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(help="A message, or an mbox file; - is standard input.", metavar="FILE", allow_dash=True)
    ],
    number: Annotated[
        int, typer.Option("--message", "-n", min=1, help="Which message of an mbox file.", metavar="N")
    ] = 1,
    own_address: OwnAddressOption = None,
    authserv_id: AuthservOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what speaks against a message and what for it, for a person who is no expert."""
    from mailmill.app.threat_scanner import Scanner
    from mailmill.cli.threat_views import show_explanation

    invocation = invocation_of(context)
    output = invocation.output()
    [name] = _existing([path])
    mail = _one_message(name, number)
    scope = _scope(invocation, own_address, authserv_id)
    invocation.quiet_logs()
    with Scanner(scope) as scanner:
        record = scanner.explained(mail.raw)
    if json:
        output.json({"file": mail.name, "number": mail.number, **record})
    else:
        show_explanation(output, mail, record, scope)


class ManyFolders(typer.core.TyperCommand):
    """``--ham A B`` means ``--ham A --ham B``: a shell's ``--ham *`` gives many."""

    _OPTIONS = frozenset({"--phish", "--ham"})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self.spread(args)))

    def spread(self, args: list[str]) -> Iterator[str]:
        option, given = "", 0
        for argument in args:
            if argument.startswith("-") and argument != "-":
                option, given = argument if argument in self._OPTIONS else "", 0
            elif option:
                given += 1
                if given > 1:
                    yield option
            yield argument


@app.command("evaluate", cls=ManyFolders)
def evaluate(
    context: typer.Context,
    phish: Annotated[
        list[Path] | None, typer.Option("--phish", help="Mail that is phishing; may be repeated.", metavar="DIR...")
    ] = None,
    ham: Annotated[
        list[Path] | None, typer.Option("--ham", help="Mail that is honest; may be repeated.", metavar="DIR...")
    ] = None,
    own_address: OwnAddressOption = None,
    authserv_id: AuthservOption = None,
    by_template: Annotated[
        bool,
        typer.Option("--by-template", help="Count ham by template too: receipt-1.eml, receipt-2.eml are one."),
    ] = False,
    template_pattern: Annotated[
        str | None,
        typer.Option(
            help="The same, with a pattern of your own for the template's name in a file's path below DIR.",
            metavar="REGEX",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Ask these too, if installed: spamassassin,rspamd.", metavar="NAMES", show_default=False),
    ] = None,
    show_errors: Annotated[
        bool, typer.Option("--show-errors", help="List every false positive, with what was found.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Measure how much phishing is found, and how much honest mail is taken for it."""
    from mailmill.app.mail_files import total_bytes
    from mailmill.app.threat_evaluation.cases import Case, Folder, Kind
    from mailmill.app.threat_evaluation.figures import NUMBERED_VARIANT, figures
    from mailmill.app.threat_evaluation.running import evaluate
    from mailmill.app.threat_scanner import Scanner
    from mailmill.cli.threat_figures import show_figures

    if not phish or not ham:
        raise UsageError("both --phish and --ham are needed", hint="a detector that flags everything finds everything")
    folders = [Folder(name, Kind.PHISH) for name in _existing(phish)] + [
        Folder(name, Kind.HAM) for name in _existing(ham)
    ]
    pattern = _pattern(template_pattern) if template_pattern else NUMBERED_VARIANT if by_template else None
    wanted = _peer_names(compare)
    invocation = invocation_of(context)
    output = invocation.output()
    scope = _scope(invocation, own_address, authserv_id)
    invocation.quiet_logs()
    cases, troubles = [], []
    with ExitStack() as running:
        scanner = running.enter_context(Scanner(scope))
        peers = _started(output, wanted, running)
        advance = running.enter_context(_bar(output, "evaluating", total_bytes([folder.name for folder in folders])))
        for found in evaluate(folders, scanner, peers=peers, progress=advance):
            if isinstance(found, Case):
                cases.append(found)
            else:
                troubles.append(found)
    report = figures(folders, cases, troubles, template=pattern)
    if json:
        output.json(report)
    else:
        show_figures(output, report, errors=show_errors)
    if scope.authserv_id is None:
        output.remark("no --authserv-id was given: nobody's Authentication-Results were believed", "yellow")
    return FAILED if report["failed"] else OK


def _existing(paths: list[Path]) -> list[str]:
    for path in paths:
        if str(path) != "-" and not path.exists():
            raise UsageError(
                f"there is no file or folder {str(path)!r}", hint="name files, folders, or - for standard input"
            )
    return [str(path) for path in paths]


def _standard_input() -> BinaryIO:
    # Not sys.stdin: its lock, held by a thread that reads, would end the interpreter with an abort.
    return open(0, "rb", closefd=False)  # of the process, until its end


def _scope(invocation: Invocation, own_address: str | None, authserv_id: str | None) -> Scope:
    from mailmill.app.threat_scope import scope_of
    from mailmill.settings import AUTHSERV_ID_FORMS, check_authserv_id

    if own_address is not None and "@" not in own_address:
        raise UsageError(
            f"--own-address: {one_line(own_address, 80)!r} is no address", hint="for example ada@example.org"
        )
    if authserv_id is not None:
        try:
            authserv_id = check_authserv_id(authserv_id)
        except ValueError:
            raise UsageError(
                f"--authserv-id: {one_line(authserv_id, 80)!r} is no server's name", hint=f"it is {AUTHSERV_ID_FORMS}"
            ) from None
    return scope_of(invocation.settings(), own_address, authserv_id)


def _one_message(name: str, number: int) -> Mail:
    from mailmill.app.mail_files import Mail, MailFile, find_files, read_file

    if Path(name).is_dir():
        raise UsageError(f"{name!r} is a folder", hint="to judge a folder: mailmill threat scan")
    [file] = find_files([name])
    if not isinstance(file, MailFile):
        raise UsageError(f"{name!r} cannot be read: {file.reason}")
    place = 0
    for place, item in enumerate(read_file(file, _standard_input()), start=1):
        if not isinstance(item, Mail):
            raise UsageError(f"{name!r} cannot be read: {item.reason}")
        if place == number:
            return item
    raise UsageError(f"{name!r} has no message {number}", hint=f"it has {place}")


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--template-pattern: {error}", hint=r"for a folder per template: ([^/]+)/") from None


def _peer_names(text: str | None) -> list[str]:
    from mailmill.app.threat_evaluation.peers import PEERS

    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--compare: {one_line(name, 40)!r} is not known", hint=f"known are {', '.join(PEERS)}")
    return list(dict.fromkeys(names))


def _started(output: Output, names: list[str], running: ExitStack) -> list[Peer]:
    """The filters that could be started; of each other one a line says why not."""
    from mailmill.app.threat_evaluation.peers import PEERS, PeerError

    peers = []
    for name in names:
        try:
            peers.append(running.enter_context(PEERS[name]()))
        except PeerError as error:
            output.remark(f"not compared with {name}: {error}", "yellow")
    return peers


@contextmanager
def _bar(output: Output, title: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if somebody watches it; what it gives is told the bytes that are done."""
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=output.remarks, transient=True, disable=not output.shows_progress) as progress:
        task = progress.add_task(title, total=total_bytes)
        yield lambda size_bytes: progress.update(task, advance=size_bytes)
