"""Help without ``<bool>`` behind every switch: Typer gives each option a type, and a switch takes no value."""

from __future__ import annotations

import typer
from typer.core import TyperGroup, TyperOption


def put_together(app: typer.Typer) -> TyperGroup:
    """The commands of ``app``, ready to be called. Raises TypeError if it has only one and is no group."""
    program = typer.main.get_command(app)
    if not isinstance(program, TyperGroup):
        raise TypeError("an app of one command")
    _show_no_types(program, typer.Context(program, **program.context_settings))
    return program


def _show_no_types(group: TyperGroup, context: typer.Context) -> None:
    # With the context of its parent, since each command keeps the help option that it makes here, names and all.
    for command in (group, *group.commands.values()):
        own = context if command is group else typer.Context(command, parent=context, **command.context_settings)
        for option in command.get_params(own):
            if isinstance(option, TyperOption) and option.is_flag:
                option.metavar = ""
        if command is not group and isinstance(command, TyperGroup):
            _show_no_types(command, own)
