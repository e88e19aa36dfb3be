"""The latest run of a lake: changed by results that count, pinned by a person, and found without a symbolic link."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from egoworld_ops.errors import SetupError, StorageUnavailable
from egoworld_ops.files.whole import link_or_copy
from egoworld_ops.lake import latest, runs
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query import catalog
from tests.conftest import ROOT
from tests.lakes import fail, write_video
from tests.opens import unreadable


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def store(tmp_path: Path) -> Lake:
    """A lake whose run `main` has two whole videos."""
    store = Lake(tmp_path / "lake")
    main = open_run(store, "main")
    latest.advance(main, [write_video(main, name, n_frames=20) for name in ("a", "b")])
    return store


def open_run(store: Lake, name: str) -> Run:
    return store.open_run({"configuration": name}, name, dict)


def named(store: Lake) -> str:
    return runs.latest(store).run_id


def test_the_first_run_of_a_lake_is_its_latest_also_before_it_has_results(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    open_run(store, "only")
    assert named(store) == "only"


def test_a_run_that_was_only_opened_leaves_the_latest(store: Lake) -> None:
    open_run(store, "other")
    assert named(store) == "main"


def test_a_run_in_which_a_stage_has_failed_everywhere_leaves_the_latest(store: Lake) -> None:
    broken = open_run(store, "broken")
    videos = [write_video(broken, name, n_frames=20) for name in ("a", "b")]
    for video_id in videos:
        for folder in broken.video_folder(video_id).glob("clip_id=*"):
            fail(broken, video_id, folder.name.removeprefix("clip_id="), "masks")
    assert latest.advance(broken, videos) is False
    assert named(store) == "main"


def test_a_part_of_the_chain_leaves_the_latest(store: Lake) -> None:
    part = open_run(store, "part")
    videos = [write_video(part, name, n_frames=20) for name in ("a", "b")]
    for path in part.path.glob("video_id=*/clip_id=*/mapping.parquet"):
        path.unlink()
    latest.advance(part, videos)
    assert named(store) == "main"


def test_a_part_of_the_clips_leaves_the_latest(store: Lake) -> None:
    part = open_run(store, "part")
    videos = [write_video(part, name, n_frames=80) for name in ("a", "b")]
    for video_id in videos:
        _, *others = sorted(part.video_folder(video_id).glob("clip_id=*"))
        for folder in others:
            shutil.rmtree(folder)
    latest.advance(part, videos)
    assert named(store) == "main"


def test_a_run_of_fewer_videos_takes_over_once_it_has_as_many(store: Lake) -> None:
    fresh = open_run(store, "fresh")
    latest.advance(fresh, [write_video(fresh, "a", n_frames=20)])
    assert named(store) == "main"
    assert latest.advance(fresh, [write_video(fresh, "c", n_frames=20)]) is True
    assert named(store) == "fresh"
    main = Run(store, "main")
    assert latest.advance(main, ["a-ca978112ca1b"]) is True, "work in the run before brings it back: it has as many"
    assert named(store) == "main"


def test_a_clip_that_failed_among_others_does_not_hold_a_run_back(store: Lake) -> None:
    fresh = open_run(store, "fresh")
    videos = [write_video(fresh, name, n_frames=80) for name in ("a", "b")]
    fail(fresh, videos[0], sorted(fresh.video_folder(videos[0]).glob("clip_id=*"))[0].name.removeprefix("clip_id="), "mapping")
    assert latest.advance(fresh, videos) is True


def test_a_pinned_run_stays_until_it_is_let_go(store: Lake) -> None:
    fresh = open_run(store, "fresh")
    latest.use(Run(store, "main"))
    videos = [write_video(fresh, name, n_frames=20) for name in ("a", "b")]
    assert latest.advance(fresh, videos) is False
    assert (named(store), latest.is_pinned(store)) == ("main", True)
    latest.follow(store)
    assert (named(store), latest.is_pinned(store)) == ("main", False)
    latest.advance(fresh, videos)
    assert named(store) == "fresh"


def test_a_lake_that_does_not_say_its_latest_run_says_so(store: Lake) -> None:
    (store.root / "latest.json").unlink()
    (store.root / "latest").unlink()
    with pytest.raises(SetupError, match=r"does not say which of its runs is the latest.*egoworld runs use RUN.*main"):
        runs.latest(store)
    open_run(store, "other")
    with pytest.raises(SetupError):
        runs.latest(store)
    latest.use(Run(store, "main"))
    assert named(store) == "main"


def test_a_latest_run_that_was_removed_is_named(store: Lake) -> None:
    open_run(store, "other")
    shutil.rmtree(store.root / "run_id=main")
    with pytest.raises(SetupError, match="its latest run, main, is gone"):
        runs.latest(store)


def test_a_lake_from_before_the_file_is_read_by_its_link(store: Lake) -> None:
    (store.root / "latest.json").unlink()
    assert named(store) == "main"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"run_id": "main"}', "null"])
def test_a_broken_pointer_is_named_with_a_cure(store: Lake, content: str) -> None:
    (store.root / "latest.json").write_text(content)
    with pytest.raises(SetupError, match=r"latest\.json.*egoworld runs use RUN"):
        runs.latest(store)


def test_a_pointer_that_cannot_be_read_now_is_unavailable(store: Lake) -> None:
    with unreadable(store.root / "latest.json", errno.ESTALE), pytest.raises(StorageUnavailable):
        runs.latest(store)


POOR = """
import errno, os, stat, sys
def refuse(*_, **__): raise PermissionError(errno.EPERM, "Operation not permitted")
os.symlink = os.link = os.chmod = refuse
fsync = os.fsync
def of_files(handle):
    if stat.S_ISDIR(os.fstat(handle).st_mode): raise OSError(errno.EINVAL, "Invalid argument")
    fsync(handle)
os.fsync = of_files
"""
"""A file system without links and modes that syncs no folders, as exFAT, SMB and FUSE may be."""


def test_a_file_system_that_can_little_has_a_latest_run_linked_results_a_release_and_a_catalog(tmp_path: Path) -> None:
    code = f"""{POOR}
import duckdb
from pathlib import Path
from egoworld_ops.files.whole import link_or_copy
from egoworld_ops.lake import latest, runs
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query import catalog
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from tests.lakes import write_video
store = Lake(Path({str(tmp_path / "lake")!r}))
run = store.open_run({{"a": 1}}, "main", dict)
video_id = write_video(run, "a", n_frames=20)
other = store.open_run({{"a": 2}}, "other", dict)
[clip] = run.video_folder(video_id).glob("clip_id=*")
for path in sorted(clip.glob("*.parquet")):
    assert other.adopt(other.path / path.relative_to(run.path), "no") is None
    link_or_copy(path, other.path / path.relative_to(run.path))
make_release(run, ReleaseSettings())
make_release(run, ReleaseSettings(part_mb=1))
with duckdb.connect(str(catalog.write_catalog(store)), read_only=True) as connection:
    print(connection.execute("SELECT count(*) FROM release.clips").fetchone())
print(runs.latest(store).run_id)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(1,)\nmain\n"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("no hard links") == 1, "said once"
    assert json.loads((tmp_path / "lake" / "latest.json").read_text()) == {"run_id": "main", "pinned": False}
    assert not [p for p in (tmp_path / "lake").rglob("*") if p.is_symlink()]
    assert not list((tmp_path / "lake").rglob(".tmp-*"))


def test_who_may_use_a_lake_is_as_the_umask_and_the_folder_say(tmp_path: Path) -> None:
    shared = tmp_path / "lake"
    shared.mkdir()
    shared.chmod(0o2775)
    code = f"""
import os; os.umask(0o002)
from pathlib import Path
from egoworld_ops import ledger
from egoworld_ops.files.whole import link_or_copy
from egoworld_ops.lake import latest
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query import catalog
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from tests.lakes import write_video
store = Lake(Path({str(shared)!r}))
run = store.open_run({{"a": 1}}, "main", dict)
latest.advance(run, [write_video(run, "a", n_frames=20)])
make_release(run, ReleaseSettings())
catalog.write_catalog(store)
ledger.open_ledger(store).close()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [p for p in shared.rglob("*") if not p.is_symlink() and p.name != catalog.FILE_NAME]
    assert len(found) > 30
    assert oct((shared / catalog.FILE_NAME).stat().st_mode) == "0o100444", "nobody writes in it"
    assert {p: oct(p.stat().st_mode) for p in found if p.is_dir() and p.stat().st_mode & 0o7777 != 0o2775} == {}
    assert {p: oct(p.stat().st_mode) for p in found if p.is_file() and p.stat().st_mode & 0o664 != 0o664} == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_a_second_user_of_the_group_works_in_the_same_lake(tmp_path: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are private
        os.chmod(place, 0o755)
        shared = Path(place, "lake")
        shared.mkdir()
        os.chown(shared, 0, 4242)
        shared.chmod(0o2775)
        code = """
import os, sys
from pathlib import Path
from egoworld_ops import ledger
from egoworld_ops.files.whole import link_or_copy
from egoworld_ops.lake import latest
from egoworld_ops.lake.lake import Lake
from egoworld_ops.ledger import ClipKey
from egoworld_ops.query import catalog
from egoworld_ops.raw import intake
from tests.lakes import write_video
def work(place, user):
    store = Lake(Path(place))
    run = store.open_run({"a": 1}, "main", dict)
    latest.use(run)
    latest.advance(run, [write_video(run, "a", n_frames=20, seed=user), write_video(run, f"b{user}", n_frames=20)])
    intake.update(store, [])
    catalog.write_catalog(store)
    book = ledger.open_ledger(store)
    book.add({ClipKey("main", f"b{user}", "c", "masks"): None}); book.close()
    store.open_run({"a": user}, None, dict)
    return len(store.runs())
lake, user, scratch = sys.argv[1], int(sys.argv[2]), sys.argv[3]
work(scratch, 0)  # as root, so that all modules are loaded: the interpreter itself may be root's alone
os.setgroups([4242]); os.setgid(user); os.setuid(user); os.umask(0o002); os.chdir("/")
print(work(lake, user))
"""
        for n, user in enumerate(("5001", "5002", "5001"), 1):
            done = subprocess.run(
                [sys.executable, "-c", code, str(shared), user, str(tmp_path / user)], cwd=ROOT, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"{min(n, 2) + 1}\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_a_copy_of_a_lake_answers_who_may_only_read_it() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are private
        os.chmod(place, 0o755)
        store = Lake(Path(place, "lake"))
        run = open_run(store, "main")
        latest.use(run)
        write_video(run, "a", n_frames=20)
        catalog.write_catalog(store)
        shutil.copytree(store.root, Path(place, "copy"), symlinks=True)
        shutil.copytree(store.root, Path(place, "older"), symlinks=True)
        older = Path(place, "older", catalog.FILE_NAME)
        older.chmod(0o644)
        with duckdb.connect(str(older)) as connection:
            connection.execute("DROP VIEW good_clips; DROP VIEW release.camera")
        stamp = older.with_name(f".{older.name}.sha256")
        stamp.write_text(f"{stamp.read_text().split()[0]} {hashlib.sha256(older.read_bytes()).hexdigest()}")
        code = """
import os, sys
from pathlib import Path
import duckdb
from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query import catalog
duckdb.connect().execute("SELECT 1")
os.setgroups([]); os.setgid(5003); os.setuid(5003); os.chdir("/")
copy = Lake(Path(sys.argv[1]))
with duckdb.connect(str(catalog.write_catalog(copy)), read_only=True) as connection:
    print(connection.execute("SELECT count(*) FROM masks").fetchall()[0][0])
print("older", file=sys.stderr)
catalog.write_catalog(Lake(Path(sys.argv[3])))
try:
    catalog.write_catalog(Lake(Path(sys.argv[2])))
except StorageUnavailable as error:
    print(error.cure)
"""
        (store.root / catalog.FILE_NAME).unlink()
        done = subprocess.run(
            [sys.executable, "-c", code, f"{place}/copy", str(store.root), f"{place}/older"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        rows, cure = done.stdout.splitlines()
        assert int(rows) == 60
        assert cure.startswith("Let somebody who may run `egoworld sql")
        of_copy, of_older = done.stderr.split("older\n", 1)
        assert of_copy == ""
        assert "another version of egoworld wrote it, without the views good_clips, release.camera, and" in of_older


def test_a_disk_without_space_is_not_taken_for_one_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageUnavailable):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()
