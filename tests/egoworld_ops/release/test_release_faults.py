"""A release that is killed, disturbed or interrupted leaves the old one or the new one; readers never see half of one."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from egoworld_ops.errors import ContractError, InputChanged, SetupError, StorageUnavailable
from egoworld_ops.files import exchange, locks
from egoworld_ops.lake.lake import RELEASED_TABLES, Lake, Run
from egoworld_ops.lake.states import video_ids
from egoworld_ops.query import catalog
from egoworld_ops.release import make
from egoworld_ops.release.make import ReleaseOutcome, make_release
from egoworld_ops.release.place import ASIDE, LATEST, ensure, folder, home, part_name, part_path, sha256_of_file, staging, stand_in
from egoworld_ops.release.plan import PlannedPart, RunFiles
from egoworld_ops.release.settings import ReleaseSettings
from tests.conftest import ROOT
from tests.damage import of_an_older_schema, rewrite, swap
from tests.lakes import files_of_release, write_video

SMALL = ReleaseSettings(part_mb=0.75, writers=2)
"""Two videos a part."""


@pytest.mark.parametrize("parts", [1, 2])
def test_a_killed_release_leaves_the_old_one_or_the_new_one_and_the_next_ends_it(tmp_path: Path, run: Run, parts: int) -> None:
    if parts == 2:
        make_release(run, SMALL)
        write_video(run, "d", n_frames=20)
        write_video(run, "a", n_frames=50, seed=2)
    command = [sys.executable, "-m", "tests.egoworld_ops.release.kill_releases", str(run.lake.root), "7", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_a_release_that_was_cut_short_is_gone_on_with(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = make.write_part

    def fill_the_disk(target: Path, table: str, *rest: Any) -> Any:
        if len(made) == 5:
            raise OSError(28, "No space left on device")
        made.append(table)
        return real(target, table, *rest)

    monkeypatch.setattr(make, "write_part", fill_the_disk)
    with pytest.raises(StorageUnavailable, match=r"No space left.*release again"):
        make_release(run, ReleaseSettings(writers=1))
    assert not folder(run).exists()
    monkeypatch.setattr(make, "write_part", real)
    outcome = make_release(run, ReleaseSettings(writers=1))
    assert outcome.written == len(RELEASED_TABLES) - 5
    assert not list(run.lake.root.rglob(".tmp-*"))
    for record in (record for part in outcome.manifest.parts for record in part.tables.values()):
        assert record.rows >= 0
    assert _matches_its_manifest(outcome)


def test_a_file_that_a_release_left_broken_is_written_again(run: Run) -> None:
    made = make_release(run, SMALL)
    path = part_path(made.path, "masks", part_name(run, 0))
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    shutil.rmtree(made.path)
    left = part_path(staging(run), "masks", path.stem)
    left.parent.mkdir(parents=True)
    footer = content[-8 - length : -8]
    left.write_bytes(content[: -8 - length] + b"\xff" * 20 + footer[20:] + content[-8:])
    again = make_release(run, SMALL)
    assert (again.written, again.manifest) == (2 * len(RELEASED_TABLES), made.manifest)
    assert _matches_its_manifest(again)


def _matches_its_manifest(outcome: ReleaseOutcome) -> bool:
    return all(
        sha256_of_file(part_path(outcome.path, table, part.name)) == record.sha256
        for part in outcome.manifest.parts
        for table, record in part.tables.items()
    )


def test_readers_of_the_folder_never_see_half_a_release(run: Run) -> None:
    """Each view has whole videos, all tables the same ones, while the release changes again and again under the readers."""
    make_release(run, SMALL)
    database = catalog.write_catalog(run.lake)
    stop, seen, wrong = threading.Event(), set(), []

    def read() -> None:
        with duckdb.connect(str(database), read_only=True) as connection:
            while not stop.is_set():
                counted = "count(*), count(DISTINCT video_id || ':' || frame_index), count(DISTINCT video_id)"
                n, frames, videos = connection.execute(f"SELECT {counted} FROM release.movement").fetchall()[0]
                seen.add(videos)
                if n != frames or n % 10 or not 3 <= videos <= 9:
                    wrong.append((n, frames, videos))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(4):
        write_video(run, f"n{i}", n_frames=10)
        write_video(run, "b", n_frames=50, seed=i)
        make_release(run, SMALL)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert len(seen) > 1


def test_a_file_that_changes_meanwhile_ends_the_release_and_leaves_the_old_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_release(run, SMALL)
    before = files_of_release(run)
    write_video(run, "d", n_frames=20)
    real: Callable[..., Any] = RunFiles.with_digests

    def then_change(self: RunFiles, part: PlannedPart, layout: Any) -> PlannedPart:
        planned = real(self, part, layout)
        if len(part.videos) == 1 and part.videos[0].startswith("d"):
            write_video(run, "d", n_frames=20, seed=9)
        return planned

    monkeypatch.setattr(RunFiles, "with_digests", then_change)
    with pytest.raises(InputChanged, match="Try again once nothing writes to the run"):
        make_release(run, SMALL)
    assert files_of_release(run) == before
    monkeypatch.undo()
    assert make_release(run, SMALL).manifest.rows["videos"] == 4


@pytest.mark.parametrize("where", ["footer", "page"])
def test_a_damaged_file_is_named_and_what_was_released_stays(run: Run, where: str) -> None:
    make_release(run, SMALL)
    before = files_of_release(run)
    write_video(run, "d", n_frames=20)
    path = next(run.video_folder(next(v for v in video_ids(run) if v.startswith("d-"))).glob("clip_id=*/hand_pose.parquet"))
    content = bytearray(path.read_bytes())
    if where == "page":
        content[len(content) // 4] ^= 0xFF
    path.unlink()
    path.write_bytes(content if where == "page" else content[:-9])
    with pytest.raises(ContractError, match=r"hand_pose\.parquet.*Delete"):
        make_release(run, SMALL)
    assert files_of_release(run) == before


def test_where_folders_cannot_change_places_in_one_step_a_crash_between_is_mended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_release(run, SMALL)
    write_video(run, "d", n_frames=10)

    class Crash(BaseException):
        pass

    def crash_at(step: int) -> Callable[[Path, Path], None]:
        def three_steps(a: Path, b: Path) -> None:
            aside = a.with_name(f"{a.name}{ASIDE}")
            for n, (source, target) in enumerate(((b, aside), (a, b), (aside, a))):
                if n == step:
                    raise Crash
                os.rename(source, target)

        return three_steps

    for step in (1, 2):
        monkeypatch.setattr(exchange, "exchange", crash_at(step))
        write_video(run, "d", n_frames=10, seed=step)
        with pytest.raises(Crash):
            make_release(run, SMALL)
        monkeypatch.undo()
        assert make_release(run, SMALL).manifest.rows["videos"] == 4
        assert not list(run.lake.root.rglob(".tmp-*"))


def test_the_three_steps_are_taken_where_the_file_system_has_not_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange._in_three_steps(tmp_path / "a", tmp_path / "b")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
    exchange.exchange(tmp_path / "a", tmp_path / "b")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["a"]
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b"}
    with pytest.raises(FileNotFoundError):
        exchange.exchange(tmp_path / "a", tmp_path / "c")


def test_two_releases_at_once_wait_for_each_other(run: Run) -> None:
    outcomes: list[ReleaseOutcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(make_release(run, SMALL))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.written for outcome in outcomes) == [0, 0, 2 * len(RELEASED_TABLES)]


def test_a_run_that_is_removed_while_its_release_waits_is_not_released(run: Run) -> None:
    home(run.lake).mkdir()
    with ThreadPoolExecutor(1) as thread:
        with locks.alone(home(run.lake)):
            waiting = thread.submit(make_release, run, SMALL)
            time.sleep(0.2)
            shutil.rmtree(run.path)
        with pytest.raises(SetupError, match=r"run 20260101_0000: .*is gone"):
            waiting.result()
    assert not folder(run).exists()
    assert not (run.lake.root / LATEST).exists()


def test_a_run_of_another_contract_is_not_released(tmp_path: Path) -> None:
    old = Lake(tmp_path).open_run({"schema": "1"}, None, dict)
    write_video(old, "a", n_frames=10)
    with pytest.raises(SetupError, match=r"version 1 of the data contract.*with the code that made it, or process"):
        make_release(old, SMALL)
    assert not folder(old).exists()


@pytest.mark.parametrize("name", ["*/masks.parquet", "clips.parquet"])
def test_a_file_of_another_contract_is_not_taken_for_one_of_this(run: Run, name: str) -> None:
    path = next(run.video_folder(video_ids(run)[0]).glob(name.replace("*", "clip_id=*")))
    of_an_older_schema(path)
    with pytest.raises(ContractError, match=rf"{path.name}: was written under schema version 0.*materialize the stage again"):
        make_release(run, SMALL)
    assert not folder(run).exists()


def test_a_name_that_no_video_or_clip_has_is_named_with_the_file_it_is_in(run: Run) -> None:
    clips = run.video_table("clips", video_ids(run)[0])
    content = clips.read_bytes()
    swap(clips, "clip_id", pa.array(["Clip 1", "Clip 2"]))
    with pytest.raises(ContractError, match=r"clips\.parquet: .*got 'Clip 1'.*materialize the manifest"):
        make_release(run, SMALL)
    rewrite(clips, content)
    (run.path / "video_id=A B").mkdir()
    with pytest.raises(ContractError, match=r"video_id=A B: .*Remove it"):
        make_release(run, SMALL)


def test_a_broken_manifest_of_a_release_is_named(run: Run) -> None:
    make_release(run, SMALL)
    (folder(run) / "release.json").write_text("{")
    with pytest.raises(ContractError, match=r"release\.json.*release the run again"):
        make_release(run, SMALL)


def test_what_a_killed_writer_left_among_the_stand_ins_goes(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    ensure(store)
    file = stand_in(store, "masks")
    file.rename(file.with_name(".tmp-abc"))
    ensure(store)
    assert list(file.parent.iterdir()) == [file]
