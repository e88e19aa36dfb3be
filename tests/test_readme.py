"""The README leads to a first result soon; its links and the page of queries are right."""

import re

import pytest

from egoworld_ops.query.questions import QUERIES
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
PAGE = (ROOT / "docs" / "queries.md").read_text("utf-8")
TWO_SCREENS = 80


@pytest.mark.parametrize("question", QUERIES)
def test_each_query_stands_in_its_page_as_it_is(question: str) -> None:
    assert f"-- {question}{QUERIES[question]};" in PAGE


def test_the_first_result_is_within_two_screens() -> None:
    assert README[: README.index("\nResults   ")].count("\n") < TWO_SCREENS


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
