"""A recording shows each frame of the video with what was found in it, and nothing else; Rerun's own tools verify it and read it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.cli.main import egoworld
from egoworld_ops.contract.schema import from_rows
from egoworld_ops.errors import EgoworldError
from egoworld_ops.raw import register
from egoworld_ops.report import rerun_file
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.settings import Settings
from egoworld_ops.types import Clip
from tests.egoworld_ops import media
from tests.finished import RowsPool, settings_of_commands
from tests.kitchen import CAMERA, SHOTS
from tests.real_chain import Kitchen
from tests.rows import sample_row

pytest.importorskip("rerun", reason="needs rerun-sdk: pip install 'egoworld[rerun]'")
ALWAYS = -1
HANDS = "/world/camera/hands"
BEYOND, BEHIND = 40, 50
"""Frames of the kitchen's first shot between which its right hand is taken away."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return settings_of_commands(tmp_path, monkeypatch)


def chunks(path: Path) -> Iterator[Any]:
    from rerun.chunk import RrdReader

    yield from RrdReader(str(path)).stream()


def logged(path: Path, entity: str, column: str) -> dict[int, Any]:
    """What a column of an entity says, by frame."""
    found = {}
    for chunk in chunks(path):
        if str(chunk.entity_path) == entity:
            rows = chunk.to_record_batch()
            if column in rows.schema.names:
                frames = rows["frame"].to_pylist() if "frame" in rows.schema.names else [ALWAYS]
                found.update({frame: said for frame, said in zip(frames, rows[column].to_pylist(), strict=True) if said is not None})
    return found


def kitchen_clips(kitchen: Kitchen) -> list[Clip]:
    return [
        Clip(
            "kitchen-000000000000",
            f"f{a:07d}_{b:07d}",
            kitchen.mp4,
            "0" * 64,
            a,
            b,
            a,
            b,
            a / 30,
            b / 30,
            Fraction(30),
            CAMERA.width,
            CAMERA.height,
        )
        for a, b in SHOTS
    ]


@pytest.fixture(scope="module")
def recording(kitchen_chain: Kitchen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kitchen's results; in some frames of its first shot the right hand is not there."""
    path = tmp_path_factory.mktemp("rerun") / "kitchen.rrd"
    clips = kitchen_clips(kitchen_chain)
    shots = dict(zip([clip.clip_id for clip in clips], [dict(shot) for shot in kitchen_chain.shots], strict=True))
    first = shots[clips[0].clip_id]
    for stage in ("fusion", "hand_pose"):
        frames, hands = first[stage]["frame_index"].to_numpy(), np.array(first[stage]["hand"].to_pylist())
        first[stage] = first[stage].filter(~((frames >= BEYOND) & (frames < BEHIND) & (hands == "right")))
    seen: list[int] = []
    n = rerun_file.write(clips, lambda clip: (ClipLayers(shots[clip.clip_id]), None), path, "# kitchen", 2, seen.append)
    assert n == 168 == seen[-1]
    return path


def test_reruns_own_tool_verifies_it(recording: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "rerun", "rrd", "verify", str(recording)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 file verified without error" in done.stdout + done.stderr
    assert recording.stat().st_size < 168 * CAMERA.width * CAMERA.height * 3 / 10, "the video as it is, not its pixels"
    assert not list(recording.parent.glob(".*")), "nothing is left beside it"


def test_joints_stand_where_the_table_has_them_and_go_with_their_hand(recording: Path, kitchen_chain: Kitchen) -> None:
    shown = logged(recording, f"{HANDS}/right/joints", "Points3D:positions")
    table = {r["frame_index"]: r["joints_m"] for r in kitchen_chain.tables["fusion"].to_pylist() if r["hand"] == "right" and r["joints_m"]}
    kept = {frame for frame in table if not BEYOND <= frame < BEHIND}
    assert shown.keys() == kept
    for frame in kept:
        np.testing.assert_allclose(shown[frame], table[frame], atol=1e-6)
    cleared = logged(recording, f"{HANDS}/right/joints", "Clear:is_recursive")
    assert BEYOND in cleared
    assert not cleared.keys() & kept


def test_objects_and_robots_stand_at_their_poses(recording: Path, kitchen_chain: Kitchen) -> None:
    pose = {
        r["frame_index"]: [r["x_m"], r["y_m"], r["z_m"]] for r in kitchen_chain.tables["object_pose"].to_pylist() if r["x_m"] is not None
    }
    shown = logged(recording, "/world/camera/objects/10", "Transform3D:translation")
    assert shown.keys() == pose.keys()
    np.testing.assert_allclose([shown[f][0] for f in sorted(pose)], [pose[f] for f in sorted(pose)], atol=1e-6)
    wrists = {
        r["frame_index"]: [r["x_m"], r["y_m"], r["z_m"]]
        for r in kitchen_chain.tables["mapping"].to_pylist()
        if r["hand"] == "left" and r["qpos_rad"]
    }
    placed = logged(recording, "/robot_left/place", "Transform3D:translation")
    assert placed.keys() == wrists.keys()
    np.testing.assert_allclose([placed[f][0] for f in sorted(wrists)], [wrists[f] for f in sorted(wrists)], atol=1e-6)
    assert any("visual_geometries" in str(chunk.entity_path) for chunk in chunks(recording)), "the meshes of its URDF"


def test_each_clip_stands_in_its_own_world_and_nowhere_in_frames_without_a_pose(tmp_path: Path) -> None:
    path = media.make(tmp_path / "v.mp4", 12)
    clips = [
        Clip("v-000000000000", f"c{a}", path, "0" * 64, a, a + 6, a, a + 6, a / 30, (a + 6) / 30, Fraction(30), 128, 96) for a in (0, 6)
    ]
    lost = {"x_m": None, "y_m": None, "z_m": None, "qw": None, "qx": None, "qy": None, "qz": None}
    walk = [sample_row("camera", f, **({"x_m": 0.1 * f, "y_m": 0.0, "z_m": 0.0} | (lost if f == 3 else {}))) for f in range(6)]
    hands = [sample_row("fusion", f, hand="left") for f in range(12)]
    robot = from_rows("mapping", [sample_row("mapping", 7, robot="of_mine")])
    point = sample_row("points", 0, x_m=1.0, y_m=2.0, z_m=3.0, rgb=[9, 8, 7])
    read = {
        "c0": (ClipLayers({"camera": from_rows("camera", walk), "fusion": from_rows("fusion", hands[:6])}), from_rows("points", [point])),
        "c6": (ClipLayers({"fusion": from_rows("fusion", hands[6:]), "mapping": robot}), None),
    }
    rerun_file.write(clips, lambda clip: read[clip.clip_id], tmp_path / "v.rrd", "", 1, lambda _: None)
    places = logged(tmp_path / "v.rrd", "/world/camera", "Transform3D:translation")
    assert {frame: round(at[0][0], 6) for frame, at in places.items()} == {0: 0, 1: 0.1, 2: 0.2, 4: 0.4, 5: 0.5} | dict.fromkeys(
        range(6, 12), 0
    )
    assert logged(tmp_path / "v.rrd", "/world/camera/hands/left/joints", "Points3D:positions").keys() == set(range(12)) - {3}
    assert logged(tmp_path / "v.rrd", "/world/points", "Points3D:positions") == {0: [[1.0, 2.0, 3.0]], 6: []}
    [story] = logged(tmp_path / "v.rrd", "/about", "TextDocument:text").values()
    assert "poses of 5 frames in the world of this clip" in story[0]
    assert "no poses in metres" in story[0]
    assert "robot of_mine: its model is not known here" in story[0]


def numbers_shown(path: Path) -> dict[int, int]:
    """The number that the picture shows which the recording has for each frame: of the nth time of its video it is the nth picture."""
    import rerun

    [blob] = logged(path, "/picture/video", "AssetVideo:blob").values()
    said = logged(path, "/picture/video", "VideoFrameReference:timestamp")
    mp4 = path.with_suffix(".check.mp4")
    mp4.write_bytes(bytes(blob[0]))
    with av.open(str(mp4)) as video:
        assert [stream.type for stream in video.streams] == ["video"], "no sound"
        numbers = [media.number_of(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    shown = dict(zip(rerun.AssetVideo(path=mp4).read_frame_timestamps_nanos().tolist(), numbers, strict=True))
    return {frame: shown[stamp] for frame, [stamp] in said.items()}


@pytest.mark.parametrize(
    ("name", "how", "same_packets"),
    [
        ("plain.mp4", {}, True),
        ("sound.mkv", {"audio_tracks": 1}, True),
        ("late.mp4", {"pts": [30 + i for i in range(20)], "time_base": Fraction(1, 30)}, True),
        ("uneven.mkv", {"pts": [i * i for i in range(20)], "time_base": Fraction(1, 300)}, True),
        ("turned.mp4", {"rotation_deg": 180}, False),
        ("old.avi", {"codec": "mpeg4"}, False),
        ("wide.mp4", {"pix_fmt": "yuv444p"}, False),
    ],
)
def test_each_frame_has_its_own_picture(settings: Settings, name: str, how: dict[str, Any], same_packets: bool) -> None:
    def upright(index: int, width: int, height: int) -> np.ndarray:
        picture = media.numbered(index, width, height)
        return np.ascontiguousarray(picture[::-1, ::-1]) if how.get("rotation_deg") else picture

    path = media.make(settings.raw / name, 20, picture=upright, **how)
    [video_id] = register.register(settings.lake, [path]).video_ids
    assert all(
        result
        for result in pipeline.process(configuration.open_run(settings), [video_id], settings, RowsPool(), pipeline.Part(last="manifest"))
    )
    done = CliRunner().invoke(egoworld, ("rerun", "--out", "a.rrd"))
    assert done.exit_code == 0, done.output
    assert numbers_shown(Path("a.rrd")) == {frame: frame for frame in range(20)}
    packets = {path.name: [bytes(p) for p in av.open(str(path)).demux(video=0) if p.size] for path in (path, Path("a.check.mp4"))}
    assert (packets[name] == packets["a.check.mp4"]) == same_packets


def test_a_disk_that_is_full_is_told_as_such() -> None:
    with pytest.raises(OSError, match="No space left on device") as full, rerun_file._recording(Path("/dev/full"), "v") as stream:
        rerun_file.Shown(stream).always("about", rerun_file._markdown("x" * 100_000))
    assert full.value.errno == errno.ENOSPC


def test_it_says_what_is_in_the_way_and_leaves_it_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.make(settings.raw / "cup.mp4", 10)
    [video_id] = register.register(settings.lake, [path]).video_ids
    assert all(
        result
        for result in pipeline.process(configuration.open_run(settings), [video_id], settings, RowsPool(), pipeline.Part(last="manifest"))
    )

    def refused(*arguments: str) -> str:
        done = CliRunner().invoke(egoworld, ("rerun", *arguments))
        assert isinstance(done.exception, EgoworldError), done.output
        return str(done.exception)

    Path("notes.rrd").write_text("mine")
    assert "is no recording of Rerun" in refused("--out", "notes.rrd")
    assert Path("notes.rrd").read_text() == "mine"
    assert "is no name of .rrd" in refused("--out", "a.mp4")
    assert "is no folder" in refused("--out", "none/a.rrd")
    os.mkfifo("pipe.rrd")
    assert "is no file" in refused("--out", "pipe.rrd"), "it would wait for a writer"
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert "pip install 'egoworld[rerun]'" in refused()
    assert [p.name for p in Path.cwd().iterdir() if p.is_file()] == ["notes.rrd"]
