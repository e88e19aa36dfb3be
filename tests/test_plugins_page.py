"""The page for authors of plug-ins shows the packages that the tests install, unchanged."""

import re

from egoworld_ops import plugins
from tests.conftest import ROOT
from tests.packages import ENTRY_POINTS, OUTSIDE

PAGE = (ROOT / "docs" / "plugins.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- ([^>]+) -->\n```\w+\n(.*?)```\n", PAGE, re.DOTALL))


def test_every_file_of_the_packages_stands_in_the_page_as_it_is() -> None:
    files = [path for path in OUTSIDE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) == 7
    for path in files:
        assert BLOCKS[str(path.relative_to(ROOT))] == path.read_text("utf-8")


def test_the_entry_points_are_those_that_are_installed() -> None:
    for kind, points in ENTRY_POINTS.items():
        [(group, line)] = points.items()
        name, target = line.split(" = ")
        assert BLOCKS[f"entry points of {kind}"] == f'[project.entry-points."{group}"]\n"{name}" = "{target}"\n'
        assert f"\n| `{group}` |" in PAGE
    assert {group for points in ENTRY_POINTS.values() for group in points} == set(plugins.GROUPS)


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not link.startswith("http")]
    assert [link for link in links if not (ROOT / "docs" / link).resolve().exists()] == []
