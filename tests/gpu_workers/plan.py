"""The events of a simulation, drawn from its seed: the devices, the clients and their clips, and the mishaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from gpu_workers.broker.model import Environment, Limits, SlotSpec, Spec
from tests.gpu_workers.world import Clip, Nature

NATURES: tuple[Nature, ...] = ("raises", "kills decoding", "kills computing", "hangs decoding", "hangs computing")
OPERATORS = {"hands": 1000, "masks": 3000, "poses": 6000}
"""Memory that each needs, in MB."""


@dataclass(slots=True)
class ClientPlan:
    """A client and the times of its actions."""

    name: str
    clips: list[Clip]
    joins_s: float
    greedy: bool = False
    pause: tuple[float, float] = (0.0, 0.0)
    read_s: float = 0.02
    leaves_s: float | None = None
    cancels_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """A simulation's seed, spelled out.

    Args:
        start_death_p: chance of a worker to die at its start.
        stubborn_p: chance of a worker not to end when told.
        kill_s: maximum time that a process lives on after it was killed.
        latency_s: maximum latency of a message.
        sending_s: maximum time that a worker takes to send a result.
        broken: environments whose workers never start.
        stale: environments whose code changes, and when.
        sick: broken slots, and since when.
        kills, memory_kills, freezes, fat: times at which some worker is killed, killed for memory, stopped, or grows.
    """

    limits: Limits
    slots: list[SlotSpec]
    clients: list[ClientPlan]
    start_death_p: float = 0.0
    stubborn_p: float = 0.0
    kill_s: float = 0.02
    latency_s: float = 0.01
    sending_s: float = 0.01
    broken: set[Environment] = field(default_factory=set)
    stale: dict[Environment, float] = field(default_factory=dict)
    sick: dict[str, float] = field(default_factory=dict)
    reported_sick: list[tuple[float, str]] = field(default_factory=list)
    scales: list[tuple[float, list[SlotSpec]]] = field(default_factory=list)
    stop_s: float | None = None
    kills: list[float] = field(default_factory=list)
    memory_kills: list[float] = field(default_factory=list)
    freezes: list[float] = field(default_factory=list)
    fat: list[float] = field(default_factory=list)
    machine_deaths: dict[str, list[bool]] = field(default_factory=dict)

    def last_mishap_s(self) -> float:
        """The time of the last event that is not the consequence of another."""
        clients = [max(client.joins_s + client.pause[1], client.leaves_s or 0.0) for client in self.clients]
        at = [self.stop_s or 0.0, *self.sick.values(), *(time_s for time_s, _ in [*self.reported_sick, *self.scales])]
        return max([*clients, *at, *self.kills, *self.memory_kills, *self.freezes, *self.fat])


def draw(random: Random) -> Plan:
    """A plan."""
    limits = Limits(
        credits=random.choice([1, 2, 2, 2, 2, 2, 2, 3]),
        window_per_slot=random.choice([1, 2, 4]),
        hang_base_s=20.0,
        start_s=10.0,
        grace_s=random.choice([0.3, 2.0]),
        cooldown_s=20.0,
    )
    slots = _slots(random)
    environments = [Environment("python3", "tests.runner", "c1")]
    if random.random() < 0.25:
        environments.append(random.choice([Environment("python3", "tests.runner", "c2"), Environment("other", "tests.runner", "c1")]))
    clients = _clients(random, slots, environments)
    work_s = sum(clip.decode_s + clip.compute_s for client in clients for clip in client.clips)
    plan = Plan(limits, slots, clients)
    _mishaps(random, plan, environments, 2.0 + work_s / len(slots))
    return plan


def _slots(random: Random) -> list[SlotSpec]:
    n, mixed, tight = random.choice([1, 1, 2, 2, 3, 4]), random.random() < 0.25, random.random() < 0.3
    kinds = [random.choice(["cpu", "cuda"]) if mixed else "cpu" for _ in range(n)]
    return [SlotSpec(f"{kind}{i}", kind, random.choice([4000, 8000]) if tight else 0) for i, kind in enumerate(kinds)]


def _clients(random: Random, slots: list[SlotSpec], environments: list[Environment]) -> list[ClientPlan]:
    bad_p = random.choice([0.0, 0.0, 0.1, 0.3, 0.6])
    clients = []
    for c in range(random.choice([1, 2, 2, 3, 4])):
        clips = [_clip(random, f"c{c}", i, slots, environments, bad_p) for i in range(random.randint(1, 8))]
        clients.append(ClientPlan(f"c{c}", clips, random.uniform(0, 2)))
    return clients


def _clip(random: Random, client: str, i: int, slots: list[SlotSpec], environments: list[Environment], bad_p: float) -> Clip:
    operator = random.choice(list(OPERATORS))
    decode_s, compute_s = random.uniform(0.01, 0.5), random.uniform(0.05, 1.5)
    spec = Spec(
        key=f"{client}-{i}",
        operator=operator,
        kind=random.choice(slots).kind if random.random() < 0.98 else "cuda",
        environment=random.choice(environments),
        frames=random.randint(1, 50),
        est_s=compute_s * random.uniform(0.5, 2.0),
        priority=random.choice([0, 0, 0, 1]),
        video=random.choice("uvw"),
        memory_mb=OPERATORS[operator],
    )
    nature = random.choice(NATURES) if random.random() < bad_p else "good"
    return Clip(spec, client, nature, decode_s, compute_s)


def _mishaps(random: Random, plan: Plan, environments: list[Environment], horizon_s: float) -> None:
    def some(p: float, most: int) -> list[float]:
        return sorted(random.uniform(0, horizon_s) for _ in range(random.randint(1, most))) if random.random() < p else []

    def when() -> float:
        return random.uniform(0, horizon_s)

    plan.kills, plan.memory_kills, plan.freezes, plan.fat = some(0.25, random.choice([5, 40])), some(0.15, 8), some(0.1, 2), some(0.1, 4)
    if random.random() < 0.2:
        plan.start_death_p = random.choice([0.1, 0.5])
    if random.random() < 0.1:
        plan.stubborn_p = 0.3
    if random.random() < 0.2:
        plan.kill_s = 3.0
    if random.random() < 0.2:
        plan.latency_s = 0.3
    if random.random() < 0.2:
        plan.sending_s = 1.0
    if random.random() < 0.05:
        plan.broken = {environments[-1]}
    if random.random() < 0.05:
        plan.stale = {environments[-1]: when()}
    if random.random() < 0.2:
        plan.sick = {spec.name: when() for spec in random.sample(plan.slots, min(len(plan.slots), random.choice([1, 1, 1, 2])))}
    if random.random() < 0.08:
        plan.reported_sick = [(when(), random.choice(plan.slots).name)]
    if random.random() < 0.25:
        more = [*plan.slots, *(SlotSpec(f"{spec.name}x", spec.kind, spec.capacity_mb) for spec in plan.slots[:2])]
        plan.scales = [(when(), random.sample(more, random.randint(1, len(more)))) for _ in range(random.randint(1, 3))]
    if random.random() < 0.15:
        plan.stop_s = when()
    if random.random() < 0.1:
        clips = [clip for client in plan.clients for clip in client.clips]
        some_clips = random.sample(clips, min(len(clips), 2))
        plan.machine_deaths = {clip.spec.key: random.choice([[False], [True], [True, False], [True, True]]) for clip in some_clips}
    for client in plan.clients:
        client.greedy = random.random() < 0.03
        client.read_s = random.choice([0.02, 0.02, 0.5])
        if random.random() < 0.1:
            client.pause = (start_s := when(), start_s + random.uniform(1, 30))
        if random.random() < 0.08:
            client.leaves_s = when()
        if random.random() < 0.15:
            client.cancels_s = some(1.0, 4)
