"""A short run of each scenario of `make chaos` that measures no time, always with the same seed."""

from __future__ import annotations

import pytest

from tests.gpu_workers.chaos.scenarios import SCENARIOS

SEED = 4


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if not scenario.in_time])
def test_the_pool_bears(name: str) -> None:
    print(f"FIGURE {name}: {SCENARIOS[name].run(SCENARIOS[name].small, SEED)}")
