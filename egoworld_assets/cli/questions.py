"""Commands that ask the lake: the shipped questions, and any of your own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.pass_obj
def queries(profile: str | None) -> None:
    """Run the questions of docs/queries.md over the lake, and print them with their answers."""
    from egoworld_ops.query.questions import QUERIES, answer

    database = _database(profile)
    for question, sql in QUERIES.items():
        click.echo(f"-- {question}{sql};\n{answer(database, sql)}")


@click.command()
@click.argument("statement")
@click.pass_obj
def sql(profile: str | None, statement: str) -> None:
    """Ask the lake STATEMENT, in DuckDB's SQL, read-only: `egoworld sql "SELECT * FROM videos"`."""
    from egoworld_ops.query.questions import answer

    click.echo(answer(_database(profile), statement))


def _database(profile: str | None) -> Path:
    """The lake's database, brought up to date."""
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.query import catalog
    from egoworld_ops.settings import load_settings

    store = Lake(load_settings(profile).lake)
    runs.latest(store)
    return catalog.write_catalog(store)


COMMANDS = (queries, sql)
