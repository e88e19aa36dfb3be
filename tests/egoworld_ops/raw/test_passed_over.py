"""Each file in a raw folder that is no video is named once, with the cure."""

import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import register
from egoworld_ops.raw.intake import read
from egoworld_ops.raw.passed_over import passed_over
from egoworld_ops.settings import Settings
from tests.egoworld_ops import media


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def test_suffixes_that_are_no_videos_are_named_with_their_files(raw: Path) -> None:
    for name in ("GL010015.LRV", "VID_00_001.insv", "a/x.360", "a/y.360", "a/b/z.360", "a/b/zz.360", "notes", ".hidden.insv"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).touch()
    (raw / "ok.mp4").touch()
    lines = passed_over(raw)
    assert len(lines) == 4
    assert any(".LRV" in line and "GL010015.LRV" in line and "preview" in line for line in lines)
    assert any(".insv" in line and "VID_00_001.insv" in line and "rectilinear" in line for line in lines)
    assert any("a/x.360, a/y.360, a/b/z.360 and 1 more" in line for line in lines)
    assert any("without suffix" in line and "notes" in line for line in lines)


def test_a_folder_without_a_video_says_so(raw: Path) -> None:
    assert ["holds no video" in line and ".mp4" in line for line in passed_over(raw)] == [True]
    (raw / "b.mp4").touch()
    assert passed_over(raw) == []


@pytest.mark.parametrize(
    ("video", "sidecar", "cure"),
    [
        ("clip.MP4", "clip.MP4.egoworld.json", "rename it to clip.egoworld.json"),
        ("clip.mp4", "Clip.egoworld.json", "rename it to clip.egoworld.json"),
        ("clip.mp4", "clip.EGOWORLD.json", "rename it to clip.egoworld.json"),
        ("kitchen_2.mp4", "kitchen-2.egoworld.json", "rename it to kitchen_2.egoworld.json"),
        ("kitchen.mp4", "garden.egoworld.json", "name it as its video"),
    ],
)
def test_a_sidecar_of_no_video_is_named(raw: Path, video: str, sidecar: str, cure: str) -> None:
    (raw / video).touch()
    (raw / sidecar).write_text("{}")
    [line] = passed_over(raw)
    assert line.startswith("sidecar of no video")
    assert sidecar in line
    assert cure in line


def test_sidecars_of_videos_are_not_named(raw: Path) -> None:
    for stem in ("a", unicodedata.normalize("NFC", "k\u00fcche")):
        (raw / f"{stem}.mp4").touch()
    (raw / "a.egoworld.json").write_text("{}")
    (raw / unicodedata.normalize("NFD", "k\u00fcche.egoworld.json")).write_text("{}")
    assert passed_over(raw) == []


def test_a_look_says_it_once(raw: Path, tmp_path: Path) -> None:
    settings = Settings(raw=raw, lake=tmp_path / "lake")
    (raw / "x.insv").touch()
    first = register.scan(settings.raw, settings.lake, None, 10)
    assert len(first.passed_over) == 2
    second = register.scan(settings.raw, settings.lake, first.cursor, 10)
    assert second.passed_over == []
    (raw / "y.mxf").touch()
    assert len(register.scan(settings.raw, settings.lake, second.cursor, 10).passed_over) == 3


def test_the_command_says_what_it_passes_over_and_fails_where_nothing_is_left(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (raw / "VID_00_001.insv").touch()
    done = CliRunner().invoke(egoworld, ["register", str(raw)])
    assert done.exit_code == 1
    assert "VID_00_001.insv" in done.stderr
    assert "holds no video" in done.stderr
    media.make(raw / "a.mp4", 3)
    done = CliRunner().invoke(egoworld, ["register", str(raw)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("registered  a-")
    assert "VID_00_001.insv" in done.stderr


def test_a_360_degree_recording_that_is_named_by_itself_is_rejected(raw: Path, tmp_path: Path) -> None:
    settings = Settings(raw=raw, lake=tmp_path / "lake")
    path = media.make(raw / "a.mp4", 3).rename(raw / "VID_00_001.insv")
    [row] = register.register(settings.lake, [path]).refused
    assert row["status"] == "rejected"
    assert "360 degree" in row["reason"]
    assert read(Lake(settings.lake)).num_rows == 1
