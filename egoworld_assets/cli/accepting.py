"""`egoworld accept`: run once on a new machine, it says whether the backends of a profile work there, how well and how fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("media", nargs=-1, type=click.Path(path_type=Path))
@click.option("--profile", "named", help="The profile to try; else the one egoworld uses.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("acceptance"), help="A new folder for the report and the results.")
@click.pass_obj
def accept(profile: str | None, media: Sequence[Path], named: str | None, out: Path) -> None:
    """Run every backend of a profile on the synthetic scene, whose truth is known, and on MEDIA; measure accuracy, speed and memory, and write a
    report. Ends with 1 where the profile is not to be accepted."""
    import json

    from egoworld_assets.acceptance.running import accepted
    from egoworld_ops.errors import BadSettings
    from egoworld_ops.files.whole import is_there, write_bytes
    from egoworld_ops.settings import load_settings

    settings = load_settings(named or profile)
    if is_there(out):
        raise BadSettings(f"--out {out}", "is there already", "Name a new folder, or remove it: each acceptance keeps its own results")
    found = accepted(settings, out.absolute(), media, lambda said: click.echo(said, err=True))
    lines = list(found.lines())
    write_bytes(out / "acceptance.json", json.dumps(found.to_json(), indent=1).encode())
    write_bytes(out / "acceptance.txt", "\n".join([*lines, ""]).encode())
    for line in lines:
        click.echo(line)
    click.echo(f"report    {out / 'acceptance.txt'} and acceptance.json; results in {out / 'lake'}")
    sys.exit(1 if found.against() else 0)


COMMANDS = (accept,)
