"""A short version of the scenarios of `make chaos-runs`, always with the same seed.

Not of `full-disk`: a ledger on a full disk keeps clips for a lease of a minute after each error, which is too long here.
"""

import pytest

from tests.chaos_runs.scenarios import ALL

SEED = 4


@pytest.mark.parametrize("name", [name for name in ALL if name != "full-disk"])
def test_runs_hold(name: str) -> None:
    print(ALL[name].run(ALL[name].short, SEED))
