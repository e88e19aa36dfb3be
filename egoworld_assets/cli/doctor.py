"""`egoworld doctor`: what this machine lacks for a profile, and how to get it; in words for one who is new to all this."""

from __future__ import annotations

import sys

import click


@click.command()
@click.pass_obj
@click.option("--profile", "named", help="The profile to look at; else the one egoworld uses.")
def doctor(profile: str | None, named: str | None) -> None:
    """Say what this machine lacks for a profile, and how to get it. Ends with 1 where something is missing without which it cannot run."""
    from egoworld_assets.diagnosis import Verdict, examined

    counted = dict.fromkeys(Verdict, 0)
    for finding in examined(named or profile):
        counted[finding.verdict] += 1
        click.echo(f"{finding.verdict.value:8} {finding.part:12} {finding.said}")
        if finding.cure:
            click.echo(f"{'':21} -> {finding.cure}")
    missing, notes = counted[Verdict.MISSING], counted[Verdict.NOTE]
    click.echo(f"\n{missing} missing, {notes} worth knowing, {counted[Verdict.OK]} in order")
    sys.exit(1 if missing else 0)


COMMANDS = (doctor,)
