"""Each reader of truth reads what its data set's description says; rubbish is refused with a cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trimesh

from egoworld_ops.errors import InputError
from egoworld_ops.score import readers
from egoworld_ops.score.readers import egodex
from egoworld_ops.types import HANDS, Camera
from egoworld_ops.vision.geometry import box_symmetries, make_transform, project, rotation_angle_deg, rotations


def test_boxes_have_as_many_symmetries_as_equal_sides() -> None:
    for size, n in (((0.1, 0.2, 0.3), 4), ((0.1, 0.1, 0.3), 8), ((0.1, 0.1, 0.1), 24)):
        found = box_symmetries(np.array(size))
        assert len(found) == n
        corners = {tuple(np.round(c, 9)) for c in np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * size}
        for S in found:
            assert {tuple(np.round(S @ np.array(c), 9)) for c in corners} == corners


def bop_scene(folder: Path) -> Path:
    """A scene of two images with a cylinder and twice a box, in a data set with models."""
    scene = folder / "test" / "000001"
    scene.mkdir(parents=True)
    (folder / "models").mkdir()
    R = rotations(np.array([[0.1, 0.2, 0.3]]))[0]
    thing = {"cam_R_m2c": R.ravel().tolist(), "cam_t_m2c": [10.0, -20.0, 700.0]}
    images = {"0": [{"obj_id": 1} | thing], "7": [{"obj_id": 1} | thing, {"obj_id": 2} | thing, {"obj_id": 2} | thing]}
    (scene / "scene_gt.json").write_text(json.dumps(images))
    info = {name: [{"visib_fract": 0.05 if name == "0" else 0.9} for _ in listed] for name, listed in images.items()}
    (scene / "scene_gt_info.json").write_text(json.dumps(info))
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    models = {
        "1": {"symmetries_continuous": [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]},
        "2": {"symmetries_discrete": [turned.ravel().tolist()]},
    }
    (folder / "models" / "models_info.json").write_text(json.dumps(models))
    trimesh.creation.cylinder(30, 100).export(folder / "models" / "obj_000001.ply")
    trimesh.creation.box((10, 20, 40)).export(folder / "models" / "obj_000002.ply")
    return scene


def test_bop_is_in_metres_with_its_symmetries(tmp_path: Path) -> None:
    truth = readers.read(bop_scene(tmp_path))
    assert truth.objects is not None
    assert [(o.frame_index, o.label, o.visible) for o in truth.objects] == [
        (0, "obj_000001", False),
        (7, "obj_000001", True),
        (7, "obj_000002", True),
        (7, "obj_000002_2", True),
    ]
    np.testing.assert_allclose(truth.objects[0].T_camera_object[:3, 3], [0.01, -0.02, 0.7])
    assert truth.shapes["obj_000002_2"].diameter_m == pytest.approx(np.linalg.norm([0.01, 0.02, 0.04]))
    assert len(truth.shapes["obj_000002"].symmetries) == 2
    turn = rotations(np.radians([[0.0, 0.0, 123.0]]))[0]
    assert min(rotation_angle_deg(S, turn) for S in truth.shapes["obj_000001"].symmetries) <= 5.0
    assert not truth.complete


def episode(path: Path, K: np.ndarray) -> dict[str, np.ndarray]:
    """An EgoDex episode of 3 frames: the left hand before the camera, the right one behind it; returns the left joints in the camera frame."""
    rng = np.random.default_rng(0)
    T = np.stack([make_transform(rotations(rng.normal(size=(1, 3)))[0], rng.normal(size=3)) for _ in range(3)])
    left = {joint: rng.normal([0, 0, 0.5], 0.02, (3, 3)) for joint in egodex.JOINTS}
    with h5py.File(path, "w") as file:
        file["camera/intrinsic"] = K
        file["transforms/camera"] = T
        for hand in HANDS:
            for joint, inside in left.items():
                poses = np.tile(np.eye(4), (3, 1, 1))
                sign = 1 if hand == "left" else -1
                poses[:, :3, 3] = np.einsum("nij,nj->ni", T[:, :3, :3], sign * inside) + T[:, :3, 3]
                file[f"transforms/{hand}{joint}"] = poses
            file[f"transforms/{hand}IndexFingerMetacarpal"] = poses
    return left


def test_egodex_gives_the_hands_in_view_in_openpose_order(tmp_path: Path) -> None:
    K = np.array([[736.6, 0, 960.0], [0, 736.6, 540.0], [0, 0, 1]])
    left = episode(tmp_path / "0.hdf5", K)
    truth = readers.read(tmp_path / "0.hdf5")
    assert truth.hands is not None
    assert truth.camera is not None
    assert [(h.frame_index, h.hand) for h in truth.hands] == [(0, "left"), (1, "left"), (2, "left")]
    names = ("Hand", "ThumbKnuckle", "ThumbIntermediateBase", "ThumbIntermediateTip", "ThumbTip", "IndexFingerKnuckle")
    for n, name in enumerate(names):
        np.testing.assert_allclose(truth.hands[1].joints_m[n], left[name][1], atol=1e-9)
    assert egodex.JOINTS[-1] == "LittleFingerTip"
    pixels = project(Camera(736.6, 736.6, 960, 540, 1920, 1080, "file"), truth.hands[0].joints_m)
    np.testing.assert_allclose(truth.hands[0].joints_px, pixels)
    assert len(truth.frames) == len(truth.camera) == 3


def test_hot3d_objects_lie_before_the_camera(shared_data: Path) -> None:
    folder = shared_data / "hot3d_sample" / "Quest3"
    with pytest.raises(InputError, match=r"several streams. Name one of 1201-1, 1201-2 with --stream"):
        readers.read(folder)
    truth = readers.read(folder, "1201-1")
    assert truth.objects is not None
    assert truth.camera is not None
    seen = [o for o in truth.objects if o.visible]
    assert len(seen) > 30
    assert all(0.1 < o.T_camera_object[2, 3] < 1.5 for o in seen)
    assert {"cellphone", "keyboard"} <= truth.shapes.keys()
    assert 0.3 < truth.shapes["keyboard"].diameter_m < 0.6
    steps_m = np.linalg.norm(np.diff([T[:3, 3] for T in truth.camera.values()], axis=0), axis=1)
    assert steps_m.max() < 0.05


def _truncated(folder: Path) -> None:
    (folder / "hands.parquet").write_bytes(b"PAR1")


def _without_columns(folder: Path) -> None:
    pq.write_table(pa.table({"frame_index": [0]}), folder / "masks.parquet")


def _third_hand(folder: Path) -> None:
    row: dict[str, Any] = {"frame_index": 0, "hand": "middle", "joints_m": [[0.0] * 3] * 21}
    pq.write_table(pa.Table.from_pylist([row]), folder / "hands.parquet")


def _strange_scene(folder: Path) -> None:
    (folder / "scene_gt.json").write_text('{"0": [{"obj_id": 1}]}')


def _no_csv(folder: Path) -> None:
    (folder / "dynamic_objects.csv").write_text("object_uid\n1\n")


def _no_episode(folder: Path) -> None:
    (folder / "0.hdf5").write_bytes(b"no HDF5")


@pytest.mark.parametrize(
    ("write", "name", "said"),
    [
        (lambda folder: None, "", "is no truth that is known"),
        (_truncated, "", "is no folder of truth"),
        (_without_columns, "", "is no folder of truth"),
        (_third_hand, "", "'middle' in frame 0 is neither left nor right"),
        (_strange_scene, "", "is no BOP scene"),
        (_no_csv, "", "is no recording of HOT3D"),
        (_no_episode, "0.hdf5", "is no episode of EgoDex"),
    ],
)
def test_what_is_no_truth_is_refused(tmp_path: Path, write: Any, name: str, said: str) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match=said):
        readers.read(tmp_path / name if name else tmp_path)


def test_an_episode_without_intrinsics_is_refused(tmp_path: Path) -> None:
    episode(tmp_path / "0.hdf5", np.zeros((0,)))
    with pytest.raises(InputError, match="has no camera intrinsics"):
        readers.read(tmp_path / "0.hdf5")
