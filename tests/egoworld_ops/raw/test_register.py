"""Registering raw files: identified by content, read only after they stopped changing, none lost."""

import json
import shutil
from pathlib import Path

import pytest

from egoworld_ops.errors import NotAVideo
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import register
from egoworld_ops.raw.intake import read, registered
from egoworld_ops.settings import Settings
from tests.egoworld_ops import media


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "raw").mkdir()
    return Settings(raw=tmp_path / "raw", lake=tmp_path / "lake")


def test_a_file_is_taken_at_the_second_scan(settings: Settings) -> None:
    path = media.make(settings.raw / "new.mp4", 5)
    first = register.scan(settings.raw, settings.lake, None, 10)
    assert first.video_ids == []
    assert [row["status"] for row in first.refused] == ["unstable"]
    second = register.scan(settings.raw, settings.lake, first.cursor, 10)
    assert len(second.video_ids) == 1
    assert registered(Lake(settings.lake))[second.video_ids[0]].path == path
    third = register.scan(settings.raw, settings.lake, second.cursor, 10)
    assert (third.video_ids, third.refused) == ([], [])


def test_a_file_that_grows_waits(settings: Settings) -> None:
    path = media.make(settings.raw / "grows.mp4", 5)
    cursor = register.scan(settings.raw, settings.lake, None, 10).cursor
    with open(path, "ab") as file:
        file.write(b"more")
    found = register.scan(settings.raw, settings.lake, cursor, 10)
    assert found.video_ids == []
    assert len(register.scan(settings.raw, settings.lake, found.cursor, 10).video_ids) == 1


def test_a_look_reads_no_more_than_its_limit_and_loses_nothing(settings: Settings) -> None:
    for i in range(5):
        media.make(settings.raw / f"{i}.mp4", 3 + i)
    cursor, taken = None, []
    for _ in range(4):
        found = register.scan(settings.raw, settings.lake, cursor, 2)
        assert len(found.video_ids) <= 2
        taken, cursor = taken + found.video_ids, found.cursor
    assert len(set(taken)) == 5


def test_the_cursor_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "MAX_WAITING", 3)
    for i in range(7):
        media.make(settings.raw / f"{i}.mp4", 3 + i)
    cursor, taken = None, []
    for _ in range(8):
        found = register.scan(settings.raw, settings.lake, cursor, 50)
        assert len(json.loads(found.cursor)["waiting"]) <= 3
        taken, cursor = taken + found.video_ids, found.cursor
    assert len(set(taken)) == 7


def test_registering_again_is_the_same_video(settings: Settings) -> None:
    path = media.make(settings.raw / "a.mp4", 5)
    assert register.register(settings.lake, [path]).video_ids == register.register(settings.lake, [path]).video_ids
    assert read(Lake(settings.lake)).num_rows == 1


def test_a_copy_is_refused_and_named(settings: Settings) -> None:
    path = media.make(settings.raw / "a.mp4", 5)
    [video_id] = register.register(settings.lake, [path]).video_ids
    shutil.copy(path, settings.raw / "b.mp4")
    found = register.register(settings.lake, [settings.raw / "b.mp4"])
    [row] = found.refused
    assert (found.video_ids, row["status"], row["video_id"]) == ([], "duplicate", video_id)
    assert video_id in row["reason"]


def test_a_moved_file_keeps_its_video(settings: Settings) -> None:
    path = media.make(settings.raw / "a.mp4", 5)
    [video_id] = register.register(settings.lake, [path]).video_ids
    moved = path.rename(settings.raw / "moved.mp4")
    assert register.register(settings.lake, [moved]).video_ids == [video_id]
    assert registered(Lake(settings.lake))[video_id].path == moved


def test_a_copy_takes_over_when_the_original_is_gone(settings: Settings) -> None:
    path = media.make(settings.raw / "a.mp4", 5)
    shutil.copy(path, settings.raw / "b.mp4")
    [video_id] = register.register(settings.lake, [settings.raw]).video_ids
    path.unlink()
    cursor = register.scan(settings.raw, settings.lake, None, 10).cursor
    assert register.scan(settings.raw, settings.lake, cursor, 10).video_ids == [video_id]
    assert registered(Lake(settings.lake))[video_id].path == settings.raw / "b.mp4"


def test_what_is_no_file_is_refused_with_a_reason(settings: Settings) -> None:
    (settings.raw / "nothing.mp4").symlink_to(settings.raw / "gone")
    (settings.raw / "empty.mp4").touch()
    found = register.register(settings.lake, [settings.raw, settings.raw / "absent.mp4"])
    assert found.video_ids == []
    assert sorted(Path(row["path"]).name for row in found.refused) == ["absent.mp4", "empty.mp4", "nothing.mp4"]
    assert all(row["status"] == "rejected" and row["reason"] and row["cure"] for row in found.refused)


def test_a_missing_raw_folder_is_an_error(settings: Settings) -> None:
    settings.raw.rmdir()
    with pytest.raises(NotAVideo, match="EGOWORLD_RAW"):
        register.scan(settings.raw, settings.lake, None, 10)
