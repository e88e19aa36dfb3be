"""A short run of each scenario of `make chaos` that measures time, always with the same seed: alone on the machine."""

from __future__ import annotations

import pytest

from tests.gpu_workers.chaos.scenarios import SCENARIOS
from tests.gpu_workers.test_chaos import SEED


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.in_time])
def test_the_pool_bears_in_time(name: str) -> None:
    print(f"FIGURE {name}: {SCENARIOS[name].run(SCENARIOS[name].small, SEED)}")
