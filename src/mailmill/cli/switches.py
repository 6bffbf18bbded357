"""Help that says of each parameter what a person types, and no more.

Typer gives each parameter a type (``ID <str>``, a switch ``<bool>``) and writes arguments into the usage line in
braces, those of several words with dots behind the dots (``[ID...]...``).
"""

from __future__ import annotations

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption


def put_together(app: typer.Typer) -> TyperGroup:
    """The commands of ``app``, ready to be called. Raises TypeError if it has only one and is no group."""
    program = typer.main.get_command(app)
    if not isinstance(program, TyperGroup):
        raise TypeError("an app of one command")
    _show_no_types(program, typer.Context(program, **program.context_settings))
    return program


class _Argument(TyperArgument):
    """One that is shown by its name alone: ``ID...``, or ``[ID...]`` where it may be left out."""

    def get_usage_pieces(self, ctx: object) -> list[str]:
        return [self.display_name_raw if self.required else f"[{self.display_name_raw}]"]

    def display_type_rich(self, ctx: object) -> str | None:
        return None


def _show_no_types(group: TyperGroup, context: typer.Context) -> None:
    # With the context of its parent, since each command keeps the help option that it makes here, names and all.
    for command in (group, *group.commands.values()):
        own = context if command is group else typer.Context(command, parent=context, **command.context_settings)
        for parameter in command.get_params(own):
            if isinstance(parameter, TyperOption) and parameter.is_flag:
                parameter.metavar = ""
            elif isinstance(parameter, TyperArgument):
                # Typer makes its arguments itself, and asks nobody of which class.
                parameter.__class__ = _Argument
        if command is not group and isinstance(command, TyperGroup):
            _show_no_types(command, own)
