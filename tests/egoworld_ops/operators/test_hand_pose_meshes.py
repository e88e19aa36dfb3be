"""The backends `hamer` and `wilor` without their weights: a network that tells the truth, ones of random numbers, and files that are not right."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import EgoworldError, OutOfMemory, WeightsMismatch, WeightsMissing, WeightsUnreadable
from egoworld_ops.operators.base import Operator
from egoworld_ops.operators.hand_pose import _mesh_model, hamer, wilor
from egoworld_ops.operators.hand_pose._crops import HandCrop, cut
from egoworld_ops.operators.hand_pose._mano import Mano, axis_angles
from egoworld_ops.operators.hand_pose._mesh_backend import MeshBackend, Settings
from egoworld_ops.operators.hand_pose._mesh_model import Hands
from egoworld_ops.operators.hand_pose._vit import CROP_PX, FOCAL_PX
from egoworld_ops.types import HANDS, Camera, Frame, Hand
from egoworld_ops.vision.geometry import project, rotation_angle_deg, towards
from egoworld_ops.vision.lenses import unproject
from tests.egoworld_ops.operators import seeded
from tests.egoworld_ops.operators.clips import clip_input, pictures_input
from tests.rows import detection_row, sample_row

CPU = torch.device("cpu")
PINHOLE = Camera(600.0, 600.0, 330.0, 235.0, 640, 480, "file")
WIDE = Camera(245.0, 245.0, 319.5, 239.5, 640, 480, "file", "kannala_brandt", (0.02, -0.008, 0.003, -0.0006))
BROWN = Camera(300.0, 300.0, 320.0, 240.0, 640, 480, "file", "plumb_bob", (-0.25, 0.06, 0.001, -0.001, 0.0))
CAMERAS = {"pinhole": PINHOLE, "fisheye": WIDE, "plumb_bob": BROWN}
BLANK = np.zeros((480, 640, 3), np.uint8)
MIRROR = np.diag([-1.0, 1.0, 1.0])
MODEL = Mano(seeded.mano(), CPU)
BACKENDS: dict[str, type[MeshBackend]] = {"hamer": hamer.Backend, "wilor": wilor.Backend}
TINY = {"hamer": seeded.TINY, "wilor": seeded.TINY_WILOR}
both = pytest.mark.parametrize("name", BACKENDS)


pytestmark = pytest.mark.usefixtures("one_thread")


def make(name: str = "hamer", **options: Any) -> MeshBackend:
    return BACKENDS[name](Settings(**{"device": "cpu", "random_weights_seed": 3, **options}), threads=1)


def run(operator: MeshBackend, rows: list[dict[str, Any]], camera: Camera = PINHOLE, pictures: list[np.ndarray] | None = None) -> pa.Table:
    item = pictures_input(pictures or [BLANK] * (1 + max((row["frame_index"] for row in rows), default=0)))
    table = operator.run(replace(item, camera=camera, tables={"detections": schema.from_rows("detections", rows)}))
    validation.validate("hand_pose", table)
    return table


def hand_row(frame_index: int, side: Hand, points_px: np.ndarray) -> dict[str, Any]:
    low, high = points_px.min(0), points_px.max(0)
    known = {"role": f"hand_{side}", "track_id": 1 + HANDS.index(side), "box_px": np.concatenate([low, high - low])}
    return detection_row(frame_index, **known, points_px=points_px)


def noise(n: int, seed: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (480, 640, 3)).astype(np.uint8) for _ in range(n)]


def some_points(u: float, v: float, size_px: float = 90.0) -> np.ndarray:
    """(21, 2) image points that fill a box of 3:4."""
    around = np.random.default_rng(1).uniform(-0.5, 0.5, (21, 2))
    around[:2] = (-0.5, -0.5), (0.5, 0.5)
    return (around * [0.75 * size_px, size_px] + [u, v]).astype(np.float64)


class TrueHand:
    """A hand of the model before a camera: where it is, and what a perfect network says of its crop."""

    def __init__(self, side: Hand, camera: Camera, origin_m: np.ndarray, rng: np.random.Generator, size: float = 1.0) -> None:
        self.side, self.camera, self.size = side, camera, size
        turns = rng.normal(0, 0.3, (16, 3))
        turns[0] = Rotation.random(rng=rng).as_rotvec()
        self.rotations = Rotation.from_rotvec(turns).as_matrix()  # of the right hand that is seen; the first against the view
        self.betas = rng.normal(0, 1, 10)
        self.model_m = self.joints_of(self.rotations)
        self.origin_m = origin_m
        self.view_m = self.model_m @ (MIRROR if side == "left" else np.eye(3))

    def joints_of(self, rotations: np.ndarray) -> np.ndarray:
        return self.of_model(rotations)[0]

    def of_model(self, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (21, 3) and vertices (778, 3)."""
        found = MODEL(torch.from_numpy(rotations[None]).float(), torch.from_numpy(self.betas[None]).float())
        joints, vertices = (part[0].numpy().astype(np.float64) * self.size for part in found)
        return joints, vertices

    def seen(self) -> tuple[dict[str, Any], HandCrop, np.ndarray]:
        """The detection, the crop, and the joints (21, 3) in the camera frame: the crop's view is where its own box leads, found in a few rounds."""
        R = np.eye(3)
        for _ in range(8):
            joints_m = self.view_m @ R.T + self.origin_m
            row = hand_row(0, self.side, project(self.camera, joints_m))
            points_px = np.float32(row["points_px"]).astype(np.float64)
            R = towards(unproject(self.camera, (points_px.min(0) + points_px.max(0)) / 2)[None])[0]
        crop = cut(BLANK, np.concatenate([points_px.min(0), np.ptp(points_px, axis=0)]), self.side, self.camera, CROP_PX, 2.0)
        return row, crop, joints_m

    def said(self, crop: HandCrop, joints_m: np.ndarray) -> Hands:
        """Of a network that knows the hand: its camera is the one in which the joints are seen nearest to where they are."""
        half = CROP_PX / 2
        wanted = (crop.projected(crop.to_crop_m(joints_m)) - half) / half

        def off(camera: np.ndarray) -> np.ndarray:
            z = self.model_m[:, 2] + 2 * FOCAL_PX / (CROP_PX * camera[0])
            return (FOCAL_PX * (self.model_m[:, :2] + camera[1:]) / z[:, None] / half - wanted).ravel()

        camera = least_squares(off, [1 / np.abs(self.model_m[:, :2]).max(), 0, 0], x_scale=[1, 0.01, 0.01]).x
        return Hands(self.rotations[None], self.betas[None], camera[None], self.model_m[None], self.of_model(self.rotations)[1][None])


def solved(hand: TrueHand, camera: Camera | None = None, name: str = "hamer", **options: Any) -> tuple[dict[str, Any], np.ndarray]:
    """The backend's row of a hand by the network that knows it, and the true joints."""
    row, crop, joints_m = hand.seen()
    operator = make(name, **options)
    operator._model = lambda crops: hand.said(crop, joints_m)
    return run(operator, [row], camera or hand.camera).to_pylist()[0], joints_m


@pytest.mark.parametrize("lens", CAMERAS)
def test_a_hand_lands_where_it_is_up_to_the_corners_of_the_picture(lens: str) -> None:
    """A network that tells the truth through its own, nearly parallel camera: what is left is the difference between those rays and the true ones."""
    camera, rng, off_mm, turned_deg, depths = CAMERAS[lens], np.random.default_rng(2029), [], [], []
    for i in range(16):
        corner_px = np.array([(90, 80), (550, 80), (90, 400), (550, 400)][i % 4]) + rng.uniform(-20, 20, 2)
        hand = TrueHand(HANDS[i % 2], camera, unproject(camera, corner_px) * rng.uniform(0.45, 0.8), rng)
        row, truth_m = solved(hand, name=list(BACKENDS)[i // 2 % 2])
        assert row["reason"] is None, row["reason"]
        joints_m = np.array(row["joints_m"])
        off_mm.append(np.linalg.norm(joints_m - truth_m, axis=1).mean() * 1e3)
        rooted = joints_m - joints_m[0], truth_m - truth_m[0]
        turned_deg.append(np.degrees(Rotation.align_vectors(rooted[1][1:], rooted[0][1:])[0].magnitude()))
        depths.append(joints_m[:, 2].mean() / truth_m[:, 2].mean())
    print(
        f"FIGURE hamer, truthful network, corners of a {lens}: joints {np.mean(off_mm):.1f} mm off (max {max(off_mm):.1f}), {max(turned_deg):.2f} deg"
    )
    assert np.mean(off_mm) < 8
    assert max(turned_deg) < 0.1
    assert depths == pytest.approx([1.0] * 16, abs=0.06)


def test_far_away_all_rays_are_parallel_and_nothing_is_left() -> None:
    rng = np.random.default_rng(2030)
    for side in HANDS:
        far = Camera(6000.0, 6000.0, 330.0, 235.0, 640, 480, "file")
        hand = TrueHand(side, far, unproject(far, np.array([120.0, 100.0])) * 8.0, rng)
        row, truth_m = solved(hand)
        assert np.abs(np.array(row["joints_m"]) - truth_m).max() < 8.0 * 2e-3


@pytest.mark.parametrize("side", HANDS)
@pytest.mark.parametrize("lens", CAMERAS)
def test_the_models_parameters_give_the_joints_again(lens: str, side: Hand) -> None:
    """`mano_pose` in the camera frame and `mano_betas`, put into the model (mirrored for a left hand), are `joints_m` about the wrist."""
    hand = TrueHand(side, CAMERAS[lens], unproject(CAMERAS[lens], np.array([120.0, 100.0])) * 0.5, np.random.default_rng(7))
    row, _ = solved(hand)
    rotations = Rotation.from_rotvec(np.array(row["mano_pose"]).reshape(16, 3)).as_matrix()
    assert row["mano_betas"] == pytest.approx(hand.betas, abs=1e-5)
    if side == "left":
        rotations = MIRROR @ rotations @ MIRROR
    again_m = hand.joints_of(rotations) @ (MIRROR if side == "left" else np.eye(3))
    joints_m = np.array(row["joints_m"])
    assert again_m - again_m[0] == pytest.approx(joints_m - joints_m[0], abs=2e-5)


@pytest.mark.parametrize("side", HANDS)
def test_the_surface_is_that_of_the_models_parameters_and_only_there_where_it_is_asked_for(side: Hand) -> None:
    hand = TrueHand(side, WIDE, unproject(WIDE, np.array([520.0, 100.0])) * 0.5, np.random.default_rng(17))
    row, _ = solved(hand, vertices=True)
    R = Rotation.from_quat([row[name] for name in ("qx", "qy", "qz", "qw")]).as_matrix()
    in_camera_m = np.array(row["vertices_wrist_m"]) @ R.T + [row["x_m"], row["y_m"], row["z_m"]]
    rotations = Rotation.from_rotvec(np.array(row["mano_pose"]).reshape(16, 3)).as_matrix()
    mirror = MIRROR if side == "left" else np.eye(3)
    joints_m, vertices_m = (points @ mirror for points in hand.of_model(mirror @ rotations @ mirror))
    assert in_camera_m == pytest.approx(vertices_m - joints_m[0] + np.array(row["joints_m"])[0], abs=8e-5)
    assert in_camera_m[[744, 320, 443, 554, 671]] == pytest.approx(np.array(row["joints_m"])[[4, 8, 12, 16, 20]], abs=8e-5)
    without = solved(hand)[0]
    assert without["vertices_wrist_m"] is None
    assert without | {"vertices_wrist_m": row["vertices_wrist_m"]} == row


def of_left(right: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """MANO's file for the left hand of a model whose hands are mirror images, with the sign that is wrong in the official one."""
    signs = np.diag(MIRROR)
    entries = np.tile(np.outer(signs, signs).ravel(), 15)  # of the rotations that bend the surface
    return {
        **right,
        "v_template": right["v_template"] * signs,
        "shapedirs": right["shapedirs"] * signs[:, None] * signs[:, None],  # the second is the fault
        "posedirs": right["posedirs"] * signs[:, None] * entries,
    }


def test_manos_left_model_takes_the_parameters_of_a_left_hand_once_a_sign_of_its_file_is_set_right() -> None:
    hand = TrueHand("left", PINHOLE, np.array([0.05, 0.02, 0.5]), np.random.default_rng(9))
    row, _ = solved(hand)
    rotations = torch.from_numpy(Rotation.from_rotvec(np.array(row["mano_pose"]).reshape(1, 16, 3)[0]).as_matrix()[None]).float()
    betas, joints_m = torch.tensor([row["mano_betas"]]), np.array(row["joints_m"])
    off_m = {}
    for sign in (1.0, -1.0):
        arrays = of_left(seeded.mano())
        arrays["shapedirs"][:, 0] *= sign
        again_m = Mano(arrays, CPU)(rotations, betas)[0][0].numpy()
        off_m[sign] = np.abs(again_m - again_m[0] - (joints_m - joints_m[0])).max()
    assert off_m[-1.0] < 2e-5 < 1e-3 < off_m[1.0]


def test_a_focal_length_of_half_halves_the_depth() -> None:
    hand = TrueHand("right", PINHOLE, np.array([0.0, 0.0, 0.6]), np.random.default_rng(8))
    half = replace(PINHOLE, fx_px=300.0, fy_px=300.0)
    full, halved = (solved(hand, camera)[0] for camera in (PINHOLE, half))
    depth_m, half_m = (np.array(row["joints_m"])[:, 2].mean() for row in (full, halved))
    assert half_m / depth_m == pytest.approx(0.5, rel=0.02)
    assert np.array(full["joints_px"]) == pytest.approx(np.array(halved["joints_px"]), abs=1e-3)
    assert (full["metric"], full["fx_px"], halved["fx_px"]) == (True, 600.0, 300.0)


@both
def test_a_left_hand_is_the_mirror_image_of_a_right_one(name: str) -> None:
    """The mirrored picture of a left hand gives the mirrored hand, number by number: only the side's name and signs differ."""
    picture = noise(1)[0]
    points_px = some_points(200, 150)
    mirrored_px = points_px * [-1, 1] + [639, 0]
    mirror = replace(PINHOLE, cx_px=639 - PINHOLE.cx_px)
    operator = make(name)
    right = run(operator, [hand_row(0, "right", points_px)], PINHOLE, [picture]).to_pylist()[0]
    left = run(operator, [hand_row(0, "left", mirrored_px)], mirror, [np.ascontiguousarray(picture[:, ::-1])]).to_pylist()[0]
    assert right["reason"] is left["reason"] is None
    assert np.array(left["joints_m"]) == pytest.approx(np.array(right["joints_m"]) * [-1, 1, 1], abs=1e-5)
    assert np.array(left["joints_px"]) == pytest.approx(np.array(right["joints_px"]) * [-1, 1] + [639, 0], abs=1e-2)
    turns = np.array(left["mano_pose"]).reshape(16, 3), np.array(right["mano_pose"]).reshape(16, 3)
    assert turns[0] == pytest.approx(turns[1] * [1, -1, -1], abs=1e-4)
    assert left["mano_betas"] == pytest.approx(right["mano_betas"], abs=1e-4)
    assert np.array(left["joints_wrist_m"]) == pytest.approx(np.array(right["joints_wrist_m"]) * [1, -1, 1], abs=1e-5)


@both
def test_hands_of_several_frames_go_through_the_network_together(name: str) -> None:
    """Five frames with two hands, one or none; other people's hands are not solved. A batch of 1 gives what a batch of 8 does."""
    pictures = noise(5)
    rows = [
        *(hand_row(0, side, some_points(u, 200)) for side, u in zip(HANDS, (200, 420), strict=True)),
        hand_row(0, "left", some_points(60, 60)) | {"role": "hand_other", "track_id": 3},
        hand_row(0, "left", some_points(500, 60)) | {"role": "hand_other", "track_id": 4},
        hand_row(0, "right", some_points(300, 400)) | {"role": "hand_other", "track_id": 5},
        *(hand_row(i, "right", some_points(300 + 10 * i, 240)) for i in (1, 3, 4)),
    ]
    tables, batches = {}, {}
    for size in (1, 8):
        operator, sizes = make(name, micro_batch=size), []
        model = operator._model

        def counted(crops: np.ndarray, model: Callable[[np.ndarray], Hands] = model, sizes: list[int] = sizes) -> Hands:
            sizes.append(len(crops))
            return model(crops)

        operator._model = counted
        tables[size], batches[size] = run(operator, rows, PINHOLE, pictures).to_pylist(), sizes
    assert batches == {1: [1] * 5, 8: [5]}
    assert [(r["frame_index"], r["hand"], r["backend"]) for r in tables[8]] == [
        (frame, side, f"{name}-random") for frame, side in ((0, "left"), (0, "right"), (1, "right"), (3, "right"), (4, "right"))
    ]
    for one, eight in zip(tables[1], tables[8], strict=True):
        assert one["reason"] is None
        assert np.array(one["joints_m"]) == pytest.approx(np.array(eight["joints_m"]), abs=1e-4)
        assert one["mano_pose"] == pytest.approx(eight["mano_pose"], abs=1e-4)


def test_no_hands_read_no_frames_and_give_a_typed_table() -> None:
    def never() -> Iterator[Frame]:
        raise AssertionError("there is nothing to look for")

    others = [hand_row(0, "left", some_points(60, 60)) | {"role": "hand_other", "track_id": 3}]
    for rows in ([], others):
        tables = {"detections": schema.from_rows("detections", rows)}
        item = replace(clip_input(Path("no.mp4"), 0, 3, 640, 480, never), tables=tables)
        operator = make()
        assert not operator.reads_frames(tables)
        assert operator.run(item).equals(schema.empty("hand_pose"))


def test_what_cannot_be_cut_or_placed_is_a_reason() -> None:
    """Boxes without area or off the lens; a network that sees no hand; and a hand of which no image points are known has no row."""
    flat = hand_row(0, "right", some_points(300, 200))
    flat["points_px"] = np.full((21, 2), 7.0)
    narrow = replace(WIDE, distortion=(-0.25, 0.0, 0.0, 0.0))
    beside = hand_row(0, "right", some_points(630, 470, 8))
    assert [r["reason_class"] for r in run(make(), [flat]).to_pylist()] == ["no_upstream"]
    assert [r["reason_class"] for r in run(make(), [beside], narrow).to_pylist()] == ["off_lens"]
    assert run(make(boxes="box"), [beside | {"points_px": None}], narrow).num_rows == 0
    row, at_origin = hand_row(0, "right", some_points(300, 200)), np.zeros((1, 21, 3))
    for options, wrong, kind in (
        ({}, {"camera": np.array([[-1.0, 0, 0]])}, "no_fit"),
        ({}, {"joints_m": at_origin - np.array([0, 0, 100])}, "no_fit"),
        ({}, {"joints_m": at_origin + np.linspace(0, 0.1, 21)[:, None] * [1, 0, 0]}, "degenerate"),
        ({"max_reprojection_share": 0.001}, {}, "poor_fit"),
    ):
        operator = make(**options)
        model = operator._model
        operator._model = lambda crops, model=model, wrong=wrong: replace(model(crops), **wrong)
        found = run(operator, [row]).to_pylist()[0]
        assert (found["reason_class"], found["joints_m"], found["mano_pose"], found["qw"]) == (kind, None, None, None)
        assert found["reason"]


def test_a_box_is_used_where_there_are_no_points_and_where_it_is_asked_for() -> None:
    row = hand_row(0, "right", some_points(300, 200))
    pictures = noise(1)
    alone = run(make(), [row | {"points_px": None}], PINHOLE, pictures)
    assert alone.equals(run(make(boxes="box"), [row], PINHOLE, pictures))
    assert alone["reason"].null_count == 1
    larger = run(make(padding=2.5), [row], PINHOLE, pictures)
    assert not larger.equals(run(make(), [row], PINHOLE, pictures))


def test_a_hand_that_is_not_detected_is_cut_out_by_its_mask_where_that_is_asked_for() -> None:
    """Frame 0 has detections of both hands and a mask of the right one; frame 1 a mask of each, of which that of the left one was carried."""
    pictures = noise(2)
    rows = [hand_row(0, side, some_points(u, 200)) | {"points_px": None} for side, u in zip(HANDS, (200, 420), strict=True)]
    masks = [mask_of("right", 0, [380.0, 150.0, 70.0, 90.0]), mask_of("right", 1, [382.0, 152.0, 70.0, 90.0])]
    masks.append(mask_of("left", 1, [180.0, 150.0, 70.0, 90.0]) | {"observed": False})

    def solved_by(how: str) -> dict[tuple[int, str], dict[str, Any]]:
        tables = {"detections": schema.from_rows("detections", rows), "masks": schema.from_rows("masks", masks)}
        operator = make(mask_boxes=how)
        reads = {"detections"} if how == "never" else {"detections", "masks"}
        table = operator.run(replace(pictures_input(pictures), camera=PINHOLE, tables={name: tables[name] for name in reads}))
        validation.validate("hand_pose", table)
        return {(row["frame_index"], row["hand"]): row for row in table.to_pylist()}

    never, missing, always = (solved_by(how) for how in ("never", "missing", "always"))
    assert list(never) == [(0, "left"), (0, "right")]
    assert list(missing) == list(always) == [(0, "left"), (0, "right"), (1, "right")]
    assert [missing[key] for key in never] == list(never.values())
    assert always[0, "left"] == never[0, "left"]
    assert always[0, "right"]["joints_px"] != never[0, "right"]["joints_px"]
    assert missing[1, "right"]["score"] == pytest.approx(0.9)
    boxed = hand_row(1, "right", some_points(420, 200)) | {"points_px": None, "box_px": masks[1]["bbox_px"]}
    [alone] = run(make(), [boxed], PINHOLE, pictures).to_pylist()
    assert alone["joints_m"] == pytest.approx(np.array(missing[1, "right"]["joints_m"]), abs=1e-5)
    only_masks = {"detections": schema.empty("detections"), "masks": schema.from_rows("masks", masks)}
    assert make(mask_boxes="missing").reads_frames(only_masks)
    assert not make().reads_frames(only_masks)


def mask_of(hand: Hand, frame_index: int, box_px: list[float]) -> dict[str, Any]:
    """A mask of which the box alone matters."""
    return sample_row("masks", frame_index, role=f"hand_{hand}", track_id=1 + HANDS.index(hand), bbox_px=box_px)


def saved(folder: Path, name: str = "hamer", **change: Any) -> tuple[Path, Path]:
    """A checkpoint as Lightning writes it, with what only training needs, and MANO's file, of the seeded tiny network."""
    folder.mkdir(exist_ok=True)
    of_training = {"discriminator.w": torch.zeros(3), "initialized": torch.tensor(True), "mano.v": torch.zeros(2)}
    of_training |= {"refine_net.deconv.deconv.0.1.num_batches_tracked": torch.tensor(7)} if name == "wilor" else {}
    tensors = seeded.network(TINY[name]) | of_training
    torch.save({"state_dict": tensors | change, "epoch": 3, "hyper_parameters": {"lr": 1e-5}}, folder / f"{name}.ckpt")
    (folder / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(dict(seeded.mano()), protocol=2))
    return folder / f"{name}.ckpt", folder / "MANO_RIGHT.pkl"


def loaded(name: str, files: tuple[Path, Path], precision: _mesh_model.Precision = "float32") -> _mesh_model.Model:
    return _mesh_model.load(BACKENDS[name].kind(), *files, CPU, precision, TINY[name])


def test_a_checkpoint_and_manos_file_give_the_goldens(tmp_path: Path, shared_data: Path) -> None:
    golden = np.load(shared_data / "goldens" / "hamer_tiny.npz")
    found = loaded("hamer", saved(tmp_path))(seeded.crops(3).astype(np.float32))
    assert found.vertices_m == pytest.approx(golden["vertices"], abs=1e-4)
    assert found.joints_m == pytest.approx(golden["joints"], abs=1e-4)
    assert found.camera == pytest.approx(golden["pred_cam"], abs=1e-4)


@both
def test_reduced_precision_is_near_and_is_not_the_same(name: str, tmp_path: Path) -> None:
    crops, files = seeded.crops(2).astype(np.float32), saved(tmp_path, name)
    exact, reduced = (loaded(name, files, precision)(crops) for precision in ("float32", "bfloat16"))
    turned = [rotation_angle_deg(a, b) for a, b in zip(exact.rotations.reshape(-1, 3, 3), reduced.rotations.reshape(-1, 3, 3), strict=True)]
    assert 0 < np.median(turned) < 3


@pytest.mark.parametrize(
    ("break_it", "kind", "words"),
    [
        (lambda hamer, mano: hamer.unlink(), WeightsMissing, r"hamer\.ckpt"),
        (lambda hamer, mano: mano.unlink(), WeightsMissing, r"MANO_RIGHT\.pkl"),
        (lambda hamer, mano: hamer.write_bytes(hamer.read_bytes()[:-5000]), WeightsUnreadable, r"hamer\.ckpt"),
        (lambda hamer, mano: mano.write_bytes(mano.read_bytes()[:5000]), WeightsUnreadable, r"MANO_RIGHT\.pkl"),
        (lambda hamer, mano: saved(hamer.parent, **{"refine_net.w": torch.zeros(2)}), WeightsMismatch, r"refine_net\.w.*fetch hamer"),
        (
            lambda hamer, mano: saved(hamer.parent, **{"mano_head.deccam.bias": torch.zeros(4)}),
            WeightsMismatch,
            r"another shape, such as mano_head\.deccam\.bias: \(4,\), want \(3,\)",
        ),
        (
            lambda hamer, mano: mano.write_bytes(pickle.dumps({"v_template": np.zeros((778, 3))})),
            WeightsMismatch,
            r"MANO's right hand.*lacks 4 arrays, such as J_regressor.*register mano_right",
        ),
    ],
    ids=["no checkpoint", "no MANO", "half a checkpoint", "half of MANO", "another network", "another version", "another hand model"],
)
def test_files_that_are_not_right_are_named(
    break_it: Callable[[Path, Path], object], kind: type[EgoworldError], words: str, tmp_path: Path
) -> None:
    files = saved(tmp_path)
    break_it(*files)
    with pytest.raises(kind, match=words):
        loaded("hamer", files)


def test_a_checkpoint_of_the_other_network_is_named(tmp_path: Path) -> None:
    """Both are files of the same kind, and the image network of both has the same names and shapes."""
    for name, other, words in (
        ("wilor", "hamer", r"not the file of WiLoR.*fetch wilor"),
        ("hamer", "wilor", r"not the file of HaMeR.*fetch hamer"),
    ):
        with pytest.raises(WeightsMismatch, match=words):
            loaded(name, saved(tmp_path, other))


@pytest.mark.parametrize(("name", "numbers"), [("hamer", 670_409_946), ("wilor", 639_282_637)])
def test_the_published_sizes_are_asked_for(name: str, numbers: int) -> None:
    backend = BACKENDS[name]
    assert sum(int(np.prod(shape)) for shape in backend.kind().published.shapes().values()) == numbers
    assert backend.network_mb == round(4 * numbers / 1e6)
    assert backend.weights(Settings()) == (name, "mano_right")
    assert backend.weights(Settings(random_weights_seed=1)) == ()
    assert 4 * numbers / 1e6 + 700 < backend.memory_mb(Settings(device="cpu")) < 4500
    assert backend.memory_mb(Settings(precision="bfloat16")) > backend.memory_mb(Settings())


@both
def test_where_memory_runs_out_that_is_an_error_that_may_be_tried_again(name: str) -> None:
    def full(crops: np.ndarray) -> Hands:
        raise torch.OutOfMemoryError("CUDA out of memory")

    operator = make(name)
    operator._model = full
    words = rf"clip c of v-0123456789ab.*{operator.kind().name}.*micro_batch in stages\.hand_pose\.{name}"
    with pytest.raises(OutOfMemory, match=words):
        run(operator, [hand_row(0, "right", some_points(300, 200))])


@both
def test_memory_is_flat_over_a_thousand_frames(name: str) -> None:
    check_flat_memory(name, make(name), range(1000))


def check_flat_memory(name: str, operator: Operator, with_hand: Collection[int]) -> None:
    """Of a thousand frames, of which these have a hand."""
    n, seen = 1000, {}
    picture = np.random.default_rng(4).integers(0, 256, (120, 160, 3)).astype(np.uint8)

    def frames() -> Iterator[Frame]:
        for i in range(n):
            if i in (200, n - 1):
                seen[i] = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
            yield Frame(i, i / 30, picture)

    rows = [hand_row(i, "right", some_points(80, 60, 40)) for i in with_hand]
    item = replace(clip_input(Path("p.mp4"), 0, n, 160, 120, frames), tables={"detections": schema.from_rows("detections", rows)})
    assert operator.run(item).num_rows == len(rows)
    growth_mb = seen[n - 1] - seen[200]
    print(f"FIGURE {name} memory (small network): {growth_mb:+.1f} MB from frame 200 to {n} (limit +30), peak {seen[n - 1]:.0f} MB")
    assert growth_mb < 30


def test_axis_angles_and_signs_of_a_mirrored_rotation() -> None:
    R = Rotation.random(20, rng=np.random.default_rng(3)).as_matrix()
    assert axis_angles(MIRROR @ R @ MIRROR) == pytest.approx(axis_angles(R) * [1, -1, -1], abs=1e-9)
