"""The path of the camera by structure from motion, against the true one; and what it says where there is none to be known."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.corners import straightened
from egoworld_ops.operators.points import triangulated
from egoworld_ops.synthetic.room import Patch, room
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import invert, transform
from egoworld_ops.vision.lenses import project
from tests.egoworld_ops.operators import rooms


def said(rows: Any) -> Mapping[str, int]:
    return {row["values"]: row["counts"] for row in rows["reason_class"].value_counts().to_pylist()}


def test_a_walk_past_a_table_is_found_within_a_few_millimetres() -> None:
    _, poses, rows = rooms.walked()
    assert rows.num_rows == 36
    assert rows["qw"].null_count == 0
    assert set(rows["method"].to_pylist()) == {"mapped", "registered"}
    errors, _ = rooms.errors_m(rows, poses)
    assert np.sqrt((errors**2).mean()) < 0.002  # of half a metre
    assert rooms.turns_deg(rows, poses).max() < 0.4  # a pixel and a half


def test_stated_errors_are_of_the_size_of_true_ones() -> None:
    _, poses, rows = rooms.walked()
    errors, metres = rooms.errors_m(rows, poses)
    stated = np.array(rows["position_error_units"].to_pylist()) * metres
    assert (errors[1:] < 2 * stated[1:]).mean() > 0.9
    turns, told = rooms.turns_deg(rows, poses), np.array(rows["rotation_error_deg"].to_pylist())
    assert (turns[1:] < 2 * told[1:]).mean() > 0.9
    assert np.median(told) < 0.4


def test_without_anything_of_known_size_there_are_no_metres() -> None:
    _, _, rows = rooms.walked()
    assert rows["x_m"].null_count == rows["metres_per_unit"].null_count == rows.num_rows
    assert set(rows["scale_source"].to_pylist()) == {"none"}
    assert said(rows) == {"no_scale": 36}


def test_the_same_clip_gives_the_same_table() -> None:
    item, _, rows = rooms.walked()
    assert rooms.solved(item).equals(rows)


def test_the_points_lie_on_the_surfaces_of_the_room() -> None:
    item, poses, rows = rooms.walked()
    backend = triangulated.Backend(triangulated.TriangulatedSettings(), 1)
    made = backend.run(replace(item, tables={**item.tables, "camera": rows}))
    validation.validate("points", made)
    assert made.num_rows > 150
    _, metres = rooms.errors_m(rows, poses)
    first = rows["frame_index"][0].as_py()
    world = transform(poses[first], np.array(made["position_units"].to_pylist()) * metres)  # the clip's world is its first camera
    apart_m, far = _distance_to_room_m(world), np.linalg.norm(world - poses[first][:3, 3], axis=1)
    assert np.median(apart_m / far) < 0.01
    assert np.quantile(apart_m / far, 0.9) < 0.04
    assert min(made["track_length"].to_pylist()) >= 6


def _distance_to_room_m(points: np.ndarray) -> np.ndarray:
    near = []
    for patch in room():
        corner, u, v = (np.array(part, float) for part in (patch.corner_m, patch.edge_u_m, patch.edge_v_m))
        at = points - corner
        a, b = np.clip(at @ u / (u @ u), 0, 1), np.clip(at @ v / (v @ v), 0, 1)
        near.append(np.linalg.norm(at - a[:, None] * u - b[:, None] * v, axis=1))
    return np.asarray(np.min(near, axis=0))


def test_without_poses_there_are_no_points_and_no_frame_is_read() -> None:
    item, _, _ = rooms.walked()
    backend = triangulated.Backend(triangulated.TriangulatedSettings(), 1)
    tables = {**item.tables, "camera": schema.empty("camera")}
    assert not backend.reads_frames(tables)
    assert backend.run(replace(item, tables=tables)).num_rows == 0


@pytest.mark.parametrize(("path", "kind"), [(rooms.still, "no_motion"), (rooms.turn, "rotation_only")])
def test_a_camera_at_rest_or_turning_has_no_pose_but_a_reason(path: rooms.Path_, kind: str) -> None:
    rows = rooms.solved(rooms.filmed(path, 24)[0])
    assert rows["qw"].null_count == rows["position_units"].null_count == rows.num_rows == 24
    assert said(rows) == {kind: 24}


def test_a_plain_picture_is_said_to_lack_texture() -> None:
    plain = [replace(patch, texture=None) for patch in room()[:4]]
    assert said(rooms.solved(rooms.filmed(rooms.walk, 12, plain)[0])) == {"no_texture": 12}


def held_card(camera_pose: np.ndarray, share: float) -> Patch:
    """A printed card that covers half of the picture and moves by itself through it."""
    corner, right, down = (-0.2 + 0.15 * share, -0.2, 0.30), (0.22, 0, 0), (0, 0.4, 0)
    R = camera_pose[:3, :3]
    at = transform(camera_pose, np.array(corner))
    return Patch(tuple(at), tuple(R @ right), tuple(R @ down), 77)  # type: ignore[arg-type]


def with_card(masked: bool) -> tuple[Any, list[np.ndarray], float]:
    poses = [rooms.walk(i / 23) for i in range(24)]
    frames, masks, covered = [], [], []
    for i, T in enumerate(poses):
        patches = [*room(), held_card(T, i / 23)]
        rgb, seen = rooms.render_room(rooms.CAMERA, T, patches, 3, i)
        frames.append(rooms.Frame(i, i / 30, rgb))
        covered.append((seen == len(patches) - 1).mean())
        masks.append(seen == len(patches) - 1)
    item = rooms.taken(frames)
    if masked:
        about = {"video_id": "v-0123456789ab", "clip_id": "c", "sample_stride": 1, "backend": "test", "track_id": 10, "role": "object"}
        about |= {"mask_scale": 1.0, "score": 1.0, "observed": True}
        rows = [
            about
            | {"frame_index": i, "timestamp_s": i / 30, "rle": rle.encode(m), "area_px": int(m.sum()), "bbox_px": rle.mask_bbox(m).tolist()}
            for i, m in enumerate(masks)
        ]
        item = replace(item, tables={**item.tables, "masks": schema.from_rows("masks", rows)})
    return item, poses, float(np.mean(covered))


def test_a_masked_thing_that_fills_half_of_the_picture_does_not_become_the_world() -> None:
    item, poses, covered = with_card(masked=True)
    assert covered > 0.4
    rows = rooms.solved(item)
    assert rows["qw"].null_count == 0
    errors, _ = rooms.errors_m(rows, poses)
    assert np.sqrt((errors**2).mean()) < 0.005


def test_one_that_nobody_masked_makes_the_pose_null() -> None:
    rows = rooms.solved(with_card(masked=False)[0])
    assert rows["qw"].null_count == rows.num_rows
    assert set(said(rows)) <= {"ambiguous_motion", "not_registered"}


def test_a_box_of_known_size_gives_metres_within_the_stated_error() -> None:
    item, poses, _ = rooms.walked()
    box = np.array([0.12, 0.22, 0.09])
    about = {"video_id": "v-0123456789ab", "clip_id": "c", "sample_stride": 1, "backend": "test", "track_id": 10, "converged": True}
    about |= {"dimensions_m": [0.14, 0.16, 0.18], "scale_source": "dimensions", "observed": True, "intrinsics_source": "file"}
    about |= {
        "fx_px": 220.0,
        "fy_px": 220.0,
        "cx_px": 159.5,
        "cy_px": 119.5,
        "lens_model": "pinhole",
        "distortion": [],
        "focal_error_share": 0.0,
        "metric": True,
        "qw": 1.0,
        "qx": 0.0,
        "qy": 0.0,
        "qz": 0.0,
    }
    places = [transform(invert(T), box) for T in poses]
    rows = [
        about | {"frame_index": i, "timestamp_s": i / 30} | dict(zip(("x_m", "y_m", "z_m"), p, strict=True)) for i, p in enumerate(places)
    ]
    made = rooms.solved(replace(item, tables={**item.tables, "object_pose": schema.from_rows("object_pose", rows)}))
    assert set(made["scale_source"].to_pylist()) == {"dimensions"}
    assert made["x_m"].null_count == len(made["reason"].drop_null()) == 0
    _, true = rooms.errors_m(made, poses)
    [found], [stated] = set(made["metres_per_unit"].to_pylist()), set(made["scale_error_share"].to_pylist())
    assert abs(found / true - 1) < min(2 * stated, 0.25)


def test_corners_of_a_wide_lens_come_where_a_pinhole_camera_shows_them() -> None:
    lens = replace(rooms.CAMERA, model="kannala_brandt", distortion=(0.05, -0.01, 0.002, -0.0005))
    points = np.array([[0.0, 0.0, 1.0], [0.4, -0.3, 0.8], [-0.9, 0.5, 1.0], [3.0, 0.0, 0.5]])
    straight, shown = straightened(lens, project(lens, points))
    assert shown.tolist() == [True, True, True, False]
    assert np.allclose(straight, project(rooms.CAMERA, points[:3]), atol=1e-6)
