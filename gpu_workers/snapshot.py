"""What the broker is doing, as plain values for `status`, and as a table for a person."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gpu_workers.broker import accounting
from gpu_workers.broker.machine import Broker
from gpu_workers.broker.model import CAUSES, BrokerState, Worker


def of(broker: Broker, now: float) -> dict[str, Any]:
    """Slots, workers, clients, queue and counts.

    Args:
        now: of the broker's clock, s.
    """
    state = broker.state
    served_s = sum(c.served_s for c in state.clients.values()) or 1.0
    return {
        "stopping": state.stopping,
        "window": state.window(),
        "queue": dict(Counter(t.spec.operator for t in state.queue())),
        "in_flight": sum(len(w.tasks) for w in state.workers.values()),
        "counts": dict(state.counts),
        "seconds_per_frame": {name: round(rate, 6) for name, rate in state.seconds_per_frame.items()},
        "slots": [
            {
                "name": name,
                "kind": slot.spec.kind,
                "state": slot.state,
                "reason": slot.reason,
                "capacity_mb": slot.spec.capacity_mb,
                "now": accounting.cause(state, slot),
                "spent_s": {cause: round(slot.spent_s[cause], 3) for cause in CAUSES},
                "duty_cycle": round(_duty(slot.spent_s), 4),
            }
            for name, slot in state.slots.items()
        ],
        "workers": [_worker(state, worker, now) for worker in state.workers.values()],
        "clients": [
            {
                "client": key,
                "name": client.name,
                "pid": client.pid,
                "waiting": sum(state.tasks[i].worker is None for i in client.tasks.values()),
                "running": sum(state.tasks[i].worker is not None for i in client.tasks.values()),
                "not_taken": len(client.unacked),
                "used_s": round(client.served_s, 3),
                "share": round(client.served_s / served_s, 4),
            }
            for key, client in state.clients.items()
        ],
    }


def _duty(spent_s: dict[Any, float]) -> float:
    """Share of the time with clients in which a slot computed."""
    wanted = sum(s for cause, s in spent_s.items() if cause != "idle")
    return spent_s["computing"] / wanted if wanted else 0.0


def _worker(state: BrokerState, worker: Worker, now: float) -> dict[str, Any]:
    return {
        "name": worker.name,
        "slot": worker.slot,
        "pid": worker.pid,
        "python": worker.environment.python,
        "state": "leaving" if worker.leaving else "testing" if worker.testing else "ready" if worker.ready else "starting",
        "memory_mb": worker.memory_mb,
        "loaded": sorted(worker.loaded),
        "tasks": [
            {
                "key": task.spec.key,
                "operator": task.spec.operator,
                "video": task.spec.video,
                "client": task.client,
                "phase": task.state,
                "for_s": round(now - task.entered_at, 1) if task.begun else 0.0,
                "frames": task.spec.frames,
                "frames_done": task.frames_done,
                "alone": task.alone,
            }
            for task in (state.tasks[i] for i in worker.tasks)
        ],
    }


def table(said: dict[str, Any]) -> str:
    """A snapshot as text for a person."""
    counts = said["counts"]
    ended = ", ".join(f"{counts.get(k, 0)} {k.replace('_', ' ')}" for k in ("done", "failed", "dead_letter", "cancelled"))
    troubles = ", ".join(f"{counts[k]} {k}" for k in ("worker deaths", "hangs", "sick slots", "bad frames") if counts.get(k))
    queue = ", ".join(f"{n} {operator}" for operator, n in said["queue"].items()) or "empty"
    lines = [
        f"broker {said['pid']} in {said['folder']}, up {said['uptime_s']:.0f} s{', stopping' if said['stopping'] else ''}",
        f"ended    {ended}{'; ' + troubles if troubles else ''}",
        f"queue    {queue}; {said['in_flight']} in flight; a client may have {said['window']} outstanding",
        *([f"journal  {said['journal']}"] if said["journal"] != "ok" else []),
        "",
        *_rows(
            ("slot", "state", "duty", "now", "computing", "starved", "blocked", "gpu"), [_slot_row(s, said["gpus"]) for s in said["slots"]]
        ),
        "",
        *_rows(
            ("worker", "pid", "memory", "phase", "for", "frames", "operator", "video"),
            [r for w in said["workers"] for r in _worker_rows(w)],
        ),
        "",
        *_rows(("client", "name", "pid", "waiting", "running", "not taken", "share"), [_client_row(c) for c in said["clients"]]),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _slot_row(slot: dict[str, Any], gpus: dict[str, Any]) -> tuple[str, ...]:
    spent, gpu = slot["spent_s"], gpus.get(slot["name"], {})
    shown = f"{gpu['utilisation']:.0%} {gpu['memory_used_mb']} MB {gpu['temperature_c']} C" if gpu.get("utilisation") is not None else ""
    state = slot["state"] + (f": {slot['reason']}" if slot["reason"] else "")
    starved = spent["starved_decode"] + spent["starved_clips"] + spent["starting"]
    seconds = (f"{s:.0f} s" for s in (spent["computing"], starved, spent["blocked"]))
    return (slot["name"], state, f"{slot['duty_cycle']:.1%}", slot["now"], *seconds, shown)


def _worker_rows(worker: dict[str, Any]) -> list[tuple[str, ...]]:
    who = (worker["name"], str(worker["pid"]), f"{worker['memory_mb']} MB")
    if not worker["tasks"]:
        return [(*who, worker["state"], "", "", "", "")]
    return [
        (*who, t["phase"], f"{t['for_s']:.0f} s", f"{t['frames_done']}/{t['frames']}", t["operator"], t["video"]) for t in worker["tasks"]
    ]


def _client_row(client: dict[str, Any]) -> tuple[str, ...]:
    numbers = (str(client[k]) for k in ("pid", "waiting", "running", "not_taken"))
    return (client["client"], client["name"], *numbers, f"{client['share']:.0%}")


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
