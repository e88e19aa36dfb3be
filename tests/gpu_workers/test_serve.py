"""The broker as a program: it starts, reports its status, is scaled, and ends without losing work or leaving processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from egoworld_ops.errors import BadSettings, PoolLost, PoolRefused
from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.place import socket_path
from tests import brokers
from tests.brokers import about, is_alive, order, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for a broker, which is ended after the test."""
    with tempfile.TemporaryDirectory(prefix="egoworld-pool-") as root:
        yield Path(root, "p")
        brokers.stop(Path(root, "p"))


def on_demand(folder: Path, idle_exit_s: float = 60.0) -> PoolSettings:
    return PoolSettings(folder=folder, start=True, workers=1, idle_exit_s=idle_exit_s, lost_after_s=60.0)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gpu_workers", *arguments], capture_output=True, text=True, timeout=60, check=False)


class Client(threading.Thread):
    """Someone who waits for results in a thread."""

    def __init__(self, settings: PoolSettings, orders: list[client.Order], name: str = "test") -> None:
        super().__init__(daemon=True)
        self._ask: Callable[[], dict[str, client.Answer]] = lambda: brokers.run(settings, orders, name)
        self.answers: dict[str, client.Answer] = {}
        self.lost: PoolLost | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answers = self._ask()
        except PoolLost as error:
            self.lost = error

    def end(self, timeout_s: float = 60.0) -> dict[str, client.Answer]:
        self.join(timeout_s)
        assert not self.is_alive(), "results are missing"
        return self.answers


@contextlib.contextmanager
def serve(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A broker in the foreground that is ready; always ended."""
    asked = [sys.executable, "-m", "gpu_workers", "serve", "--folder", str(folder), "--workers", "1", "--metrics-port", "0", *arguments]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == f"ready {socket_path(folder)}\n"
        process.stdout.close()
        yield process
    finally:
        for end in (process.terminate, process.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def test_a_broker_serves_though_who_started_it_was_interrupted_meanwhile(folder: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-m", "gpu_workers", "serve", "--detach", "--folder", str(folder), "--idle-exit-s", "60"])
    wait_until((folder / "broker.out").exists, "the broker has a process of its own")
    starter.kill()
    starter.wait()
    wait_until(socket_path(folder).exists, "the broker listens")
    quiet = PoolSettings(folder=folder, start=False, lost_after_s=10.0)
    asked = [client.status(quiet)["pid"] for _ in range(3)]
    assert asked[0] == asked[-1]
    assert "fails" not in (folder / "broker.log").read_text()


def test_on_sigterm_it_finishes_what_runs_and_gives_back_what_waits(folder: Path) -> None:
    log, go = folder.parent / "log", folder.parent / "go"
    with serve(folder) as first:
        asker = Client(on_demand(folder), [order(f"k{i}", log=str(log), until=str(go)) for i in range(4)])
        wait_until(log.exists, "the first task to run")
        workers = [w["pid"] for w in client.status(on_demand(folder))["workers"]]
        first.terminate()
        wait_until(lambda: not socket_path(folder).exists(), "the broker to take nothing new")
        go.touch()
        answers = asker.end()
        assert first.wait(10) == 0

    parents = Counter(about(a)["parent"] for a in answers.values())
    assert parents.pop(first.pid) in (1, 2), "what it had begun, and maybe what was decoded for it"
    [(second, rest)] = parents.items()
    assert rest >= 2
    assert is_alive(second)
    assert sorted(log.read_text().split()) == ["k0", "k1", "k2", "k3"], "each was computed once"
    assert not any(map(is_alive, workers))


def test_a_second_sigterm_ends_it_at_once(folder: Path) -> None:
    log = folder.parent / "log"
    with serve(folder) as broker:
        asker = Client(PoolSettings(folder=folder, start=False, lost_after_s=0.5), [order("long", 60, log=str(log))])
        wait_until(log.exists, "the task to run")
        [worker] = [w["pid"] for w in client.status(on_demand(folder))["workers"]]
        broker.terminate()
        time.sleep(0.5)
        assert broker.poll() is None
        assert is_alive(worker)
        broker.terminate()
        assert broker.wait(20) == 0
    assert not is_alive(worker)
    assert not asker.end()
    assert "no broker runs there" in str(asker.lost)


def test_what_runs_too_long_at_the_end_is_ended(folder: Path) -> None:
    log = folder.parent / "log"
    with serve(folder, "--stop-within-s", "0.5") as broker:
        asker = Client(PoolSettings(folder=folder, start=False, lost_after_s=0.1), [order("long", 60, log=str(log))])
        wait_until(log.exists, "the task to run")
        began = time.monotonic()
        broker.terminate()
        assert broker.wait(10) == 0
        assert time.monotonic() - began > 0.5
    assert not asker.end()
    assert asker.lost


def test_killed_it_leaves_nothing_and_the_next_one_takes_its_place(folder: Path) -> None:
    settings = on_demand(folder)
    told = about(brokers.run(settings, [order("a", fault="fork")])["a"])
    left = about(brokers.run(settings, [order("b", fault="fork and leave")])["b"])["children"][-1]
    asker = Client(settings, [order(f"k{i}", 0.3) for i in range(4)])
    wait_until(lambda: brokers.phases(settings), "work to begin")
    os.kill(told["parent"], signal.SIGKILL)
    answers = asker.end()
    assert {about(a)["parent"] for a in answers.values()} - {told["parent"]}, "the next broker did the rest"
    assert not is_alive(told["pid"])
    wait_until(lambda: not is_alive(told["children"][0]), "a child of a worker to end with it")
    wait_until(lambda: not is_alive(left), "what left the worker's session to be ended by the next broker")


def test_clients_start_it_when_they_need_it_share_it_and_it_ends_when_idle(folder: Path) -> None:
    settings = on_demand(folder, idle_exit_s=1.5)
    with pytest.raises(PoolLost, match="egoworld pool serve"):
        client.status(settings)
    askers = [Client(settings, [order(f"{name}{i}", 0.05) for i in range(5)], name) for name in "abc"]
    parents = {about(a)["parent"] for asker in askers for a in asker.end().values()}
    assert sum(len(asker.answers) for asker in askers) == 15
    [broker] = parents
    workers = [w["pid"] for w in client.status(settings)["workers"]]
    time.sleep(0.7)
    assert is_alive(broker), "it waits for more"
    wait_until(lambda: not is_alive(broker), "an idle broker to end")
    assert not any(map(is_alive, workers))
    assert not socket_path(folder).exists()
    assert about(brokers.run(settings, [order("later")])["later"])["parent"] != broker


def test_there_is_one_broker_a_folder(folder: Path) -> None:
    with serve(folder):
        second = command("serve", "--folder", str(folder))
        assert second.returncode == 1
        assert second.stderr == f"gpu_workers: pool {folder}: a broker is running here. Use it, or stop it first\n"
        assert brokers.run(on_demand(folder), [order("a")])["a"].result.outcome == "done", "the first is none the worse"


@pytest.mark.parametrize("wrong", ["mode", "owner", "a link", "a long path", "a file", "below a file"])
def test_a_folder_that_others_could_enter_is_refused(folder: Path, wrong: str) -> None:
    if wrong == "mode":
        folder.mkdir()
        folder.chmod(0o750)
    elif wrong == "owner":
        if os.getuid():
            pytest.skip("only root can give a folder to someone else")
        folder.mkdir(mode=0o700)
        os.chown(folder, 65534, 65534)
    elif wrong == "a link":
        (folder.parent / "mine").mkdir(mode=0o700)
        folder.symlink_to(folder.parent / "mine")
    elif "file" in wrong:
        folder.touch()
        folder = folder / "p" if "below" in wrong else folder
    else:
        folder = folder / ("x" * 120)
    done = command("serve", "--folder", str(folder))
    assert done.returncode == 1
    assert done.stderr.startswith(f"gpu_workers: pool folder {folder}: ")
    said = {
        "a long path": "longer than 100 bytes",
        "a file": "cannot be made: File exists",
        "below a file": "cannot be made: Not a directory",
    }
    assert said.get(wrong, "not a folder of this user alone (mode 0700)") in done.stderr
    assert not list(folder.parent.glob("*/lock"))
    with pytest.raises(BadSettings, match=r"longer than 100 bytes|of this user alone|cannot be made"):
        brokers.run(on_demand(folder), [order("a")])


def test_a_broker_of_another_user_is_not_trusted(folder: Path) -> None:
    if os.getuid():
        pytest.skip("only root can run a process of someone else")
    folder.mkdir()
    folder.chmod(0o777)
    folder.parent.chmod(0o755)
    posing = "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('up', flush=True)"
    path = str(socket_path(folder))
    with subprocess.Popen([sys.executable, "-c", f"{posing}; s.accept()", path], stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"up\n"
        with pytest.raises(PoolRefused, match="is of another user, 65534"):
            brokers.run(on_demand(folder), [order("a")])


def test_one_client_too_many_is_told_so_and_taken_once_another_has_left() -> None:
    with brokers.broker("--workers", "1") as settings, contextlib.ExitStack() as others:
        first, *_ = [others.enter_context(contextlib.closing(client._Session(settings, f"step {n}"))) for n in range(256)]
        with pytest.raises(PoolRefused, match=r"256 clients are connected\. Wait until one has ended"):
            brokers.run(settings, [order("a")])
        first.close()
        wait_until(lambda: len(client.status(settings)["clients"]) <= 256, "it to be gone")
        assert brokers.run(settings, [order("a")])["a"].result.outcome == "done"


def test_status_is_a_table_for_people_and_json_for_programs(folder: Path) -> None:
    go = folder.parent / "go"
    with serve(folder) as broker:
        asker = Client(on_demand(folder), [order(f"k{i}", until=str(go)) for i in range(4)], "kitchen survey")
        wait_until(lambda: "computing" in brokers.phases(on_demand(folder)).values(), "work to begin")
        text, said = (command("status", "--folder", str(folder), *more) for more in ([], ["--json"]))
        go.touch()
        asker.end()
        after = json.loads(command("status", "--folder", str(folder), "--json").stdout)
    assert text.returncode == said.returncode == 0
    assert f"broker {broker.pid} in {folder}, up " in text.stdout
    assert "kitchen survey" in text.stdout
    assert "computing" in text.stdout
    assert "cpu0" in text.stdout
    values = json.loads(said.stdout)
    assert values["pid"] == broker.pid
    [asks] = [c for c in values["clients"] if c["name"] == "kitchen survey"]
    assert (asks["waiting"], asks["running"], asks["not_taken"]) == (2, 2, 0)
    assert (after["counts"]["done"], after["in_flight"], after["queue"]) == (4, 0, {})
    gone = command("status", "--folder", str(folder))
    assert gone.returncode == 1
    assert "no broker runs there" in gone.stderr
    assert "Traceback" not in gone.stderr


def test_scaling_while_work_runs_loses_nothing_and_kills_nobody(folder: Path) -> None:
    first, second = folder.parent / "first", folder.parent / "second"
    with serve(folder):
        asker = Client(on_demand(folder), [order(f"k{i:02}", until=str(first if i < 6 else second)) for i in range(12)])
        wait_until(partial(_are_busy, folder, 1), "work to run")
        _scale(folder, 3)
        wait_until(partial(_are_busy, folder, 3), "three workers to be busy")
        _scale(folder, 1)
        draining = client.status(on_demand(folder))
        assert [s["state"] for s in draining["slots"]] == ["ok", "draining", "draining"]
        assert len(draining["workers"]) == 3, "nobody is ended with work in hand"
        first.touch()
        wait_until(lambda: len(client.status(on_demand(folder))["slots"]) == 1, "those too many to leave")
        second.touch()
        answers = asker.end()
        status = client.status(on_demand(folder))
    pids = {key: about(a)["pid"] for key, a in answers.items()}
    assert len(pids) == 12
    assert len(set(pids.values())) == 3
    assert len({pid for key, pid in pids.items() if key >= "k08"}) == 1, "the rest is done by the one that stays"
    assert not status["counts"].get("worker deaths")
    assert status["counts"]["done"] == 12
    assert [s["name"] for s in status["slots"]] == ["cpu0"]


def _scale(folder: Path, workers: int) -> None:
    done = command("scale", "--folder", str(folder), str(workers))
    assert done.returncode == 0, done.stderr
    assert f"cpu{workers - 1}" in done.stdout


def _are_busy(folder: Path, workers: int) -> bool:
    return sum(any(t["phase"] == "computing" for t in w["tasks"]) for w in client.status(on_demand(folder))["workers"]) == workers
