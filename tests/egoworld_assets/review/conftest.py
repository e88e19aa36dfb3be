"""A lake whose videos can be watched, made once for the files of tests that look at it, with a client and a browser on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from egoworld_ops.lake.lake import Run
from egoworld_ops.settings import Settings
from tests import chromium
from tests.chromium import Browser
from tests.egoworld_assets.review import watched
from tests.egoworld_assets.review.served import asked, served


@pytest.fixture(scope="session")
def watchable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Run, dict[str, str]]:
    return watched.lake_in(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="session")
def lake(watchable: tuple[Settings, Run, dict[str, str]]) -> tuple[Run, dict[str, str]]:
    return watchable[1:]


@pytest.fixture(scope="session")
def client(lake: tuple[Run, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with asked(lake[0].lake.root, tmp_path_factory.mktemp("scratch")) as client:
        yield client


@pytest.fixture(scope="session")
def browsed(lake: tuple[Run, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    chromium.found()
    with served(lake[0].lake.root, tmp_path_factory.mktemp("served")) as root, Browser() as browser:
        yield browser, root.rstrip("/")
