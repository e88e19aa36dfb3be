"""Commands about model weights."""

from __future__ import annotations

import sys
import time
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
@click.argument("names", nargs=-1)
@click.option("--profile", "named", help="All that the backends of this profile work with.")
def fetch(names: Sequence[str], named: str | None) -> None:
    """Get what of NAMES is missing, and verify it. What was broken off goes on where it was. Ends with 1 where one could not be had; the others are
    got all the same."""
    from egoworld_assets.diagnosis import weights_of
    from egoworld_ops import models
    from egoworld_ops.errors import EgoworldError
    from egoworld_ops.settings import load_settings

    if bool(names) == bool(named):
        raise click.UsageError("name weights, or a profile with --profile; `egoworld models list` lists what there is")
    progress, failed = Progress(), list[EgoworldError]()
    try:
        paths = models.fetch(names or weights_of(load_settings(named)), progress, failed.append)
    finally:
        progress.end()
    for path in paths:
        click.echo(path)
    for said in failed:
        click.echo(f"egoworld: {said}", err=True)
    sys.exit(1 if failed else 0)


@models_group.command()
@click.argument("names", nargs=-1)
def verify(names: Sequence[str]) -> None:
    """Read the weights of NAMES (of all that are here) again, and compare them with the registry and the lock file. Ends with 1 if one is wrong."""
    from egoworld_ops import models

    wrong = 0
    for entry in models.named(names or models.REGISTRY):
        state = models.verify(entry.name)
        wrong += state not in (("here",) if names else ("here", "-"))
        if names or state != "-":
            click.echo(f"{state:10} {entry.name}")
    sys.exit(1 if wrong else 0)


@models_group.command()
@click.argument("names", nargs=-1)
def licences(names: Sequence[str]) -> None:
    """The licences of the weights of NAMES (of all): where each can be read, and whether it allows commercial use."""
    from egoworld_ops import models

    for licence, under in models.licences(names).items():
        click.echo(f"{licence}\n    {', '.join(under)}")


@models_group.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
def register(name: str, file: Path) -> None:
    """Take over a FILE that you brought as NAME, if it is the right one."""
    from egoworld_ops import models

    click.echo(models.register(name, file))


class Progress:
    """Says how far a download is: at a terminal on one line, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every_s = 0.2 if self._terminal else 10.0
        self._name, self._begin, self._from, self._said = "", 0.0, 0, 0.0

    def __call__(self, name: str, here: int, total: int | None) -> None:
        """As `egoworld_ops.models.fetching.Say`."""
        now = time.monotonic()
        if name != self._name:
            self.end()
            self._name, self._begin, self._from, self._said = name, now, here, now
        done = here == total
        if now - self._said < self._every_s and not (done and self._terminal):
            return
        self._said = now
        rate = (here - self._from) / max(now - self._begin, 1e-3)
        share = f"{100 * here / total:5.1f} % of {total / 1e6:.0f} MB" if total else f"{here / 1e6:.0f} MB"
        left = f", {(total - here) / rate:.0f} s left" if total and rate and not done else ""
        line = f"{name}: {share}, {rate / 1e6:.1f} MB/s{left}"
        click.echo(f"\r{line:79}" if self._terminal else line, err=True, nl=not self._terminal)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._name:
            click.echo(err=True)


COMMANDS = (models_group,)
