"""The ledger on SQLite and on a real Postgres: faults of a database."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from egoworld_ops.errors import (
    BadSettings,
    LedgerDamaged,
    LedgerTooNew,
    StorageUnavailable,
)
from egoworld_ops.lake.lake import Lake
from egoworld_ops.ledger import FILE_NAME, ClipKey, open_ledger
from egoworld_ops.ledger.database import Database
from egoworld_ops.ledger.store import Ledger
from tests.conftest import ROOT
from tests.egoworld_ops.ledger.clips import (
    RUN,
    P,
    R,
    key,
    keys,
    opened,
    run_sql,
    states_of,
)

# Faults of a database


def test_a_ledger_of_a_newer_version_is_refused_with_the_cure(url: str, tmp_path: Path) -> None:
    opened(url).close()
    run_sql(url, "UPDATE ledger_version SET version = 99")
    with pytest.raises(LedgerTooNew, match=r"format 99.*Run that version"):
        open_ledger(Lake(tmp_path), url)


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(LedgerDamaged, match=FILE_NAME):
        open_ledger(Lake(tmp_path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("url", ["mysql://host/x", "sqlite://", "nonsense", "postgresql://u:secret@[::1:x/"])
def test_a_url_that_can_hold_no_ledger_is_a_bad_setting(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadSettings) as raised:
        open_ledger(Lake(tmp_path), url)
    assert "secret" not in str(raised.value)


def test_a_lease_must_outlast_some_beats(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="lease"):
        open_ledger(Lake(tmp_path), lease_s=10, beat_s=5)


def test_a_locked_database_is_waited_for_then_named_and_works_again(url: str) -> None:
    lock = "BEGIN EXCLUSIVE" if url.startswith("sqlite") else "BEGIN; LOCK TABLE ledger_clips IN ACCESS EXCLUSIVE MODE"
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with opened(url, busy_s=0.3) as ledger:
        with engine.connect() as holder:
            holder.exec_driver_sql(lock)
            started = time.monotonic()
            with pytest.raises(StorageUnavailable, match="lock") as raised:
                ledger.add({key(0): "d1"})
            assert 0.25 < time.monotonic() - started < 10
            assert raised.value.retryable
            holder.exec_driver_sql("ROLLBACK")
        assert states_of(ledger, [key(0)]) == {}
        assert ledger.add({key(0): "d1"}) == {key(0): P}
    engine.dispose()


def test_a_full_disk_is_named_and_half_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.getuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode == 0
    if not mounted:
        pytest.skip("needs to mount a small tmpfs, as root")
    try:
        with open_ledger(Lake(folder)) as ledger:
            whole = fill_until_full(ledger)
            assert ledger.counts(RUN) == {"masks": {P: whole}}
            subprocess.run(["mount", "-o", "remount,size=20m", folder], check=True)
            ledger.add(dict.fromkeys(keys(whole + 500), "d1"))
            assert ledger.counts(RUN) == {"masks": {P: whole + 500}}
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_until_full(ledger: Ledger) -> int:
    """How many clips were added, 500 a call, before the disk was full."""
    added: list[ClipKey] = []
    with pytest.raises(StorageUnavailable, match=FILE_NAME):
        add_forever(ledger, added)
    return len(added)


def add_forever(ledger: Ledger, added: list[ClipKey]) -> None:
    while len(added) < 100_000:
        more = [key(n) for n in range(len(added), len(added) + 500)]
        ledger.add(dict.fromkeys(more, "d1"))
        added += more


def test_a_full_database_is_named_and_half_writes_nothing(tmp_path: Path) -> None:
    database = Database.open(tmp_path / FILE_NAME, 5.0)
    sa.event.listen(database._engine, "begin", lambda c: c.connection.driver_connection.execute("PRAGMA max_page_count = 200"))
    with Ledger(database, 60.0, 5.0) as ledger:
        whole = fill_until_full(ledger)
        assert ledger.counts(RUN) == {"masks": {P: whole}}
        with pytest.raises(StorageUnavailable, match=r"full.*Free space"):
            ledger.add(dict.fromkeys([key(n) for n in range(whole, whole + 500)], "d1"))


READER = """
import os, sys
from pathlib import Path
import egoworld_ops.ledger.store, sqlalchemy.dialects.sqlite
from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.lake.lake import Lake
if os.getuid() == 0: os.setgid(65534); os.setuid(65534)
try:
    with open_ledger(Lake(Path(sys.argv[1]))) as ledger: ledger.add({ClipKey("r", "v", "c", "masks"): "d1"})
except StorageUnavailable as error: print(error)
"""


@pytest.mark.parametrize("of_folder", [False, True])
def test_a_read_only_file_is_named(tmp_path: Path, of_folder: bool) -> None:
    base = Path("/tmp") / f"egoworld-readonly-{os.getpid()}-{of_folder}"
    base.mkdir()
    try:
        open_ledger(Lake(base)).close()
        os.chmod(base / FILE_NAME, 0o444)
        os.chmod(base, 0o555 if of_folder else 0o777)
        done = subprocess.run([sys.executable, "-c", READER, base], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    finally:
        os.chmod(base, 0o755)
        shutil.rmtree(base)
    assert f"ledger {base / FILE_NAME}: " in done.stdout
    assert "run again" in done.stdout


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_removed_or_replaced_while_it_is_open_is_opened_anew(
    tmp_path: Path, replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with open_ledger(Lake(tmp_path)) as open_all_along, open_all_along.owner() as owner:
        open_all_along.add({key(0): "old"})
        for file in tmp_path.glob(f"{FILE_NAME}*"):
            file.unlink()
        if replaced:
            with open_ledger(Lake(tmp_path)) as other:
                other.add({key(1): "other"})
        open_all_along.add({key(2): "new"})
        assert open_all_along.start([key(2)], owner).moved == [key(2)]
        with open_ledger(Lake(tmp_path)) as fresh:
            assert fresh.rows([key(2)])[key(2)].state is R
            assert (key(1) in fresh.rows([key(1)])) is replaced
    assert f"ledger {tmp_path / FILE_NAME}: another file has taken its place" in caplog.text
    assert "egoworld ledger rebuild" in caplog.text


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="server") as raised:
        open_ledger(Lake(tmp_path), f"postgresql://egoworld:secret@/x?host={tmp_path}", busy_s=2)
    assert "secret" not in str(raised.value)


def test_connections_that_the_server_ends_are_made_again(postgres_url: str, server: str) -> None:
    with opened(postgres_url) as ledger:
        ledger.add({key(0): "d1"})
        run_sql(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname <> 'postgres'")
        assert states_of(ledger, [key(0)]) == {key(0): P}


ADDER = """
import sys
from pathlib import Path
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.lake.lake import Lake
keys = [ClipKey("20260101_1200", "v1", f"f{n:07d}", "masks") for n in range(30_000)]
with open_ledger(Lake(Path(sys.argv[1]))) as ledger:
    print("ready", flush=True)
    ledger.add(dict.fromkeys(keys, "d1"))
"""


def test_a_process_killed_in_the_middle_of_a_call_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    for wait_s in (0.05, 0.3, 0.6):
        adder = subprocess.Popen([sys.executable, "-c", ADDER, tmp_path], stdout=subprocess.PIPE, cwd=ROOT)
        with closing(adder.stdout):  # type: ignore[type-var]
            assert adder.stdout.readline() == b"ready\n"  # type: ignore[union-attr]
            signal.sigtimedwait([], wait_s)
            adder.kill()
            adder.wait()
        with open_ledger(Lake(tmp_path)) as ledger:
            assert ledger.counts(RUN) in ({}, {"masks": {P: 30_000}})
            ledger.forget(RUN)


def test_sqlalchemy_is_not_loaded_before_a_ledger_is_opened() -> None:
    code = "import sys, egoworld_ops.ledger, egoworld_ops.ledger.files; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
