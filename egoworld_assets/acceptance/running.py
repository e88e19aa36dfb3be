"""One acceptance, from the settings to what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_assets.acceptance import accuracy, decoding, measuring
from egoworld_assets.acceptance.report import Acceptance
from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.tables import tables_of
from egoworld_ops.errors import EgoworldError, InputError, printable
from egoworld_ops.lake import judging, runs
from egoworld_ops.raw import register
from egoworld_ops.synthetic import load_truth
from gpu_workers.inline import InlinePool

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Run
    from egoworld_ops.settings import Settings

SCENE = Path(__file__).parents[1] / "example" / "kitchen.mp4"
"""Shipped with its sidecar and its truth."""


def accepted(settings: Settings, out: Path, media: Sequence[Path], say: Callable[[str], None]) -> Acceptance:
    """Run the backends that the settings choose over the synthetic scene and over `media`.

    A fallback would hide that the chosen backend fails, so there is none here.

    Args:
        out: a folder that is not there; gets the lake.
        say: takes a line of progress.

    Raises:
        InputError: one of `media` cannot be a video.
        EgoworldError: weights have no digest yet, or the settings cannot be used.
    """
    without = {name: chosen.model_copy(update={"fallback": ""}) for name, chosen in settings.stages.items()}
    settings = settings.model_copy(update={"lake": out / "lake", "run_id": None, "stages": without, "retry_after_s": ()})
    configuration.frozen_configuration(settings)  # raises where weights were never fetched, before there is a folder
    [scene] = register.register(settings.lake, [SCENE]).video_ids
    given = [video_id for path in media for video_id in _registered(settings, path, say) if video_id != scene]
    run = configuration.open_run(settings)
    found, video_ids = Acceptance(runs.described(run)), [scene, *dict.fromkeys(given)]
    for _, result in pipeline.process(run, video_ids, settings, InlinePool(1), pipeline.Part(last=pipeline.MANIFEST)):
        if result.error is not None:
            raise result.error
    with _told(found, out):
        _measure(run, video_ids, settings, found, say)
    return found


@contextmanager
def _told(found: Acceptance, out: Path) -> Iterator[None]:
    """Where somebody interrupts it, the exception says what was measured."""
    try:
        yield
    except KeyboardInterrupt:
        measured = f"measured were {', '.join(stage.stage for stage in found.stages) or 'no stages'}"
        raise KeyboardInterrupt(f"{measured}; nothing is accepted, and no report written. Remove {out}, then run it again") from None


def _measure(run: Run, video_ids: Sequence[str], settings: Settings, found: Acceptance, say: Callable[[str], None]) -> None:
    scene = video_ids[0]
    for measured in measuring.stages(run, video_ids, settings):
        say(f"{measured.stage}.{measured.backend}: {next(iter(measured.failures), f'{measured.seconds:.1f} s')}")
        found.stages.append(measured)
    ran = {measured.stage for measured in found.stages if measured.clips}
    tables = tables_of(run, scene, [measured.stage for measured in found.stages if measured.stage in ran])
    found.judged += accuracy.judged(tables, load_truth(SCENE.with_suffix(".truth")), settings)
    for variant in measuring.variants(run, video_ids, settings, found.stages):
        say(f"{variant.stage} with {variant.option} = {variant.value}")
        found.variants.append(variant)
    if len(ran) == len(found.stages):
        say("all stages through the pool")
        try:
            found.chain = measuring.chain(run, video_ids, settings)
        except EgoworldError as error:
            found.broken.append(f"the pool: {error}")
    found.decoding = decoding.decoded(run, video_ids, settings)
    found.pictures += _pictures(run, video_ids, settings, found)
    found.warned += [w for w in judging.of_run(run, settings.quality).warned if set(w.videos) != {scene}]


def _registered(settings: Settings, path: Path, say: Callable[[str], None]) -> Sequence[str]:
    """The videos of a file or folder; copies of others are those."""
    taken = register.register(settings.lake, [path])
    found = [*taken.video_ids, *(row["video_id"] for row in taken.refused if row["status"] == "duplicate")]
    refused = [row for row in taken.refused if row["status"] != "duplicate"]
    if not found:
        row = next(iter(refused), {"reason": "is no video file and holds none", "cure": "Name video files, or folders of them"})
        raise InputError(path, row["reason"], row["cure"])
    for row in refused:
        say(f"left out: {printable(row['path'])}: {row['reason']}. {row['cure']}")
    return found


def _pictures(run: Run, video_ids: Sequence[str], settings: Settings, found: Acceptance) -> list[str]:
    from egoworld_assets.preview import write_sheet

    made = []
    for video_id in video_ids:
        try:
            written = write_sheet(run, video_id, settings.sample_stride, settings.pool.threads)
        except EgoworldError as error:
            found.broken.append(f"the picture of {video_id}: {error}")
        else:
            made += [str(written[2])] if written else []
    return made
