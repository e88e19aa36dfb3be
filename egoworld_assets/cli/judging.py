"""Commands about verdicts: what people said of clips."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from egoworld_assets.cli.group import Group
from egoworld_ops.verdict_words import VERDICT_WORDS

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Run

WORDS = VERDICT_WORDS[::-1]


def of_verdict(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that choose clips by what people said of them, see `lake/chosen.py`."""
    only = click.option("--verdict", type=click.Choice(WORDS), help="Only clips of which people said this on the review page.")
    but = click.option(
        "--without", multiple=True, type=click.Choice(WORDS), help="All clips but those of this verdict; may be given again."
    )
    return only(but(command))


def left_out(verdicts: Mapping[str, Any]) -> str:
    """How many clips a release or an export leaves out for what people said of them, in words."""
    told = verdicts["left_out"]
    return f"{sum(told.values())} clip(s) are left out: {', '.join(f'{n} {word}' for word, n in told.items()) or 'none'}"


@click.group("verdicts", cls=Group)
def verdicts_group() -> None:
    """What people said of clips on the review page."""


@verdicts_group.command("list")
@click.option("--run", "run_id", default="latest", show_default=True, help="The run.")
@click.option("--verdict", type=click.Choice(WORDS), help="Only clips with this verdict.")
@click.pass_obj
def list_verdicts(profile: str | None, run_id: str, verdict: str | None) -> None:
    """Each clip of a run that was judged, with the verdicts that stand; and how far judges agree."""
    from egoworld_ops.lake import verdicts

    run = _run(profile, run_id)
    stands = verdicts.standing(run, verdicts.read(run.lake))
    shown = {clip: of_clip for clip, of_clip in sorted(stands.items()) if verdict in (None, verdicts.word(of_clip))}
    for (video_id, clip_id), of_clip in shown.items():
        for each in of_clip:
            frames = "" if each.frame_start is None or each.frame_end is None else f"  frames {each.frame_start}-{each.frame_end - 1}"
            click.echo(f"{video_id} {clip_id}  {each.verdict:<6}  {each.judge}{frames}{f'  {each.why}' if each.why else ''}")
    click.echo(f"{len(shown)} clip(s) of run {run.run_id}", err=True)
    for pair in verdicts.agreement(stands):
        kappa = "–" if pair.kappa is None else f"{pair.kappa:.2f}"
        click.echo(f"{pair.a} and {pair.b}: {pair.same} of {pair.n} clips the same, Cohen's kappa {kappa}", err=True)


@verdicts_group.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), default="-")
@click.pass_obj
def export_verdicts(profile: str | None, file: Path) -> None:
    """Write all verdicts of the lake, also those that no longer stand, to FILE (- for the terminal), a JSON object each line."""
    from egoworld_ops.errors import SetupError
    from egoworld_ops.files.whole import write_bytes
    from egoworld_ops.lake import verdicts
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    known = verdicts.read(Lake(load_settings(profile).lake))
    lines = "".join(json.dumps(each.to_json(), ensure_ascii=False) + "\n" for each in known)
    if str(file) == "-":
        click.echo(lines, nl=False)
    elif file.exists() and not file.is_file():
        raise SetupError(file, "is there, and is no file", "Name a file, or - for the terminal")
    else:
        write_bytes(file, lines.encode())
    click.echo(f"{len(known)} verdict(s)", err=True)


@verdicts_group.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.pass_obj
def import_verdicts(profile: str | None, file: Path) -> None:
    """Add the verdicts of FILE, as `export` writes it; those the lake has are passed over. At a line that is none, nothing is added."""
    from egoworld_ops.lake import verdicts
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    with click.open_file(str(file), encoding="utf-8", errors="replace") as lines:
        read = list(verdicts.parse(lines, file))
    n = verdicts.add(Lake(load_settings(profile).lake), read)
    click.echo(f"{n} verdict(s) added, {len(read) - n} were there")


def _run(profile: str | None, run_id: str) -> Run:
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    return runs.find(Lake(load_settings(profile).lake), run_id)


COMMANDS = (verdicts_group,)
