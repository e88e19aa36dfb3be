"""The broker's decisions: `Broker.step(event, now) -> actions`. The same events at the same times give the same actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu_workers.broker import accounting, blame, devices, events, order
from gpu_workers.broker.events import Action
from gpu_workers.broker.model import BrokerState, Client, Environment, Limits, Slot, Task, Worker
from gpu_workers.wire import messages

_LEARNING = 0.3
"""Weight of the newest clip in what is learned of an operator's speed."""
_END = {"hang": "it was silent past its deadline", "memory": ""}


class Broker:
    """Owns the queue and decides who works on what.

    What always holds: a submitted key ends exactly once; a worker holds at most `limits.credits` tasks and a client at most its window; a death
    counts only against begun tasks; a task alone in flight at `limits.deaths` deaths is dead-lettered.

    Args:
        limits: numbers it goes by.
        machine_deaths: what was running when the machine died, from the journal.
    """

    def __init__(self, limits: Limits, machine_deaths: dict[str, list[bool]] | None = None) -> None:
        self.state = BrokerState(limits, machine_deaths=dict(machine_deaths or {}))
        self._clock = accounting.Clock()
        self._actions: list[Action] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            events.ClientJoined: self._client_joined,
            events.ClientLeft: self._client_left,
            events.Submitted: self._submitted,
            events.CancelWanted: self._cancel_wanted,
            events.Acked: self._acked,
            events.SlotsWanted: self._slots_wanted,
            events.SlotSick: lambda e, now: self._sick(e.slot, e.reason),
            events.WorkerSaid: self._worker_said,
            events.WorkerDied: self._worker_died,
            events.WorkerMemory: self._worker_memory,
            events.Tick: lambda e, now: None,
            events.StopWanted: lambda e, now: self._stop(),
        }

    def step(self, event: events.Event, now: float) -> list[Action]:
        """What is to be done about an event, in this order.

        Args:
            now: seconds of a clock that never goes back.
        """
        self._clock.account(self.state, now)
        self._actions = []
        self._handlers[type(event)](event, now)
        self._expire(now)
        self._dispatch(now)
        self._watch(now)
        return self._actions

    def next_deadline(self, now: float) -> float | None:
        """When `Tick` is due at the latest."""
        tasks = [t.deadline for t in self.state.tasks.values() if t.deadline is not None]
        workers = [w.deadline for w in self.state.workers.values() if w.deadline is not None]
        retries = [s.not_before for slot in self.state.slots.values() for s in slot.starts.values() if s.not_before > now]
        return min([*tasks, *workers, *(retries if self.state.tasks else [])], default=None)

    @property
    def idle(self) -> bool:
        """Whether there is neither work nor a client."""
        return not self.state.tasks and not self.state.clients

    @property
    def stopped(self) -> bool:
        """Whether everything has ended after `StopWanted`."""
        return self.state.stopping and not self.state.workers

    # clients

    def _client_joined(self, event: events.ClientJoined, now: float) -> None:
        self.state.clients[event.client] = Client(event.name, event.pid, self.state.fair_s, self.state.window())

    def _client_left(self, event: events.ClientLeft, now: float) -> None:
        client = self.state.clients.pop(event.client, None)
        for number in list(client.tasks.values()) if client else []:
            task = self.state.tasks[number]
            task.silent = True
            self._give_up(task, now)

    def _submitted(self, event: events.Submitted, now: float) -> None:
        state, key = self.state, event.spec.key
        client = state.clients[event.client]
        if key in client.tasks or key in client.unacked:
            self._refuse(event.client, f"{key} was submitted twice", "Submit each key once")
        elif client.outstanding >= client.window:
            self._refuse(event.client, f"more than {client.window} results outstanding", "Take results first")
        if client.refused:
            return
        if not client.tasks:
            client.used_s = max(client.used_s, state.fair_s)
        client.submitted += 1
        state.submitted += 1
        state.counts["submitted"] += 1
        task = Task(state.submitted, event.client, event.spec, event.payload, submitted_at=now)
        state.tasks[task.number] = task
        client.tasks[key] = task.number
        if times := state.machine_deaths.get(key):
            task.alone = task.host_alone = True
            if why := blame.machine_verdict(state.limits, times):
                self._dead_letter(task, why)

    def _cancel_wanted(self, event: events.CancelWanted, now: float) -> None:
        number = self.state.clients[event.client].tasks.get(event.key)
        if number is not None:
            self._give_up(self.state.tasks[number], now)

    def _acked(self, event: events.Acked, now: float) -> None:
        self.state.clients[event.client].unacked.discard(event.key)

    def _refuse(self, name: str, reason: str, cure: str) -> None:
        client = self.state.clients[name]
        if not client.refused:
            client.refused = True
            self._actions.append(events.Refuse(name, reason, cure))

    def _resize(self) -> None:
        """Tell clients what they may have outstanding from now on."""
        for name, client in self.state.clients.items():
            client.window = max(client.window, self.state.window())
            self._actions.append(events.Resize(name, self.state.window()))

    def _give_up(self, task: Task, now: float) -> None:
        """Stop working on a task that nobody wants."""
        if task.worker is None:
            self._end(task, messages.Result(task.spec.key, "cancelled"))
        elif not task.abandoned:
            task.abandoned = True
            if self.state.workers[task.worker].killed_for is None:
                task.deadline = now + self.state.limits.grace_s
                self._actions.append(events.Tell(task.worker, messages.Abandon(task.number)))

    # devices

    def _slots_wanted(self, event: events.SlotsWanted, now: float) -> None:
        devices.want(self.state, event.slots)
        self._resize()

    def _sick(self, name: str, reason: str) -> None:
        slot = self.state.slots.get(name)
        if slot is None or slot.state == "sick":
            return
        slot.state, slot.reason = "sick", reason
        self.state.counts["sick slots"] += 1
        self._actions.append(events.Report("error", f"{name} is taken out: {reason}. The others go on; restart the pool once it is mended"))
        for worker in self.state.workers_of(name):
            self._kill(worker, "sick device")
        for task in self.state.tasks.values():
            blame.take_back(task, slot)
        for task in self._held(name):
            self._judge(task)
        self._resize()

    # workers

    def _worker_said(self, event: events.WorkerSaid, now: float) -> None:
        worker, message = self.state.workers.get(event.worker), event.message
        if worker is None or worker.killed_for:
            return
        if isinstance(message, messages.Ready):
            self._worker_ready(worker, message, now)
        elif isinstance(message, messages.Tested):
            self._worker_tested(worker, message)
        elif message.id in worker.tasks:
            self._task_said(self.state.tasks[message.id], worker, message, event.payload, now)

    def _worker_ready(self, worker: Worker, message: messages.Ready, now: float) -> None:
        slot = self.state.slots[worker.slot]
        worker.ready, worker.pid, worker.deadline = True, message.pid, None
        slot.starts.pop(worker.environment, None)
        if message.code != worker.environment.code:
            self._kill(worker, "stale code")
            stale = "the code on disk is not the code that the run was started with"
            self._fail(self._waiting(worker.environment), "StaleCode", stale, "Start the run again")
        elif slot.test_due:
            self._test(worker, now)

    def _worker_tested(self, worker: Worker, message: messages.Tested) -> None:
        slot = self.state.slots[worker.slot]
        worker.testing = False
        if not worker.leaving:
            worker.deadline = None
        if not message.ok:
            self._sick(slot.spec.name, f"its self-test failed: {message.reason}")
            return
        self._trust(slot)

    def _trust(self, slot: Slot) -> None:
        """A device has shown that it works: deaths on it are the tasks' own."""
        slot.test_due, slot.deaths_in_row = False, 0
        for task in self._held(slot.spec.name):
            self._judge(task)

    def _held(self, slot: str) -> list[Task]:
        return [t for t in self.state.tasks.values() if t.state == "held" and t.slot == slot]

    def _task_said(self, task: Task, worker: Worker, message: Any, payload: bytes, now: float) -> None:
        if isinstance(message, messages.Entered):
            self._entered(task, message.phase, now)
        elif isinstance(message, messages.Progress):
            if task.frames_done < message.frames <= task.spec.frames and task.deadline is not None and not task.abandoned:
                task.deadline = now + self._allowed_s(task)  # slow, but not hung: the speed was learned from clips like it
            task.frames_done = message.frames
        elif isinstance(message, messages.Revoked):
            self._release(task, worker, _computed_s(task, now))
            self._end(task, messages.Result(task.spec.key, "cancelled")) if task.abandoned else self._requeue(task)
        else:
            self._ended_in_worker(task, worker, message, payload)

    def _entered(self, task: Task, phase: messages.Phase, now: float) -> None:
        if not task.begun:
            self._actions.append(events.Journal("begin", task.spec.key))
        task.state, task.entered_at = phase, now
        task.entered[phase] = now
        if phase == "computing":
            task.revoking = False
            accounting.begin(task, self.state.slots[str(task.slot)])
        if not task.abandoned:
            task.deadline = None if phase == "decoded" else now + self._allowed_s(task)

    def _allowed_s(self, task: Task) -> float:
        limits = self.state.limits
        if task.spec.operator not in self.state.seconds_per_frame:
            return limits.hang_base_s + limits.unlearned_factor * task.spec.est_s
        expected_s = max(
            self.state.estimate_s(task.spec), task.spec.est_s
        )  # the speed may have been learned from clips without detections, which are faster than others
        return limits.hang_base_s + limits.hang_factor * expected_s

    def _ended_in_worker(self, task: Task, worker: Worker, message: messages.Finished | messages.Broke, payload: bytes) -> None:
        slot, spec = self.state.slots[worker.slot], task.spec
        self._release(task, worker, message.seconds)
        slot.warm = True
        if isinstance(message, messages.Broke) and message.error_class == "StaleCode" and worker.started_at < task.submitted_at:
            worker.tired = True  # its code is older than that of the run: a worker that is started now has the run's code
            self._end(task, messages.Result(spec.key, "cancelled")) if task.abandoned else self._requeue(task)
            return
        if isinstance(message, messages.Broke):
            error = (message.error_class, message.culprit, message.reason, message.cure, message.traceback, message.frame)
            self._end(task, accounting.timed(messages.Result(spec.key, "failed", message.seconds, worker.name, *error), task))
            return
        self._trust(slot)
        rate = message.seconds / max(1, spec.frames)
        known = self.state.seconds_per_frame.get(spec.operator, rate)
        self.state.seconds_per_frame[spec.operator] = (1 - _LEARNING) * known + _LEARNING * rate
        self.state.counts["frames"] += spec.frames
        self._end(task, accounting.timed(messages.Result(spec.key, "done", message.seconds, worker.name), task), payload)

    def _worker_died(self, event: events.WorkerDied, now: float) -> None:
        worker = self.state.workers.pop(event.worker, None)
        if worker is None:
            return
        slot, held = self.state.slots[worker.slot], [self.state.tasks[i] for i in worker.tasks]
        cause = worker.killed_for or event.cause
        expected = worker.leaving or slot.state == "sick" or cause in ("sick device", "stale code", "retired")
        if not expected:
            self.state.counts["worker deaths"] += 1
            self._actions.append(events.Report("warning", f"worker {worker.name} died ({cause})", {"worker": worker.name}))
        if not worker.ready and not expected:
            self._start_failed(worker, event, now)
        if worker.testing and not expected and cause in ("exit", "hang"):
            self._sick(slot.spec.name, f"a worker died in its self-test ({cause})")
        if cause in ("exit", "sigkill", "memory", "hang") and not expected:
            blame.count(self.state.limits, slot, [t for t in held if t.begun], cause)
        for task in held:
            if task.begun and not expected:
                task.last_end, task.last_words = _END.get(cause, event.how), event.last_words
            self._release(task, worker, _computed_s(task, now))
            self._after_death(task)
        devices.forget_if_gone(self.state, slot)

    def _after_death(self, task: Task) -> None:
        if task.abandoned:
            self._end(task, messages.Result(task.spec.key, "cancelled"))
        else:
            self._judge(task)

    def _judge(self, task: Task) -> None:
        """Whether a task that was in a worker when that died may run again."""
        why = blame.verdict(self.state.limits, task)
        if why is None:
            self._requeue(task)
        elif slot := blame.doubt(self.state, task):
            task.state, task.slot, slot.test_due = "held", slot.spec.name, True
        else:
            self._dead_letter(task, why)

    def _start_failed(self, worker: Worker, event: events.WorkerDied, now: float) -> None:
        devices.note_start_failure(self.state, worker, event.last_words, now)
        broken = [t for t in self._waiting(worker.environment) if devices.broken_everywhere(self.state, t, now)]
        said = event.last_words.strip().splitlines()[-1:] or ["it printed nothing"]
        reason = f"workers die at their start; the last one said: {said[0][:500]}"
        self._fail(broken, "WorkersBroken", reason, "Mend the environment; the pool's log has the whole output")

    def _waiting(self, environment: Environment) -> list[Task]:
        return [t for t in self.state.tasks.values() if t.worker is None and t.spec.environment == environment]

    def _fail(self, tasks: list[Task], kind: str, reason: str, cure: str) -> None:
        for task in tasks:
            culprit = f"worker {task.spec.environment.python}"
            self._end(task, messages.Result(task.spec.key, "failed", error_class=kind, culprit=culprit, reason=reason, cure=cure))

    def _worker_memory(self, event: events.WorkerMemory, now: float) -> None:
        worker = self.state.workers.get(event.worker)
        if worker is None:
            return
        worker.memory_mb = event.memory_mb
        if event.memory_mb > event.limit_mb:
            self._kill(worker, "memory")
        elif event.memory_mb > 0.75 * event.limit_mb and worker.loaded:
            worker.tired = True

    def _kill(self, worker: Worker, why: str) -> None:
        if worker.killed_for is None:
            worker.killed_for, worker.deadline = why, None
            for number in worker.tasks:
                self.state.tasks[number].deadline = None
            self._actions.append(events.Kill(worker.name, why))

    def _leave(self, worker: Worker, now: float) -> None:
        if not worker.leaving:
            worker.leaving, worker.deadline = True, now + self.state.limits.grace_s
            self._actions.append(events.Tell(worker.name, messages.Bye()))

    # tasks

    def _release(self, task: Task, worker: Worker, used_s: float) -> None:
        """A worker no longer holds a task; its client is charged for what was used, not for what was guessed."""
        worker.tasks.remove(task.number)
        if client := self.state.clients.get(task.client):
            client.used_s += used_s - task.charged_s
            client.served_s += used_s
        if task.begun:
            self._actions.append(events.Journal("end", task.spec.key))
        task.worker, task.deadline, task.charged_s, task.revoking, task.frames_done = None, None, 0.0, False, 0
        task.state = "queued"

    def _requeue(self, task: Task) -> None:
        task.state, task.slot = "queued", None

    def _dead_letter(self, task: Task, why: str) -> None:
        cure = "Look at the clip alone with the inline pool; run it again once the cause is mended"
        culprit = f"clip task {task.spec.key[:12]} of {task.spec.video}"
        if task.last_end:
            why = f"{why}; the last time {task.last_end}"
        about = {"video": task.spec.video, "stage": task.spec.operator.partition(".")[0]}
        self._actions.append(events.Report("error", f"{task.spec.operator}: dead letter {task.spec.key[:12]}: {why}", about))
        self._end(task, messages.Result(task.spec.key, "dead_letter", 0, "", blame.CLASS, culprit, why, cure, task.last_words))

    def _end(self, task: Task, result: messages.Result, payload: bytes = b"") -> None:
        """End a task for good."""
        state = self.state
        del state.tasks[task.number]
        if result.outcome in ("done", "dead_letter") and task.spec.key in state.machine_deaths:
            del state.machine_deaths[task.spec.key]
            self._actions.append(events.Journal("settled", task.spec.key))
        state.counts[result.outcome] += 1
        if client := state.clients.get(task.client):
            del client.tasks[task.spec.key]
            if not task.silent:
                client.unacked.add(task.spec.key)
                self._actions.append(events.Deliver(task.client, result, payload))

    # time and work

    def _expire(self, now: float) -> None:
        for worker in list(self.state.workers.values()):
            late = [self.state.tasks[i] for i in worker.tasks if _past(self.state.tasks[i].deadline, now)]
            if late and worker.killed_for is None:
                why = "ignored cancellation" if all(t.abandoned for t in late) else "hang"
                self.state.counts["hangs"] += why == "hang"
                self._kill(worker, why)
            elif _past(worker.deadline, now):
                self._kill(worker, "retired" if worker.leaving else "hang")

    def _watch(self, now: float) -> None:
        """A worker with work always has a deadline: where no task is in a phase with one, its first task gets one."""
        for worker in self.state.workers.values():
            tasks = [self.state.tasks[i] for i in worker.tasks]
            if tasks and worker.killed_for is None and all(t.deadline is None for t in tasks):
                tasks[0].deadline = now + self.state.limits.hang_base_s

    def _dispatch(self, now: float) -> None:
        self._fail_hopeless()
        self._start_tests(now)
        if self.state.stopping:
            self._return_work(now)
        else:
            while placement := order.next_placement(self.state, now):
                self._place(placement, now)
            while task := order.to_revoke(self.state, now):
                task.revoking = True
                self._actions.append(events.Tell(str(task.worker), messages.Revoke(task.number)))
        for worker in list(self.state.workers.values()):
            unwanted = worker.tired or (worker.usable and self.state.slots[worker.slot].state != "ok")
            if unwanted and not (worker.tasks or worker.testing or worker.killed_for):
                self._leave(worker, now)

    def _fail_hopeless(self) -> None:
        """End tasks that no device here will ever take."""
        queue = self.state.queue()
        for need in dict.fromkeys((t.spec.kind, t.spec.memory_mb) for t in queue):
            if why := devices.hopeless(self.state, *need):
                error_class, reason, cure = why
                for task in (t for t in queue if (t.spec.kind, t.spec.memory_mb) == need):
                    self._end(task, messages.Result(task.spec.key, "failed", 0, "", error_class, task.spec.operator, reason, cure))

    def _start_tests(self, now: float) -> None:
        """Make sure that a decision that waits for a slot's self-test is made."""
        for task in [t for t in self.state.tasks.values() if t.state == "held"]:
            slot = self.state.slots.get(str(task.slot))
            if self.state.stopping:
                continue
            if slot is None or slot.state != "ok" or devices.broken(slot, task.spec.environment, now):
                task.deaths.pop()  # there will be no test: the next death, on another slot, decides
                self._requeue(task)
                continue
            workers = self.state.workers_of(slot.spec.name)
            if free := next((w for w in workers if w.usable and not w.tasks), None):
                self._test(free, now)
            starts = slot.starts.get(task.spec.environment)
            if not workers and (starts is None or starts.not_before <= now):
                self._start(slot, task.spec.environment, now)

    def _test(self, worker: Worker, now: float) -> None:
        worker.testing, worker.deadline = True, now + self.state.limits.start_s
        self._actions.append(events.Tell(worker.name, messages.SelfTest()))

    def _start(self, slot: Slot, environment: Environment, now: float) -> None:
        self.state.started += 1
        name = f"{slot.spec.name}-{self.state.started}"
        self.state.workers[name] = Worker(name, slot.spec.name, environment, now, deadline=now + self.state.limits.start_s)
        self._actions.append(events.Start(name, slot.spec.name, environment))

    def _place(self, placement: order.Placement, now: float) -> None:
        task, slot, worker = placement.task, placement.slot, placement.worker
        crowd = devices.to_retire(self.state, slot, worker, task)
        for other in crowd:
            self._leave(other, now)
        if crowd:
            return
        if worker is None:
            self._start(slot, task.spec.environment, now)
            return
        task.state, task.worker, task.slot, task.charged_s = "leased", worker.name, slot.spec.name, self.state.estimate_s(task.spec)
        task.entered, task.slot_s = {}, {}
        self.state.fair_s = max(self.state.fair_s, min(c.used_s for c in self.state.clients.values() if c.tasks))
        self.state.clients[task.client].used_s += task.charged_s
        worker.tasks.append(task.number)
        worker.loaded[task.spec.operator] = task.spec.memory_mb
        slot.last_video = task.spec.video
        self._actions.append(events.Tell(worker.name, messages.Assign(task.number), task.payload))

    def _stop(self) -> None:
        self.state.stopping = True

    def _return_work(self, now: float) -> None:
        """While stopping: what waits goes back to its client, which submits it elsewhere; workers leave as they finish."""
        for client, known in self.state.clients.items():
            waiting = [t for t in known.tasks.values() if self.state.tasks[t].state in ("queued", "held")]
            if waiting and len(waiting) == len(known.tasks):
                self._refuse(client, "the pool is stopping", "Submit what is unfinished again")
        for worker in list(self.state.workers.values()):
            if not worker.tasks and not worker.killed_for:
                self._leave(worker, now) if worker.ready else self._kill(worker, "retired")


def _computed_s(task: Task, now: float) -> float:
    return now - task.entered_at if task.state == "computing" else 0.0


def _past(deadline: float | None, now: float) -> bool:
    return deadline is not None and now >= deadline
