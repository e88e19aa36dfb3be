"""Rules that always hold, checked from outside the broker: from its actions, and from what really happened to the workers.

Each rule has a name, which a `Violation` gives in brackets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from gpu_workers.broker import events
from gpu_workers.broker.events import Action
from gpu_workers.broker.model import Slot, Task
from gpu_workers.broker.order import Placement
from gpu_workers.wire import messages
from tests.gpu_workers.world import Clip, Person, Process

if TYPE_CHECKING:
    from tests.gpu_workers.simulation import Simulation

EXPECTED = ("sick device", "stale code", "retired")
OWN = ("exit", "hang")
MOST_REVOCATIONS = 20


class Violation(AssertionError):
    """A broken rule; names the seed, the time and the rule."""

    def __init__(self, seed: int, now: float, rule: str, text: str) -> None:
        super().__init__(seed, now, rule, text)
        self.seed, self.now, self.rule, self.text = seed, now, rule, text

    def __str__(self) -> str:
        return (
            f"seed {self.seed} at {self.now:.3f} s: [{self.rule}] {self.text}; watch it: python -m tests.gpu_workers.simulation {self.seed}"
        )


class Checks:
    """Steps the broker and checks all its actions."""

    def __init__(self, sim: Simulation) -> None:
        self.sim, self.broker, self.limits = sim, sim.broker, sim.plan.limits
        self.clips = {clip.spec.key: clip for client in sim.plan.clients for clip in client.clips}
        self._begun_keys: set[str] = set()
        self._slots: dict[str, tuple[Slot, float]] = {}
        self._computing_s: dict[str, float] = {}
        self._start_failures: dict[tuple[str, object], int] = {}
        self._may_be_sick: set[str] = set()
        self._then = 0.0
        self._last_left_s = 0.0
        place = self.broker._place

        def placing(placement: Placement, now: float) -> None:
            self._in_order(placement, now)
            place(placement, now)

        self.broker._place = placing  # type: ignore[method-assign]

    def fail(self, rule: str, text: str) -> NoReturn:
        """Report a broken rule."""
        raise Violation(self.sim.seed, self.sim.now, rule, text)

    def expect(self, event: events.Event, now: float) -> Callable[[], None]:
        """Record an event in the world's own books, before the broker sees it; returns a check of which tasks the broker blames for it."""
        self._count_time(now)
        return self._expect(event)

    def after(self, actions: list[Action], now: float) -> None:
        """Check the broker's actions."""
        self._slots_now(now)
        for action in actions:
            self._acted(action)
        self._state_holds(now)

    # before the step: what the event means in the world

    def _count_time(self, now: float) -> None:
        if now > self._then:
            for slot in {p.slot for p in self.sim.processes.values() if "computing" in p.told.values()}:
                self._computing_s[slot] = self._computing_s.get(slot, 0.0) + now - self._then
            self._then = now

    def _expect(self, event: events.Event) -> Callable[[], None]:
        if isinstance(event, events.WorkerSaid):
            self._heard(self.sim.processes[event.worker], event.message)
        elif isinstance(event, events.WorkerDied):
            return self._expect_blame(self.sim.processes[event.worker], event.cause)
        elif isinstance(event, events.SlotSick):
            self._may_be_sick.add(event.slot)
        elif isinstance(event, events.ClientJoined):
            person = self.sim.people[event.client]
            person.told_window = person.granted = self.broker.state.window()
            person.used_s = self.broker.state.fair_s
        elif isinstance(event, events.Submitted):
            person, clip = self.sim.people[event.client], self.clips[event.spec.key]
            if not self.broker.state.clients[event.client].tasks:
                person.used_s = max(person.used_s, self.broker.state.fair_s)
            if len(person.at_broker) < person.granted:
                person.at_broker.add(event.spec.key)
                clip.submitted = True
                clip.host_alone = event.spec.key in self.sim.plan.machine_deaths
                clip.must_be_alone = clip.host_alone
        elif isinstance(event, events.Acked):
            self.sim.people[event.client].at_broker.discard(event.key)
        elif isinstance(event, events.CancelWanted):
            self._unwant(self.clips[event.key])
        elif isinstance(event, events.ClientLeft):
            for clip in self.sim.people[event.client].clips.values():
                self._unwant(clip)
            self._last_left_s = self.sim.now
        return lambda: None

    def _unwant(self, clip: Clip) -> None:
        if clip.unwanted_since is None and clip.submitted and clip.result is None:
            clip.unwanted_since = self.sim.now

    def _heard(self, process: Process, message: object) -> None:
        if process.killed:
            return
        if isinstance(message, messages.Ready):
            process.told_ready = True
            self._start_failures.pop((process.slot, process.environment), None)
        elif isinstance(message, messages.Tested):
            process.testing = False
            if not message.ok:
                self._may_be_sick.add(process.slot)
        elif isinstance(message, messages.Entered):
            process.told[message.id] = message.phase
            if message.phase == "computing":
                process.computing_since[message.id] = self.sim.now
        elif isinstance(message, messages.Finished | messages.Broke | messages.Revoked):
            self._charge(process, message.id, None if isinstance(message, messages.Revoked) else message.seconds)
            del process.told[message.id]

    def _charge(self, process: Process, number: int, used_s: float | None) -> None:
        """A client has used a device: as long as the worker says, or as long as it was seen to compute."""
        since = process.computing_since.pop(number, self.sim.now)
        self.sim.people[self.broker.state.tasks[number].client].used_s += self.sim.now - since if used_s is None else used_s

    def _expect_blame(self, process: Process, cause: str) -> Callable[[], None]:
        """Work out from the tasks that had really begun which of them a death counts against, and check that the broker agrees."""
        cause = process.killed or cause
        told = [number for number, phase in process.told.items() if phase != "leased"]
        if not process.killed and not process.leaving:
            truly = [job.id for job in process.jobs.values() if job.phase != "waiting"]
            if told != truly:
                self.fail("messages arrive before deaths", f"{process.name} had begun {truly}, the broker was told {told}")
        for number in process.told:
            self._charge(process, number, None)
        tasks = [self.broker.state.tasks[number] for number in process.told]
        begun = [self.broker.state.tasks[number] for number in told]
        before = [(task, len(task.deaths), task.memory_deaths, task.unexplained_deaths) for task in tasks]
        expected = process.leaving or cause in EXPECTED or self.broker.state.slots[process.slot].state == "sick"
        if not expected:
            if not process.told_ready:
                self.sim.seen["start failures"] += 1
                key = (process.slot, process.environment)
                self._start_failures[key] = self._start_failures.get(key, 0) + 1
            if process.testing and cause in OWN:
                self._may_be_sick.add(process.slot)
            self._enter(begun, cause, process.slot)
        sole = begun[0] if len(begun) == 1 and not expected else None
        process.told.clear()

        def check() -> None:
            for task, deaths, memory, kills in before:
                want = (
                    deaths + (task is sole and cause in OWN),
                    memory + (task is sole and cause == "memory"),
                    kills + (task is sole and cause == "sigkill"),
                )
                got = (len(task.deaths), task.memory_deaths, task.unexplained_deaths)
                if task is sole and want[0] == self.limits.deaths and got[0] == want[0] - 1 and not self._testable(process):
                    clip = self.clips[task.spec.key]
                    clip.sole.pop()  # it can no longer be known whether the device was the cause
                    clip.exempt = True
                    continue
                if got != want:
                    names = [t.spec.key for t in begun]
                    self.fail(
                        "deaths count only where there is no doubt", f"{task.spec.key}: {got}, not {want}; {cause}, begun were {names}"
                    )
                if task.number in self.broker.state.tasks and len(task.deaths) >= self.limits.deaths and task.state != "held":
                    self.fail("two deaths alone are a dead letter", f"{task.spec.key} is {task.state} after {task.deaths}")

        return check

    def _testable(self, process: Process) -> bool:
        slot = self.broker.state.slots.get(process.slot)
        failures = self._start_failures.get((process.slot, process.environment), 0)
        return slot is not None and slot.state == "ok" and failures < self.limits.start_failures

    def _enter(self, begun: list[Task], cause: str, slot: str) -> None:
        for task in begun:
            clip = self.clips[task.spec.key]
            if cause in OWN:
                clip.involved += 1
                clip.must_be_alone = True
            elif cause == "memory":
                clip.must_be_alone = True
            elif cause == "sigkill":
                clip.shot += 1
                clip.must_be_alone |= clip.shot >= self.limits.memory_deaths
            if len(begun) == 1:
                if cause in OWN:
                    clip.sole.append(slot)
                clip.memory += cause == "memory"
                clip.kills += cause == "sigkill"

    # during the step: each action

    def _slots_now(self, now: float) -> None:
        slots = self.broker.state.slots
        for name, slot in slots.items():
            if name not in self._slots:
                self._slots[name] = (slot, now)
            if slot.state == "sick":
                if name not in self._may_be_sick:
                    self.fail("only a sick device is taken out", f"{name}: {slot.reason}")
                for clip in self.clips.values():
                    if name in clip.sole:
                        clip.sole = [other for other in clip.sole if other != name]
                        clip.exempt = True
        for name in [name for name in self._slots if name not in slots]:
            self._time_adds_up(name, now)
            del self._slots[name]

    def _time_adds_up(self, name: str, now: float) -> None:
        slot, since = self._slots[name]
        spent_s = sum(slot.spent_s.values())
        if abs(spent_s - (now - since)) > 1e-6:
            self.fail("time adds up", f"{name} lived {now - since} s and accounts for {spent_s} s")
        if abs(slot.spent_s["computing"] - self._computing_s.pop(name, 0.0)) > 1e-6:
            self.fail("time adds up", f"{name} accounts for another time of computing than its workers told")

    def _acted(self, action: Action) -> None:
        if isinstance(action, events.Deliver):
            self._delivered(action)
        elif isinstance(action, events.Tell):
            self._told(self.sim.processes[action.worker], action)
        elif isinstance(action, events.Kill):
            self._killed(self.sim.processes[action.worker], action.why)
        elif isinstance(action, events.Journal):
            self._journalled(action)
        elif isinstance(action, events.Refuse):
            person = self.sim.people[action.client]
            if not self.sim.stopping and not person.greedy:
                self.fail("who keeps to its window is not refused", f"{action.client}: {action.reason}")
            if person.refused:
                self.fail("refused once", action.client)
            self.sim.seen["refused"] += 1
        elif isinstance(action, events.Resize):
            person = self.sim.people[action.client]
            person.told_window, person.granted = action.window, max(person.granted, action.window)

    def _delivered(self, action: events.Deliver) -> None:
        result, clip, person = action.result, self.clips[action.result.key], self.sim.people[action.client]
        if person.left:
            self.fail("nothing goes to clients that left", f"{result.key} to {action.client}")
        if clip.client != action.client or not clip.submitted:
            self.fail("results go to who asked", f"{result.key} to {action.client}")
        if clip.result is not None:
            self.fail("nothing doubled", f"{result.key} ended {clip.result.outcome}, then {result.outcome}")
        clip.result = result
        self.sim.seen[result.outcome] += 1
        client, tasks = self.broker.state.clients[action.client], self.broker.state.tasks
        owed_s = person.used_s + sum(tasks[number].charged_s for number in client.tasks.values())
        if abs(client.used_s - owed_s) > 1e-6:
            self.fail("clients pay for what they use", f"{action.client} was charged {client.used_s} s, not {owed_s} s")
        if result.outcome == "done":
            if clip.nature != "good":
                self.fail("outcomes are true", f"{result.key} is done but {clip.nature}")
        elif result.outcome == "cancelled":
            if clip.unwanted_since is None:
                self.fail("outcomes are true", f"{result.key} was cancelled by nobody")
        elif result.outcome == "failed":
            self._failed(clip, result)
        else:
            self._dead_lettered(clip, result)

    def _failed(self, clip: Clip, result: messages.Result) -> None:
        self.sim.seen[result.error_class] += 1
        if result.error_class == "CorruptVideo":
            true = clip.nature == "raises"
        elif result.error_class == "StaleCode":
            true = clip.spec.environment in self.sim.plan.stale
        elif result.error_class == "WorkersBroken":
            failures = [n for (_, environment), n in self._start_failures.items() if environment == clip.spec.environment]
            true = max(failures, default=0) >= self.limits.start_failures
        else:
            slots = [s for s in self.broker.state.slots.values() if s.state != "sick" and s.spec.kind == clip.spec.kind]
            true = result.error_class == "NoDevice" and not any(
                not s.spec.capacity_mb or s.spec.capacity_mb >= clip.spec.memory_mb for s in slots
            )
        if not true:
            self.fail("outcomes are true", f"{result.key} ({clip.nature}) failed: {result.error_class}, {result.reason}")

    def _dead_lettered(self, clip: Clip, result: messages.Result) -> None:
        guilty = len(clip.sole) >= self.limits.deaths
        unlucky = clip.memory >= self.limits.memory_deaths or clip.kills >= self.limits.unexplained_deaths
        machine = sum(self.sim.plan.machine_deaths.get(result.key, [])) >= self.limits.deaths
        if not (guilty or unlucky or machine):
            self.fail(
                "dead letters have reached a limit", f"{result.key}: {result.reason}; deaths alone {clip.sole}, {clip.memory}, {clip.kills}"
            )
        if guilty and not (unlucky or machine):
            innocent = clip.nature in ("good", "raises") and not self.sim.plan.freezes
            if innocent:
                self.fail("innocent clips are no dead letters", f"{result.key} ({clip.nature}): {result.reason}")
        if clip.involved > 3 and not (clip.exempt or self.sim.plan.scales or self.sim.plan.start_death_p):
            self.fail("poison is found within 3 deaths", f"{result.key} was begun at {clip.involved} deaths")

    def _told(self, process: Process, action: events.Tell) -> None:
        message = action.message
        if process.killed or (process.leaving and not isinstance(message, messages.Bye)):
            self.fail("the dead are told nothing", f"{process.name}: {message}")
        if isinstance(message, messages.Assign):
            self._assigned(process, self.clips[action.payload.decode()], message.id)
        elif isinstance(message, messages.Bye):
            process.leaving = True
            if process.told:
                self.fail("workers with work are not sent away", f"{process.name} holds {process.told}")
        elif isinstance(message, messages.Revoke):
            clip = self.clips[self.broker.state.tasks[message.id].spec.key]
            clip.revoked += 1
            self.sim.seen["revoked"] += 1
            if clip.revoked > MOST_REVOCATIONS:
                self.fail("terminates", f"{clip.spec.key} was revoked {clip.revoked} times")
        elif isinstance(message, messages.SelfTest):
            self.sim.seen["self-tests"] += 1
            process.testing = True
            if process.told:
                self.fail("a self-test has the worker for itself", f"{process.name} holds {process.told}")

    def _assigned(self, process: Process, clip: Clip, number: int) -> None:
        others = [p for p in self.sim.processes.values() if p is not process]
        if any(p.told and p.slot == process.slot for p in others):
            self.fail("one worker of a slot works at a time", f"{clip.spec.key} to {process.name}")
        if any(number in p.told or (p.alive and number in p.jobs) for p in others) or number in process.told:
            self.fail("a task is in one worker", f"{clip.spec.key} to {process.name}")
        with_it = [self._clip(i) for i in process.told]
        if with_it and (clip.must_be_alone or any(c.must_be_alone for c in with_it)):
            self.fail("suspects are alone in their worker", f"{clip.spec.key} to {process.name} with {[c.spec.key for c in with_it]}")
        on_host = [self._clip(i) for p in self.sim.processes.values() for i in p.told]
        if on_host and (clip.host_alone or any(c.host_alone for c in on_host)):
            self.fail("who broke the machine is alone on it", f"{clip.spec.key} with {[c.spec.key for c in on_host]}")
        if process.environment != clip.spec.environment or self.broker.state.slots[process.slot].spec.kind != clip.spec.kind:
            self.fail("tasks go where they can run", f"{clip.spec.key} to {process.name}")
        process.told[number] = "leased"
        process.loaded[clip.spec.operator] = clip.spec.memory_mb
        capacity_mb = self.broker.state.slots[process.slot].spec.capacity_mb
        there = [p for p in self.sim.processes.values() if p.slot == process.slot and p.name in self.broker.state.workers]
        loaded_mb = sum(sum(p.loaded.values()) for p in there)
        if capacity_mb and loaded_mb > capacity_mb:
            self.fail("memory", f"{process.slot} has {capacity_mb} MB, {loaded_mb} MB are loaded there")
        if len(process.told) > self.limits.credits:
            self.fail("credits", f"{process.name} holds {len(process.told)} tasks")

    def _clip(self, number: int) -> Clip:
        return self.clips[self.broker.state.tasks[number].spec.key]

    def _killed(self, process: Process, why: str) -> None:
        if process.killed:
            self.fail("killed once", f"{process.name}: {process.killed}, then {why}")
        self.sim.seen[f"killed: {why}"] += 1
        process.killed = why
        jobs = list(process.jobs.values())
        if why == "hang":
            true = process.frozen or any(job.clip.nature.startswith("hangs") for job in jobs)
        elif why == "ignored cancellation":
            true = any(self._clip(i).unwanted_since is not None for i in process.told)
        elif why == "retired":
            true = not process.told
        else:
            true = why in ("memory", "sick device", "stale code")
        if not true:
            self.fail("workers are killed for a reason", f"{process.name}: {why}; it has {[(j.clip.spec.key, j.phase) for j in jobs]}")

    def _journalled(self, action: events.Journal) -> None:
        if action.what == "settled":
            return
        if (action.what == "begin") == (action.key in self._begun_keys):
            self.fail("the journal is paired", f"{action.what} {action.key}")
        self._begun_keys ^= {action.key}

    def _in_order(self, placement: Placement, now: float) -> None:
        """The task that is placed is the next in order: suspects, then priority, then the client that has used least."""
        state, slot, chosen = self.broker.state, placement.slot, placement.task
        queue = [task for task in state.tasks.values() if task.state == "queued"]
        fitting = [task for task in queue if self._may_run(task, slot, now)]
        if chosen not in fitting:
            self.fail("tasks go where they can run", f"{chosen.spec.key} on {slot.spec.name}")
        if any(task.host_alone for task in queue):
            fitting = [task for task in fitting if task.host_alone]
        before = [task for task in fitting if self._rank(task) < self._rank(chosen)]
        held = len(state.on_slot(slot.spec.name))
        emptying = [s for s in state.slots.values() if s is not slot and held and len(state.on_slot(s.spec.name)) == held]
        if len(before) > len(emptying):  # for each slot that is being drained, one task may wait
            ahead = [(task.spec.key, self._rank(task)) for task in before]
            self.fail("no client starves", f"{chosen.spec.key} {self._rank(chosen)} was placed on {slot.spec.name} before {ahead}")

    def _rank(self, task: Task) -> tuple[bool, int, float]:
        return (not task.alone, -task.spec.priority, round(self.broker.state.clients[task.client].used_s, 6))

    def _may_run(self, task: Task, slot: Slot, now: float) -> bool:
        def able(slot: Slot) -> bool:
            starts = slot.starts.get(task.spec.environment)
            return (
                slot.state == "ok"
                and slot.spec.kind == task.spec.kind
                and (not slot.spec.capacity_mb or task.spec.memory_mb <= slot.spec.capacity_mb)
                and (starts is None or starts.not_before <= now)
            )

        if not able(slot):
            return False
        return task.last_death != slot.spec.name or not any(able(s) for s in self.broker.state.slots.values() if s is not slot)

    # after the step: rules that hold between two events

    def _state_holds(self, now: float) -> None:
        state = self.broker.state
        for name, worker in state.workers.items():
            told = self.sim.processes[name].told if name in self.sim.processes else {}
            if worker.tasks != list(told):
                self.fail("the broker knows who holds what", f"{name}: {worker.tasks}, not {told}")
            if told and not worker.killed_for and not any(state.tasks[i].deadline for i in told):
                self.fail("workers with work are watched", f"{name} has no deadline with {told}")
            for since in () if worker.killed_for else (self._clip(i).unwanted_since for i in told):
                if since is not None and now > since + self.limits.grace_s + 1e-6:
                    self.fail("what nobody wants is given up in time", f"{name} holds {told}, one unwanted since {since}")
        for name, client in state.clients.items():
            person = self.sim.people[name]
            if client.outstanding > person.granted:
                self.fail("windows", f"{name} has {client.outstanding} outstanding, may have {person.granted}")
            if person.told_window != state.window():
                self.fail("clients know their windows", f"{name} was told {person.told_window}, it is {state.window()}")
            if client.outstanding != len(person.at_broker):
                self.fail("nothing lost", f"{name} has {client.outstanding} outstanding, not {sorted(person.at_broker)}")
        if self.sim.deadline is not None and self.sim.deadline <= now:
            self.fail("deadlines are ahead", f"one was due at {self.sim.deadline}")
        if {task.spec.key for task in state.tasks.values() if task.begun} != self._begun_keys:
            self.fail("the journal is paired", f"{self._begun_keys} are open")
        if not self.sim.stopping:
            self._work_conserving(now)

    def _work_conserving(self, now: float) -> None:
        state = self.broker.state
        queue = [task for task in state.tasks.values() if task.state == "queued"]
        if not queue or any(task.host_alone for task in state.tasks.values()):
            return
        for slot in state.slots.values():
            workers = state.workers_of(slot.spec.name)
            if slot.state == "ok" and all(w.usable and not w.tasks for w in workers):
                for task in queue:
                    if self._may_run(task, slot, now):
                        self.fail("no slot stands idle beside work", f"{task.spec.key} could run on {slot.spec.name}")

    # at the end

    def at_rest(self) -> None:
        """Rules for the end, when no further event is due."""
        for person in self.sim.people.values():
            self._everything_ended(person)
        if not self.broker.idle:
            self.fail("ends idle", f"tasks {list(self.broker.state.tasks)}, clients {list(self.broker.state.clients)}")
        self.sim.seen["rested"] += 1

    def _everything_ended(self, person: Person) -> None:
        lost = [key for key in sorted(person.open) if self.clips[key].result is None]
        if not person.gone:
            self.fail("nothing lost", f"{person.name} waits for ever for {lost}, and has {len(person.todo)} left to submit")

    def _in_time(self) -> None:
        """The simulation ends within the time of all tasks one after another, with all mishaps between."""
        plan, seen, clips = self.sim.plan, self.sim.seen, self.clips.values()
        most_s = (
            1.0
            + max(clip.decode_s + clip.compute_s + clip.spec.est_s for clip in clips)
            + plan.sending_s
            + plan.kill_s
            + 9 * plan.latency_s
        )
        slowest_frame_s = max(clip.compute_s / clip.spec.frames for clip in clips)
        learned_s = self.limits.hang_factor * slowest_frame_s * max(clip.spec.frames for clip in clips)
        hang_s = self.limits.hang_base_s + max(learned_s, self.limits.unlearned_factor * most_s)
        bound_s = (
            plan.last_mishap_s()
            + sum(most_s + client.read_s for client in plan.clients for _ in client.clips)
            + self.broker.state.started * (most_s + self.limits.grace_s)
            + seen["killed: hang"] * hang_s
            + seen["start failures"] * self.limits.cooldown_s
        )
        if self._last_left_s > bound_s:
            self.fail("ends in time", f"at {self._last_left_s} s, not by {bound_s} s")

    def at_end(self) -> None:
        """The broker was told to stop."""
        state = self.broker.state
        for person in self.sim.people.values():
            self._everything_ended(person)
        self._in_time()
        if not self.broker.stopped or not self.broker.idle or self.sim.processes:
            self.fail("ends stopped", f"tasks {list(state.tasks)}, clients {list(state.clients)}, processes {list(self.sim.processes)}")
        if self._begun_keys:
            self.fail("the journal is paired", f"{self._begun_keys} are open")
        for name in list(self._slots):
            self._time_adds_up(name, self._then)
        if state.tasks or any(slot.state == "draining" for slot in state.slots.values()):
            self.fail("ends stopped", f"draining {list(state.slots)}")
