"""Whatever an operator does, its own clip fails with an error that says what happened, and the other clips finish."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.wire import frames
from tests import brokers
from tests.brokers import about, order

NEIGHBOURS = 6


@pytest.fixture(scope="module")
def pool() -> Iterator[PoolSettings]:
    with brokers.broker("--workers", "2") as settings:
        yield settings


def together(settings: PoolSettings, culprit: client.Order) -> client.Result:
    """The result of a task; others that are submitted with it must be done."""
    neighbours = [order(f"neighbour {i} of {culprit.submit.key}", 0.02) for i in range(NEIGHBOURS)]
    answers = brokers.run(settings, [*neighbours[:2], culprit, *neighbours[2:]])
    found = answers.pop(culprit.submit.key)
    assert {key: a.result.outcome for key, a in answers.items()} == {n.submit.key: "done" for n in neighbours}
    assert all(brokers.table(a)["key"].to_pylist() == [key] for key, a in answers.items())
    return found.result


ERRORS = {
    "raise": ("OperatorCrash", "ValueError: bad clip"),
    "raise at length": ("OperatorCrash", "ValueError: \U0001f4a5"),
    "sys.exit": ("OperatorCrash", "SystemExit: enough"),
    "not a table": ("ContractError", "want a pyarrow.Table, got dict"),
    "2 GB": ("ContractError", f"the table has {1 << 31} bytes; a result may have {frames.MAX_PAYLOAD_BYTES}"),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_an_operator_that_misbehaves_fails_its_clip_and_its_worker_goes_on(pool: PoolSettings, fault: str) -> None:
    deaths = brokers.client.status(pool)["counts"].get("worker deaths", 0)
    result = together(pool, order(fault, fault=fault))
    error_class, reason = ERRORS[fault]
    assert (result.outcome, result.error_class) == ("failed", error_class)
    assert result.reason.startswith(reason)
    assert result.cure
    assert client.status(pool)["counts"].get("worker deaths", 0) == deaths


@pytest.mark.parametrize("fault", ["raise", "sys.exit"])
def test_it_is_the_same_while_a_clip_is_prepared(pool: PoolSettings, fault: str) -> None:
    result = together(pool, order(f"{fault} early", decode_fault=fault))
    assert (result.outcome, result.error_class) == ("failed", "OperatorCrash")
    assert result.reason == ERRORS[fault][1]


DEATHS = {
    "exit": "its worker died or hung 2 times while it was the only clip in flight there; the last time it ended with exit code 3",
    "segv": "its worker died or hung 2 times while it was the only clip in flight there; the last time it was ended by SIGSEGV",
    "sigkill": "its worker was killed from outside 10 times while it was the only clip in flight there; the last time it was ended by SIGKILL",
}


@pytest.mark.parametrize(
    ("fault", "where"), [("exit", "fault"), ("exit", "decode_fault"), ("segv", "fault"), ("segv", "decode_fault"), ("sigkill", "fault")]
)
def test_a_clip_that_ends_its_worker_is_a_dead_letter_that_says_how(pool: PoolSettings, fault: str, where: str) -> None:
    result = together(pool, order(f"{fault} {where}", **{where: fault}))
    assert (result.outcome, result.error_class, result.reason) == ("dead_letter", "PoisonClip", DEATHS[fault])
    assert result.key[:12] in result.culprit
    assert "inline pool" in result.cure
    if fault == "segv":
        assert "about to read address 0" in result.traceback, "the end of what it printed"


def test_output_without_end_is_taken_and_kept_out_of_the_results(pool: PoolSettings) -> None:
    result = together(pool, order("print", fault="print"))
    assert result.outcome == "done"
    assert "more chatter" in (pool.folder / "broker.log").read_text()


@pytest.fixture(scope="module")
def impatient() -> Iterator[PoolSettings]:
    with brokers.broker(limits={"hang_base_s": 1.0}, workers=2) as settings:
        yield settings


@pytest.mark.parametrize("fault", ["hang", "hold the gil", "stop"])
def test_a_clip_that_never_ends_is_found_out(impatient: PoolSettings, fault: str) -> None:
    before = client.status(impatient)["counts"].get("hangs", 0)
    result = together(impatient, order(fault, fault=fault))
    assert (result.outcome, result.error_class) == ("dead_letter", "PoisonClip")
    assert result.reason.endswith("; the last time it was silent past its deadline")
    assert client.status(impatient)["counts"]["hangs"] - before in (2, 3), "one more where a neighbour had begun with it the first time"


def test_what_a_worker_started_does_not_outlive_it_or_its_broker() -> None:
    with brokers.broker("--workers", "1") as settings:
        answers = brokers.run(settings, [order("a", fault="fork"), order("b", fault="fork and leave"), order("c")])
        children = about(answers["c"])["children"]
        assert len(children) == 2
        assert all(brokers.is_alive(child) for child in children), "they live as long as the worker does"
    brokers.wait_until(lambda: not any(map(brokers.is_alive, children)), "the children to end with the broker")


def test_a_worker_that_ends_takes_its_children_along() -> None:
    with brokers.broker("--workers", "1") as settings:
        [child] = about(brokers.run(settings, [order("a", fault="fork")])["a"])["children"]
        assert brokers.run(settings, [order("b", fault="exit")])["b"].result.outcome == "dead_letter"
        brokers.wait_until(lambda: not brokers.is_alive(child), "the child to end with the worker")


def test_a_worker_that_ignores_that_nobody_wants_its_result_is_ended() -> None:
    with brokers.broker(limits={"grace_s": 0.5}) as settings:
        first = about(brokers.run(settings, [order("warm")])["warm"])["pid"]
        _hang_up_while_running(settings, order("deaf", 60, fault="deaf"))
        began = time.monotonic()
        second = about(brokers.run(settings, [order("next")])["next"])["pid"]
        assert 0.3 < time.monotonic() - began < 9, "after the time of grace, not that of the task"
        assert second != first
        assert not brokers.is_alive(first)
        assert client.status(settings)["counts"]["cancelled"] == 1
        assert not client.status(settings)["counts"].get("hangs"), "the clip is not to blame"


def test_a_worker_that_heeds_it_stays_warm() -> None:
    with brokers.broker("--workers", "1") as settings:
        first = about(brokers.run(settings, [order("warm")])["warm"])["pid"]
        _hang_up_while_running(settings, order("obedient", 60))
        began = time.monotonic()
        told = about(brokers.run(settings, [order("next")])["next"])
        assert time.monotonic() - began < 9, "not the time of grace"
        assert (told["pid"], told["built"]) == (first, 1)
        assert client.status(settings)["counts"].get("worker deaths", 0) == 0


def _hang_up_while_running(settings: PoolSettings, wanted: client.Order) -> None:
    """Submit a task, wait until it computes, and close the connection."""
    session = client._Session(settings, "fickle")
    session.say(wanted.submit, wanted.payload)
    brokers.wait_until(lambda: brokers.phases(settings).get(wanted.submit.key) == "computing", "the task to compute")
    session.close()


def test_a_worker_that_leaks_is_replaced_between_clips() -> None:
    with brokers.broker("--workers", "1", "--worker-memory-mb", "700") as settings:
        answers = brokers.run(settings, [order(f"k{i}", 0.1, leak_mb=10) for i in range(55)])
        most_mb = max(about(a)["resident_mb"] for a in answers.values())
        pids = [about(a)["pid"] for a in answers.values()]
        counts = client.status(settings)["counts"]
    assert 2 <= len(set(pids)) <= 4
    assert pids == sorted(pids, key=pids.index), "one after the other"
    assert counts["done"] == 55
    assert not counts.get("worker deaths")
    assert 475 < most_mb < 700, (
        "replaced from three quarters on; what a worker says of itself may be less, where the system took pages back meanwhile"
    )


def test_a_clip_that_takes_more_memory_than_a_worker_may_have_is_contained() -> None:
    with brokers.broker(limits={"memory_deaths": 1}, memory_mb=300) as settings:
        result = together(settings, order("hog", 60, leak_mb=400))
        assert (result.outcome, result.error_class) == ("dead_letter", "PoisonClip")
        assert result.reason == "its worker died for lack of memory 1 times while it was the only clip in flight there"
