"""The broker's rules, one by one, with a clock that the test sets: starts, other code, the end, and crashes of the machine."""

from dataclasses import replace

from gpu_workers.broker import events
from gpu_workers.broker.model import Environment
from gpu_workers.wire import messages
from tests.gpu_workers.host import LIMITS, PYTHON, Host

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
