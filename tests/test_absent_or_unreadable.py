"""Only a file that the system reports as missing is absent: on any other error nothing is decided, overwritten, removed or taken from its owner."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from egoworld_ops import exports, models, robots
from egoworld_ops.errors import StorageUnavailable, WeightsMissing
from egoworld_ops.exports.base import rows_of
from egoworld_ops.files import locks
from egoworld_ops.lake import failures, judging, pointer, runs, states
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger.leases import Process
from egoworld_ops.raw import register, walk
from egoworld_ops.raw.passed_over import passed_over
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.settings import load_settings
from egoworld_ops.upkeep import gc
from gpu_workers.journal import Journal
from tests.lakes import write_video
from tests.opens import unreadable

BOTH = ("open", "stat")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    write_video(made, "a", n_frames=30)
    return made


def test_weights_that_cannot_be_read_are_not_missing_and_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(tmp_path))
    name = next(name for name, weight in models.REGISTRY.items() if isinstance(weight.source, models.Download))
    path = tmp_path / models.weight(name).filename
    with pytest.raises(WeightsMissing):
        models.path(name)
    path.write_bytes(b"whole")
    monkeypatch.setitem(models.REGISTRY, name, replace(models.weight(name), sha256=hashlib.sha256(b"whole").hexdigest()))
    for calls in (("open",), BOTH):
        with unreadable(path, errno.ESTALE, calls):
            with pytest.raises(StorageUnavailable, match="cannot be read"):
                models.path(name)
            with pytest.raises(StorageUnavailable, match="cannot be read"):
                models.fetch([name])
            [line] = [line for line in models.listed() if line.startswith(name)]
            assert "unreadable" in line
    assert models.path(name).read_bytes() == b"whole"
    brought = tmp_path / "brought"
    brought.write_bytes(b"whole")
    with unreadable(brought, errno.EIO), pytest.raises(StorageUnavailable):
        models.register(name, brought)
    with pytest.raises(WeightsMissing):
        models.register(name, tmp_path / "nothing")


def test_a_journal_that_cannot_be_read_is_left_as_it_is_and_read_once_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    before = "".join(json.dumps(line) + "\n" for line in (["begin", "killer", "boot 1"], ["death alone", "known", ""]))
    path.write_text(before)
    with unreadable(path, errno.EIO):
        journal = Journal(path, "boot 2")
        assert "Input/output error" in journal.trouble
        journal.record("begin", "other")
        assert path.read_text is not None
    assert path.read_text() == before, "what was running when the machine died is still known"
    journal.record("begin", "third")
    assert journal.trouble == ""
    assert Journal(path, "boot 3").machine_deaths == {"killer": [True], "known": [True], "other": [False], "third": [False]}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EIO, errno.ENOLCK], ids=lambda n: errno.errorcode[n])
def test_a_folder_whose_lock_cannot_be_had_is_not_taken_for_held(run: Run, number: int) -> None:
    locks.let_go(run.path)
    with unreadable(run.path / locks.LOCK_NAME, number), pytest.raises(StorageUnavailable):
        locks.hold(run.path)
    with unreadable(run.path / locks.LOCK_NAME, number, ("stat",)), pytest.raises(StorageUnavailable):
        locks.hold(run.path)
    assert locks.hold(run.path)
    locks.let_go(run.path)


def test_a_folder_in_which_nothing_can_be_written_needs_no_lock(run: Run) -> None:
    locks.let_go(run.path)
    for number in (errno.EACCES, errno.EROFS):
        with unreadable(run.path / locks.LOCK_NAME, number):
            assert locks.hold(run.path)
    assert not locks.hold(run.path / "gone")


def test_who_has_files_open_is_not_guessed_where_it_cannot_be_listed(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w"):
        with unreadable(Path(f"/proc/{os.getpid()}/fd"), errno.EMFILE), pytest.raises(OSError, match="Too many open files"):
            locks.open_files(tmp_path)
        assert locks.open_files(tmp_path) == {tmp_path.resolve() / "file"}


def test_gc_keeps_a_run_whose_release_cannot_be_seen(run: Run) -> None:
    make_release(run, ReleaseSettings(writers=1))
    other = run.lake.open_run({"a": 1}, "20260102_0000", dict)
    pointer.write(run.lake.root, pointer.Pointer(other.run_id))
    locks.let_go(run.path)
    with unreadable(place.folder(run), errno.ESTALE, ("stat",)):
        with pytest.raises(StorageUnavailable):
            gc.plan(run.lake)
        with pytest.raises(StorageUnavailable):
            gc.collect(run.lake)
    assert run.path.is_dir()
    assert [reason for run_id, reason in gc.plan(run.lake).keep if run_id == run.run_id] == ["released"]


def test_an_old_pointer_that_cannot_be_read_is_not_a_lake_without_one(run: Run) -> None:
    (run.lake.root / pointer.FILE_NAME).unlink()
    assert run.lake.latest_run() == run, "the link says so"
    with unreadable(run.lake.root / pointer.LINK, errno.ESTALE), pytest.raises(StorageUnavailable):
        run.lake.latest_run()
    (run.lake.root / pointer.LINK).unlink()
    assert run.lake.latest_run() is None


def test_a_raw_folder_that_cannot_be_listed_is_neither_rejected_nor_empty(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "day").mkdir(parents=True)
    (raw / "day" / "a.mp4").write_bytes(b"a")
    with unreadable(raw / "day", errno.EIO):
        [entry], seen = walk.scan(raw, {}, {}, settle_s=0)
        assert (entry.path, entry.status, type(entry.error)) == (raw / "day", "unstable", StorageUnavailable)
        assert passed_over(raw) == []
    [entry], _ = walk.scan(raw, {}, seen, settle_s=0)
    assert (entry.path.name, entry.status) == ("a.mp4", "registered")
    with unreadable(raw, errno.ESTALE, BOTH), pytest.raises(StorageUnavailable):
        walk.scan(raw, {}, {})


def test_a_copy_is_not_taken_for_the_original_where_the_original_cannot_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"same")
    (tmp_path / "b.mp4").write_bytes(b"other")
    entries, _ = walk.scan(tmp_path, {}, {}, settle_s=0)
    known = {str(e.sha256): walk._Accepted(str(e.video_id), e.path) for e in entries}
    (tmp_path / "copy.mp4").write_bytes(b"same")
    with unreadable(tmp_path / "a.mp4", errno.ESTALE, ("stat",)):
        entries, _ = walk.scan(tmp_path, known, {}, settle_s=0)
    assert {e.path.name: e.status for e in entries} == {"a.mp4": "unstable", "b.mp4": "registered", "copy.mp4": "unstable"}


def test_the_sensor_says_that_the_raw_folder_cannot_be_read(tmp_path: Path) -> None:
    settings = load_settings("laptop").model_copy(update={"raw": tmp_path / "raw", "lake": tmp_path / "lake"})
    settings.raw.mkdir()
    with unreadable(settings.raw, errno.ENOTCONN, BOTH), pytest.raises(StorageUnavailable):
        register.scan(settings.raw, settings.lake, None, 10)


def test_an_owner_whose_process_cannot_be_looked_at_is_not_gone() -> None:
    here = Process.current()
    assert not here.is_gone(here)
    with unreadable(Path(f"/proc/{os.getpid()}/stat"), errno.EMFILE), pytest.raises(StorageUnavailable):
        here.is_gone(here)
    assert replace(here, pid=2**22 + 1).is_gone(here)


def test_profiles_and_urdfs_that_cannot_be_read_now_are_worth_another_try(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text("sample_stride = 2\n")
    with unreadable(profile, errno.ESTALE), pytest.raises(StorageUnavailable):
        load_settings(str(profile))
    hand = robots.find_robot("allegro", {}).right
    assert hand is not None
    with unreadable(robots.urdf_path(hand), errno.EIO), pytest.raises(StorageUnavailable):
        robots.urdf_path(hand)


def test_an_export_is_not_written_where_it_cannot_be_told_what_is_there(run: Run, tmp_path: Path) -> None:
    with unreadable(tmp_path / "out", errno.ESTALE, ("stat",)), pytest.raises(StorageUnavailable):
        exports.write("csv", rows_of(run), tmp_path / "out")
    assert not list(tmp_path.glob(".tmp-*"))


LISTED: list[tuple[str, Callable[[Run, str], object]]] = [
    ("lake", lambda run, video_id: run.lake.runs()),
    ("lake", lambda run, video_id: run.lake.open_run({}, None, dict)),
    ("run", lambda run, video_id: list(runs.results(run, run))),
    ("video", lambda run, video_id: gc.largest(run.lake)),
    ("video", lambda run, video_id: judging.files(run, "masks", video_id)),
    ("clip", lambda run, video_id: judging.files(run, "masks", video_id)),
    ("clip", lambda run, video_id: list(failures.find(run, failures.Which()))),
    ("release", lambda run, video_id: place.part_names(run)),
]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(run: Run) -> None:
    [video_id] = states.video_ids(run)
    make_release(run, ReleaseSettings(writers=1))
    clip = next(run.video_folder(video_id).glob("clip_id=*"))
    places = {"lake": run.lake.root, "run": run.path, "video": run.video_folder(video_id), "clip": clip, "release": place.folder(run)}
    before = sorted(run.lake.root.iterdir())
    for number in (errno.EACCES, errno.ESTALE):
        for where, listed in LISTED:
            with unreadable(places[where], number), pytest.raises(StorageUnavailable):
                listed(run, video_id)
    assert sorted(run.lake.root.iterdir()) == before, "no run was opened beside those that cannot be seen"
