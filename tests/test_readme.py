"""The README shows what the code has."""

from pathlib import Path

import pytest

from egoworld_ops.query.questions import QUERIES

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("question", QUERIES)
def test_each_query_stands_in_the_readme_as_it_is(question: str) -> None:
    assert f"-- {question}{QUERIES[question]};" in README
