"""A short run of each scenario of `make chaos`. Where one fails, the seed that replays it is in its output."""

from __future__ import annotations

import random

import pytest

from tests.gpu_workers.chaos.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_pool_bears(name: str) -> None:
    seed = random.randrange(1 << 31)
    print(f"replay with: python -m tests.gpu_workers.chaos {name} --small --seed {seed}")
    print(f"FIGURE {name}: {SCENARIOS[name].run(SCENARIOS[name].small, seed)}")
