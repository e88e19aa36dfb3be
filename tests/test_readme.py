"""The README leads to a first result soon; its links and the page of queries are right."""

import re
from pathlib import Path

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


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_listed_once_and_in_order() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^\| \[(\d{4})\]\((.+?)\)", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == [(path.name[:4], path.name) for path in sorted(folder.glob("0*.md"))]
