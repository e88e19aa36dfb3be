"""The journal: it knows the clips that ran when the machine crashed, ignores a crash of the broker alone, and loses no work on a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_workers import journal
from gpu_workers.journal import Journal, boot_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def after(path: Path, boot: str, *lines: tuple[str, str]) -> dict[str, list[bool]]:
    """The report of a journal, opened in one boot, on the boots before; these lines are then added to it."""
    opened = Journal(path, boot)
    known = {key: list(times) for key, times in opened.machine_deaths.items()}
    for what, key in lines:
        opened.record(what, key)  # type: ignore[arg-type]
    assert opened.trouble == ""
    return known


def test_what_ran_when_the_machine_died_is_known_to_the_next_boot(path: Path) -> None:
    assert after(path, "boot 1", ("begin", "a"), ("begin", "b"), ("begin", "c"), ("end", "b")) == {}
    assert after(path, "boot 2") == {"a": [False], "c": [False]}, "two ran, neither alone"


def test_it_says_who_was_alone_and_counts_each_time(path: Path) -> None:
    after(path, "boot 1", ("begin", "a"), ("begin", "b"))
    assert after(path, "boot 2", ("begin", "a")) == {"a": [False], "b": [False]}
    assert after(path, "boot 3", ("begin", "a")) == {"a": [False, True], "b": [False]}
    assert after(path, "boot 4") == {"a": [False, True, True], "b": [False]}


def test_a_crash_of_the_broker_alone_counts_nothing(path: Path) -> None:
    after(path, "boot 1", ("begin", "a"))
    assert after(path, "boot 1", ("begin", "b")) == {}
    assert after(path, "boot 1") == {}
    assert after(path, "boot 2") == {}, "what ran in a broker that crashed did not run when the machine died"


def test_a_key_that_is_settled_is_cleared_and_one_that_was_only_given_back_is_not(path: Path) -> None:
    after(path, "boot 1", ("begin", "a"), ("begin", "b"))
    after(path, "boot 2", ("begin", "a"), ("end", "a"), ("settled", "a"), ("begin", "b"), ("end", "b"))
    assert after(path, "boot 3") == {"b": [False]}
    opened = Journal(path, "boot 3")
    opened.record("begin", "b")
    opened.record("end", "b")
    opened.record("settled", "b")
    assert opened.machine_deaths == {}
    assert after(path, "boot 4") == {}


@pytest.mark.parametrize("torn", [2, 5, 20])
def test_a_torn_last_line_and_rubbish_are_passed_over(path: Path, torn: int) -> None:
    after(path, "boot 1", ("begin", "a"), ("begin", "b"))
    content = path.read_bytes()
    path.write_bytes(content[:-torn])
    assert after(path, "boot 2") == {"a": [True]}, "b's line was never whole"
    path.write_bytes(b'\xff\xfe\n[]\n["begin"]\n{"begin": 1}\n["begin", 7, "boot 1"]\n"abc"\nnull\n' + content)
    assert after(path, "boot 2") == {"a": [False], "b": [False]}


def test_what_is_written_after_a_torn_line_counts(path: Path) -> None:
    after(path, "boot 1", ("begin", "a"))
    path.write_bytes(path.read_bytes()[:-3])
    assert after(path, "boot 1", ("begin", "b")) == {}
    assert after(path, "boot 2") == {"b": [True]}


def test_it_does_not_grow_without_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after(path, "boot 1", ("begin", "machine"))
    monkeypatch.setattr(journal, "_MAX_BYTES", 5_000)
    opened, most = Journal(path, "boot 2"), 0
    opened.record("begin", "runs on")
    for i in range(2_000):
        opened.record("begin", f"k{i}")
        opened.record("end", f"k{i}")
        most = max(most, path.stat().st_size)
    assert most < 5_200
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert after(path, "boot 3") == {"machine": [True], "runs on": [True]}, "what still matters was kept"


def test_no_journal_is_an_empty_one_and_the_boot_is_told_apart(path: Path) -> None:
    assert after(path, boot_id()) == {}
    assert len(boot_id()) == 36
    assert json.loads((path.parent / "journal.jsonl").read_bytes() or "[]") == []


@contextlib.contextmanager
def _tiny_disk(folder: Path) -> Iterator[None]:
    """A file system of 64 kB, where the kernel lets us make one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be made here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_complained_of_and_the_journal_comes_back_with_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with _tiny_disk(tmp_path / "disk"):
        path, filler = tmp_path / "disk" / "journal.jsonl", tmp_path / "disk" / "filler"
        opened = Journal(path, "boot 1")
        opened.record("begin", "before")
        with contextlib.suppress(OSError):
            filler.write_bytes(b"x" * 100_000)
        for i in range(2_000):
            opened.record("begin", f"k{i}")
            opened.record("end", f"k{i}")
        opened.record("begin", "while full")
        assert opened.trouble in (f"{path}: No space left on device", f"{path}: short write: the disk is full")
        assert [r.levelname for r in caplog.records] == ["ERROR"], "said once, not for each line"
        assert "work goes on without it" in caplog.text

        filler.unlink()
        opened.record("begin", "after")
        assert opened.trouble == ""
        assert after(path, "boot 2").keys() == {"before", "while full", "after"}, (
            "nothing is lost, and no key that has ended is held against it"
        )


def test_a_limit_on_file_size_is_survived_too(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from gpu_workers.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
opened = Journal(Path(sys.argv[1]), "boot 1")
troubles = set()
for i in range(500):
    opened.record("begin", f"k{i}")
    opened.record("end", f"k{i}")
    troubles.add(opened.trouble)
opened.record("begin", "last")
opened.record("begin", "last but one")
opened.record("end", "last but one")
print(troubles)
"""
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=True)
    assert "short write" in done.stdout or "File too large" in done.stdout
    assert "Traceback" not in done.stderr
    assert path.stat().st_size <= 2000
    assert after(path, "boot 2") == {"last": [True]}


def test_a_folder_that_cannot_be_written_costs_only_the_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = Journal(tmp_path / "nowhere" / "journal.jsonl", "boot 1")
    opened.record("begin", "a")
    assert "No such file or directory" in opened.trouble
    assert "work goes on without it" in caplog.text
    os.mkdir(tmp_path / "nowhere")
    opened.record("begin", "b")
    assert opened.trouble == ""
    assert after(tmp_path / "nowhere" / "journal.jsonl", "boot 2") == {"a": [False], "b": [False]}
