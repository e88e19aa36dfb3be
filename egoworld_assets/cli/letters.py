"""Commands about dead letters: the clips that are not tried again until somebody redrives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

import click

from egoworld_ops.naming import did_you_mean

if TYPE_CHECKING:
    from egoworld_ops.lake.failures import Which
    from egoworld_ops.lake.lake import Run


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose a run and dead letters in it; it takes them as `run_id` and `which`."""

    def chosen(
        profile: str | None,
        /,
        run_id: str,
        video_id: str | None,
        clip_id: str | None,
        stage: str | None,
        error_class: str | None,
        **own: Any,
    ) -> None:
        from egoworld_ops.lake.failures import Which

        command(profile, run_id, Which(video_id, clip_id, stage, error_class), **own)

    with_options: Callable[..., None] = update_wrapper(click.pass_obj(chosen), command)
    for option in (
        click.option("--run", "run_id", default="latest", show_default=True, help="The run."),
        click.option("--video", "video_id", help="Only of this video."),
        click.option("--clip", "clip_id", help="Only this clip."),
        click.option("--stage", help="Only in this stage."),
        click.option("--class", "error_class", help="Only of this class of error."),
    ):
        with_options = option(with_options)
    return with_options


@click.command("dead-letters")
@click.option("--traceback", is_flag=True, help="Show where in the code it happened.")
@_choosing
def dead_letters(profile: str | None, run_id: str, which: Which, traceback: bool) -> None:
    """List the clips that are not tried again until somebody redrives them, each with the command that reproduces it alone."""
    from egoworld_ops.lake import failures, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    chosen = runs.find(Lake(load_settings(profile).lake), run_id)
    found = list(failures.find(chosen, _checked(chosen, which)))
    for letter in found:
        frame = "" if letter.frame_index is None else f", at frame {letter.frame_index}"
        click.echo(
            f"{letter.video_id} {letter.clip_id or '-'} {letter.stage} ({letter.backend or 'the video'}){frame}, {letter.attempts} attempt(s)"
        )
        click.echo(f"  {letter.error_class}: {letter.culprit}: {letter.reason}. {letter.cure}")
        click.echo(f"  {letter.command}")
        if traceback and letter.traceback:
            click.echo("".join(f"  | {line}\n" for line in letter.traceback.splitlines()), nl=False)
    click.echo(f"{len(found)} dead letter(s) in run {chosen.run_id}")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Redrive all of the run, where nothing else is chosen.")
@_choosing
def redrive(profile: str | None, run_id: str, which: Which, everything: bool) -> None:
    """Let the next materialization try dead letters again, by video, clip, stage or class of error."""
    from egoworld_assets.chain.bookkeeping import MANIFEST, ledger_of
    from egoworld_ops.lake import failures, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.ledger import Change, ClipKey, State
    from egoworld_ops.settings import load_settings

    if which.stage == MANIFEST:
        raise click.UsageError("a manifest is not redriven, it is made anew: `egoworld run --video VIDEO_ID --to manifest --anew`")
    if which == failures.Which() and not everything:
        raise click.UsageError("choose by --video, --clip, --stage or --class, or say --all")
    settings = load_settings(profile)
    chosen = runs.find(Lake(settings.lake), run_id)
    driven = failures.redrive(chosen, _checked(chosen, which))
    keys = [ClipKey(letter.run_id, letter.video_id, letter.clip_id, letter.stage) for letter in driven]
    ledger_of(settings.lake, settings.ledger).move("redrive", [Change(key, State.PENDING) for key in keys])
    for letter in driven:
        click.echo(f"{letter.video_id} {letter.clip_id} {letter.stage}: {letter.error_class}")
    click.echo(f"{len(driven)} to be tried again in run {chosen.run_id}; materialize their assets, or `egoworld process --all`")


def _checked(run: Run, which: Which) -> Which:
    """A choice whose names all exist, so that a typing error does not select nothing silently.

    Raises:
        SetupError: one is not.
    """
    from egoworld_ops import errors, operators
    from egoworld_ops.lake.states import MANIFEST

    classes = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.EgoworldError)]
    videos = f"video_id={which.video_id or '*'}"
    _check("--stage", which.stage, [MANIFEST, *operators.stages()])
    _check("--class", which.error_class, classes)
    _check("--video", which.video_id, (path.name.partition("=")[2] for path in run.path.glob("video_id=*")), f" in run {run.run_id}")
    _check("--clip", which.clip_id, (p.name.partition("=")[2] for p in run.path.glob(f"{videos}/clip_id=*")), f" in run {run.run_id}")
    return which


def _check(option: str, given: str | None, known: Iterable[str], where: str = "") -> None:
    from egoworld_ops.errors import SetupError

    names = sorted(set(known))
    if given is not None and given not in names:
        raise SetupError(f"{option} {given}", f"is not there{where}", did_you_mean(given, names))


COMMANDS = (dead_letters, redrive)
