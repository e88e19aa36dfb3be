"""The pages of docs/howto: commands and options are there, questions and Python code run, links name headings that are there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import duckdb
import pytest

from egoworld_assets.cli.main import egoworld
from egoworld_ops.lake import latest
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query import catalog
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from tests.conftest import ROOT
from tests.lakes import write_video

PAGES = {path.name: path.read_text("utf-8") for path in sorted((ROOT / "docs" / "howto").glob("*.md"))}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[list[str]]:
    """The words of each egoworld command of a page."""
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["egoworld"]:
                yield words[1:]


def parsed(command: click.Command, words: list[str], above: click.Context | None = None) -> dict[str, object]:
    """The options and arguments that a command takes from words; as click does, but nothing runs."""
    context = command.make_context(command.name or "egoworld", list(words), parent=above)
    if isinstance(command, click.Group):
        _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None
        return parsed(inner, rest, context)
    return context.params


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake in `output`: one video in all tables, released."""
    folder = tmp_path_factory.mktemp("home")
    run = Lake(folder / "output").open_run({}, "20260101_0000", dict)
    write_video(run, "one", n_frames=12)
    latest.use(run)
    make_release(run, ReleaseSettings(writers=1))
    catalog.write_catalog(run.lake)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_and_every_question_has_an_answer(page: str, home: Path) -> None:
    with duckdb.connect(str(home / "output" / catalog.FILE_NAME), read_only=True) as lake:
        for words in commands(page):
            taken = parsed(egoworld, words)
            if "sql" in words:
                lake.execute(str(taken["statement"]))


@pytest.mark.parametrize("page", PAGES)
def test_every_heading_that_a_link_names_is_there(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        target, _, heading = link.partition("#")
        if heading and not target.startswith("http"):
            lines = (ROOT / "docs" / "howto" / (target or page)).read_text("utf-8").splitlines()
            assert heading in [re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines], link


def test_the_python_code_reads_a_lake(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(home)
    for block in blocks("results-in-python.md", "python"):
        exec(compile(block, "results-in-python.md", "exec"), {})
    assert "(12, 21, 3) float32" in capsys.readouterr().out


def test_the_index_names_every_page() -> None:
    assert set(PAGES) - {"README.md"} <= set(re.findall(r"\(([\w-]+\.md)\)", PAGES["README.md"]))
