"""Intact files pass; each kind of damage to a run or its release is found, in the right file, with a cure."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egoworld_ops.contract import encodings, references, schema
from egoworld_ops.files.tables import provenance_at, read_result, read_table, write_table
from egoworld_ops.lake import counted, lake
from egoworld_ops.lake.lake import RELEASED_TABLES, Lake, Run
from egoworld_ops.lake.states import video_ids
from egoworld_ops.release.make import make_release
from egoworld_ops.release.place import FileRecord, folder, part_name, part_path, read, sha256_of_file
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.upkeep import verify_release, verify_video
from egoworld_ops.upkeep.verify import verify
from egoworld_ops.upkeep.verify_counted import check_states
from egoworld_ops.upkeep.verify_file import Checked, check_file
from egoworld_ops.upkeep.verify_intake import check_intake
from tests import finished
from tests.damage import (
    false_statistics,
    flip,
    in_a_page,
    made_again,
    of_an_older_schema,
    of_other_types,
    plus,
    reword,
    rewrite,
    swap,
    with_foreign_schema,
    with_nulls,
    without_a_row_that_is_referred_to,
    write_unsealed,
)
from tests.lakes import fail, register_videos, write_video
from tests.stages import below

CLIP = "f0000000_0000028"
Damage = Callable[[Run, Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A released run of two videos with two overlapping clips each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        store = Lake(tmp_path_factory.mktemp("whole") / "lake")
        run = store.open_run({}, "20260101_0000", dict)
        for name in ("a", "b"):
            write_video(run, name, n_frames=46)
        register_videos(run)
        make_release(run, ReleaseSettings())
    return store


@pytest.fixture
def run(whole: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of links of it: files are replaced, not changed."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    subprocess.run(["cp", "-al", str(whole.root), str(tmp_path / "lake")], check=True)
    [copy] = Lake(tmp_path / "lake").runs()
    return copy


def said(run: Run) -> list[str]:
    return [str(finding) for finding in verify(run, threads=2)]


def clip_file(run: Run, stage: str, clip_id: str = CLIP) -> Path:
    return run.clip_table(stage, video_ids(run)[0], clip_id)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copy(source, target)


def with_a_gap(run: Run, path: Path) -> None:
    plus(run.video_table("clips", video_ids(run)[0]), "own_start", 1)


IN_CLIPS: dict[str, tuple[str, Damage, str]] = {
    "a flipped bit in the middle of a page": ("hand_pose", lambda _, p: flip(p, in_a_page(p)), "is damaged"),
    "cut off": ("masks", lambda _, p: rewrite(p, p.read_bytes()[:-100]), "is damaged"),
    "cut in two": ("masks", lambda _, p: rewrite(p, p.read_bytes()[: p.stat().st_size // 2]), "cannot be read as Parquet"),
    "empty": ("masks", lambda _, p: rewrite(p, b""), "cannot be read as Parquet"),
    "a foreign schema": ("masks", lambda _, p: with_foreign_schema(p), "not those of table masks"),
    "an older schema": ("masks", lambda _, p: of_an_older_schema(p), "schema version 0"),
    "no origin": ("masks", lambda _, p: write_table(p, "masks", read_table(p, "masks"), {}), "says nothing of its origin"),
    "a wrong digest": ("masks", lambda _, p: reword(p, digest="0" * 64), "which is not that of what it says it depends on"),
    "other inputs": ("detections", lambda _, p: made_again(p), "was made from another detections"),
    "a wrong count": ("mapping", lambda _, p: reword(p, rows=7), "and says it holds 7"),
    "a broken contract": ("masks", lambda _, p: plus(p, "area_px", -60_000), "area_px has values below 1"),
    "frames outside of the clip": ("movement", lambda _, p: plus(p, "frame_index", 10), "holds frames 10 to 37, and the clip has 0 to 28"),
    "rows of another clip": (
        "movement",
        lambda r, p: shutil.copy(clip_file(r, "movement", "f0000022_0000046"), _gone(p)),
        "holds rows of clip_id",
    ),
    "tracks that nobody detected": ("masks", lambda _, p: plus(p, "track_id", 50), "are not in detections of the clip"),
    "objects without a mask": ("object_pose", lambda _, p: plus(p, "track_id", 50), "are not in masks of the clip"),
    "hands that were not posed": ("fusion", lambda _, p: without_a_row_that_is_referred_to(p), "are not in fusion of the clip"),
    "statistics that lie": ("movement", lambda _, p: false_statistics(p), "its footer says"),
    "gone": ("object_pose", lambda _, p: p.unlink(), "is not there, and no failure says why"),
    "no owner": ("../clips", with_a_gap, "where frame 0 is the next to be owned"),
    "no manifest": ("../videos", lambda _, p: p.unlink(), "has no videos.parquet"),
    "a folder of a name that no video has": (
        "../../video_id=A B/videos",
        lambda r, p: copy(r.video_table("videos", video_ids(r)[0]), p),
        "got 'A B'",
    ),
    "a clip of a name that no clip has": ("../clips", lambda _, p: swap(p, "clip_id", pa.array(["Clip 1", "Clip 2"])), "got 'Clip 1'"),
    "a clip that owns from nowhere": ("../clips", lambda _, p: with_nulls(p, "own_start"), "own_start has 2 nulls"),
    "a video of no status": ("../videos", lambda _, p: swap(p, "status", pa.array(["what"])), "status has values"),
    "a manifest cut off": ("../clips", lambda _, p: rewrite(p, p.read_bytes()[:50]), "cannot be read as Parquet"),
    "a stray clip": (
        "../clip_id=x/masks",
        lambda r, p: shutil.copytree(clip_file(r, "masks").parent, p.parent),
        "is of no clip of the video",
    ),
    "a folder of no clip": (
        "../old/masks",
        lambda r, p: shutil.copytree(clip_file(r, "masks").parent, p.parent),
        "is of no clip of the video",
    ),
    "a hidden folder in a video": (
        "../.old/masks",
        lambda r, p: shutil.copytree(clip_file(r, "masks").parent, p.parent),
        "is of no clip of the video",
    ),
    "a hidden folder": (
        "../../.hidden/x/masks",
        lambda r, p: shutil.copytree(clip_file(r, "masks").parent, p.parent),
        "is no folder of a run",
    ),
    "a table beside a placeholder": ("../../_contract/x/masks", lambda r, p: copy(clip_file(r, "masks"), p), "is no file of a run"),
    "a placeholder cut off": ("../../_contract/_/masks.parque_", lambda _, p: rewrite(p, p.read_bytes()[:-10]), "is damaged"),
    "a placeholder gone": ("../../_contract/videos.parque_", lambda _, p: p.unlink(), "cannot be read as Parquet"),
    "a placeholder with rows": (
        "../../_contract/_/masks.parque_",
        lambda r, p: copy(clip_file(r, "masks"), p),
        "is not the typed, empty table",
    ),
    "a placeholder of other types": ("../../_contract/_/masks.parque_", lambda _, p: of_other_types(p), "is not the typed, empty table"),
    "a stray file": ("old", lambda r, p: shutil.copy(clip_file(r, "masks"), p), "is of no stage"),
    "a stray folder": (
        "../../copy/x/masks",
        lambda r, p: shutil.copytree(clip_file(r, "masks").parent, p.parent),
        "is no folder of a run",
    ),
}


def test_what_no_view_shows_is_not_said_to_be_shown(run: Run) -> None:
    """Programs that copy folders leave `._*` files."""
    folder = clip_file(run, "masks").parent
    for name in ("old.failure.parquet", "._masks.failure.parquet"):
        (folder / name).write_bytes(b"x")
    found = {finding.culprit: finding.cure for finding in verify(run, threads=1)}
    assert found[str(folder / "old.failure.parquet")] == "Remove it; the views show its rows"
    assert found[str(folder / "._masks.failure.parquet")] == "Remove it; nothing reads it"


def _gone(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize("kind", IN_CLIPS)
def test_damage_to_a_file_of_a_run_is_found_and_named(run: Run, kind: str) -> None:
    name, damage, reason = IN_CLIPS[kind]
    path = Path(os.path.normpath(clip_file(run, "masks").parent / (name if name.endswith(".parque_") else f"{name}.parquet")))
    damage(run, path)
    found = [finding for finding in said(run) if reason in finding]
    assert found, said(run)
    at_fault = path.with_name({"other inputs": "masks.parquet", "hands that were not posed": "mapping.parquet"}.get(kind, path.name))
    assert Path(found[0].partition(": ")[0]) in (at_fault, *list(at_fault.parents)[:3]), found
    assert any(cure in found[0].rpartition(". ")[2] for cure in ("Delete", "Materialize", "Remove", "Copy")), found


def reword_states(run: Run, path: Path, where: tuple[str, str], **said: object) -> None:
    """Have table `states` say something else of a clip in a stage."""
    rows = read_table(path, "states").to_pylist()
    other = [row | said if (row["clip_id"], row["stage"]) == where else row for row in rows]
    write_table(path, "states", schema.from_rows("states", other), {})


def with_rows(path: Path, change: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> None:
    rows = change(read_table(path, path.stem).to_pylist())
    write_table(path, path.stem, schema.from_rows(path.stem, rows), {}, validated=True)


IN_STATES: dict[str, tuple[Damage, str]] = {
    "done that is not": (lambda r, _: clip_file(r, "masks").unlink(), f"says done of masks of clip {CLIP}, which is missing"),
    "done that is stale": (lambda r, _: made_again(clip_file(r, "detections")), f"says done of masks of clip {CLIP}, which is stale"),
    "pending": (lambda r, p: reword_states(r, p, (CLIP, "movement"), state="pending"), "says pending of movement"),
    "another digest": (lambda r, p: reword_states(r, p, (CLIP, "mapping"), digest="0" * 64), "says digest of mapping"),
    "another count": (lambda r, p: reword_states(r, p, (CLIP, "mapping"), rows=3), "says rows of mapping"),
    "a failure that is none": (lambda r, p: reword_states(r, p, (CLIP, "mapping"), error_class="CorruptVideo"), "says error_class of"),
    "a rejected video": (lambda r, p: reword_states(r, p, ("", "manifest"), state="failed"), "says failed of manifest, which is done"),
    "rows left out": (lambda _, p: with_rows(p, lambda rows: rows[3:]), "has no row of"),
    "a clip that there is not": (
        lambda _, p: with_rows(p, lambda rows: [*rows, rows[-1] | {"clip_id": "f9", "state": "done"}]),
        "of clip f9, and there is no such clip or stage",
    ),
    "no table": (lambda _, p: p.unlink(), "is not there: the views show nothing of the video"),
    "cut off": (lambda _, p: rewrite(p, p.read_bytes()[:-20]), "states.parquet: "),
    "a manifest that is gone": (lambda r, p: p.with_name("videos.parquet").unlink(), "has a row of manifest"),
}


@pytest.mark.parametrize("kind", IN_STATES)
def test_states_that_are_not_those_of_the_files_are_found_with_a_cure(run: Run, kind: str) -> None:
    damage, reason = IN_STATES[kind]
    path = run.video_table("states", video_ids(run)[0])
    damage(run, path)
    found = [finding for finding in said(run) if finding.startswith(f"{path}: ") and reason in finding]
    assert found, said(run)
    assert "aterialize the stages of the video: nothing is computed for it" in found[0]


IN_INTAKE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut off": (lambda p: rewrite(p, p.read_bytes()[:-20]), "intake.parquet: ", "register the raw files again"),
    "a video that it does not know": (lambda p: with_rows(p, lambda rows: rows[1:]), "has no row of video a-", "Register /raw/a-"),
    "a video twice": (
        lambda p: with_rows(p, lambda rows: [*rows, rows[0] | {"path": "/raw/elsewhere.mp4"}]),
        "registers video a-ca978112ca1b 2 times",
        "register the raw files again",
    ),
    "another content": (
        lambda p: with_rows(p, lambda rows: [rows[0] | {"sha256": "0" * 64}, rows[1]]),
        "and its SHA-256 is 000",
        "register the raw files again",
    ),
    "a status that there is not": (
        lambda p: with_rows(p, lambda rows: [rows[0] | {"status": "seen"}, rows[1]]),
        "status has values",
        "register the raw files again",
    ),
    "a copy beside it": (lambda p: shutil.copy(p, p.with_name("intake (1).parquet")), "is read by nobody", "Remove it"),
    "a lake without its name": (lambda p: rewrite(p.with_name("lake_id"), b""), "is not 12 hex digits", "Delete it"),
}


@pytest.mark.parametrize("kind", IN_INTAKE)
def test_damage_to_the_intake_is_found_and_named(run: Run, kind: str) -> None:
    damage, reason, cure = IN_INTAKE[kind]
    damage(run.lake.root / "intake" / "intake.parquet")
    found = [finding for finding in said(run) if reason in finding]
    assert found, said(run)
    assert cure in found[0].partition(reason)[2], found


def test_states_are_mended_as_verify_says_and_nothing_is_computed(tmp_path: Path) -> None:
    settings = finished.settings_in(tmp_path)
    run, video_id = finished.registered_video(settings)
    for _ in range(2):
        finished.go(run, video_id, settings)
    path = run.video_table("states", video_id)
    assert check_states(run, video_id) == check_intake(run) == []
    reword_states(run, path, (counted.WHOLE_VIDEO, "manifest"), state="failed")
    with_rows(path, lambda rows: rows[:-4])
    assert {finding.cure.partition(",")[0] for finding in check_states(run, video_id)} == {"Delete it"}
    path.unlink()
    [finding] = check_states(run, video_id)
    assert finding.cure.startswith("Materialize the stages of the video: nothing is computed for it")
    pool, _ = finished.go(run, video_id, settings)
    assert not pool.tasks
    assert check_states(run, video_id) == []


def part(run: Run, table: str = "masks") -> Path:
    return part_path(folder(run), table, part_name(run, 0))


def forge(run: Run, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """A part with other rows, and a release.json that agrees with it in all."""
    path, manifest = part(run, table), read(run)
    assert manifest is not None
    known = provenance_at(path)
    rows = change(encodings.as_contract(table, pq.read_table(path, partitioning=None)))
    path.unlink()
    with pq.ParquetWriter(path, rows.schema) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({"egoworld.provenance": json.dumps(known)})
    [before] = manifest.parts
    record = replace(before.tables[table], sha256=sha256_of_file(path), bytes=path.stat().st_size, rows=rows.num_rows)
    forged = replace(manifest, parts=[replace(before, tables={**before.tables, table: record})])
    rewrite(folder(run) / "release.json", forged.to_json())


def double(rows: pa.Table) -> pa.Table:
    return schema.sort("masks", pa.concat_tables([rows, rows.slice(0, 3)]))


def other_score(rows: pa.Table) -> pa.Table:
    return rows.set_column(rows.schema.names.index("score"), rows.schema.field("score"), pa.array([0.5] * rows.num_rows, pa.float32()))


def with_tables(run: Run, change: Callable[[dict[str, FileRecord]], dict[str, FileRecord]]) -> None:
    """A release.json that names other tables, and is well formed."""
    manifest = read(run)
    assert manifest is not None
    parts = [replace(p, tables=change({**p.tables})) for p in manifest.parts]
    rewrite(folder(run) / "release.json", replace(manifest, parts=parts).to_json())


def without_mapping(run: Run) -> None:
    shutil.rmtree(part(run, "mapping").parent)
    with_tables(run, lambda tables: {name: record for name, record in tables.items() if name != "mapping"})


def with_poses(run: Run) -> None:
    shutil.copytree(part(run, "mapping").parent, part(run, "poses").parent)
    with_tables(run, lambda tables: tables | {"poses": tables["mapping"]})


IN_RELEASES: dict[str, tuple[Damage, str]] = {
    "a flipped bit": (lambda _, p: flip(p, p.stat().st_size // 2), "it is damaged, or was changed"),
    "cut off": (lambda _, p: rewrite(p, p.read_bytes()[:-1]), "it is damaged, or was changed"),
    "a missing part": (lambda _, p: p.unlink(), "is not there"),
    "an extra part": (lambda r, p: shutil.copy(p, p.with_name(f"{part_name(r, 1)}.parquet")), "is not in release.json"),
    "rows twice": (lambda r, _: forge(r, "masks", double), "is not unique"),
    "too few rows": (lambda r, _: forge(r, "masks", lambda rows: rows.slice(0, 10)), "has other rows than those that"),
    "other values": (lambda r, _: forge(r, "masks", other_score), "has other rows than those that"),
    "rows out of order": (
        lambda r, _: forge(r, "masks", lambda rows: rows.take(list(reversed(range(rows.num_rows))))),
        "are not sorted by",
    ),
    "a broken release.json": (lambda r, p: rewrite(p.parents[1] / "release.json", b"{"), "release.json: cannot be read"),
    "a changed release.json": (
        lambda r, p: rewrite(p.parents[1] / "release.json", (p.parents[1] / "release.json").read_bytes() + b" "),
        "is not as a release wrote it",
    ),
    "no release.json": (lambda r, p: (p.parents[1] / "release.json").unlink(), "has no release.json"),
    "a table taken out": (lambda r, _: without_mapping(r), "has other tables than the contract: "),
    "a table that no release has": (lambda r, _: with_poses(r), "has other tables than the contract: "),
    "a new video": (lambda r, _: write_video(r, "c", n_frames=10) and None, "is not in the release of its run"),
    "a changed video": (lambda r, _: write_video(r, "a", n_frames=46, seed=3) and None, "is behind its run"),
    "a removed video": (lambda r, _: shutil.rmtree(r.video_folder(video_ids(r)[0])), "which is no longer in the run"),
}


@pytest.mark.parametrize("kind", IN_RELEASES)
def test_damage_to_a_release_is_found_and_named(run: Run, kind: str) -> None:
    damage, reason = IN_RELEASES[kind]
    damage(run, part(run))
    found = [finding for finding in said(run) if reason in finding]
    assert found, said(run)
    assert any(cure in found[0].rpartition(". ")[2] for cure in ("Delete", "elease the run again")), found


def test_a_flipped_bit_anywhere_in_a_clip_file_is_found(run: Run) -> None:
    path = clip_file(run, "hand_pose")
    for at in random.Random(3).sample(range(path.stat().st_size), 200):
        flip(path, at)
        assert check_file(path, "hand_pose").findings, at
        flip(path, at)
    assert not check_file(path, "hand_pose").findings


def test_a_file_without_a_seal_is_read_with_its_page_checksums_and_told_of(run: Run) -> None:
    path = clip_file(run, "hand_pose")
    rows, known = read_result(path, "hand_pose")
    write_unsealed(path, rows, known)
    assert ["has no seal" in finding for finding in said(run)] == [True]
    flip(path, in_a_page(path))
    assert "CRC checksum" in said(run)[0]


def test_frames_that_a_clip_does_not_own_are_found_in_a_release_by_itself(run: Run) -> None:
    [first, second] = [clip_file(run, "masks", clip) for clip in (CLIP, "f0000022_0000046")]
    unowned = read_table(second, "masks").slice(0, 3)
    forge(run, "masks", lambda rows: schema.sort("masks", pa.concat_tables([rows, unowned])))
    assert any("holds frames 22 to 45 of clip f0000022_0000046" in finding and "owns 28 to 46" in finding for finding in said(run)), said(
        run
    )
    assert first.exists()


def test_a_whole_run_has_no_findings_nor_has_one_with_failures_on_record(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[tuple[int, int]] = []
    assert [*verify(run, lambda done, total: pieces.append((done, total)))] == []
    of_the_run = 2 + 1 + 1 + 1
    """Two videos, strays, the list of raw files, verdicts."""
    assert pieces[-1] == (of_the_run + 3 + len(RELEASED_TABLES),) * 2
    video_id = video_ids(run)[1]
    fail(run, video_id, CLIP, "object_pose")
    for stage in below("object_pose"):
        run.clip_table(stage, video_id, CLIP).unlink()
    counted.count(run, video_id)
    assert all("is behind its run" in finding for finding in said(run))
    make_release(run, ReleaseSettings())
    assert said(run) == []
    monkeypatch.setattr(verify_release, "released_rows", lambda files, assumed_metric: (schema.empty(file.table) for file in files))
    assert any("has other rows" in finding or "no clip of the run owns" in finding for finding in said(run))


def test_a_video_that_was_incomplete_and_is_so_no_longer_in_the_same_way_is_found(run: Run) -> None:
    a, b = video_ids(run)
    manifest = [run.video_table(name, a) for name in lake.VIDEO_TABLES]
    content = {path: path.read_bytes() for path in manifest}
    for path in manifest:
        path.unlink()
    fail(run, b, CLIP, "mapping")
    make_release(run, ReleaseSettings(incomplete="leave_out"))
    assert [finding for finding in said(run) if "release" in finding] == []
    for path, whole in content.items():
        path.write_bytes(whole)
    clip_file(run, "mapping").unlink()
    run.failure("mapping", b, CLIP).unlink()
    found = [finding.partition(": ")[0] for finding in said(run) if "is not in the release of its run as it is now" in finding]
    assert found == [str(run.video_folder(a)), str(run.video_folder(b))]


def test_a_run_under_another_version_of_the_contract_is_one_finding(tmp_path: Path) -> None:
    old = Lake(tmp_path).open_run({"schema": "0"}, None, dict)
    [finding] = said(old)
    assert "run.json" in finding
    assert "version 0 of the data contract" in finding


def test_a_file_that_cannot_be_looked_at_is_a_finding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_read(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(verify_video.footer, "provenance", fail_to_read)
    assert any(
        "masks.parquet" in f or "detections.parquet" in f for f in said(run) if "Input/output error" in f and "Mend the storage" in f
    )


def test_what_nobody_thought_of_is_a_finding_and_the_rest_is_looked_at(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verify_video.check_file

    def fail_at_masks(path: Path, table: str) -> Checked:
        if path == clip_file(run, "masks"):
            raise ZeroDivisionError("division by zero")
        return real(path, table)

    monkeypatch.setattr(verify_video, "check_file", fail_at_masks)
    reword(run.clip_table("masks", video_ids(run)[1], CLIP), rows=7)
    first, second, *_ = said(run)
    assert first.startswith(f"{run.video_folder(video_ids(run)[0])}: ")
    assert "ZeroDivisionError('division by zero')" in first
    assert "says it holds 7" in second


def test_references_name_stages_and_columns_of_the_contract() -> None:
    for reference in references.references():
        for table in (reference.child, reference.parent):
            assert {"video_id", "clip_id"} < set(schema.table(table).arrow_schema().names)
