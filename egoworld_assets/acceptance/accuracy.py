"""How the stages of the synthetic scene stand to its truth, and whether that is what they should reach.

A range is known only of backends whose weights have been run on the scene by those who wrote it: the light networks of profile `laptop`, on
every frame. Of all others the figures are shown beside those that the light networks must reach, and said to be no proof. A network with random
numbers in the place of weights, and all that was made from what it gave, is never judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.execution.identity import backend_of, operator_of, upstream_of
from egoworld_ops.report import ground_truth

if TYPE_CHECKING:
    from egoworld_ops.report.ground_truth import Figure
    from egoworld_ops.settings import Settings
    from egoworld_ops.synthetic import SceneTruth

RANDOM_WEIGHTS = "random_weights_seed"
"""The option by which a backend is given random numbers in the place of weights."""
_KNOWN: Mapping[str, frozenset[str]] = {
    "detections": frozenset({"mediapipe"}),
    "masks": frozenset({"classical"}),
    "hand_pose": frozenset({"mediapipe"}),
    "depth": frozenset({"given"}),
    "object_pose": frozenset({"classical"}),
    "camera": frozenset({"given"}),
    "movement": frozenset({"classical"}),
}
"""The backends of which the range is known, by stage. Those of profile `laptop`, with which `egoworld demo` keeps its limits."""


class Verdict(Enum):
    """What a figure says of a stage."""

    OK = "ok"
    """Within the range that is known of these backends."""
    OUTSIDE = "OUTSIDE"
    """Not within it; or, of backends of which none is known, worse than light networks must be."""
    UNPROVEN = "unproven"
    """As good as light networks must be, of backends of which no range is known: a person should look at the picture."""
    ONLY_SAID = "reported"
    """It has no limit."""
    RANDOM = "RANDOM"
    """It rests on random numbers in the place of weights, and means nothing."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One figure of a stage."""

    stage: str
    figure: Figure
    verdict: Verdict


def is_random(stage: str, settings: Settings) -> bool:
    """Whether the backend of a stage is told to use random numbers in the place of weights."""
    _, options = operator_of(stage, settings)
    return getattr(options, RANDOM_WEIGHTS, None) is not None


def judged(tables: Mapping[str, pa.Table], truth: SceneTruth, settings: Settings) -> Iterator[Judged]:
    """Every figure that the tables of the synthetic scene allow.

    Args:
        tables: each stage's clips one after the other, and `clips`, by table name; a stage that has none could not run.
    """
    every = ground_truth.compare({"clips": tables["clips"]}, truth)
    yield from (Judged("manifest", figure, _verdict(figure, known=True, random=False)) for figure in every)
    for stage in operators.stages():
        if stage in tables:
            beneath = {stage, *upstream_of(stage, settings)}
            known = settings.sample_stride == 1 and all(backend_of(name, settings) in _KNOWN.get(name, ()) for name in beneath)
            random = any(is_random(name, settings) for name in beneath)
            for figure in ground_truth.compare({stage: tables[stage]}, truth):
                yield Judged(stage, figure, _verdict(figure, known, random))


def _verdict(figure: Figure, known: bool, random: bool) -> Verdict:
    if random:
        return Verdict.RANDOM
    if figure.limit is None:
        return Verdict.ONLY_SAID
    if not figure.ok:
        return Verdict.OUTSIDE
    return Verdict.OK if known else Verdict.UNPROVEN
