"""The reference pages against the code: commands, endpoints, error codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import mailmill.app.threat_evaluation.peers
import mailmill.store.mailboxes
from dashboard.fake_use_cases import FakeUseCases
from mailmill.api.access import Access
from mailmill.api.application import create_app
from mailmill.cli import errors as cli_errors
from mailmill.cli.main import app
from mailmill.errors import MailmillError

# Their errors belong to the tree.
assert mailmill.app.threat_evaluation.peers and mailmill.store.mailboxes

DOCS = Path(__file__).parents[2] / "docs"

# -- the command line -------------------------------------------------------------------------------------------------

COMMAND_LINE = (DOCS / "command-line.md").read_text(encoding="utf-8")
COMMON = {"--json", "--help", "-h", "--config", "--debug"}


def commands(command: Any, path: tuple[str, ...] = ("mailmill",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its name in full."""
    families = getattr(command, "commands", None)
    if not families:
        yield " ".join(path), command
        return
    for name, each in families.items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def sections() -> dict[str, str]:
    """Command → its part of the page. The heading is the command line, arguments in capitals."""
    parts = re.split(r"^### `(mailmill[a-z ]*)[^`]*`\n", COMMAND_LINE, flags=re.MULTILINE)
    return {name.strip(): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_command_has_its_section() -> None:
    assert set(sections()) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_is_described_as_it_is(name: str) -> None:
    command, section = COMMANDS[name], sections()[name]
    assert command.help.splitlines()[0].removesuffix(".") in " ".join(section.split())
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
    cells = re.findall(r"^\| (`-[^|]*) \|", section, re.MULTILINE)
    assert {option for cell in cells for option in re.findall(r"`(--?[a-z-]+)", cell)} == options - COMMON


def test_the_global_options_are_described() -> None:
    there = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
    general = COMMAND_LINE.partition("## Exit codes")[0]
    assert there | COMMON <= set(re.findall(r"`(?:mailmill )?(--?[a-z-]+)", general))


def test_every_exit_code_is_described() -> None:
    table = COMMAND_LINE.partition("## Exit codes")[2].partition("\n## ")[0]
    numbers = {*cli_errors.EXIT_CODES.values(), cli_errors.OK, cli_errors.INTERRUPTED, cli_errors.BROKEN_PIPE}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == numbers


# -- the API ----------------------------------------------------------------------------------------------------------


def test_every_endpoint_is_listed() -> None:
    described = create_app(FakeUseCases(), Access("t" * 40)).openapi()["paths"]
    there = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)` \|", page, re.MULTILINE))
    assert listed == there


# -- errors -----------------------------------------------------------------------------------------------------------


def error_codes(kind: type[MailmillError]) -> Iterator[str]:
    yield kind.code
    for each in kind.__subclasses__():
        yield from error_codes(each)


def test_every_error_has_its_remedy() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### `(\w+)`$", page, re.MULTILINE)
    assert len(headings) == len(set(headings))
    raised = {code for code in error_codes(MailmillError) if not code.startswith("test")}
    assert set(headings) == raised
    for heading in headings:
        section = page.partition(f"### `{heading}`\n")[2].partition("\n#")[0]
        assert len(section.split()) >= 8, heading
