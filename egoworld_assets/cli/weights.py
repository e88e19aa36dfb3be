"""Commands about model weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from egoworld_assets.cli.group import Group


@click.group("models", cls=Group)
def models_group() -> None:
    """Model weights: what they are, where they come from, and getting them."""


@models_group.command("list")
def list_models() -> None:
    """All weights, their licence and source, and whether they are here."""
    from egoworld_ops import models

    click.echo(f"folder {models.folder().absolute()}")
    for line in models.listed():
        click.echo(line)


@models_group.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: Sequence[str]) -> None:
    """Get what of NAMES is missing, and verify it."""
    from egoworld_ops import models

    for path in models.fetch(names):
        click.echo(path)


@models_group.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
def register(name: str, file: Path) -> None:
    """Take over a FILE that you brought as NAME, if it is the right one."""
    from egoworld_ops import models

    click.echo(models.register(name, file))


COMMANDS = (models_group,)
