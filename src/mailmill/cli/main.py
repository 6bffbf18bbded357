"""The commands put together, and the last net for errors."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer

from mailmill.cli import errors, streams
from mailmill.cli.commands import (
    account,
    db,
    demo,
    doctor,
    envelope,
    flag,
    mailbox,
    message,
    message_changes,
    queue,
    reprocess,
    run,
    status,
    sync,
    threat,
    verify,
)
from mailmill.cli.invocation import Invocation, JsonOption, invocation_of
from mailmill.cli.switches import put_together
from mailmill.errors import MailmillError

if TYPE_CHECKING:
    from pydantic import ValidationError

app = typer.Typer(
    name="mailmill",
    help="Keeps mailboxes in sync, stores every message, processes each one and tells you about it.",
    epilog="Start with: mailmill demo",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})

_SERVICE = "Service"
_MAIL = "Mail"

app.command("demo", rich_help_panel=_SERVICE)(demo.demo)
app.command("run", rich_help_panel=_SERVICE)(run.run)
app.command("sync", rich_help_panel=_SERVICE)(sync.sync)
app.command("status", rich_help_panel=_SERVICE)(status.status)
app.command("verify", rich_help_panel=_SERVICE)(verify.verify)
app.command("doctor", rich_help_panel=_SERVICE)(doctor.doctor)
app.add_typer(db.app, name="db", rich_help_panel=_SERVICE)
app.add_typer(account.app, name="account", rich_help_panel=_MAIL)
app.add_typer(mailbox.app, name="mailbox", rich_help_panel=_MAIL)
app.add_typer(envelope.app, name="envelope", rich_help_panel=_MAIL)
for change in (message_changes.move, message_changes.copy, message_changes.delete):
    message.app.command()(change)
app.add_typer(message.app, name="message", rich_help_panel=_MAIL)
app.add_typer(flag.app, name="flag", rich_help_panel=_MAIL)
app.add_typer(queue.app, name="queue", rich_help_panel=_MAIL)
app.add_typer(threat.app, name="threat", rich_help_panel=_MAIL)
app.command("reprocess", rich_help_panel=_MAIL)(reprocess.reprocess)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mailmill {version('mailmill')}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="The configuration file (else $MAILMILL_CONFIG, else ~/.config/mailmill/config.toml).",
            metavar="FILE",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    _json: JsonOption = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    invocation = invocation_of(context)
    invocation.config = config
    invocation.debug = debug
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see ``errors``). Every error is reported here; none escapes."""
    streams.open_missing()
    streams.make_whole()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _redirect_to_null(sys.stdout)
        return errors.BROKEN_PIPE
    except OSError as error:
        _redirect_to_null(sys.stdout)
        _remark(f"error: cannot write the output: {error.strerror or error}\n")
        return errors.FAILED
    return code


def _run(arguments: Sequence[str] | None) -> int:
    """The command's exit code. Raises OSError where the output cannot be written, and nothing else."""
    given = hoist(sys.argv[1:] if arguments is None else arguments)
    invocation = Invocation(json="--json" in given)
    try:
        code = put_together(app)(args=given, standalone_mode=False, obj=invocation, prog_name="mailmill")
        return code if isinstance(code, int) else errors.OK
    except BrokenPipeError:
        raise
    except SystemExit as stop:
        # Typer and Rich turn a broken pipe into sys.exit(1), which would pass for a failure; completion exits so too.
        if isinstance(stop.__context__, BrokenPipeError):
            raise stop.__context__ from None
        return stop.code if isinstance(stop.code, int) else errors.OK
    except (KeyboardInterrupt, typer.Abort):
        return errors.INTERRUPTED
    except typer.Exit as stop:
        return stop.exit_code
    except MailmillError as error:
        return _report(invocation, error)
    except typer.TyperException as error:
        return _report(invocation, _usage_error(error))
    except Exception as error:  # the last net: a person gets a line, not a traceback
        if _is_of_the_output(error):
            raise
        return _unexpected(invocation, error)


def _remark(text: str) -> None:
    """To stderr; where that cannot be written, the exit code tells enough."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _redirect_to_null(sys.stderr)


def _redirect_to_null(stream: TextIO) -> None:
    """What is still buffered has no taker; without this the interpreter complains about it at exit."""
    with suppress(OSError):  # a stream without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_of_the_output(error: Exception) -> bool:
    """Whether a write to a stream failed. Errors of files carry the file's name, and those of the store have kinds."""
    return isinstance(error, OSError) and error.filename is None and error.errno in _WRITE_ERRORS


def hoist(arguments: Sequence[str]) -> list[str]:
    """``mailmill sync --config FILE`` means ``mailmill --config FILE sync``: global options may stand anywhere.

    ``--json`` is an option of each command, so ``mailmill --json sync`` means ``mailmill sync --json``.
    """
    ahead: list[str] = []
    rest: list[str] = []
    behind: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if argument == "--":
            behind += [argument, *remaining]
            break
        if argument == "--debug" or argument.startswith("--config="):
            ahead.append(argument)
        elif argument == "--config":
            ahead += [argument, *remaining[:1]]
            remaining = remaining[1:]
        elif argument == "--json" and not rest:
            behind.append(argument)
        else:
            rest.append(argument)
    return ahead + rest + behind


def _report(invocation: Invocation, error: MailmillError) -> int:
    if invocation.debug:
        _remark("".join(traceback.format_exception(error)))
    if invocation.json:
        sys.stdout.write(errors.as_json(error) + "\n")
    else:
        _remark("".join(line + "\n" for line in errors.as_lines(error)))
    return errors.exit_code(error.code)


def _usage_error(error: typer.TyperException) -> MailmillError:
    """A wrong command line, in the words of the parser, with the help to ask for."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mailmill"
    words = _own_words(error).rstrip(".").replace(": Value error, ", ": ")
    return errors.UsageError(words[:1].lower() + words[1:], hint=f"try: {path} --help")


def _own_words(error: typer.TyperException) -> str:
    """Pydantic's words for a value that is out of bounds or no number, replaced by those of the configuration."""
    words = error.format_message()
    if type(error.__cause__).__name__ != "ValidationError":  # without loading Pydantic
        return words
    from mailmill.settings.problems import wanted

    details = cast("ValidationError", error.__cause__).errors(include_url=False)[0]
    if details["type"] == "value_error":
        return words
    return words.replace(details["msg"], f"wants {wanted(details)} (found {details['input']!r})")


def _unexpected(invocation: Invocation, error: Exception) -> int:
    """What nobody foresaw: one line, and the traceback only for who asks for it."""
    named = _named_error(error)
    if named is not None:
        return _report(invocation, named)
    shown = errors.UnexpectedError(
        f"unexpected: {type(error).__name__}: {error}".rstrip(": "),
        hint="run it again with --debug for the traceback; the service's log may say more",
    )
    shown.__cause__ = error
    return _report(invocation, shown)


def _named_error(error: BaseException) -> MailmillError | None:
    """The first error raised on purpose inside what a task group raised."""
    if isinstance(error, MailmillError):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for each in inner if (found := _named_error(each)) is not None), None)
