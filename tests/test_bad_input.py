"""A raw folder full of rubbish: every entry ends in a typed row that names file, reason and cure, and the good videos finish."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from egoworld_assets.chain import configuration, pipeline
from egoworld_ops.query import catalog
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings, load_settings
from gpu_workers.inline import InlinePool
from tests.egoworld_ops import media

GOOD = {
    "plain.mp4": 20,
    "one frame.mp4": 1,
    "odd size.mkv": 7,
    'it\'s "quoted"\nand; DROP TABLE videos--.mp4': 5,
    "double..dots...mp4": 5,
    "\u6599\u7406 \u00e9t\u00e9 \U0001f373.mp4": 5,
}
"""Names of usable videos, and how many frames they have."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for n, (name, frames) in enumerate(GOOD.items()):
        size, pix_fmt = ((161, 121), "yuv444p") if name.startswith("odd") else ((128 + 16 * n, 96), "yuv420p")
        media.make(folder / name, frames, size=size, pix_fmt=pix_fmt)
    whole = media.make(folder.parent / "whole.mp4", 40, size=(256, 192)).read_bytes()
    shutil.copy(folder / "plain.mp4", folder / "second name.mp4")
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    (folder / "head cut.mp4").write_bytes(whole[1000:])
    (folder / "tail cut.mp4").write_bytes(whole[: len(whole) // 2])
    transport = media.make(folder.parent / "whole.ts", 40, size=(256, 192)).read_bytes()
    (folder / "tail cut.ts").write_bytes(transport[: len(transport) // 2])
    media.make_audio(folder / "audio only.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.fixture(scope="module")
def database(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The catalog after the whole chain over the folder, as a user would query it."""
    base = load_settings("laptop")
    settings = Settings(**(base.model_dump() | {"lake": tmp_path_factory.mktemp("lake"), "raw": raw}))
    found = register.register(settings.lake, [raw])
    run, pool = configuration.open_run(settings), InlinePool(threads=2)
    for stage, result in pipeline.process(run, found.video_ids, settings, pool):
        assert stage == pipeline.MANIFEST or result.state == "computed", result.error
    assert not list(settings.lake.rglob(".tmp-*"))
    with duckdb.connect(str(catalog.write_catalog(run.lake)), read_only=True) as connection:
        yield connection


def rows(database: duckdb.DuckDBPyConnection, sql: str) -> dict[str, tuple[object, ...]]:
    return {Path(row[0]).name: row[1:] for row in database.execute(sql).fetchall()}


def test_every_good_video_went_through_every_stage(database: duckdb.DuckDBPyConnection, raw: Path) -> None:
    usable = rows(database, "SELECT path, n_frames FROM videos WHERE status = 'ok'")
    assert {name: n for name, (n,) in usable.items() if name != "tail cut.ts"} == GOOD
    [(failures,)] = database.execute("SELECT count(*) FROM failures").fetchall()
    assert failures == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("text.mp4", "NotAVideo"),
        ("playlist.mp4", "NotAVideo"),
        ("head cut.mp4", "NotAVideo"),
        ("tail cut.mp4", "CorruptVideo"),
        ("audio only.mp4", "NoVideoStream"),
    ],
)
def test_a_file_that_is_no_usable_video_is_rejected_with_reason_and_cure(database: duckdb.DuckDBPyConnection, name: str, kind: str) -> None:
    error_class, reason, cure = rows(database, "SELECT path, error_class, reason, cure FROM videos WHERE status = 'rejected'")[name]
    print(f"{name}: {error_class}: {reason}. {cure}")
    assert error_class == kind
    assert reason
    assert cure


def test_a_stream_whose_tail_is_cut_off_is_used_as_far_as_it_decodes(database: duckdb.DuckDBPyConnection) -> None:
    [(n_frames, n_clip_frames)] = database.execute(
        "SELECT n_frames, sum(own_end - own_start) FROM videos JOIN clips USING (video_id) WHERE path LIKE '%tail cut.ts' GROUP BY n_frames"
    ).fetchall()
    assert 10 <= n_frames < 40
    assert n_clip_frames == n_frames


@pytest.mark.parametrize("name", ["zero.mp4", "folder.mp4", "dangling.mp4", "pipe.mp4"])
def test_an_entry_that_cannot_be_a_video_is_refused_at_the_door(database: duckdb.DuckDBPyConnection, name: str) -> None:
    status, error_class, reason, cure = rows(database, "SELECT path, status, error_class, reason, cure FROM intake")[name]
    assert (status, error_class) == ("rejected", "NotAVideo")
    assert reason
    assert cure


def test_a_copy_under_another_name_is_named_as_such_and_not_processed(database: duckdb.DuckDBPyConnection) -> None:
    intake = rows(database, "SELECT path, status, video_id, reason FROM intake")
    status, video_id, reason = intake["second name.mp4"]
    assert status == "duplicate"
    assert video_id == intake["plain.mp4"][1]
    assert str(video_id) in str(reason)
    assert database.execute("SELECT count(*) FROM videos WHERE path LIKE '%second name%'").fetchall() == [(0,)]
