"""Groups of commands that suggest the nearest name for a misspelt one, and how commands end that are interrupted."""

from __future__ import annotations

import click

from egoworld_ops.naming import did_you_mean

INTERRUPTED = 130
"""The status of a command that Ctrl-C ended: 128 and the number of the signal, as shells have it."""


class Group(click.Group):
    """A group that names the nearest of its commands where one is misspelt."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion.

        Raises:
            UsageError: there is no such command.
        """
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(f"there is no command {args[0]!r}. {did_you_mean(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)
