"""The ledger on SQLite and on a real Postgres."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from egoworld_ops.ledger import FILE_NAME
from egoworld_ops.ledger.store import Ledger
from tests import postgres
from tests.egoworld_ops.ledger.clips import opened, run_sql


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("no Postgres: install the system's, or the package pgserver")
    with postgres.server(programs) as url:
        yield url


_numbers = count()


@pytest.fixture
def postgres_url(server: str) -> str:
    name = f"ledger_{next(_numbers)}"
    run_sql(server, f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else f"sqlite:///{tmp_path / FILE_NAME}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with opened(url) as ledger:
        yield ledger
