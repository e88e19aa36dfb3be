"""Runs of the real graph: metadata and checks belong to the right video, also where a run holds many; bad files stop only what depends on them."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster_duckdb import DuckDBResource
from duckdb import InvalidInputException

from egoworld_assets import console
from egoworld_assets.assets import ASSETS
from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.checks import _broken
from egoworld_assets.cli import outcome
from egoworld_assets.dead_letters_asset import dead_letters
from egoworld_assets.definitions import defs
from egoworld_assets.drift_asset import drift
from egoworld_assets.io import LakeIOManager
from egoworld_assets.partitions import VIDEO_IDS
from egoworld_assets.resources import Egoworld
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.execution.identity import code_version
from egoworld_ops.files.tables import PROVENANCE_KEY, provenance_at, write_table
from egoworld_ops.settings import load_settings
from egoworld_ops.video.sidecar import sidecar_path
from tests import damage
from tests.egoworld_assets.conftest import Place, checks, metadata
from tests.egoworld_ops import media
from tests.rows import detection_row, hand_pose_row


def test_metadata_and_checks_of_a_run_over_many_videos(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    paths = [
        media.make(raw / "one.mp4", 20, picture=media.scenes([])),
        media.make(raw / "two.mp4", 40, picture=media.scenes([20])),
        media.make(raw / "three.mp4", 60, picture=media.scenes([20, 40])),
    ]
    (raw / "bad.mp4").write_bytes(b"not a video")
    one, two, three, bad = (v for path in [*paths, raw / "bad.mp4"] for v in place.register(path))

    result = place.run([one, two, three, bad], "manifest", "detections")

    assert result.success
    manifest, detections = metadata(result, "manifest"), metadata(result, "detections")
    assert {v: manifest[v]["dagster/row_count"] for v in manifest} == {one: 1, two: 2, three: 3, bad: 0}
    clips = {one: "1 computed", two: "2 computed", three: "3 computed", bad: "none: see the check manifest_complete"}
    assert {v: detections[v]["clips"] for v in detections} == clips
    assert (manifest[bad]["status"], detections[bad]["status"], detections[one]["status"]) == ("failed", "no clips", "ok")
    assert "bad.mp4" in str(manifest[bad]["first failure"])
    judged = checks(result)
    assert {v for name, v in judged if name == "manifest_contract"} == {one, two, three, bad}
    assert [judged["manifest_complete", v].passed for v in (one, two, three, bad)] == [True, True, True, False]
    assert [judged["detections_complete", v].metadata["clips"].value for v in (one, two, three)] == [
        f"{n} of {n} done, 0 failed" for n in (1, 2, 3)
    ]
    assert not judged["detections_complete", bad].passed
    target = judged["manifest_complete", two].target_materialization_data
    of_two = dg.AssetRecordsFilter(dg.AssetKey("manifest"), asset_partitions=[two])
    assert target
    assert target.storage_id == place.dagster.fetch_materializations(of_two, limit=1).records[0].storage_id

    again = metadata(place.run([one, two, three, bad], "manifest", "detections"), "detections")
    clips = {one: "1 done before", two: "2 done before", three: "3 done before", bad: "none: see the check manifest_complete"}
    assert {v: m["clips"] for v, m in again.items()} == clips

    sidecar_path(paths[2]).write_text("{ not JSON")
    capfd.readouterr()
    place.run([three], "detections")
    said = capfd.readouterr().err
    assert said.count("detections failed: ") == 1, "what fails all clips alike is said once"
    assert "detections: 2 more, for what is said above" in said


def test_a_video_of_which_a_part_decodes_is_not_green_everywhere(place: Place, tmp_path: Path) -> None:
    whole = media.make(tmp_path / "raw" / "whole.mkv", 120)
    cut = tmp_path / "raw" / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    ids = [v for path in (whole, cut) for v in place.register(path)]

    result = place.run(ids, "manifest")

    good, bad = (checks(result)["manifest_quality", v] for v in ids)
    assert (good.passed, good.metadata["decoded_share"].value) == (True, 1.0)
    assert (bad.passed, bad.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert bad.metadata["decoded_share"].value < 0.5
    assert "decoded_share is" in str(bad.description)
    assert "copy the file from its source again" in str(bad.description)


def test_a_raw_file_that_is_away_at_its_first_manifest_stops_no_other_video(place: Place, tmp_path: Path) -> None:
    paths = [media.make(tmp_path / "raw" / f"{name}.mp4", 20, size=(n, 96)) for name, n in (("away", 128), ("here", 144))]
    away, here = (v for path in paths for v in place.register(path))
    paths[0].unlink()

    result = place.run([away, here], "manifest", "detections", "masks")

    assert result.success
    assert metadata(result, "masks")[here]["clips"] == "1 computed"
    judged = checks(result)
    assert judged["manifest_contract", away].passed, "nothing is there that could break it"
    for name in ("manifest_complete", "masks_complete"):
        assert not judged[name, away].passed
        assert "has no manifest" in str(judged[name, away].description)
        assert judged[name, here].passed


def test_a_table_from_before_a_failure_is_not_complete_nor_is_what_was_made_of_it(place: Place, tmp_path: Path) -> None:
    paths = [media.make(tmp_path / "raw" / f"{name}.mp4", 20, size=(n, 96)) for name, n in (("one", 128), ("two", 144))]
    one, two = (v for path in paths for v in place.register(path))
    assert place.run([one, two], "manifest", "detections", "hand_pose", "masks", "depth", "fusion", "mapping").success
    sidecar_path(paths[0]).write_text("{ not JSON")

    result = place.run([one, two], "hand_pose", "depth", "fusion", "mapping")

    assert result.success
    judged = checks(result)
    assert "one.egoworld.json" in str(judged["hand_pose_complete", one].description)
    assert "from upstream is missing" in str(judged["mapping_complete", one].description)
    assert metadata(result, "mapping")[one]["clips"] == "1 blocked"
    assert judged["hand_pose_complete", two].passed
    assert judged["mapping_complete", two].passed
    run = configuration.open_run(place.settings)
    [failure] = run.video_folder(one).glob("clip_id=*/hand_pose.failure.parquet")
    damage.flip(failure, 200)
    sidecar_path(paths[0]).unlink()
    result = place.run([one, two], "mapping")
    assert checks(result)["mapping_complete", one].passed, "a failure that cannot be read is none"


def test_a_video_that_cannot_be_read_is_the_same_alone_and_among_others(place: Place, tmp_path: Path) -> None:
    (tmp_path / "raw" / "bad.mp4").write_bytes(b"not a video")
    [bad] = place.register(tmp_path / "raw")
    media.make(tmp_path / "raw" / "good.mp4", 20, picture=media.scenes([]))
    [good] = place.register(tmp_path / "raw" / "good.mp4")
    seen = []
    for together in ([bad], [bad, good], [bad]):
        result = place.run(together, "manifest", "detections")
        assert result.success, "what a video is fails no step"
        judged = {name: check for (name, video_id), check in checks(result).items() if video_id == bad}
        said = str(judged["manifest_complete"].description)
        assert all(part in said for part in ("bad.mp4", "does not start like a video", "Put ")), said
        of_bad = metadata(result, "manifest")[bad]
        seen.append(({name: (c.passed, c.severity) for name, c in judged.items()}, of_bad["status"], of_bad["first failure"]))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0]["manifest_complete"] == seen[0][0]["detections_complete"] == (False, dg.AssetCheckSeverity.ERROR)


def test_a_stage_that_cannot_be_set_up_fails_its_step(place: Place, written: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    video_id, path = written
    monkeypatch.setenv("EGOWORLD_STAGES__HAND_POSE__BACKEND", "mediapipe")
    monkeypatch.setenv("EGOWORLD_STAGES__HAND_POSE__PYTHON", str(path.with_name("no_python")))

    result = place.run([video_id], "hand_pose")

    assert not result.success
    [failure] = result.get_step_failure_events()
    assert "no_python" in console._reason(failure)


@pytest.fixture
def written(place: Place, tmp_path: Path) -> tuple[str, Path]:
    """A video with a manifest and empty detections, and the file of the latter."""
    media.make(tmp_path / "raw" / "one.mp4", 20, picture=media.scenes([]))
    [video_id] = place.register(tmp_path / "raw")
    assert place.run([video_id], "manifest", "detections").success
    [path] = configuration.open_run(place.settings).video_folder(video_id).glob("clip_id=*/detections.parquet")
    return video_id, path


def test_a_file_that_breaks_the_contract_blocks_what_is_below(place: Place, written: tuple[str, Path]) -> None:
    video_id, path = written
    table = pq.read_table(path, partitioning=None)
    row = {"video_id": video_id, "clip_id": path.parent.name.removeprefix("clip_id="), "frame_index": -5, "timestamp_s": 0.0}
    row |= {"sample_stride": 1, "role": "object", "track_id": 10, "box_px": [0.0] * 4, "score": 7.0, "source": "palm", "backend": "x"}
    origin = {PROVENANCE_KEY: pq.read_metadata(path).metadata[PROVENANCE_KEY]}
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema).replace_schema_metadata(origin), path)

    result = place.run([video_id], "detections", "masks")

    assert not result.success
    judged = checks(result)["detections_contract", video_id]
    assert not judged.passed
    assert judged.severity == dg.AssetCheckSeverity.ERROR
    assert all(part in str(judged.description) for part in ("detections.parquet", "frame_index", "score", "delete the file")), (
        judged.description
    )
    assert not result.asset_materializations_for_node("masks")


def test_of_many_small_files_the_contract_check_names_those_that_break_it(tmp_path: Path) -> None:
    files = {}
    for n, score in enumerate((0.5, 2.0, 0.5, 0.5)):
        path = tmp_path / f"{n}.parquet"
        rows = schema.from_rows("detections", [detection_row(0) | {"clip_id": f"f000000{n}_0000010", "score": score}])
        write_table(path, "detections", rows, {}, validated=True)
        files[path] = "detections"
    (tmp_path / "2.parquet").write_bytes(b"PAR1")
    first, second = _broken(files)
    assert first.startswith(f"{tmp_path}/2.parquet: ")
    assert second.startswith(f"{tmp_path}/1.parquet: ")
    assert "score has values above 1" in second
    assert list(_broken(dict.fromkeys([tmp_path / "0.parquet", tmp_path / "3.parquet"], "detections"))) == []


def test_numbers_that_are_not_plausible_warn(place: Place, written: tuple[str, Path]) -> None:
    video_id, path = written
    assert place.run([video_id], "hand_pose").success
    far = path.with_name("hand_pose.parquet")
    of_clip = {"video_id": video_id, "clip_id": path.parent.name.removeprefix("clip_id=")}
    rows = schema.from_rows("hand_pose", [hand_pose_row(i, reprojection_px=80.0, **of_clip) for i in range(5)])
    write_table(far, "hand_pose", rows, provenance_at(far) or {})

    result = place.run([video_id], "hand_pose")

    assert result.success
    judged = checks(result)["hand_pose_quality", video_id]
    assert not judged.passed
    assert judged.severity == dg.AssetCheckSeverity.WARN
    assert "reprojection_share_median is 80" in str(judged.description)
    assert "Look at the picture in the asset `preview`; settings `quality.hand_pose` move the bounds" in str(judged.description)
    assert checks(result)["hand_pose_contract", video_id].passed
    assert [line.strip().partition(": distance")[0] for line in outcome.table(result) if "reprojection_share_median" in line] == [
        "warning: reprojection_share_median is 80, want at most 0.2"
    ]

    pose = ("joints_m", "joints_wrist_m", "qw", "qx", "qy", "qz", "x_m", "y_m", "z_m", "reprojection_px", "depth_error_share")
    none = dict.fromkeys(pose) | {"reason": "no fit", "reason_class": "no_fit"}
    rows = schema.from_rows("hand_pose", [hand_pose_row(i, **of_clip, **none) for i in range(5)])
    write_table(far, "hand_pose", rows, provenance_at(far) or {})
    shown = [line for line in outcome.table(place.run([video_id], "hand_pose")) if "with a value" in line]
    assert [line.split(";")[0].strip() for line in shown] == ["0 of 5 rows with a value that stands"], "said once"


def test_an_asset_of_a_users_own_gets_the_rows_of_its_videos(place: Place, written: tuple[str, Path]) -> None:
    video_id, path = written
    rows = schema.from_rows(
        "detections", [detection_row(i, video_id=video_id, clip_id=path.parent.name.removeprefix("clip_id=")) for i in (3, 7)]
    )
    write_table(path, "detections", rows, provenance_at(path) or {})
    resource = Egoworld()
    got = {}

    @dg.asset(partitions_def=VIDEO_IDS, ins={name: dg.AssetIn(input_manager_key="lake") for name in ("detections", "manifest", "masks")})
    def theirs(detections: pa.Table, manifest: pa.Table, masks: pa.Table) -> None:
        got.update(detections=detections, manifest=manifest, masks=masks)

    resources = {"lake": LakeIOManager(egoworld=resource), "egoworld": resource}
    assert dg.materialize(
        [theirs, *ASSETS], selection=[theirs], partition_key=video_id, instance=place.dagster, resources=resources
    ).success

    assert got["detections"]["frame_index"].to_pylist() == [3, 7]
    assert got["manifest"]["video_id"].to_pylist() == [video_id]
    assert got["masks"].num_rows == 0
    assert got["masks"].schema.names == schema.empty("masks").schema.names


def test_an_asset_of_a_users_own_asks_the_catalog_and_cannot_write_in_it(place: Place, tmp_path: Path) -> None:
    [video_id] = place.register(media.make(tmp_path / "raw" / "one.mp4", 20, picture=media.scenes([])))
    assert place.run([video_id], "manifest").success
    got = {}

    @dg.asset
    def theirs(duckdb: DuckDBResource) -> None:
        with duckdb.get_connection() as connection:
            got["videos"] = connection.execute("SELECT video_id, n_frames FROM videos").fetchall()
            with pytest.raises(InvalidInputException, match="read-only"):
                connection.execute("CREATE TABLE mine AS FROM videos")

    assert dg.materialize([theirs], instance=place.dagster, resources=dict(defs.resources or {})).success
    assert got["videos"] == [(video_id, 20)]


def test_every_asset_says_what_its_columns_mean() -> None:
    from egoworld_assets.definitions import defs

    for asset in defs.resolve_asset_graph().asset_nodes:
        if asset.key.path[-1] in (pipeline.MANIFEST, *operators.stages()):
            columns = asset.metadata["dagster/column_schema"].columns
            assert columns
            assert all(column.description for column in columns)
        assert asset.description


def test_a_preview_shows_the_video_and_never_fails_a_run(place: Place, written: tuple[str, Path], tmp_path: Path) -> None:
    video_id, path = written
    (tmp_path / "raw" / "bad.mp4").write_bytes(b"not a video")
    [bad] = place.register(tmp_path / "raw" / "bad.mp4")
    assert place.run([video_id, bad], "manifest", "detections").success

    shown = metadata(place.run([video_id, bad], "preview"), "preview")

    assert str(shown[video_id]["preview"]).startswith("![contact sheet](data:image/webp;base64,")
    assert Path(str(shown[video_id]["file"])).read_bytes().startswith(b"\x89PNG")
    assert "no clips" in str(shown[bad]["no preview"])

    path.write_bytes(b"not Parquet")
    broken = place.run([video_id], "preview")
    assert broken.success
    assert "detections is damaged" in metadata(broken, "preview")[video_id]["nothing to draw"]["boxes"]  # type: ignore[index]


def test_dead_letters_are_an_asset_with_a_table_in_the_ui(place: Place, written: tuple[str, Path]) -> None:
    _, path = written
    run = configuration.open_run(place.settings)
    of_clip = {"video_id": path.parents[1].name.partition("=")[2], "clip_id": path.parent.name.partition("=")[2]}
    row = {
        "stage": "masks",
        "backend": "classical",
        "error_class": "PoisonClip",
        "culprit": "clip",
        "reason": "died twice",
        "cure": "Look at it",
    }
    row |= of_clip | {"retryable": False, "attempts": 1, "dead_letter": True, "frame_index": 7, "traceback": ""}
    write_table(run.failure("masks", *of_clip.values()), "failures", schema.from_rows("failures", [row]), {"digest": "d"})
    resource = Egoworld()

    result = dg.materialize(
        [dead_letters, *ASSETS],
        selection=[dead_letters],
        instance=place.dagster,
        resources={"egoworld": resource, "lake": LakeIOManager(egoworld=resource)},
    )

    [shown] = result.asset_materializations_for_node("dead_letters")
    assert shown.metadata["dagster/row_count"].value == 1
    [record] = shown.metadata["first"].value.records
    assert record.data["error_class"] == "PoisonClip"
    assert record.data["frame_index"] == 7
    assert "egoworld run" in record.data["command"]


def test_drift_is_an_asset_with_a_check_that_says_what_was_compared(place: Place, written: tuple[str, Path]) -> None:
    resource = Egoworld()

    result = dg.materialize(
        [drift, *ASSETS],
        selection=[drift],
        instance=place.dagster,
        resources={"egoworld": resource, "lake": LakeIOManager(egoworld=resource)},
    )

    [shown] = result.asset_materializations_for_node("drift")
    assert "nothing to compare" in str(shown.metadata["compared"].value)
    [checked] = result.get_asset_check_evaluations()
    assert (checked.check_name, checked.passed) == ("drift_none", False), "that nothing has moved is not known"
    assert "nothing to compare" in str(checked.description)


def test_versions_of_code_and_data_agree_with_the_digests(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in operators.stages():
        for backend in operators.backends(stage):
            assert operators.version_of(stage, backend) == operators.load(stage, backend).version
    base = load_settings("laptop")
    changed = base.model_copy(
        update={"stages": {**base.stages, "mapping": base.stages["mapping"].model_copy(update={"dex": {"scaling": 1.5}})}}
    )
    different = [s for s in operators.stages() if code_version(s, base) != code_version(s, changed)]
    assert different == ["mapping"]

    media.make(tmp_path / "raw" / "one.mp4", 20, picture=media.scenes([]))
    [video_id] = place.register(tmp_path / "raw")

    def data_version() -> str:
        [event] = place.run([video_id], "manifest", "detections").asset_materializations_for_node("detections")
        return str(event.tags["dagster/data_version"])

    first = data_version()
    assert data_version() == first, "nothing was computed, so nothing is new"
    monkeypatch.setenv("EGOWORLD_SAMPLE_STRIDE", "2")
    assert data_version() != first
