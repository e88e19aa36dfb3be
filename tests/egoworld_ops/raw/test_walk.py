"""Scans of a raw folder with everything that people and machines leave in one."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import NotAVideo, UnstableFile
from egoworld_ops.raw import walk
from egoworld_ops.raw.walk import IntakeEntry, Seen, scan, video_id_for
from egoworld_ops.types import check_id
from egoworld_ops.video.containers import hash_file

Entries = dict[str, IntakeEntry]


def scanned(
    raw: Path, known: dict | None = None, seen: dict[str, Seen] | None = None, **options: object
) -> tuple[Entries, dict[str, Seen]]:
    """One scan; its rows must keep the contract."""
    entries, now = scan(raw, known or {}, seen or {}, **options)
    validation.validate("intake", schema.from_rows("intake", [e.row() for e in entries]))
    return {e.path.name: e for e in entries}, now


def test_a_raw_folder_with_everything_in_it(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "sub" / "deep").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "elsewhere.mp4").write_bytes(b"elsewhere")
    names = ["a b.mp4", 'it\'s "so".MP4', "new\nline.mov", "dots..mkv", "..mp4x.mp4", "ünïcødé.mp4", "日本.webm", "-rf.mp4", "a:b%d.mp4"]
    for name in names:
        (raw / name).write_bytes(name.encode())
    (raw / "sub" / "deep" / "deep.mp4").write_bytes(b"deep")
    (raw / "zero.mp4").touch()
    (raw / "folder.mp4").mkdir()
    (raw / "dangling.mp4").symlink_to("nowhere")
    (raw / "linked.mp4").symlink_to(outside / "elsewhere.mp4")
    (raw / "linked_folder").symlink_to(outside)
    (raw / "round").symlink_to(raw)
    os.mkfifo(raw / "fifo.mp4")
    (raw / "a b.egoworld.json").write_text("{}")
    (raw / "notes.txt").write_text("not looked at")
    (raw / ".hidden.mp4").write_bytes(b"half a download")
    (raw / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"latin")
    (raw / "copy 2.mp4").write_bytes(b"same")
    (raw / "copy 1.mp4").write_bytes(b"same")

    entries, _ = scanned(raw, settle_s=0)

    registered = {name for name, e in entries.items() if e.status == "registered"}
    assert registered == {*names, "deep.mp4", "linked.mp4", "copy 1.mp4"} - {"..mp4x.mp4"}
    assert entries["copy 2.mp4"].status == "duplicate"
    assert entries["copy 2.mp4"].video_id == entries["copy 1.mp4"].video_id
    rejected = {name: e.error.reason for name, e in entries.items() if e.status == "rejected" and e.error}
    assert rejected == {
        "zero.mp4": "has zero bytes",
        "folder.mp4": "is a directory, not a regular file",
        "dangling.mp4": "is a link to nothing",
        "linked_folder": "is a link to a folder, which is not followed",
        "round": "is a link to a folder, which is not followed",
        "fifo.mp4": "is a FIFO, not a regular file",
        "caf\udce9.mp4": "has a name that is not valid UTF-8",
    }
    assert all(e.error is not None and e.error.cure for e in entries.values() if e.status == "rejected")
    assert set(entries) == registered | set(rejected) | {"copy 2.mp4"}
    assert [str(e.path) for e in scan(raw, {}, {}, 0)[0]] == sorted((str(e.path) for e in entries.values()), key=os.fsencode)


def test_a_file_is_taken_when_it_no_longer_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"half")
    entries, seen = scanned(tmp_path)
    assert entries["a.mp4"].status == "unstable"
    path.write_bytes(b"half, and the rest")
    entries, seen = scanned(tmp_path, seen=seen)
    assert entries["a.mp4"].status == "unstable"
    entries, seen = scanned(tmp_path, seen=seen)
    assert entries["a.mp4"].status == "registered"
    entries, seen = scanned(tmp_path, seen=seen)
    assert entries == {}
    assert seen[str(path)].status == "registered"


def test_zero_bytes_may_still_grow(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    entries, seen = scanned(tmp_path)
    assert entries["a.mp4"].status == "unstable"
    entries, seen = scanned(tmp_path, seen=seen)
    assert entries["a.mp4"].status == "rejected"
    assert scanned(tmp_path, seen=seen)[0] == {}
    (tmp_path / "a.mp4").write_bytes(b"now something")
    entries, seen = scanned(tmp_path, seen=seen)
    assert entries["a.mp4"].status == "unstable"
    assert scanned(tmp_path, seen=seen)[0]["a.mp4"].status == "registered"


def test_one_look_takes_what_has_settled(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    (tmp_path / "new.mp4").write_bytes(b"new")
    long_ago = time.time() - 60
    os.utime(tmp_path / "old.mp4", (long_ago, long_ago))
    entries, _ = scanned(tmp_path, settle_s=30)
    assert {name: e.status for name, e in entries.items()} == {"old.mp4": "registered", "new.mp4": "unstable"}


def test_a_look_reads_a_bounded_number_of_files(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.mp4").write_bytes(bytes([i + 1]))
    taken, seen = [], {}
    for _ in range(4):
        entries, seen = scanned(tmp_path, seen=seen, settle_s=0, limit=2)
        taken.append(sorted(name for name, e in entries.items() if e.status == "registered"))
    assert taken == [["0.mp4", "1.mp4"], ["2.mp4", "3.mp4"], ["4.mp4"], []]


def test_contents_are_known_from_before(tmp_path: Path) -> None:
    (tmp_path / "first.mp4").write_bytes(b"content")
    first = scanned(tmp_path, settle_s=0)[0]["first.mp4"]
    known = {str(first.sha256): first}
    (tmp_path / "second.mp4").write_bytes(b"content")
    entries, _ = scanned(tmp_path, known, settle_s=0)
    assert {name: e.status for name, e in entries.items()} == {"first.mp4": "registered", "second.mp4": "duplicate"}
    assert entries["second.mp4"].video_id == first.video_id

    (tmp_path / "first.mp4").unlink()  # moved: the content is registered at its new place, as the same video
    moved = scanned(tmp_path, known, settle_s=0)[0]["second.mp4"]
    assert (moved.status, moved.video_id) == ("registered", first.video_id)


def test_a_single_file_can_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "no suffix"
    path.write_bytes(b"x")
    assert scanned(path, settle_s=0)[0]["no suffix"].status == "registered"
    missing = scanned(tmp_path / "missing.mp4", settle_s=0)[0]["missing.mp4"]
    assert (missing.status, missing.error.reason if missing.error else "") == ("rejected", "does not exist")


def test_a_file_that_grows_while_it_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 100)
    read = os.read

    def read_and_grow(descriptor: int, size: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more")
        monkeypatch.setattr(walk.os, "read", read)
        return read(descriptor, size)

    monkeypatch.setattr(walk.os, "read", read_and_grow)
    with pytest.raises(UnstableFile, match="changed while it was read"):
        hash_file(path)
    assert hash_file(path) == (hashlib.sha256(b"x" * 100 + b"more").hexdigest(), 104)
    with pytest.raises(NotAVideo):
        hash_file(tmp_path)


def test_video_ids_are_safe_stable_and_bounded() -> None:
    sha256 = "0123456789abcdef" * 4
    want = {
        "My Video (1).mp4": "my-video-1-0123456789ab",
        "Café_Über.mov": "cafe_uber-0123456789ab",
        "видео.mp4": "video-0123456789ab",
        "..": "video-0123456789ab",
        "../../etc/passwd.mp4": "passwd-0123456789ab",
        "a\nb'\"c.mp4": "a-b-c-0123456789ab",
        "caf\udce9.mp4": "caf-0123456789ab",
        "---.mp4": "video-0123456789ab",
    }
    for name, video_id in want.items():
        assert video_id_for(name, sha256) == video_id
        check_id("video_id", video_id)
    assert len(video_id_for("x" * 300 + ".mp4", sha256)) <= 128
