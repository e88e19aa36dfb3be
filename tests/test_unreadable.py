"""A file that exists and cannot be read for a moment is neither absent nor damaged: nothing is computed, written, deleted or moved for it."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from egoworld_assets.chain import configuration
from egoworld_ops import errors, ledger, operators
from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.lake import failures, pointer, runs
from egoworld_ops.lake.lake import Run
from egoworld_ops.query import catalog
from egoworld_ops.raw.intake import registered
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.settings import Settings
from egoworld_ops.upkeep.verify import verify
from egoworld_ops.video.sidecar import sidecar_path
from tests import finished, lakes
from tests.opens import unreadable

NETWORK = [errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENOLINK]
OTHERS = [errno.EIO, errno.ENOMEM, errno.EMFILE, errno.EBUSY, errno.EACCES]
CLIP = "f0000000_0000026"
Place = tuple[Settings, Run, str]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished video, which no test changes."""
    settings = finished.settings_in(tmp_path_factory.mktemp("unreadable"))
    run, video_id = finished.registered_video(settings, n_frames=60)
    pool, _ = finished.go(run, video_id, settings)
    assert len(pool.tasks) == len(list(run.video_folder(video_id).glob("clip_id=*"))) * len(operators.stages())
    assert {p.name for p in run.video_folder(video_id).glob("clip_id=*")} >= {f"clip_id={CLIP}"}
    catalog.write_catalog(run.lake)
    return settings, run, video_id


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """All files below a folder, except locks and the ledger's own."""
    found = {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
    return {path: said for path, said in found.items() if not path.endswith(".lock") and ".ledger" not in path and "/ledger" not in path}


FILES: dict[str, Callable[[Run, str], Path]] = {
    "own table": lambda run, video_id: run.clip_table("masks", video_id, CLIP),
    "input table": lambda run, video_id: run.clip_table("detections", video_id, CLIP),
    "folder of a clip": lambda run, video_id: run.clip_folder(video_id, CLIP),
    "videos": lambda run, video_id: run.video_table("videos", video_id),
    "clips": lambda run, video_id: run.video_table("clips", video_id),
    "memo": lambda run, video_id: run.video_folder(video_id) / "memo.json",
}


@pytest.mark.parametrize("number", [*NETWORK, *OTHERS], ids=lambda n: errno.errorcode[n])
@pytest.mark.parametrize("what", FILES)
def test_nothing_is_computed_or_touched_for_a_file_that_cannot_be_read_now(there: Place, what: str, number: int) -> None:
    settings, run, video_id = there
    before, path = state(settings.lake), FILES[what](run, video_id)
    memo = run.video_folder(video_id) / "memo.json"
    known = memo.read_bytes()
    if what != "memo":
        memo.unlink()  # so that the files themselves are read
    with unreadable(path, number, ("open", "stat") if number in NETWORK and "folder" not in what else ("open",)):
        pool, results = finished.go(run, video_id, settings, first="masks", last="masks")
    away = [result for result in results if result.error is not None]
    assert pool.tasks == []
    assert away
    assert all(isinstance(result.error, StorageUnavailable) and not result.dead_letter for result in away)
    assert str(path) in str(away[0].error)
    if "table" in what or "folder" in what:
        assert [result.clip_id for result in away] == [CLIP], "its neighbours are done"
    memo.write_bytes(known)
    now = state(settings.lake)
    assert {p: s for p, s in now.items() if p != str(memo)} == {p: s for p, s in before.items() if p != str(memo)}
    pool, results = finished.go(run, video_id, settings)
    assert pool.tasks == []
    assert {result.state for result in results} == {"done"}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ENOMEM], ids=lambda n: errno.errorcode[n])
@pytest.mark.parametrize("calls", [("open",), ("open", "stat")])
def test_a_run_json_that_cannot_be_read_opens_no_run_and_moves_nothing(there: Place, number: int, calls: tuple[str, ...]) -> None:
    settings, run, _ = there
    before = sorted(p.name for p in settings.lake.glob("run_id=*")), pointer.read(run.lake.root)
    with unreadable(run.path / "run.json", number, calls):
        with pytest.raises(StorageUnavailable, match=r"run\.json|lake"):
            configuration.open_run(settings)
        with pytest.raises(StorageUnavailable):
            runs.described(run)
    assert (sorted(p.name for p in settings.lake.glob("run_id=*")), pointer.read(run.lake.root)) == before
    assert configuration.open_run(settings) == run


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO], ids=lambda n: errno.errorcode[n])
def test_who_counts_lists_or_rebuilds_says_that_it_cannot_be_read(there: Place, number: int) -> None:
    _, run, video_id = there
    with ledger.open_ledger(run.lake) as book:
        with unreadable(run.clip_table("masks", video_id, CLIP), number):
            with pytest.raises(StorageUnavailable):
                runs.counts(run)
            with pytest.raises(StorageUnavailable):
                ledger.rebuild(book, run.lake)
            with pytest.raises(StorageUnavailable):
                make_release(run, ReleaseSettings())
            assert [type(finding) for finding in verify(run) if "masks" in str(finding.culprit)][:1] == [StorageUnavailable]
        assert place.read(run) is None
    for calls in (("open",), ("open", "stat")):
        with unreadable(run.lake.root / "intake" / "intake.parquet", number, calls), pytest.raises(StorageUnavailable):
            registered(run.lake)
    with unreadable(run.path / "run.json", number, ("open", "stat")), pytest.raises(StorageUnavailable):
        run.lake.latest_run()
    with unreadable(run.lake.root / f".{catalog.FILE_NAME}.sha256", number), pytest.raises(StorageUnavailable):
        catalog.write_catalog(run.lake)


def test_a_failure_that_cannot_be_read_is_no_free_pass_for_the_table_beside_it(tmp_path: Path) -> None:
    settings = finished.settings_in(tmp_path)
    run, video_id = finished.registered_video(settings)
    finished.go(run, video_id, settings)
    table = run.clip_table("masks", video_id, CLIP)
    content = table.read_bytes()
    lakes.fail(run, video_id, CLIP, "masks")
    table.write_bytes(content)
    before = state(settings.lake)
    with unreadable(run.failure("masks", video_id, CLIP), errno.EIO):
        pool, results = finished.go(run, video_id, settings, first="object_pose")
        with pytest.raises(StorageUnavailable):
            list(failures.find(run, failures.Which()))
    assert [task for task in pool.tasks if task.clip.clip_id == CLIP] == []
    assert {type(r.error) for r in results if r.clip_id == CLIP and r.error} == {StorageUnavailable}
    assert {p: s for p, s in state(settings.lake).items() if CLIP in p} == {p: s for p, s in before.items() if CLIP in p}


def test_a_release_json_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    settings = finished.settings_in(tmp_path)
    run, video_id = finished.registered_video(settings)
    finished.go(run, video_id, settings)
    make_release(run, ReleaseSettings())
    before = lakes.files_of_release(run)
    with unreadable(place.folder(run) / place.MANIFEST_NAME, errno.ESTALE), pytest.raises(StorageUnavailable, match=r"release\.json"):
        make_release(run, ReleaseSettings())
    assert lakes.files_of_release(run) == before
    assert place.read(run) is not None


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES], ids=lambda n: errno.errorcode[n])
def test_a_sidecar_that_cannot_be_seen_does_not_change_what_is_made(tmp_path: Path, number: int) -> None:
    settings = finished.settings_in(tmp_path)
    run, video_id = finished.registered_video(settings)
    path = sidecar_path(settings.raw / "v.mp4")
    path.write_text('{"camera": {"fx": 500, "fy": 500, "cx": 320, "cy": 240, "width": 640, "height": 480}}')
    finished.go(run, video_id, settings)
    before = state(settings.lake)
    for calls in (("open",), ("open", "stat")):
        with unreadable(path, number, calls):
            (run.video_folder(video_id) / "memo.json").unlink(missing_ok=True)
            pool, results = finished.go(run, video_id, settings, first="hand_pose", last="hand_pose")
        assert pool.tasks == []
        assert {type(result.error) for result in results} == {StorageUnavailable}
    assert {p: s for p, s in state(settings.lake).items() if "clip_id" in p} == {p: s for p, s in before.items() if "clip_id" in p}


def test_what_cannot_be_read_is_looked_at_again_after_a_pause(there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, run, video_id = there
    (run.video_folder(video_id) / "memo.json").unlink()
    path, left = run.clip_table("masks", video_id, CLIP), [2]
    from egoworld_ops.files import footer

    whole = footer.provenance

    def at_first_broken(asked: Path) -> object:
        if Path(asked) == path and left[0]:
            left[0] -= 1
            raise OSError(errno.ETIMEDOUT, "timed out")
        return whole(asked)

    monkeypatch.setattr(footer, "provenance", at_first_broken)
    pool, results = finished.go(run, video_id, settings.model_copy(update={"retry_after_s": (0.0, 0.0)}), first="masks", last="masks")
    assert pool.tasks == []
    assert [result.state for result in results] == ["done"] * len(results)
    assert left == [0]


def test_storage_that_failed_is_never_a_dead_letter() -> None:
    from egoworld_ops.lake.failure_file import is_dead_letter

    for number in errors.STORAGE_ERRNOS:
        named = errors.classify(OSError(number, "x"), "a clip")
        assert isinstance(named, StorageUnavailable)
        assert not is_dead_letter(named)
