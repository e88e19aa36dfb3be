"""Figures as they are printed, and whether they are within their limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A line for people, and whether its target is met; one without a limit always is."""

    text: str
    met: bool = True

    def __str__(self) -> str:
        return f"FIGURE pool, {self.text}{'' if self.met else ' MISSED'}"


def share_at_least(what: str, share: float, limit: float) -> Figure:
    """A share that must not be lower."""
    return Figure(f"{what}: {share:.2%} (limit {limit:.1%} or more)", share >= limit)


def share_at_most(what: str, share: float, limit: float) -> Figure:
    """A share that must not be higher."""
    return Figure(f"{what}: {share:.2%} (limit {limit:.1%})", share <= limit)


def ratio_at_most(what: str, ratio: float, limit: float) -> Figure:
    """A ratio that must not be higher."""
    return Figure(f"{what}: {ratio:.3f} x (limit {limit:.2f} x)", ratio <= limit)
