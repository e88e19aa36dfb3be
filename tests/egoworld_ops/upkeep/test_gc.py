"""Only runs that are not needed are removed: none that is released, latest or in use; a file linked from elsewhere stays."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.files import locks
from egoworld_ops.files.whole import link_or_copy, sweep, write_bytes
from egoworld_ops.lake import pointer
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.states import video_ids
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.upkeep import gc
from egoworld_ops.upkeep.verify import verify
from tests.conftest import ROOT
from tests.lakes import register_videos, write_video

HOUR_S = 3600.0


def keep_linked(run_id: str) -> str:
    return "named to be kept" if run_id == "linked" else ""


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def open_run(store: Lake, run_id: str) -> Run:
    """A run that no process holds."""
    run = store.open_run({"configuration": run_id}, run_id, dict)
    locks.let_go(run.path)
    return run


@pytest.fixture
def store(tmp_path: Path) -> Lake:
    """Four runs: `released`; `old`; `linked`, whose clips are those of `old`; and `newest`."""
    store = Lake(tmp_path / "lake")
    one, old, linked = (open_run(store, name) for name in ("released", "old", "linked"))
    write_video(one, "a", n_frames=20)
    make_release(one, ReleaseSettings())
    video_id = write_video(old, "b", n_frames=46)
    for path in old.video_folder(video_id).rglob("*.parquet"):
        link_or_copy(path, linked.path / path.relative_to(old.path))
    write_video(old, "only-here", n_frames=20)
    pointer.write(store.root, pointer.Pointer(open_run(store, "newest").run_id))
    return store


def runs(store: Lake) -> set[str]:
    return {run.run_id for run in store.runs()}


def going(plan: gc.Plan) -> set[str]:
    return {doomed.path.name.removeprefix("run_id=") for doomed in plan.remove}


def bytes_on_disk(store: Lake) -> int:
    states = {
        (s.st_dev, s.st_ino): s.st_blocks * 512 for p in store.root.rglob("*") if p.is_file() and not p.is_symlink() for s in [p.stat()]
    }
    return sum(states.values())


def test_a_dry_run_says_what_would_go_and_removes_nothing(store: Lake) -> None:
    before = sorted(store.root.rglob("*"))
    plan = gc.plan(store)
    assert going(plan) == {"old", "linked"}
    assert dict(plan.keep) == {"released": "released", "newest": "the latest run"}
    assert [p for p in sorted(store.root.rglob("*")) if p.name != locks.LOCK_NAME] == [p for p in before if p.name != locks.LOCK_NAME]


def test_what_is_freed_is_what_the_disk_gets_back(store: Lake) -> None:
    before = bytes_on_disk(store)
    plan = gc.collect(store, keep_linked)
    assert going(plan) == {"old"}
    assert plan.freed_bytes == before - bytes_on_disk(store)
    assert 0 < plan.freed_bytes < plan.named_bytes + 100_000
    both = gc.plan(store)
    assert both.freed_bytes > 0
    assert going(both) == {"linked"}


def test_how_much_is_freed_takes_no_memory_for_each_file(store: Lake) -> None:
    for name in ("old", "linked"):
        (Run(store, name).path / "video_id=many").mkdir()
    for n in range(3000):
        path = Run(store, "old").path / "video_id=many" / f"{n}"
        path.touch()
        if n % 2:
            os.link(path, Run(store, "linked").path / "video_id=many" / path.name)
    before = gc.plan(store)
    tracemalloc.start()
    try:
        assert gc.plan(store) == before
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


def test_links_live_on_when_the_run_they_came_from_is_removed(store: Lake) -> None:
    linked = Run(store, "linked")
    for run in (linked, Run(store, "released")):
        register_videos(run)
    assert [str(f) for f in verify(linked)] == []
    gc.collect(store, keep_linked)
    assert runs(store) == {"released", "linked", "newest"}
    assert [str(f) for f in verify(linked)] == []
    assert [str(f) for f in verify(Run(store, "released"))] == []
    assert video_ids(linked)


def test_a_released_run_and_the_newest_stay_whatever_is_asked(store: Lake) -> None:
    for _ in range(2):
        gc.collect(store, older_than_s=0)
        assert runs(store) == {"released", "newest"}
    assert place.read(Run(store, "released")) is not None
    assert not list(store.root.rglob(".tmp-*"))


def test_a_run_that_a_process_has_open_stays_until_that_process_ends_even_by_a_kill(store: Lake) -> None:
    code = f"""
import sys, time; from pathlib import Path; from egoworld_ops.lake.lake import Lake
store = Lake(Path({str(store.root)!r}))
store.open_run({{"configuration": "old"}}, "old", dict); store.open_run({{"configuration": "newest"}}, "newest", dict)
print("ready", flush=True); time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert dict(gc.collect(store).keep)["old"] == "open in a living process"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert going(gc.collect(store)) == {"old"}


def test_a_run_whose_clips_are_leased_stays(store: Lake) -> None:
    with open_ledger(store) as book, book.owner() as owner:
        key = ClipKey("old", "masks", "v", "c")
        book.add({key: None})
        book.start([key], owner)
        assert [gc.leased(book, run_id) for run_id in ("old", "linked")] == ["1 clip(s) are being worked on", ""]
        assert going(gc.plan(store, partial(gc.leased, book))) == {"linked"}
    with open_ledger(store) as book:
        assert gc.leased(book, "old") == ""


def test_a_run_that_is_leased_while_gc_waits_for_a_release_stays(store: Lake) -> None:
    with open_ledger(store) as book, book.owner() as owner:
        key = ClipKey("old", "masks", "v", "c")
        book.add({key: None})
        with ThreadPoolExecutor(1) as thread:
            with locks.alone(place.home(store)):
                waiting = thread.submit(gc.collect, store, partial(gc.leased, book))
                time.sleep(0.2)
                book.start([key], owner)
            plan = waiting.result()
    assert going(plan) == {"linked"}
    assert dict(plan.keep)["old"] == "1 clip(s) are being worked on"


def test_a_run_that_is_leased_while_another_is_removed_stays(store: Lake) -> None:
    leased: dict[str, str] = {}
    plan = gc.collect(
        store,
        lambda run_id: leased.get(run_id, ""),
        forget=lambda run_id: leased.update({"old": "leased"} if run_id == "linked" else {"linked": "leased"}),
    )
    assert len(going(plan)) == 1
    assert going(plan) | leased.keys() == {"old", "linked"}
    assert {dict(plan.keep)[run_id] for run_id in leased} == {"came into use"}


def test_a_run_is_forgotten_while_nobody_else_can_open_it_and_before_it_goes(store: Lake) -> None:
    forgotten = []

    def forget(run_id: str) -> None:
        with locks.alone(Run(store, run_id).path, wait=False) as alone:
            forgotten.append((run_id, alone, (Run(store, run_id).path / "run.json").exists()))

    gc.collect(store, forget=forget)
    assert sorted(forgotten) == [("linked", False, True), ("old", False, True)]

    def fail(run_id: str) -> None:
        raise OSError(5, "the ledger does not answer")

    open_run(store, "more")
    store.open_run({"configuration": "newest"}, "newest", dict)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        gc.collect(store, forget=fail)
    assert runs(store) == {"released", "more", "newest"}


def test_a_run_is_opened_anew_where_it_is_removed_in_this_moment(store: Lake) -> None:
    with locks.alone(Run(store, "old").path) as alone:
        assert alone
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from pathlib import Path; from egoworld_ops.lake.lake import Lake\n"
                f"run = Lake(Path({str(store.root)!r})).open_run({{'configuration': 'old'}}, 'old', dict)\n"
                f"print(sorted(p.name for p in run.path.iterdir()))",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(1.5)
        os.rename(Run(store, "old").path, store.root / ".tmp-gc-old")
    said, _ = process.communicate(timeout=60)
    assert "run.json" in said
    assert "video_id" not in said


def test_only_old_temporary_files_go_and_none_that_a_process_has_open(store: Lake) -> None:
    folder = Run(store, "newest").path
    young, old, opened = (folder / f".tmp-{name}" for name in ("young", "old", "opened"))
    tree = store.root / ".tmp-release-run_id=x" / "masks"
    tree.mkdir(parents=True)
    for path in (young, old, opened, tree / "part-00000.parquet"):
        path.write_bytes(b"x" * 5000)
    for path in (old, opened, tree / "part-00000.parquet", tree, tree.parent):
        os.utime(path, (time.time() - 2 * HOUR_S,) * 2)
    with opened.open("rb"):
        plan = gc.collect(store, lambda run_id: "kept", older_than_s=HOUR_S)
    assert going(plan) == {".tmp-old", ".tmp-release-run_id=x"}
    assert (young.exists(), old.exists(), opened.exists(), tree.exists()) == (True, False, True, False)
    future = folder / ".tmp-future"
    future.touch()
    os.utime(future, (time.time() + 24 * HOUR_S,) * 2)
    assert going(gc.plan(store, lambda run_id: "kept", older_than_s=HOUR_S)) == {".tmp-opened"}


def test_files_that_come_and_go_meanwhile_are_no_fault(store: Lake) -> None:
    """Writers of clips, and a step that sweeps the lake as it starts."""
    stop = threading.Event()

    def write(n: int) -> None:
        while not stop.is_set():
            write_bytes(Run(store, "newest").path / "video_id=v" / f"{n}.json", b"{}", durable=False)
            (store.root / f".tmp-run-{n}" / "x").mkdir(parents=True)
            shutil.rmtree(store.root / f".tmp-run-{n}")

    with ThreadPoolExecutor(3) as writers:
        writing = [writers.submit(write, n) for n in range(3)]
        try:
            for _ in range(60):
                gc.plan(store)
                gc.collect(store, lambda run_id: "kept")
        finally:
            stop.set()
    assert not [one.exception() for one in writing if one.exception()]


def test_a_step_that_starts_does_not_sweep_what_gc_removes(store: Lake) -> None:
    trash, temporary = store.root / ".tmp-gc-1-run_id=x" / "video_id=a", store.root / ".tmp-other" / "a"
    trash.mkdir(parents=True)
    temporary.mkdir(parents=True)
    sweep(store.root)
    assert (trash.exists(), temporary.exists()) == (True, False)
    assert going(gc.collect(store, lambda run_id: "kept")) == {".tmp-gc-1-run_id=x"}


def test_a_killed_removal_leaves_no_half_a_run_and_the_next_ends_it(store: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {run.run_id: sorted(p.relative_to(run.path) for p in run.path.rglob("*")) for run in store.runs()}

    class Killed(BaseException):
        pass

    calls = iter(range(1000))
    real = os.unlink
    monkeypatch.setattr(os, "unlink", lambda *a, **k: real(*a, **k) if next(calls) < 7 else (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        gc.collect(store)
    monkeypatch.undo()
    assert runs(store) == {"released", "newest"}
    assert list(store.root.glob(".tmp-gc-*"))
    for run in store.runs():
        assert sorted(p.relative_to(run.path) for p in run.path.rglob("*")) == whole[run.run_id]
    assert {doomed.reason for doomed in gc.plan(store).remove} == {"left of a run that was being removed"}
    gc.collect(store)
    assert not list(store.root.glob(".tmp-gc-*"))


def test_a_folder_without_a_run_json_is_left_alone_and_told_of(store: Lake) -> None:
    shutil.copytree(Run(store, "old").video_folder(video_ids(Run(store, "old"))[0]), store.root / "run_id=mine" / "video_id=b")
    plan = gc.collect(store)
    assert dict(plan.keep)["mine"] == "has no run.json that says what it is"
    assert (store.root / "run_id=mine").is_dir()


def test_a_release_that_was_cut_between_its_steps_is_put_back_not_removed(store: Lake) -> None:
    target = place.folder(Run(store, "released"))
    os.rename(target, store.root / f".tmp-release-{target.name}{place.ASIDE}")
    assert going(gc.plan(store, older_than_s=0)) == {"old", "linked"}
    gc.collect(store, older_than_s=0)
    assert runs(store) == {"released", "newest"}
    assert target.is_dir()
