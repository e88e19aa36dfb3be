"""A short version of each scenario of `make chaos-runs`, always with the same seed."""

import pytest

from tests.chaos_runs.full_disk import Unmounted
from tests.chaos_runs.scenarios import ALL

SEED = 4


@pytest.mark.parametrize("name", ALL)
def test_runs_hold(name: str) -> None:
    try:
        print(ALL[name].run(ALL[name].short, SEED))
    except Unmounted as error:
        pytest.skip(f"this user may not mount a file system: {error}")
