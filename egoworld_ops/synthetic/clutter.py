"""Things on the table that nobody touches: other people's boxes, some as tall as a bottle, and a twin of the object itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from egoworld_ops.synthetic.config import SceneConfig
from egoworld_ops.synthetic.rigid import Array, rigid

_PLACES_M = ((-0.24, 0.30), (0.22, 0.34), (-0.02, 0.40), (0.30, 0.16), (-0.30, 0.12))
"""Where the centres of things stand in the frame of the person who acts, x and y; all out of the way of hands and object."""
_FOOT_M = (0.035, 0.09)
_HEIGHT_M = (0.05, 0.24)
_TWIN_M = (0.20, 0.30)


@dataclass(frozen=True, slots=True)
class Thing:
    """A cuboid that stays where it is: `T_person_thing` (4, 4), its lengths in metres, and the seed of the print
    on its faces, None where it is only striped."""

    T_person_thing: Array
    dimensions_m: tuple[float, float, float]
    print_seed: int | None


@lru_cache(maxsize=8)
def things(config: SceneConfig, shot: int) -> tuple[Thing, ...]:
    """The first `config.clutter` things of a shot: the object's twin, then others of random size, print and turn."""
    rng = np.random.default_rng([config.seed, 8, shot])
    length, width, height = config.dimensions_m
    found = [Thing(rigid((*_TWIN_M, height / 2), (rng.uniform(-40, 40), 0, 0)), (length, width, height), config.seed)]
    for x_m, y_m in _PLACES_M:
        size = (float(rng.uniform(*_FOOT_M)), float(rng.uniform(*_FOOT_M)), float(rng.uniform(*_HEIGHT_M)))
        place = (x_m + float(rng.uniform(-0.02, 0.02)), y_m + float(rng.uniform(-0.02, 0.02)), size[2] / 2)
        found.append(Thing(rigid(place, (float(rng.uniform(0, 90)), 0, 0)), size, None))
    return tuple(found[: config.clutter])
