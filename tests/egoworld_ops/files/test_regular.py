"""A pipe, a socket or a device in the place of a file of the lake is no file: it keeps no reader waiting, and none takes it for a faulty disk."""

import fcntl
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from egoworld_ops.errors import BadSidecar, ContractError, EgoworldError, SetupError, StorageUnavailable
from egoworld_ops.files import regular
from egoworld_ops.files.whole import link_or_copy
from egoworld_ops.lake import memo, pointer, reference, runs, states, verdicts
from egoworld_ops.lake.assumed import has_assumed
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query import catalog
from egoworld_ops.raw import intake
from egoworld_ops.release import cards, place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.plan import RunFiles
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.upkeep.verify import verify
from egoworld_ops.video import beside, containers, index_file
from tests import lakes

CLIP = "f0000000_0000030"
PATIENCE_S = 2.0


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with every kind of file of a lake; no test changes it."""
    run = Lake(tmp_path_factory.mktemp("regular") / "lake").open_run({}, "20260101_0000", dict)
    video_id = lakes.write_video(run, "a", n_frames=30)
    lakes.register_videos(run)
    make_release(run, ReleaseSettings(writers=1))
    run.write_meta(video_id, CLIP)
    return run


@contextmanager
def a_pipe_at(path: Path) -> Iterator[None]:
    """A named pipe in the place of a file. A reader that waits for what nobody writes is let go after a while, and fails the test."""
    aside = path.with_name(".aside")
    if path.exists():
        path.rename(aside)
    os.mkfifo(path)
    ended, waited = threading.Event(), threading.Event()

    def let_go() -> None:
        ended.wait(PATIENCE_S)
        while not ended.wait(0.02):
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                waited.set()
            except OSError:  # nobody reads
                continue

    watch = threading.Thread(target=let_go)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()
        path.unlink()
        if aside.exists():
            aside.rename(path)
    assert not waited.is_set(), f"a reader waits for what nobody writes to {path.name}"


def _index(run: Run, video_id: str) -> object:
    return index_file.fault(run.packet_index(video_id))


def _cards(run: Run, video_id: str) -> object:
    return [*cards.of_run(run, [video_id], RunFiles(run)).left_out]


READERS: dict[str, tuple[Callable[[Run, str], Path], Callable[[Run, str], object], object]] = {
    "meta.json": (lambda run, v: run.clip_folder(v, CLIP) / "meta.json", lambda run, v: run.meta(v, CLIP), {}),
    "run.json": (lambda run, v: run.path / "run.json", lambda run, v: runs.described(run), SetupError),
    "run.json of all runs": (lambda run, v: run.path / "run.json", lambda run, v: run.lake.runs(), []),
    "latest.json": (lambda run, v: run.lake.root / "latest.json", lambda run, v: pointer.read(run.lake.root), SetupError),
    "drift_reference.json": (
        lambda run, v: run.lake.root / "drift_reference.json",
        lambda run, v: reference.read(run.lake.root),
        SetupError,
    ),
    "memo.json": (lambda run, v: run.video_folder(v) / "memo.json", lambda run, v: memo.recall(run.video_folder(v), "masks", {}, []), None),
    "table": (
        lambda run, v: run.clip_table("masks", v, CLIP),
        lambda run, v: states.video_state(run, v).clips[0].states["masks"],  # type: ignore[union-attr]
        "damaged",
    ),
    "column of a table": (
        lambda run, v: run.clip_table("movement", v, CLIP),
        lambda run, v: has_assumed(run.clip_table("movement", v, CLIP), "movement"),
        ContractError,
    ),
    "manifest": (lambda run, v: run.video_table("clips", v), lambda run, v: states.video_state(run, v), ContractError),
    "intake": (lambda run, v: intake.path(run.lake), lambda run, v: intake.registered(run.lake), ContractError),
    "lake_id": (lambda run, v: run.lake.root / "intake" / "lake_id", lambda run, v: intake.lake_id(run.lake), ContractError),
    "verdicts": (lambda run, v: run.lake.root / "verdicts" / "verdicts.parquet", lambda run, v: verdicts.read(run.lake), ContractError),
    "release.json": (lambda run, v: place.folder(run) / "release.json", lambda run, v: place.read(run), ContractError),
    "packet index": (lambda run, v: run.packet_index(v), _index, "it is not there"),
    "truth card": (lambda run, v: run.truth_card(v), _cards, ["a-ca978112ca1b"]),
    "copied result": (
        lambda run, v: run.clip_table("masks", v, CLIP),
        lambda run, v: regular.read_bytes(run.clip_table("masks", v, CLIP)),
        IsADirectoryError,
    ),
    "file beside a video": (
        lambda run, v: run.lake.root / "a.egoworld.json",
        lambda run, v: beside.read_regular(run.lake.root / "a.egoworld.json", 10),
        BadSidecar,
    ),
}


@pytest.mark.parametrize("what", READERS)
def test_a_pipe_in_the_place_of_a_file_keeps_no_reader_waiting(released: Run, what: str) -> None:
    at, read, expected = READERS[what]
    [video_id] = states.video_ids(released)
    path = at(released, video_id)
    path.parent.mkdir(exist_ok=True)
    with a_pipe_at(path):
        if isinstance(expected, type):
            with pytest.raises(expected) as raised:
                read(released, video_id)
            assert not isinstance(raised.value, StorageUnavailable), "no other try helps"
            assert "regular file" in str(raised.value)
            if isinstance(raised.value, EgoworldError):
                assert raised.value.culprit == str(path)
        else:
            assert read(released, video_id) == expected


def test_verify_names_the_pipes_in_a_lake(released: Run) -> None:
    [video_id] = states.video_ids(released)
    part = next((place.folder(released) / "masks").glob("*.parquet"))
    for path in (released.clip_table("masks", video_id, CLIP), part, released.lake.root / "intake" / "lake_id"):
        with a_pipe_at(path):
            found = [error for error in verify(released, threads=1) if error.culprit == str(path)]
        assert found, path
        assert all(isinstance(error, ContractError) for error in found), found


def test_a_catalog_is_written_where_a_pipe_lies(released: Run) -> None:
    target = released.lake.root / "egoworld.duckdb"
    stamp = target.with_name(f".{target.name}.sha256")
    for path in (target, stamp):
        os.mkfifo(path)
    watch = threading.Timer(30.0, lambda: [os.close(os.open(path, os.O_RDWR)) for path in (target, stamp)])
    watch.start()
    catalog.write_catalog(released.lake)
    watch.cancel()
    assert target.is_file()
    assert stamp.is_file()
    target.unlink()
    target.mkdir()
    with pytest.raises(ContractError, match="is a folder"):
        catalog.write_catalog(released.lake)
    target.rmdir()


def test_sockets_and_devices_are_no_files_and_a_lost_disk_is_none_of_them(tmp_path: Path) -> None:
    here = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(here))
        for path in (here, Path("/dev/zero"), tmp_path):
            with pytest.raises(IsADirectoryError, match="regular file"):
                regular.read_bytes(path)
    with pytest.raises(FileNotFoundError):
        regular.read_bytes(tmp_path / "nothing")
    (tmp_path / "a").write_text("é")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert regular.read_text(tmp_path / "b") == "é"


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="leases are Linux's")
@pytest.mark.parametrize("read", [regular.read_bytes, containers.hash_file])
def test_a_file_that_another_holds_a_lease_of_is_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """As Samba and nfsd do: the kernel asks the holder to give the lease back, and lets nobody open the file until then."""
    path = tmp_path / "latest.json"
    path.write_text("{}")
    wanted = read(path)
    held = os.open(path, os.O_RDWR)
    asked: list[int] = []

    def give_back(signal_number: int, _: object) -> None:
        asked.append(signal_number)
        threading.Timer(0.05, fcntl.fcntl, (held, fcntl.F_SETLEASE, fcntl.F_UNLCK)).start()

    before = signal.signal(signal.SIGIO, give_back)
    try:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert read(path) == wanted
    finally:
        signal.signal(signal.SIGIO, before)
        os.close(held)
    assert asked == [signal.SIGIO]
