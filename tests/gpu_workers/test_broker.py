"""The broker's rules, one by one, with a clock that the test sets."""

from dataclasses import replace

import pytest

from gpu_workers.broker import events
from gpu_workers.broker.model import Environment
from gpu_workers.wire import messages
from tests.gpu_workers.host import LIMITS, OTHER, PYTHON, Host

UNLEARNED_S = LIMITS.hang_base_s + LIMITS.unlearned_factor
"""Maximum time of a task whose client estimates one second."""


# the order of tasks


def test_a_worker_holds_two_tasks_and_is_given_another_when_one_is_done() -> None:
    host = Host()
    host.submit("1", "2", "3")
    worker = host.ready()
    assert host.holds(worker) == ["1", "2"]
    assert host.queue == ["3"]
    host.finish("1")
    assert host.holds(worker) == ["2", "3"]


def test_a_task_goes_to_an_empty_slot_before_it_is_prefetched_by_a_busy_one() -> None:
    host = Host(2)
    host.submit("1", "2", "3")
    host.ready_all()
    assert sorted(len(host.holds(worker)) for worker in host.state.workers) == [1, 2]


def test_higher_priority_goes_first() -> None:
    host = Host(limits=replace(LIMITS, credits=1))
    host.submit("routine", "urgent", "dull")
    host.state.tasks[2].spec = replace(host.state.tasks[2].spec, priority=5)
    host.ready()
    assert host.assigned == ["urgent"]


def test_the_client_that_has_used_least_goes_first() -> None:
    host = Host(limits=replace(LIMITS, credits=1, window_per_slot=9))
    host.join("a", "b")
    host.submit("a1", "a2", "a3", client="a")
    host.submit("b1", "b2", client="b")
    host.ready()
    host.finish("a1", seconds=5.0)
    host.finish("b1", seconds=2.0)
    host.finish("b2", seconds=4.0)
    assert host.assigned == ["a1", "b1", "b2", "a2"]


def test_who_idles_saves_up_no_time() -> None:
    host = Host(limits=replace(LIMITS, credits=1, window_per_slot=9))
    host.join("watcher")
    host.submit("a1", "a2", "a3", "a4", client="a")
    host.ready()
    host.finish("a1", seconds=3600.0)
    host.submit("w1", "w2", "w3", client="watcher")
    host.submit("n1", "n2", client="new")
    for _ in range(6):
        (held,) = host.holds(next(iter(host.state.workers)))
        host.finish(held, seconds=10.0)
    assert host.assigned[:2] == ["a1", "a2"]
    assert {key[0] for key in host.assigned[2:5]} == {"a", "w", "n"}
    assert host.state.clients["new"].used_s >= 3600.0


def test_a_client_pays_for_tasks_that_kill_workers_too() -> None:
    host = Host()
    host.submit("1")
    host.ready()
    host.compute("1")
    host.now = 30.0
    host.die(host.worker("1"))
    assert host.state.clients["a"].used_s == 30.0


def test_a_cold_slot_begins_with_the_shortest_and_goes_on_with_the_longest() -> None:
    host = Host(limits=replace(LIMITS, credits=1))
    for key, est_s in {"middling": 5.0, "short": 1.0, "long": 9.0}.items():
        host.submit(key, est_s=est_s, operator=key)
    host.ready()
    host.finish("short")
    host.finish("long")
    assert host.assigned == ["short", "long", "middling"]


def test_a_slot_goes_on_with_its_last_video_while_there_is_a_crowd() -> None:
    host = Host(limits=replace(LIMITS, credits=1))
    host.submit("u1", video="u", est_s=1.0, operator="first")
    host.ready()
    host.submit("v1", video="v", est_s=9.0)
    host.submit("u2", video="u", est_s=5.0)
    host.finish("u1")
    host.finish("u2")
    assert host.assigned == ["u1", "u2", "v1"]


def test_a_prefetched_task_is_taken_back_for_an_idle_worker() -> None:
    host = Host(2)
    host.submit("1", "2", "3")
    host.ready_all()
    (behind,) = [key for key in ("2", "3") if len(host.holds(host.worker(key))) == 2]
    (alone,) = {"1", "2", "3"} - set(host.holds(host.worker(behind)))
    idle, busy = host.worker(alone), host.worker(behind)
    host.compute(next(key for key in host.holds(busy) if key != behind))
    host.finish(alone)
    assert host.told(busy) == [messages.Revoke(host.task(behind).number)]
    host.give_back(behind)
    assert host.holds(idle) == [behind]


def test_what_waits_for_another_kind_of_device_keeps_no_gpu_idle() -> None:
    host = Host({"cuda0": 0, "cuda1": 0, "cpu0": 0})
    host.submit("1", "2", "3", kind="cuda", operator="masks")
    host.submit("a", "b", "c")
    host.ready_all()
    assert host.queue == ["c"]
    busy = next(w for w in host.state.workers if w.startswith("cuda") and len(host.holds(w)) == 2)
    first, behind = host.holds(busy)
    host.compute(first)
    host.finish(*({"1", "2", "3"} - {first, behind}))
    assert host.told(busy) == [messages.Revoke(host.task(behind).number)]


def test_nothing_is_taken_back_for_a_worker_that_could_not_take_it() -> None:
    host = Host({"cpu0": 8000, "cpu1": 1000})
    host.submit("1", "2", memory_mb=4000, operator="masks")
    host.submit("small", memory_mb=500)
    host.ready_all()
    assert host.worker("1") == host.worker("2") != host.worker("small")
    host.compute("1")
    host.finish("small")
    assert not any(isinstance(action, events.Tell) for action in host.last)


def test_a_task_that_began_to_compute_before_it_could_be_taken_back_stays() -> None:
    host = Host(2)
    host.submit("1", "2", "3")
    host.ready_all()
    busy = next(w for w in host.state.workers if len(host.holds(w)) == 2)
    first, second = host.holds(busy)
    host.compute(first)
    host.enter(second, "decoding", "decoded")
    host.finish(*({"1", "2", "3"} - {first, second}))
    assert host.told(busy) == [messages.Revoke(host.task(second).number)]
    host.finish(first)
    host.enter(second, "computing")
    assert host.holds(busy) == [second]
    host.submit("4", "5", "6")
    (behind,) = set(host.holds(busy)) - {second}
    host.finish(*({"4", "5", "6"} - {behind}))
    assert host.told(busy) == [messages.Revoke(host.task(behind).number)]


# windows


def test_a_window_is_four_results_a_slot_and_opens_when_they_are_taken() -> None:
    host = Host()
    host.submit("1", "2", "3", "4")
    host.ready()
    host.finish("1")
    host.submit("5")
    assert host.refused == ["a"]
    assert "5" not in host.queue

    host = Host()
    host.submit("1", "2", "3", "4")
    host.ready()
    host.finish("1")
    host.ack("1")
    host.submit("5")
    assert host.refused == []
    assert "5" in host.queue


def test_a_client_that_has_not_heard_of_its_smaller_window_is_not_refused() -> None:
    host = Host(2)
    host.submit("1", "2", "3", "4", "5")
    host.scale(1)
    assert events.Resize("a", 4) in host.last
    host.submit("6", "7", "8")
    assert host.refused == []
    host.submit("9")
    assert host.refused == ["a"]


def test_a_sick_device_makes_windows_smaller() -> None:
    host = Host(2)
    host.join("a")
    host.feed(events.SlotSick("cpu1", "fell off the bus"))
    assert events.Resize("a", 4) in host.last


def test_a_key_is_taken_once() -> None:
    host = Host()
    host.submit("1")
    host.submit("1")
    assert host.refused == ["a"]
    assert len(host.state.tasks) == 1


# abandoned tasks


def test_a_queued_task_is_cancelled_at_once_and_a_running_one_as_soon_as_it_can_be_stopped() -> None:
    host = Host(limits=replace(LIMITS, credits=1))
    host.submit("running", "queued")
    worker = host.ready()
    host.compute("running")
    host.cancel("queued")
    assert host.results["queued"].outcome == "cancelled"
    host.cancel("running")
    assert host.told(worker) == [messages.Abandon(1)]
    assert "running" not in host.results
    host.give_back("running")
    assert host.results["running"].outcome == "cancelled"


def test_a_worker_that_ignores_a_cancellation_is_killed_and_nobody_is_blamed() -> None:
    host = Host()
    host.submit("stubborn", "neighbour")
    worker = host.ready()
    host.compute("stubborn")
    host.enter("neighbour", "decoding", "decoded")
    host.cancel("stubborn")
    host.tick(4.9)
    assert host.kills == []
    host.tick(5.0)
    assert host.kills == [(worker, "ignored cancellation")]
    host.die(worker, "sigkill")
    assert host.results["stubborn"].outcome == "cancelled"
    assert (host.queue, host.task("neighbour").alone, host.task("neighbour").unexplained_deaths) == (["neighbour"], False, 0)


def test_when_a_client_leaves_its_queue_goes_its_running_tasks_stop_and_workers_stay_warm() -> None:
    host = Host()
    host.submit("1", "2", "3")
    worker = host.ready()
    host.compute("1")
    host.leave()
    assert host.told(worker) == [messages.Abandon(1), messages.Abandon(2)]
    assert not host.queue
    host.say(worker, messages.Revoked(2))
    host.say(worker, messages.Finished(1, 1.0))
    assert host.results == {}
    assert host.broker.idle
    host.submit("4", client="b")
    assert host.holds(worker) == ["4"]


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


# devices


def test_after_two_deaths_in_a_row_a_device_must_pass_a_self_test() -> None:
    host = Host()
    host.submit("1", "2", "3")
    worker = host.ready()
    host.compute("1")
    host.enter("2", "decoding")
    host.die(worker)
    worker = host.ready()
    assert messages.SelfTest() not in host.told(worker)
    host.compute("1")
    host.die(worker)
    worker = host.ready()
    assert host.told(worker) == [messages.SelfTest()]
    host.say(worker, messages.Tested(True))
    assert host.holds(worker) == ["1"]
    assert host.task("1").deaths == ["cpu0"]


def test_a_finished_task_proves_a_device() -> None:
    host = Host()
    host.submit("1", "2", "3")
    worker = host.ready()
    host.compute("1")
    host.enter("2", "decoding")
    host.die(worker)
    worker = host.ready()
    host.finish("1")
    host.compute("2")
    host.die(worker)
    assert messages.SelfTest() not in host.told(host.ready())


def test_deaths_on_a_sick_device_are_taken_back_and_the_tasks_finish_elsewhere() -> None:
    host = Host()
    host.submit("1", "2")
    host.die_computing("1")
    host.ready_all()
    host.compute("1")
    host.die(host.worker("1"))
    assert (host.task("1").state, host.results) == ("held", {})
    worker = host.ready()
    host.scale(2)
    host.say(worker, messages.Tested(False, "wrong sum"))
    assert "cpu0 is taken out: its self-test failed: wrong sum" in host.reports
    assert host.kills == [(worker, "sick device")]
    assert host.task("1").deaths == []
    host.die(worker, "sigkill")
    host.ready()
    host.finish("1", "2")
    assert {result.outcome for result in host.results.values()} == {"done"}


def test_a_worker_that_dies_in_its_self_test_proves_its_device_sick() -> None:
    host = Host()
    host.submit("1", "2", "3")
    host.die_computing("1")
    host.ready_all()
    host.die_computing("1")
    worker = host.ready()
    host.die(worker, "exit")
    assert host.state.slots["cpu0"].state == "sick"
    assert {host.results[key].error_class for key in ("1", "2", "3")} == {"NoDevice"}


def test_a_worker_killed_in_its_self_test_proves_nothing() -> None:
    host = Host()
    host.submit("1")
    host.die_computing("1")
    host.die_computing("1")
    host.die(host.ready(), "sigkill")
    assert host.state.slots["cpu0"].state == "ok"
    assert host.told(host.ready()) == [messages.SelfTest()]


def test_a_death_counts_no_more_once_its_device_is_known_to_be_sick() -> None:
    host = Host(2)
    host.submit("1")
    host.ready_all()
    host.compute("1")
    worker = host.worker("1")
    host.tick(UNLEARNED_S)
    assert host.kills == [(worker, "hang")]
    host.feed(events.SlotSick(host.state.workers[worker].slot, "fell off the bus"))
    host.die(worker, "sigkill")
    assert host.task("1").deaths == []


def test_a_verdict_is_reached_also_when_nothing_else_is_queued() -> None:
    host = Host()
    host.submit("poison")
    host.die_computing("poison")
    host.die_computing("poison")
    assert host.queue == []
    assert host.task("poison").state == "held"
    worker = host.ready()
    assert host.told(worker) == [messages.SelfTest()]
    host.say(worker, messages.Tested(True))
    assert host.results["poison"].outcome == "dead_letter"


def test_a_verdict_that_no_self_test_can_confirm_waits_for_a_death_elsewhere() -> None:
    host = Host()
    host.submit("innocent")
    host.die_computing("innocent")
    host.scale({"cpu0": 0, "cpu1": 0})
    host.ready_all()
    host.die_computing("innocent")
    assert host.task("innocent").state == "held"
    first = host.task("innocent").deaths[0]
    host.scale({first: 0})
    assert host.task("innocent").deaths == [first]
    host.ready_all()
    host.finish("innocent")
    assert host.results["innocent"].outcome == "done"


def test_two_devices_that_break_at_once_make_no_dead_letter() -> None:
    host = Host(3)
    host.submit("innocent")
    for _ in range(2):
        host.ready_all()
        host.compute("innocent")
        host.die(host.worker("innocent"))
    sick = host.task("innocent").deaths
    assert len(set(sick)) == 2
    for slot in reversed(sick):
        host.feed(events.SlotSick(slot, "driver is gone"))
    for worker in [w.name for w in host.state.workers.values() if w.slot in sick]:
        host.die(worker, "sigkill")
    host.ready_all()
    host.finish("innocent")
    assert host.results["innocent"].outcome == "done"


def test_a_task_fails_where_no_device_is_of_its_kind_or_large_enough() -> None:
    host = Host({"cpu0": 4000})
    host.submit("cuda", kind="cuda")
    host.submit("large", memory_mb=5000)
    assert host.results["cuda"].reason == "needs a cuda device, and the pool has cpu"
    assert host.results["large"].reason == "needs 5000 MB, the largest cpu device has 4000 MB"
    assert {result.error_class for result in host.results.values()} == {"NoDevice"}


def test_an_idle_worker_makes_room_for_one_that_needs_its_memory() -> None:
    host = Host({"cpu0": 4000})
    host.submit("1", memory_mb=3000)
    first = host.ready()
    host.finish("1")
    host.submit("2", memory_mb=2000, operator="masks", environment=OTHER)
    assert host.told(first) == [messages.Bye()]
    assert host.starting == []
    host.die(first)
    assert host.holds(host.ready()) == ["2"]


def test_a_task_is_prefetched_only_where_there_is_memory_for_both() -> None:
    host = Host({"cpu0": 4000})
    host.submit("1", memory_mb=3000)
    host.submit("2", memory_mb=2000, operator="masks", priority=-1)
    host.submit("3", memory_mb=3000, priority=-2)
    first = host.ready()
    assert (host.holds(first), host.queue) == (["1"], ["2", "3"])
    host.finish("1")
    assert host.told(first) == [messages.Bye()]
    host.die(first)
    assert host.holds(host.ready()) == ["2"]


def test_an_operator_that_is_loaded_needs_its_memory_once() -> None:
    host = Host({"cpu0": 4000})
    host.submit("1", "2", memory_mb=3000)
    host.submit("3", memory_mb=1000, operator="masks", priority=-1)
    worker = host.ready()
    assert host.holds(worker) == ["1", "2"]
    host.finish("1")
    assert host.holds(worker) == ["2", "3"]
    host.finish("2", "3")
    host.submit("4", memory_mb=3000)
    assert host.holds(worker) == ["4"]


def test_only_one_worker_of_a_device_works_at_a_time() -> None:
    host = Host()
    host.submit("1")
    first = host.ready()
    host.finish("1")
    host.submit("2")
    host.submit("3", environment=OTHER)
    assert host.queue == ["3"]
    host.finish("2")
    second = host.ready()
    assert host.holds(second) == ["3"]
    host.submit("4")
    assert host.queue == ["4"]
    host.finish("3")
    assert host.holds(first) == ["4"]


def test_scaling_down_kills_no_work() -> None:
    host = Host(2)
    host.submit("1", "2", "3", "4")
    host.ready_all()
    leaving = next(w.name for w in host.state.workers.values() if w.slot == "cpu1")
    held = host.holds(leaving)
    host.scale(1)
    assert host.kills == []
    host.finish(*held)
    assert {host.results[key].outcome for key in held} == {"done"}
    assert host.told(leaving) == [messages.Bye()]
    host.die(leaving)
    assert list(host.state.slots) == ["cpu0"]


def test_scaling_up_brings_workers_as_soon_as_there_is_work_for_them() -> None:
    host = Host()
    host.submit("1", "2", "3")
    host.ready()
    host.scale(2)
    worker = host.ready()
    assert host.holds(worker) == ["3"]


# starts


def test_after_five_failed_starts_tasks_fail_with_the_last_words_and_a_pause_later_it_is_tried_again() -> None:
    host = Host()
    host.submit("1", "2")
    for i in range(5):
        (worker,) = host.starting
        host.die(worker, words=f"Traceback\nImportError: try {i}\n")
        due = host.broker.next_deadline(host.now)
        if i < 4:
            assert due is not None
            assert host.results == {}
            host.tick(due)
    assert host.results["1"].error_class == host.results["2"].error_class == "WorkersBroken"
    assert host.results["1"].reason.endswith("ImportError: try 4")
    broken_at = host.now
    host.submit("3")
    assert host.starting == []
    assert host.broker.next_deadline(host.now) == broken_at + LIMITS.cooldown_s
    host.tick(broken_at + LIMITS.cooldown_s)
    host.ready()
    host.finish("3")
    assert host.results["3"].outcome == "done"


def test_a_broken_environment_fails_its_tasks_also_where_devices_of_another_kind_work() -> None:
    host = Host({"cuda0": 0, "cpu0": 0})
    host.submit("gpu", kind="cuda")
    for _ in range(5):
        host.die(host.starting[0], words="CUDA driver version is insufficient")
        host.tick(host.now + 5.0)
    assert "CUDA driver version is insufficient" in host.results["gpu"].reason


def test_one_device_that_starts_workers_is_enough() -> None:
    host = Host(2)
    host.submit("1", "2", "3")
    good = host.starting[1]
    host.say(good, messages.Ready(1, "c1", "3.11"))
    host.compute("1")
    for _ in range(5):
        host.die(host.starting[0])
        host.tick(host.now + 5.0)
    assert host.starting == []
    host.finish("1", "2", "3")
    assert {result.outcome for result in host.results.values()} == {"done"}


def test_a_worker_that_never_gets_ready_is_a_failed_start() -> None:
    host = Host()
    host.submit("1")
    (worker,) = host.starting
    host.tick(LIMITS.start_s)
    assert host.kills == [(worker, "hang")]
    host.die(worker, "sigkill")
    assert host.state.slots["cpu0"].starts[PYTHON].failures == 1


def test_a_start_that_succeeds_makes_up_for_those_that_failed() -> None:
    host = Host()
    host.submit("1")
    for _ in range(2):
        for _ in range(4):
            host.die(host.starting[0])
            host.tick(host.now + 2.0)
        host.die_computing("1", "sigkill")
    assert host.queue == ["1"]


def test_a_worker_with_other_code_than_the_client_is_sent_away_and_the_tasks_fail() -> None:
    host = Host()
    host.submit("1", "2")
    host.submit("new", environment=Environment("python3", "tests.runner", "c2"))
    worker = host.ready(code="c2")
    assert host.kills == [(worker, "stale code")]
    assert {key: result.error_class for key, result in host.results.items()} == {"1": "StaleCode", "2": "StaleCode"}
    host.die(worker, "sigkill")
    assert host.holds(host.ready(code="c2")) == ["new"]


def test_a_task_held_for_a_self_test_fails_too_when_its_code_has_changed() -> None:
    host = Host()
    host.submit("poison")
    host.die_computing("poison")
    host.die_computing("poison")
    assert host.task("poison").state == "held"
    host.ready(code="c2")
    assert host.results["poison"].error_class == "StaleCode"


def broke(host: Host, key: str) -> None:
    """The worker that holds a task finds that it has other code of the operator than the client."""
    host.enter(key, "decoding", "decoded", "computing")
    host.say(
        host.worker(key), messages.Broke(host.task(key).number, 0.0, "StaleCode", "operator hands", "is other code", "Start again", "", -1)
    )


def test_a_worker_with_older_code_of_an_operator_does_what_it_holds_and_another_takes_its_place() -> None:
    host = Host()
    host.submit("before")
    old = host.ready()
    host.finish("before")
    host.now = 1.0
    host.submit("new", "other operator")
    broke(host, "new")
    assert "new" not in host.results
    host.finish("other operator")
    assert not host.state.workers[old].usable
    host.die(old)
    young = host.ready()
    assert host.holds(young) == ["new"]
    host.finish("new")
    assert host.results["new"].outcome == "done"
    assert host.state.counts["worker deaths"] == 0


def test_a_worker_that_is_younger_than_a_task_and_has_other_code_of_its_operator_says_so() -> None:
    host = Host()
    host.submit("1", "2")
    host.now = 1.0
    worker = host.ready()
    broke(host, "1")
    assert host.results["1"].error_class == "StaleCode"
    assert host.state.workers[worker].usable, "the other operators it has are the right ones"
    host.finish("2")


def test_a_task_that_nobody_wants_any_more_is_not_given_to_a_younger_worker() -> None:
    host = Host()
    host.submit("before")
    host.ready()
    host.finish("before")
    host.now = 1.0
    host.submit("new")
    host.enter("new", "decoding", "decoded", "computing")
    host.cancel("new")
    host.say(host.worker("new"), messages.Broke(host.task("new").number, 0.0, "StaleCode", "operator hands", "is other code", "", "", -1))
    assert host.results["new"].outcome == "cancelled"


# the end


def test_stopping_finishes_what_runs_and_gives_back_what_waits() -> None:
    host = Host()
    host.submit("1", "2", client="a")
    host.submit("3", client="b")
    worker = host.ready()
    first, second = host.assigned
    host.compute(first)
    host.feed(events.StopWanted())
    waits_only = {"a", "b"} - {host.task(key).client for key in (first, second)}
    assert set(host.refused) == waits_only
    assert host.kills == []
    host.finish(first, second)
    assert {host.results[key].outcome for key in (first, second)} == {"done"}
    assert host.told(worker) == [messages.Bye()]
    for client in ("a", "b"):
        host.leave(client)
    host.die(worker)
    assert host.broker.stopped
    assert host.broker.idle


def test_stopping_refuses_each_client_once_and_takes_nothing_more() -> None:
    host = Host()
    host.submit("1")
    (worker,) = host.starting
    host.feed(events.StopWanted())
    assert (host.refused, host.kills) == (["a"], [(worker, "retired")])
    host.tick(1.0)
    assert host.refused == []
    host.submit("2", client="b")
    assert host.refused == ["b"]


def test_stopping_gives_back_a_task_whose_verdict_waits() -> None:
    host = Host()
    host.submit("1")
    host.die_computing("1")
    host.die_computing("1")
    host.feed(events.StopWanted())
    assert host.refused == ["a"]
    assert host.results == {}


def test_a_worker_that_does_not_leave_is_killed() -> None:
    host = Host()
    host.submit("1")
    worker = host.ready()
    host.finish("1")
    host.feed(events.StopWanted())
    host.tick(LIMITS.grace_s)
    assert host.kills == [(worker, "retired")]


# clips that were running when the machine crashed


def test_a_task_that_was_there_when_the_machine_died_has_the_host_for_itself() -> None:
    host = Host(2, machine_deaths={"suspect": [False]})
    host.submit("1", "suspect", "2")
    host.ready_all()
    assert host.assigned == ["suspect"]
    host.finish("suspect")
    assert sorted(host.assigned) == ["1", "2", "suspect"]


def test_a_task_alone_at_two_deaths_of_the_machine_is_a_dead_letter() -> None:
    host = Host(machine_deaths={"bad": [True, False, True]})
    host.submit("bad")
    assert "the machine died 2 times" in host.results["bad"].reason


def test_a_cancelled_task_has_not_shown_that_it_is_harmless() -> None:
    host = Host(2, machine_deaths={"suspect": [True]})
    host.submit("suspect", client="a")
    host.leave("a")
    host.submit("suspect", "other", client="b")
    host.ready_all()
    assert host.assigned == ["suspect"]


def test_the_journal_says_what_has_begun() -> None:
    host = Host()
    journal: list[tuple[str, str]] = []

    def entries() -> None:
        journal.extend((action.what, action.key) for action in host.last if isinstance(action, events.Journal))

    host.submit("1", "2")
    host.ready()
    for phase in ("decoding", "decoded", "computing"):
        host.enter("1", phase)
        entries()
    host.enter("2", "decoding")
    entries()
    host.finish("1")
    entries()
    host.die(host.worker("2"))
    entries()
    assert journal == [("begin", "1"), ("begin", "2"), ("end", "1"), ("end", "2")]


# time


def test_the_time_of_a_slot_is_split_by_cause() -> None:
    host = Host(limits=replace(LIMITS, window_per_slot=2))
    at = host.tick
    at(1.0)  # idle
    host.join("a")
    at(3.0)  # still idle: the client may only ask for the status
    host.submit("1", "2")
    at(6.0)  # starting
    host.ready()
    at(10.0)  # starved_decode
    host.compute("1")
    at(15.0)  # computing
    host.finish("1")
    host.compute("2")
    at(21.0)  # computing
    host.finish("2")
    at(28.0)  # blocked
    host.ack("1")
    at(36.0)  # starved_clips
    spent = {cause: seconds for cause, seconds in host.state.slots["cpu0"].spent_s.items() if seconds}
    assert spent == {"idle": 3.0, "starved_clips": 8.0, "starting": 3.0, "starved_decode": 4.0, "computing": 11.0, "blocked": 7.0}
