"""The broker's rules, one by one, with a clock that the test sets: what fits on a device, and which device is sick."""

from gpu_workers.broker import events
from gpu_workers.wire import messages
from tests.gpu_workers.host import OTHER, UNLEARNED_S, Host

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
