"""When an alert is due at a receiver: once, again when it has grown and some time has passed, and now and then while it is still on.

What was sent is remembered by receiver, so that one that is down gets it later and the others do not get it twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong, or many of a kind.

    Args:
        key: the same for as long as it is the same thing.
        level: how much of it there is; it has grown where that is larger.
        title, said: what is wrong, one line each.
        action: what a person can do.
        severity: `critical` or `warning`.
        repeats: whether it is said again while it is on; false for what has happened and is over.
        hides: beginnings of keys of which nobody can tell, while this is on, whether they are.
    """

    key: str
    level: float
    title: str
    said: str
    action: str
    severity: str = "warning"
    repeats: bool = True
    hides: tuple[str, ...] = ()


@dataclass(slots=True)
class Sent:
    """What was sent to one receiver: by key the level and the time, seconds since the epoch."""

    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def due(self, alerts: Sequence[Alert], now_s: float, quiet_s: float, again_s: float) -> list[Alert]:
        """Those that are to be sent; forgets those that are over, so that they are news when they come back.

        So what is remembered is no more than what is on, or hidden by what is.
        """
        on, hidden = {alert.key for alert in alerts}, tuple(start for alert in alerts for start in alert.hides)
        self.known = {key: said for key, said in self.known.items() if key in on or key.startswith(hidden)}
        return [alert for alert in alerts if self._is_due(alert, now_s, quiet_s, again_s)]

    def _is_due(self, alert: Alert, now_s: float, quiet_s: float, again_s: float) -> bool:
        if alert.key not in self.known:
            return True
        level, at_s = self.known[alert.key]
        since_s = now_s - at_s
        return (alert.level > level and since_s >= quiet_s) or (alert.repeats and since_s >= again_s)

    def took(self, alert: Alert, now_s: float) -> None:
        """The receiver has it."""
        self.known[alert.key] = (alert.level, now_s)


def remembered(text: str | None) -> dict[str, Sent]:
    """What was sent, by receiver, as `to_text` wrote it; nothing where that makes no sense."""
    try:
        said = json.loads(text or "{}")
        return {str(to): Sent({str(k): (float(level), float(at)) for k, (level, at) in known.items()}) for to, known in said.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def to_text(sent: Mapping[str, Sent]) -> str:
    """As `remembered` reads it."""
    return json.dumps({to: of.known for to, of in sent.items()}, sort_keys=True)
