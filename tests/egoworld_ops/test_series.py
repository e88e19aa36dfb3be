"""What is plotted of a clip stands at the frame it was found in, and a gap stays one."""

from __future__ import annotations

from egoworld_ops.contract import schema
from egoworld_ops.report import series
from egoworld_ops.report.layers import ClipLayers
from tests.rows import hand_pose_row, sample_row


def layers() -> ClipLayers:
    """Of frames 10 to 14 of stride 2: a hand that is not there in frame 12, and a box that is held from frame 12 on."""
    hands = [hand_pose_row(10, hand="left", z_m=0.25), hand_pose_row(14, hand="left", z_m=0.75)]
    fused = [sample_row("fusion", frame, hand="left", z_m=0.5) for frame in (10, 12, 14)]
    held = ("none", "right", "right")
    moving = [sample_row("movement", frame, label="box", held_by=by) for frame, by in zip((10, 12, 14), held, strict=True)]
    robots = [sample_row("mapping", 12, hand="left", joint_names=["a", "b"], qpos_rad=[0.1, 0.2])]
    rows = {"hand_pose": hands, "fusion": fused, "movement": moving, "mapping": robots}
    return ClipLayers({stage: schema.from_rows(stage, found) for stage, found in rows.items()}, {}, 2)


def test_lines_have_a_number_for_each_processed_frame_and_raw_stands_beside_fused() -> None:
    by_title = {plot.title: plot for plot in series.plots(layers(), range(10, 16, 2))}
    distance = by_title["Distance of the wrist"]
    assert distance.unit == "m"
    assert [(line.stage, line.look, line.values) for line in distance.lines] == [
        ("hand_pose", "raw", [0.25, None, 0.75]),
        ("fusion", "fused", [0.5, 0.5, 0.5]),
    ]
    joints = by_title["Joints of the robot"]
    assert {line.name: line.values for line in joints.lines} == {"left a": [None, 0.1, None], "left b": [None, 0.2, None]}


def test_a_stretch_is_as_long_as_the_word_holds() -> None:
    held = [band for band in series.bands(layers()) if band.stage == "movement"]
    assert [(band.of, band.word, band.first, band.last) for band in held] == [("box", "none", 10, 10), ("box", "right", 12, 14)]


def test_a_hold_ends_where_its_thing_is_not_seen_for_as_long_as_in_view_holds() -> None:
    at = (0, 15, 31)  # frames of 1/30 s
    rows = schema.from_rows("movement", [sample_row("movement", f, held_by="right", track_id=10) for f in at])
    held = [(band.first, band.last) for band in series.bands(ClipLayers({"movement": rows})) if band.stage == "movement"]
    assert held == [(0, 15), (31, 31)]


def test_a_clip_without_rows_has_no_plots() -> None:
    assert series.plots(ClipLayers({}), range(3)) == []
    assert series.bands(ClipLayers({})) == []
