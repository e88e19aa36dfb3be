"""Orphans of killed writers are removed, files of running ones stay; a full disk is named."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.files import locks
from egoworld_ops.files.whole import hold_swept, link_or_copy, write_bytes
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import intake

HOLDS = (
    "import sys; from pathlib import Path; "
    "from egoworld_ops.files import locks; locks.hold(Path(sys.argv[1])); print('held', flush=True); input()"
)


def test_what_a_killed_writer_left_goes_once_nobody_holds_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run_id=a"
    write_bytes(run / "video_id=v" / "clip_id=c" / "masks.parquet", b"rows")
    (run / ".tmp-half").write_bytes(b"ro")
    (run / ".tmp-folder").mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDS, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert hold_swept(run)
        assert len(list(run.glob(".tmp-*"))) == 2, "it may be the other's"
        locks.let_go(run)
        other.kill()
    assert hold_swept(run)
    assert not list(run.rglob(".tmp-*"))
    assert (run / "video_id=v" / "clip_id=c" / "masks.parquet").read_bytes() == b"rows"
    locks.let_go(run)


def test_a_folder_that_is_not_there_is_not_held(tmp_path: Path) -> None:
    assert not hold_swept(tmp_path / "gone")


def test_linking_a_file_to_where_it_is_already_leaves_no_temporary(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"rows")
    for _ in range(2):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageUnavailable, match=r"table: .*No space left.*then run again"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table"]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "gone", tmp_path / "b")


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK], ids=lambda n: errno.errorcode[n])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = "cannot be read" if number == errno.ENOLCK else r"\.lock: its file system has no locks.*Mount it with locks"
    for taken in (hold_swept, lambda folder: intake.update(Lake(folder), [])):
        with pytest.raises(StorageUnavailable, match=said):
            taken(tmp_path)
