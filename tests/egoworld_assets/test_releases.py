"""The asset `release` and the commands release, verify and gc, over runs that the real pipeline made."""

import os
import subprocess
import time
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result
from dagster import AssetSelection

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.cli.main import egoworld
from egoworld_assets.jobs import process_videos
from egoworld_ops import operators
from egoworld_ops.files import locks
from egoworld_ops.lake import pointer
from egoworld_ops.lake.lake import RELEASED_TABLES, Lake, Run
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.query.catalog import FILE_NAME
from egoworld_ops.raw import register
from egoworld_ops.release.place import home
from egoworld_ops.settings import load_settings
from gpu_workers.inline import InlinePool
from tests.egoworld_assets.conftest import Place
from tests.egoworld_ops import media
from tests.lakes import write_video

CUT, FRAMES = 24, 48


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a video of two scenes without hands, and one that cannot be read, through every stage."""
    raw, lake = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("made") / "lake"
    media.make(raw / "two scenes.mp4", FRAMES, size=(160, 120), picture=media.scenes([CUT]))
    (raw / "bad.mp4").write_bytes(b"not a video" * 100)
    settings = load_settings().model_copy(update={"lake": lake, "raw": raw})
    video_ids = register.register(settings.lake, [raw]).video_ids
    for stage, result in pipeline.process(configuration.open_run(settings), video_ids, settings, InlinePool(1)):
        assert stage == pipeline.MANIFEST or result.state == "computed", result.error
    return lake


@pytest.fixture
def run(place: Place, made: Path) -> Run:
    """The run in it, as links."""
    subprocess.run(["cp", "-al", str(made), str(place.settings.lake)], check=True)
    return configuration.open_run(place.settings)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(egoworld, arguments, catch_exceptions=False)


def test_the_asset_releases_the_run_and_says_what_it_did(place: Place, run: Run) -> None:
    result = place.run_unpartitioned("release")
    assert result.success
    [event] = result.asset_materializations_for_node("release")
    said = {name: value.value for name, value in event.metadata.items()}
    assert (said["videos"], said["videos incomplete"], said["rows of clips"], said["rows of videos"]) == (2, 0, 2, 2)
    assert (said["parts"], said["files written"], said["files kept"]) == (1, len(RELEASED_TABLES), 0)
    assert {f"rows of {stage}" for stage in operators.stages()} < said.keys()
    assert said["bytes"] == said["bytes written"] > 0
    with duckdb.connect(str(run.lake.root / FILE_NAME), read_only=True) as connection:
        assert connection.execute("SELECT status, n_frames FROM release.videos ORDER BY status").fetchall() == [
            ("ok", 48),
            ("rejected", None),
        ]
    [again] = place.run_unpartitioned("release").asset_materializations_for_node("release")
    assert again.metadata["files written"].value == 0


def test_the_asset_hangs_below_every_stage_and_is_no_part_of_the_chain() -> None:
    from egoworld_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    [release] = [node for node in graph.asset_nodes if node.key.path[-1] == "release"]
    above = AssetSelection.assets(release.key).upstream(include_self=False).resolve(graph)
    assert {key.path[-1] for key in above} == {pipeline.MANIFEST, *operators.stages()}
    assert release.partitions_def is None
    assert release.key not in process_videos.selection.resolve(graph)


def test_a_run_of_the_real_pipeline_is_released_verified_and_kept(run: Run) -> None:
    done = command("release")
    assert done.exit_code == 0, done.output
    assert "2 videos in 1 part(s)" in done.output
    assert f"{len(RELEASED_TABLES)} files written, 0 kept" in done.output
    verified = command("verify", run.run_id)
    assert (verified.exit_code, verified.stdout) == (0, "")
    assert "0 finding(s)" in verified.stderr

    damaged = next(run.path.glob("video_id=two*/clip_id=*/masks.parquet"))
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1])
    verified = command("verify")
    assert verified.exit_code == 1
    [line] = [line for line in verified.stdout.splitlines() if str(damaged) in line]
    assert "Delete the file" in line

    locks.let_go(run.path)
    assert f"stays    run {run.run_id}: released" in command("gc").output
    assert run.path.is_dir()


def age(run: Run, hours: float = 48) -> None:
    for path in (run.path, *run.path.rglob("*")):
        os.utime(path, (time.time() - hours * 3600,) * 2)


def make_runs(store: Lake, *names: str) -> list[Run]:
    """Runs of one video each, made two days ago; the last one is the latest."""
    made = [store.open_run({"a": name}, name, dict) for name in names]
    for run in made:
        write_video(run, "v", n_frames=10)
        age(run)
        locks.let_go(run.path)
    pointer.write(store.root, pointer.Pointer(names[-1]))
    return made


def test_gc_lists_and_removes_and_keeps_what_is_named(place: Place) -> None:
    store = Lake(place.settings.lake)
    make_runs(store, "one", "two", "three")
    with open_ledger(store) as book:
        book.add({ClipKey(name, "masks", "v", "c"): None for name in ("one", "two")})
    listed = command("gc", "--keep", "two").output
    assert "stays    run two: named to be kept" in listed
    assert "stays    run three: the latest run" in listed
    assert f"would go {store.root / 'run_id=one'}: not released" in listed
    assert "MB would be freed on the disk, in whole blocks, by files of" in listed
    assert "nothing was removed; `egoworld gc --yes` does it" in listed
    assert len(store.runs()) == 3
    assert f"removed  {store.root / 'run_id=one'}" in command("gc", "--keep", "two", "--yes").output
    assert {made.run_id for made in store.runs()} == {"two", "three"}
    with open_ledger(store) as book:
        assert [bool(book.counts(name)) for name in ("one", "two")] == [False, True]
    missing = CliRunner().invoke(egoworld, ["gc", "--keep", "nobody"])
    assert "nobody" in str(missing.exception)


def test_gc_leaves_the_main_run_beside_a_small_experiment_that_was_released(place: Place) -> None:
    store = Lake(place.settings.lake)
    main, small = make_runs(store, "main", "small")
    write_video(main, "another", n_frames=10)
    age(main)
    assert command("release", "small").exit_code == 0
    listed = command("gc", "--yes").output
    assert f"stays    run main: the largest of the lake, {2 * len(operators.stages())} results; if it may go, say `--remove main`" in listed
    assert set(store.runs()) == {main, small}
    removed = CliRunner().invoke(egoworld, ["gc", "--yes", "--remove", "main"])
    assert "warning: run main is the largest of the lake" in removed.stderr
    assert store.runs() == [small]


def test_gc_leaves_a_run_that_changed_lately(place: Place) -> None:
    store = Lake(place.settings.lake)
    one, _ = make_runs(store, "one", "two")
    path = next(one.path.glob("video_id=*/clip_id=*/masks.parquet"))
    os.utime(path, (time.time() - 3 * 3600,) * 2)
    assert "stays    run one: changed 3.0 h ago, within 24 h (--older-h)" in command("gc", "--yes").output
    assert f"removed  {one.path}" in command("gc", "--yes", "--older-h", "2").output
    assert command("gc").output.endswith("nothing to remove\n")


def test_commands_name_a_run_that_is_not_there(place: Place) -> None:
    for name in ("release", "verify"):
        assert "nobody" in str(CliRunner().invoke(egoworld, [name, "nobody"]).exception)
    assert not home(Lake(place.settings.lake)).exists()
