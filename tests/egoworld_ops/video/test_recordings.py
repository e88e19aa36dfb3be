"""Parts and copies of one recording are recognised by name or sidecar and are in one split; nothing else is grouped."""

import hashlib
from pathlib import Path

import pytest

from egoworld_ops.errors import BadSettings
from egoworld_ops.settings import load_settings
from egoworld_ops.video.recordings import PATTERNS, of_content, recordings

RAW = Path("/data/raw")


def grouped(*names: str, patterns: dict[str, str] | None = None, raw: Path = RAW) -> set[frozenset[str]]:
    """The groups of names that count as one recording."""
    videos = {name: (RAW / name, hashlib.sha256(name.encode()).hexdigest()) for name in names}
    found = recordings(videos, raw, PATTERNS if patterns is None else patterns)
    return {frozenset(name for name in names if found[name] == shared) for shared in found.values()}


@pytest.mark.parametrize(
    "names",
    [
        ("GH010123.MP4", "GH020123.MP4", "gh030123.mp4", "GL010123.MP4"),
        ("GX010044.MP4", "GX020044.MP4", "GX010044_1698765432.MP4"),
        ("GOPR0123.MP4", "GP010123.MP4", "GP020123.MP4"),
        ("P01/100GOPRO/GH010123.MP4", "P01/101GOPRO/GH020123.MP4"),
        ("DJI_0012.MP4", "DJI_0012_001.MP4", "DJI_0012_002.MP4"),
        ("DJI_20230518163231_0001_W.MP4", "DJI_20230518163231_0001_T.MP4"),
        (
            "VID_20230101_120000_00_001.mp4",
            "VID_20230101_120000_00_002.mp4",
            "VID_20230101_120000_10_001.mp4",
            "LRV_20230101_120000_11_001.mp4",
        ),
        ("IMG_1.mov", "IMG_1 (1).mov", "IMG_E1.mov", "IMG_1 2.mov", "img_1 copy.MOV", "IMG_1-edited.mov"),
        ("PXL_20230101_120000123.mp4", "PXL_20230101_120000123~2.mp4"),
        ("20230101_120000.mp4", "20230101_120000(0).mp4"),
        ("kitchen part 1.mp4", "kitchen part 2.mp4", "Kitchen-part3.mp4"),
        ("take.mp4", "take (1).mp4", "take - Copy.mp4", "take copy 2.mov", "Copy of take.mp4", "take_copy.mp4"),
    ],
)
def test_parts_and_copies_are_one_recording(names: tuple[str, ...]) -> None:
    assert grouped(*names) == {frozenset(names)}


@pytest.mark.parametrize(
    "names",
    [
        ("GH010123.MP4", "GH010124.MP4", "DJI_0123.MP4", "IMG_0123.MOV"),
        ("P01/GH010123.MP4", "P02/GH010123.MP4"),
        ("P01/rgb/video.mp4", "P02/rgb/video.mp4"),
        ("clip_001.mp4", "clip_002.mp4"),
        ("take (1).mp4", "take (2).mp4"),
        ("kitchen.mp4", "kitchen 2.mp4"),
        ("department1.mp4", "department2.mp4x"),
    ],
)
def test_other_names_are_recordings_of_their_own(names: tuple[str, ...]) -> None:
    assert grouped(*names) == {frozenset([name]) for name in names}


def test_a_recording_does_not_depend_on_where_the_raw_folder_lies() -> None:
    sha256 = "ab" * 32
    here = recordings({"v": (Path("/a/raw/P01/GH010001.MP4"), sha256)}, Path("/a/raw"), PATTERNS)
    there = recordings({"v": (Path("/b/P01/GH010001.MP4"), sha256)}, Path("/b"), PATTERNS)
    assert here == there == {"v": "P01/gopro 0001"}
    assert recordings({"v": (Path("/a/raw/kitchen.mp4"), sha256)}, Path("/a/raw"), PATTERNS) == {"v": of_content(sha256)}


def test_a_person_can_set_and_take_out_patterns(tmp_path: Path) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text("[recordings]\nmine = '(?P<recording>S\\d+)_cam\\d'\nparts = ''\n")
    patterns = load_settings(profile).recordings
    assert grouped("S1_cam1.mp4", "S1_cam2.mp4", patterns=patterns) == {frozenset(["S1_cam1.mp4", "S1_cam2.mp4"])}
    assert len(grouped("a part 1.mp4", "a part 2.mp4", patterns=patterns)) == 2
    assert len(grouped("GH010123.MP4", "GH020123.MP4", patterns=patterns)) == 1


@pytest.mark.parametrize(("pattern", "said"), [("(", "no regular expression"), ("S.*", "want a group")])
def test_a_pattern_that_tells_no_recording_is_refused(tmp_path: Path, pattern: str, said: str) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text(f"[recordings]\nmine = '{pattern}'\n")
    with pytest.raises(BadSettings, match=f"recordings.*{said}"):
        load_settings(profile)
