"""Whole files or none, runs by configuration, results by digest, and a catalog that sees later results."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import encodings, schema, validation
from egoworld_ops.errors import BadSettings, ContractError, SetupError, StorageUnavailable
from egoworld_ops.files import locks
from egoworld_ops.files.tables import digest_at, make_provenance, provenance_at, read_result, read_table, write_table
from egoworld_ops.lake import counted, failures, pointer, runs, states
from egoworld_ops.lake.failure_file import record_stand_in
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query import catalog
from egoworld_ops.raw.intake import registered, update
from tests import lakes
from tests.opens import unreadable
from tests.rows import detection_row
from tests.stages import below

IDS = ("kitchen-0123456789ab", "f0000000_0000010")


def write_detections(run: Run, digest: str) -> Path:
    path = run.clip_table("detections", *IDS)
    rows = schema.from_rows("detections", [detection_row(0)])
    write_table(path, "detections", rows, make_provenance(digest, {"stage": "detections"}, 1, 0.5, run.run_id))
    return path


def test_a_file_carries_its_provenance(tmp_path: Path) -> None:
    path = write_detections(Lake(tmp_path).open_run({}, None, dict), "d1")
    said = provenance_at(path)
    assert said is not None
    assert (said["digest"], said["rows"], said["seconds"]) == ("d1", 1, 0.5)
    validation.validate("detections", read_table(path, "detections"))


def test_rows_that_break_the_contract_are_not_written(tmp_path: Path) -> None:
    rows = schema.from_rows("detections", [detection_row(0, score=2.0)])
    with pytest.raises(ContractError):
        write_table(tmp_path / "x.parquet", "detections", rows, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", None])
def test_a_damaged_or_foreign_file_counts_as_none_and_is_named_when_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "detections.parquet"
    if content is None:
        write_table(path, "clips", schema.empty("clips"), {})
    else:
        path.write_bytes(content)
    assert digest_at(path) is None
    with pytest.raises(ContractError, match="detections"):
        read_table(path, "detections")


def test_a_writer_killed_at_any_point_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old" * 1000)
    code = f"""
import sys; from pathlib import Path; from egoworld_ops.files import whole
print("ready", flush=True)
while True: whole.write_bytes(Path({str(target)!r}), b"new" * 300_000)
"""
    for wait_s in (0.0, 0.005, 0.02):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout
        assert writer.stdout.readline() == b"ready\n"
        signal.sigtimedwait([], wait_s)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        assert target.read_bytes() in (b"old" * 1000, b"new" * 300_000)


def test_a_file_that_is_read_again_is_parsed_once_and_never_taken_as_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_detections(Lake(tmp_path).open_run({}, None, dict), "d1")
    before, content, parsed = read_result(path, "detections"), path.read_bytes(), []
    monkeypatch.setattr(encodings, "as_contract", lambda name, rows: parsed.append(name) or rows)
    before[1]["digest"] = "changed by who read it"
    again = read_result(path, "detections")
    assert (again[0], again[1]["digest"], parsed) == (before[0], "d1", [])
    monkeypatch.undo()
    at, state = len(content) // 2, path.stat()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # the same file, size and time: the bytes alone tell
    with pytest.raises(ContractError, match="damaged"):
        read_result(path, "detections")
    path.unlink()
    with pytest.raises(ContractError):
        read_result(path, "detections")


def test_the_same_configuration_is_the_same_run_and_another_one_is_new(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    first = store.open_run({"threshold": 1}, None, lambda: {"host": "a"})
    assert store.open_run({"threshold": 1}, None, lambda: {"host": "b"}) == first
    second = store.open_run({"threshold": 2}, None, dict)
    assert second.run_id != first.run_id
    assert [r.run_id for r in store.runs()] == [second.run_id, first.run_id]
    assert store.latest_run() == first, "a run that was only opened has nothing to answer with"
    assert json.loads((first.path / "run.json").read_text())["host"] == "a"
    assert store.open_run({"threshold": 1}, None, dict) == first


def test_a_named_run_is_used_only_with_its_own_configuration(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    named = store.open_run({"a": 1}, "20260101_1200", dict)
    assert named.run_id == "20260101_1200"
    with pytest.raises(SetupError, match="another configuration"):
        store.open_run({"a": 2}, "20260101_1200", dict)


def test_many_processes_that_open_one_configuration_get_one_run(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: Lake(tmp_path).open_run({"a": 1}, None, dict).run_id, range(24)))
    assert len(set(opened)) == 1
    assert not list(tmp_path.glob(".tmp-run-*"))


@pytest.mark.parametrize(
    "first",
    [
        lambda store, run: catalog.write_catalog(store),
        lambda store, run: pointer.write(store.root, pointer.Pointer(run.run_id)),
        lambda store, run: failures.redrive(run, failures.Which()),
        lambda store, run: store.open_run({}, None, dict),
    ],
    ids=["catalog", "pointer", "redrive", "open"],
)
def test_orphans_of_a_killed_process_go_whatever_the_next_one_does_first(tmp_path: Path, first: Callable[[Lake, Run], object]) -> None:
    """A Dagster run writes the catalog before it opens its run; once a process holds a folder, it does not sweep it any more."""
    store = Lake(tmp_path / "lake")
    run = store.open_run({}, None, dict)
    catalog.write_catalog(store)
    locks.let_go(store.root)
    locks.let_go(run.path)
    (store.root / ".tmp-catalog-0aa541fc96bb2c8c").mkdir()
    (store.root / ".tmp-catalog-0aa541fc96bb2c8c" / "egoworld.duckdb").write_bytes(b"cut short")
    (run.path / ".tmp-0aa541fc96bb2c8c").write_bytes(b"cut short")
    (store.root / catalog.FILE_NAME).unlink()
    first(store, run)
    assert store.open_run({}, None, dict) == run
    assert not list(store.root.rglob(".tmp-*"))


def test_an_equal_result_of_an_earlier_run_is_linked_not_made(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    old = write_detections(store.open_run({"a": 1}, None, dict), "d1")
    run = store.open_run({"a": 2}, None, dict)
    path = run.clip_table("detections", *IDS)
    assert run.adopt(path, "another digest") is None
    assert run.adopt(path, "d1") == "linked"
    assert path.samefile(old)
    assert run.adopt(path, "d1") == "done"


@pytest.mark.parametrize("evil", ["../x", "a/b", "", "A b", "x\n", "."])
def test_an_identifier_never_leaves_the_run(tmp_path: Path, evil: str) -> None:
    run = Lake(tmp_path).open_run({}, None, dict)
    with pytest.raises(ValueError, match="video_id"):
        run.video_folder(evil)


def test_the_catalog_has_a_typed_view_per_table_and_sees_later_files(tmp_path: Path) -> None:
    store = Lake(tmp_path / "it's a lake")
    first = store.open_run({"a": 1}, None, dict)
    with duckdb.connect(str(catalog.write_catalog(store)), read_only=True) as connection:
        for name in schema.TABLES:
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(0,)]
        write_detections(first, "d1")
        assert connection.execute("SELECT role, box_px[3] FROM raw.detections").fetchall() == [("hand_left", 30.0)]
        write_detections(store.open_run({"a": 2}, None, dict), "d2")
        assert connection.execute("SELECT count(DISTINCT run_id) FROM raw.detections").fetchall() == [(2,)]
        assert connection.execute("SELECT count(*) FROM detections").fetchall() == [(0,)], "of no clip of a video"


def test_meta_json_gathers_what_the_files_say(tmp_path: Path) -> None:
    run = Lake(tmp_path).open_run({}, None, dict)
    write_detections(run, "d1")
    run.write_meta(*IDS)
    assert json.loads((run.clip_folder(*IDS) / "meta.json").read_text())["detections"]["digest"] == "d1"


def test_a_meta_json_that_is_behind_is_known_by_what_it_says_and_not_by_its_time(tmp_path: Path) -> None:
    run = Lake(tmp_path).open_run({}, None, dict)
    write_detections(run, "d1")
    run.write_meta(*IDS)
    assert not run.meta_is_behind(*IDS, "detections", "d1")
    write_detections(run, "d2")
    assert run.meta_is_behind(*IDS, "detections", "d2")
    run.write_meta(*IDS)
    assert not run.meta_is_behind(*IDS, "detections", "d2")
    write_table(run.failure("detections", *IDS), "failures", schema.empty("failures"), {})
    assert run.meta_is_behind(*IDS, "detections", "d2")
    (run.clip_folder(*IDS) / "meta.json").write_text("[1")
    assert run.meta_is_behind(*IDS, "detections", "d2")


def test_a_meta_json_that_cannot_be_read_now_is_not_taken_for_one_that_is_behind(tmp_path: Path) -> None:
    run = Lake(tmp_path).open_run({}, None, dict)
    write_detections(run, "d1")
    run.write_meta(*IDS)
    meta = run.clip_folder(*IDS) / "meta.json"
    with unreadable(meta, errno.ESTALE), pytest.raises(StorageUnavailable, match=r"meta\.json"):
        run.meta_is_behind(*IDS, "detections", "d1")
    assert not run.meta_is_behind(*IDS, "detections", "d1")


def test_registrations_from_many_writers_are_all_kept(tmp_path: Path) -> None:
    store = Lake(tmp_path)

    def add(n: int) -> None:
        update(store, [{"path": f"/raw/{n}\n'.mp4", "video_id": f"v{n}", "status": "registered", "sha256": "0", "bytes": 1, "mtime_ns": 2}])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(20)))
    assert set(registered(store)) == {f"v{n}" for n in range(20)}
    assert registered(store)["v3"].path == Path("/raw/3\n'.mp4")


def test_the_newest_run_is_the_one_made_last_whatever_its_name(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    named = store.open_run({"a": 1}, "zebra", dict)
    later = store.open_run({"a": 1}, "20200101_0000", dict)
    assert store.runs() == [later, named]
    assert store.open_run({"a": 1}, None, dict) == later


def test_a_run_id_that_cannot_be_a_folder_is_a_bad_setting(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="run_id"):
        Lake(tmp_path).open_run({}, "../x", dict)


def test_a_lake_in_a_folder_with_wildcards_in_its_name_has_a_catalog(tmp_path: Path) -> None:
    store = Lake(tmp_path / "l[1]*")
    write_detections(store.open_run({}, None, dict), "d1")
    with duckdb.connect(str(catalog.write_catalog(store)), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM raw.detections").fetchall() == [(1,)]


def test_the_catalog_is_written_again_only_where_it_would_differ_or_is_gone(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    store.open_run({}, None, dict)
    first = catalog.write_catalog(store).stat().st_ino
    assert catalog.write_catalog(store).stat().st_ino == first
    (tmp_path / catalog.FILE_NAME).unlink()
    with duckdb.connect(str(catalog.write_catalog(store)), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM masks").fetchall() == [(0,)]


def test_the_catalog_tells_of_runs_and_of_the_states_of_their_clips_also_where_one_run_is_broken(tmp_path: Path) -> None:
    store = Lake(tmp_path / "it's a lake")
    first = store.open_run({"a": 1}, "20260101_0000", lambda: {"settings": {"sample_stride": 5}, "git": {"commit": "abc", "dirty": True}})
    broken = store.open_run({"a": 2}, "20260102_0000", dict)
    lakes.write_video(first, "v", n_frames=50)
    [video_id] = states.video_ids(first)
    clip_ids = [path.name.removeprefix("clip_id=") for path in first.video_folder(video_id).glob("clip_id=*")]
    lakes.fail(first, video_id, clip_ids[0], "mapping")
    for stage, clip_id in (("masks", clip_ids[0]), ("masks", clip_ids[1])):
        table = first.clip_table(stage, video_id, clip_id)
        result, known = read_result(table, stage)
        lakes.fail(first, video_id, clip_id, stage)
        write_table(table, stage, result, known)
    record_stand_in(first.failure("masks", video_id, clip_ids[1]), known["digest"])
    counted.count(first, video_id)
    (broken.path / "run.json").write_bytes(b'{"run\xff')
    with duckdb.connect(str(catalog.write_catalog(store)), read_only=True) as connection:
        stride = connection.execute("SELECT run_id, (settings->>'sample_stride')::INT, git->>'commit' FROM runs ORDER BY 1").fetchall()
        assert stride == [("20260101_0000", 5, "abc"), ("20260102_0000", None, None)]
        rows = connection.execute("SELECT stage, state, clips FROM run_states WHERE run_id = '20260101_0000'").fetchall()
        done = {stage: n for stage, state, n in rows if state == "done"}
        stale = below("masks")
        lost = dict.fromkeys(("mapping", "masks", *stale), len(clip_ids) - 1)
        assert done == {"manifest": 1} | dict.fromkeys(operators.stages(), len(clip_ids)) | lost
        undone = dict(sorted({**dict.fromkeys(stale, "stale"), "mapping": "dead_letter", "masks": "dead_letter"}.items()))
        assert [row for row in rows if row[1] != "done"] == [(stage, state, 1) for stage, state in undone.items()]
    in_python = runs.counts(first)
    assert {stage: in_python[stage]["done"] for stage in done} == done
    assert {stage: n["dead letters"] for stage, n in in_python.items() if n["dead letters"]} == {"mapping": 1, "masks": 1}
    state = states.video_state(first, video_id)
    assert state is not None
    assert state.lacking()["masks"] == {"failed": 1}
