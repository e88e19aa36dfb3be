"""The broker's rules, one by one, with a clock that the test sets: hangs, and which task a death counts against."""

from dataclasses import replace

import pytest

from gpu_workers.broker import events
from gpu_workers.wire import messages
from tests.gpu_workers.host import LIMITS, UNLEARNED_S, Host

# hangs


def test_a_task_that_computes_too_long_is_a_hang() -> None:
    host = Host()
    host.submit("1", est_s=1.0)
    worker = host.ready()
    host.now = 1.0
    host.compute("1")
    assert host.broker.next_deadline(host.now) == 1.0 + UNLEARNED_S
    host.tick(0.9 + UNLEARNED_S)
    assert host.kills == []
    host.tick(1.0 + UNLEARNED_S)
    assert host.kills == [(worker, "hang")]
    host.die(worker, "sigkill")
    assert host.task("1").deaths == ["cpu0"]
    assert host.task("1").unexplained_deaths == 0


def test_a_task_that_is_decoded_too_long_is_a_hang() -> None:
    host = Host()
    host.submit("1")
    worker = host.ready()
    host.enter("1", "decoding")
    host.tick(UNLEARNED_S)
    assert host.kills == [(worker, "hang")]


def test_what_was_learned_of_an_operator_sets_its_deadline() -> None:
    host = Host()
    host.submit("1", "2", frames=10)
    host.ready()
    host.finish("1", seconds=3.0)
    host.compute("2")
    assert host.broker.next_deadline(host.now) == pytest.approx(LIMITS.hang_base_s + LIMITS.hang_factor * 3.0)


def test_a_task_that_nobody_wants_and_that_gets_on_has_its_grace_and_no_more() -> None:
    host = Host()
    host.submit("1", est_s=10.0, frames=100)
    worker = host.ready()
    host.compute("1")
    host.cancel("1")
    host.tick(0.5)
    host.say(worker, messages.Progress(1, 7))
    host.tick(LIMITS.grace_s)
    assert host.kills == [(worker, "ignored cancellation")]


def test_a_speed_learned_from_clips_without_work_makes_no_hang_of_one_with_work() -> None:
    host = Host()
    host.submit("empty", "full", est_s=30.0, frames=30)
    host.ready()
    host.finish("empty", seconds=0.001)
    host.compute("full")
    assert host.broker.next_deadline(host.now) == pytest.approx(LIMITS.hang_base_s + LIMITS.hang_factor * 30.0)


def test_a_task_that_gets_on_is_slow_and_does_not_hang_until_it_has_had_all_its_frames() -> None:
    host = Host()
    host.submit("1", est_s=1.0, frames=3)
    worker = host.ready()
    host.compute("1")
    for frame in (1, 2, 3, 4):
        host.tick(host.now + UNLEARNED_S - 1.0)
        host.say(worker, messages.Progress(1, frame))
    assert host.kills == []
    host.tick(host.now + 1.0)
    assert host.kills == [(worker, "hang")]


def test_a_task_that_only_waits_decoded_may_wait_for_ever() -> None:
    host = Host()
    host.submit("slow", est_s=100.0, operator="masks")
    host.submit("decoded", est_s=0.1)
    host.ready()
    first, second = host.assigned
    host.compute(first)
    host.enter(second, "decoding", "decoded")
    host.task(first).deadline = 10_000.0
    host.tick(9_999.0)
    assert host.kills == []


def test_a_worker_that_does_not_even_begin_is_a_hang_without_blame() -> None:
    host = Host()
    host.submit("1")
    worker = host.ready()
    host.tick(LIMITS.hang_base_s)
    assert host.kills == [(worker, "hang")]
    host.die(worker, "sigkill")
    assert (host.queue, host.task("1").deaths) == (["1"], [])


def test_what_a_killed_worker_still_says_changes_nothing() -> None:
    host = Host()
    host.submit("1")
    worker = host.ready()
    host.compute("1")
    host.tick(UNLEARNED_S)
    host.say(worker, messages.Finished(1, 1.0))
    assert host.results == {}
    host.cancel("1")
    assert host.told(worker) == []
    assert host.broker.next_deadline(host.now) is None
    host.die(worker, "sigkill")
    assert host.results["1"].outcome == "cancelled"


# blame


def test_a_task_alone_at_two_deaths_is_a_dead_letter() -> None:
    host = Host(2)
    host.submit("poison")
    host.die_computing("poison")
    assert host.task("poison").deaths == [host.task("poison").last_death]
    host.die_computing("poison")
    host.ready_all()
    result = host.results["poison"]
    assert (result.outcome, result.error_class) == ("dead_letter", "PoisonClip")
    assert "2 times" in result.reason


def test_a_suspect_runs_on_another_device_where_there_is_one() -> None:
    host = Host(2)
    host.submit("suspect")
    host.die_computing("suspect")
    first = host.task("suspect").last_death
    host.ready_all()
    assert host.task("suspect").slot not in (None, first)


def test_a_death_with_two_begun_counts_against_neither_and_both_run_alone() -> None:
    host = Host(limits=replace(LIMITS, window_per_slot=9))
    host.submit("1", "2", "3")
    worker = host.ready()
    host.compute("1")
    host.enter("2", "decoding")
    host.die(worker)
    assert [host.task(key).deaths for key in ("1", "2")] == [[], []]
    host.submit("urgent", priority=9)
    worker = host.ready()
    assert host.holds(worker) == ["1"]
    host.finish("1")
    assert host.holds(worker) == ["2"]
    host.finish("2")
    assert host.holds(worker) == ["urgent", "3"]


def test_a_death_does_not_count_against_a_task_that_had_not_begun() -> None:
    host = Host()
    host.submit("1", "2")
    worker = host.ready()
    host.compute("1")
    host.die(worker)
    assert (host.task("1").deaths, host.task("2").deaths, host.task("2").alone) == (["cpu0"], [], False)


def test_deaths_of_workers_are_reported_and_departures_are_not() -> None:
    host = Host()
    host.submit("1")
    worker = host.ready()
    host.finish("1")
    host.die(worker)
    assert host.reports == f"worker {worker} died (exit)"
    host.ack("1")
    host.submit("2")
    worker = host.ready()
    host.finish("2")
    host.feed(events.StopWanted())
    host.die(worker)
    assert host.reports == ""


def test_a_task_that_nobody_wants_may_be_the_culprit_too() -> None:
    host = Host()
    host.submit("poison", client="a")
    host.submit("innocent", client="b")
    worker = host.ready()
    host.compute("poison")
    host.enter("innocent", "decoding", "decoded")
    host.leave("a")
    host.die(worker)
    assert (host.task("innocent").deaths, host.task("innocent").alone) == ([], True)


def test_the_third_death_for_lack_of_memory_is_the_last() -> None:
    host = Host()
    host.submit("hungry")
    for _ in range(2):
        host.die_computing("hungry", "memory")
    assert host.task("hungry").deaths == []
    host.die_computing("hungry", "memory")
    assert "lack of memory 3 times" in host.results["hungry"].reason


def test_a_worker_that_outgrows_its_memory_is_killed_for_it() -> None:
    host = Host()
    host.submit("hungry")
    worker = host.ready()
    host.compute("hungry")
    host.feed(events.WorkerMemory(worker, 9001, 9000))
    assert host.kills == [(worker, "memory")]
    host.die(worker, "sigkill")
    assert host.task("hungry").memory_deaths == 1


def test_a_worker_that_has_grown_leaves_when_it_has_done_what_it_holds() -> None:
    host = Host()
    host.submit("1", "2", "3")
    worker = host.ready()
    host.feed(events.WorkerMemory(worker, 8000, 9000))
    host.finish("1")
    assert host.holds(worker) == ["2"]
    host.finish("2")
    assert host.told(worker) == [messages.Bye()]
    host.die(worker)
    host.ready()
    assert host.assigned == ["1", "2", "3"]


def test_ten_kills_that_nothing_explains_are_too_many() -> None:
    host = Host()
    host.submit("unlucky")
    for _ in range(9):
        host.die_computing("unlucky", "sigkill")
    assert host.queue == ["unlucky"]
    host.die_computing("unlucky", "sigkill")
    assert "killed from outside 10 times" in host.results["unlucky"].reason
