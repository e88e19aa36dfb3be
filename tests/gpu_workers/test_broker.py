"""The broker's rules, one by one, with a clock that the test sets: the order of tasks, windows, and tasks that nobody wants."""

from dataclasses import replace

from gpu_workers.broker import events
from gpu_workers.wire import messages
from tests.gpu_workers.host import LIMITS, Host

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


def test_a_result_says_when_it_was_computed_what_it_waited_for_and_what_its_slot_did_before() -> None:
    host = Host()
    host.tick(5.0)
    host.submit("1", "2")
    host.tick(12.0)
    host.ready()
    for key, phase, now in (
        ("1", "decoding", 13.0),
        ("1", "decoded", 16.0),
        ("1", "computing", 16.0),
        ("2", "decoding", 17.0),
        ("2", "decoded", 18.0),
    ):
        host.now = now
        host.enter(key, phase)
    host.tick(30.0)
    host.finish("1", seconds=14.0)
    host.tick(31.0)
    host.enter("2", "computing")
    host.tick(33.0)
    host.finish("2", seconds=2.0)
    first, second = host.results["1"], host.results["2"]
    assert (first.began_s, first.queued_s, first.decoding_s, first.decoded_s) == (16.0, 8.0, 3.0, 0.0)
    assert (first.idle_s, first.starting_s, first.starved_decode_s) == (5.0, 7.0, 4.0), "leased at 12, computed from 16 on"
    assert (second.began_s, second.queued_s, second.decoding_s, second.decoded_s) == (31.0, 12.0, 1.0, 13.0)
    assert (second.idle_s, second.starting_s, second.starved_decode_s) == (0.0, 0.0, 1.0), "since the slot began the one before"


def test_a_second_try_says_nothing_of_the_times_of_the_first() -> None:
    host = Host()
    host.submit("1")
    worker = host.ready()
    for phase, now in (("decoding", 2.0), ("decoded", 3.0), ("computing", 4.0)):
        host.now = now
        host.enter("1", phase)
    host.die(worker)
    host.tick(9.0)
    host.ready()
    host.tick(10.0)
    host.enter("1", "decoding")
    host.say(host.worker("1"), messages.Broke(host.task("1").number, 0.5, "CorruptVideo", "v.mp4", "breaks off", "Copy it again", ""))
    told = host.results["1"]
    assert told.outcome == "failed"
    assert (told.began_s, told.queued_s, told.decoding_s, told.decoded_s) == (0.0, 0.0, 0.0, 0.0), "it was not computed"


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
