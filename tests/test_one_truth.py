"""All agree on which results exist and count: checks, runs, ledger, dead letters, releases, views and loaded inputs."""

import shutil
from collections import Counter
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from egoworld_assets import checks
from egoworld_assets.chain import configuration
from egoworld_assets.io import LakeIOManager
from egoworld_assets.partitions import VIDEO_IDS
from egoworld_assets.resources import Egoworld
from egoworld_ops import ledger
from egoworld_ops.files.tables import read_result, read_table, write_table
from egoworld_ops.lake import counted, failures, judging, runs, states
from egoworld_ops.lake.lake import Run
from egoworld_ops.ledger import State
from egoworld_ops.query import catalog
from egoworld_ops.raw import register
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.report.layers import read_layers
from egoworld_ops.settings import Settings
from tests import finished
from tests.stages import below

STALE = below("masks")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return finished.settings_in(tmp_path)


@pytest.fixture
def stale(settings: Settings) -> tuple[Run, str, str]:
    """A run in which the masks of one clip of three are not those that downstream stages read."""
    run, video_id = finished.registered_video(settings)
    finished.go(run, video_id, settings)
    clip_id = states.video_state(run, video_id).clips[1].clip_id  # type: ignore[union-attr]
    path = run.clip_table("masks", video_id, clip_id)
    rows, origin = read_result(path, "masks")
    write_table(path, "masks", rows, origin | {"digest": "other masks"})
    counted.count(run, video_id)
    return run, video_id, clip_id


def test_a_stale_table_is_nowhere_done(settings: Settings, stale: tuple[Run, str, str]) -> None:
    run, video_id, clip_id = stale
    assert {stage: n["done"] for stage, n in runs.counts(run).items() if n["stale"]} == dict.fromkeys(STALE, 2)
    with ledger.open_ledger(run.lake) as book:
        ledger.rebuild(book, run.lake)
        assert {stage for stage, n in book.counts(run.run_id).items() if n.get(State.DONE) == 2} == STALE
    for stage in STALE:
        verdict = checks._complete(run, stage, video_id)
        assert [f"clip {clip_id}" in finding for finding in verdict.findings] == [True]
    make_release(run, ReleaseSettings())
    [part] = place.read(run).parts  # type: ignore[union-attr]
    assert part.tables["movement"].sources == 2
    with duckdb.connect(str(catalog.write_catalog(run.lake)), read_only=True) as connection:
        found = connection.execute("SELECT stage, clips FROM run_states WHERE state = 'stale' ORDER BY ALL").fetchall()
        assert found == [(stage, 1) for stage in sorted(STALE)]
    _, results = finished.go(run, video_id, settings, first="movement", last="movement")
    assert Counter(result.state for result in results) == {"done": 2, "blocked": 1}


def test_metrics_pictures_and_comparisons_are_of_rows_that_count(settings: Settings, stale: tuple[Run, str, str]) -> None:
    run, video_id, clip_id = stale
    with duckdb.connect() as connection:
        said = {stage: judging.judge_videos(connection, run, stage, [video_id], {})[video_id].values for stage in ("masks", "object_pose")}
    drawn = read_layers(run, video_id, clip_id)
    assert all("was made of inputs that no longer count" in drawn.without[layer] for layer in ("objects", "holds"))
    assert "masks" not in drawn.without
    counted_rows = sum(
        state.rows or 0
        for clip in states.video_state(run, video_id).clips  # type: ignore[union-attr]
        if (state := clip.stages["object_pose"]).counts
    )
    assert said["object_pose"] == f"{counted_rows} of {counted_rows}"
    other = Run(run.lake, "another")
    shutil.copytree(run.path, other.path)
    path = other.clip_table("movement", video_id, clip_id)
    rows, origin = read_result(path, "movement")
    write_table(path, "movement", rows, origin | {"digest": "other movement"})
    assert list(runs.results(run, other)) == [], "neither of the two counts"


def test_loaded_inputs_are_the_rows_that_count_each_owned_frame_once(
    settings: Settings, stale: tuple[Run, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, video_id, clip_id = stale
    make_release(run, ReleaseSettings())
    resource = Egoworld()
    monkeypatch.setattr(Egoworld, "settings", property(lambda self: settings))
    manager = LakeIOManager(egoworld=resource)

    def loaded(stage: str) -> pa.Table:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(str(VIDEO_IDS.name), [video_id])
            context = dg.build_input_context(
                asset_key=dg.AssetKey(stage),
                partition_key=video_id,
                asset_partitions_def=VIDEO_IDS,
                asset_partition_key_range=dg.PartitionKeyRange(video_id, video_id),
                instance=instance,
            )
            return manager.load_input(context)

    assert configuration.open_run(settings) == run
    [part] = place.read(run).parts  # type: ignore[union-attr]
    for stage in ("movement", "masks", "hand_pose"):
        rows = loaded(stage)
        assert rows.equals(read_table(place.part_path(place.folder(run), stage, part.name), stage))
        assert (clip_id in rows["clip_id"].to_pylist()) == (stage != "movement")
    frames = Counter(row["frame_index"] for row in loaded("hand_pose").to_pylist())
    assert frames == dict.fromkeys(range(60), 2), "both hands, in each frame once"
    assert loaded("manifest").num_rows == 3


def test_all_agree_about_videos_that_were_rejected(settings: Settings) -> None:
    settings.raw.mkdir()
    for n in range(4):
        (settings.raw / f"{n}.mp4").write_bytes(b"no video %d" % n)
    video_ids = register.register(settings.lake, [settings.raw]).video_ids
    run = configuration.open_run(settings)
    for video_id in video_ids:
        assert [result.state for result in finished.go(run, video_id, settings, first="manifest", last="manifest")[1]] == ["failed"]
    assert runs.counts(run)["manifest"] == {"dead letters": 4}
    letters = list(failures.find(run, failures.Which()))
    assert sorted(letter.video_id for letter in letters) == sorted(video_ids)
    assert {(letter.stage, letter.clip_id, letter.error_class) for letter in letters} == {("manifest", "", "NotAVideo")}
    assert list(failures.find(run, failures.Which(stage="masks"))) == []
    assert failures.redrive(run, failures.Which()) == []
    with ledger.open_ledger(run.lake) as book:
        assert book.counts(run.run_id) == {"manifest": {State.DEAD_LETTER: 4}}
        ledger.rebuild(book, run.lake)
        assert book.counts(run.run_id) == {"manifest": {State.DEAD_LETTER: 4}}
    with duckdb.connect(str(catalog.write_catalog(run.lake)), read_only=True) as connection:
        assert connection.execute("SELECT stage, state, clips FROM run_states").fetchall() == [("manifest", "dead_letter", 4)]
