"""HaMeR's network and MANO's skinning, against numbers that the published network code gave for tensors seeded by their names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from egoworld_ops.operators.hand_pose._hamer_network import Network, Sizes
from egoworld_ops.operators.hand_pose._mano import Mano, axis_angles
from egoworld_ops.operators.hand_pose._vit import CROP_PX, FOCAL_PX, rotations_of
from tests.egoworld_ops.operators import seeded

CPU = torch.device("cpu")
LIMIT = 1e-4


pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture
def goldens(shared_data: Path) -> Path:
    return shared_data / "goldens"


def differences(sizes: Sizes, golden: Path) -> dict[str, float]:
    """The largest difference from each of the numbers of a golden file."""
    want = np.load(golden)
    crops = seeded.crops(len(want["betas"]))
    assert hashlib.sha256(crops.tobytes()).digest() == want["crops_sha256"].tobytes()
    network = Network(seeded.network(sizes), sizes)
    features = network.backbone(network.normalised(torch.from_numpy(crops)))
    found = network.head(features)
    joints, vertices = Mano(seeded.mano(), CPU)(found.rotations, found.betas)
    s, tx, ty = found.camera.T
    t = torch.stack([tx, ty, 2 * FOCAL_PX / (CROP_PX * s)], -1)
    placed = joints + t[:, None]
    flat = features.transpose(1, 2)
    got = {
        "features_first8": flat[:, :8].unflatten(-1, (16, 12)),
        "features_channel_mean": flat.mean(-1),
        "token": network.token(features)[:, None],
        "global_orient": found.rotations[:, :1],
        "hand_pose": found.rotations[:, 1:],
        "betas": found.betas,
        "pred_cam": found.camera,
        "pred_cam_t": t,
        "joints": joints,
        "vertices": vertices,
        "joints_2d": placed[..., :2] / placed[..., 2:] * FOCAL_PX / CROP_PX,
    }
    assert all(value.shape == want[name].shape for name, value in got.items())
    return {name: float(np.abs(value.numpy() - want[name]).max()) for name, value in got.items()}


def test_the_tiny_network_equals_the_published_code(goldens: Path) -> None:
    off = differences(seeded.TINY, goldens / "hamer_tiny.npz")
    print(f"FIGURE hamer tiny: largest difference {max(off.values()):.1e} of {len(off)} outputs (limit {LIMIT}), {off}")
    assert max(off.values()) < LIMIT


@pytest.mark.parametrize(("sizes", "name"), [(seeded.TINY, "tiny"), (Sizes(), "full")])
def test_the_tensors_have_the_names_and_shapes_of_the_published_checkpoint(sizes: Sizes, name: str, goldens: Path) -> None:
    listed = json.loads((goldens / f"hamer_{name}_state_dict.json").read_text())
    not_ours = ("discriminator.", "mano.", "initialized")
    assert {k: list(v) for k, v in sizes.shapes().items()} == {k: v[0] for k, v in listed.items() if not k.startswith(not_ours)}


def test_six_numbers_are_two_columns_of_a_rotation(goldens: Path) -> None:
    golden = np.load(goldens / "mano.npz")
    R = rotations_of(torch.from_numpy(golden["six"]))
    print(f"FIGURE hamer 6D: largest difference {np.abs(R.numpy() - golden['six_R']).max():.1e} (limit 1e-6)")
    assert R.numpy() == pytest.approx(golden["six_R"], abs=1e-6)


@pytest.mark.parametrize("side", ["RIGHT", "LEFT"])
def test_skinning_equals_the_published_code(side: str, goldens: Path) -> None:
    golden = np.load(goldens / "mano.npz")
    R, betas = (torch.from_numpy(golden[f"{side}_{name}"]) for name in ("rotations", "betas"))
    joints, vertices = Mano(seeded.mano(side), CPU)(R, betas)
    off_m = max(np.abs(joints.numpy() - golden[f"{side}_joints21"]).max(), np.abs(vertices.numpy() - golden[f"{side}_vertices"]).max())
    print(f"FIGURE mano {side}: largest difference {off_m:.1e} m (limit 1e-6)")
    assert off_m < 1e-6


def test_a_flat_hand_is_the_template_and_a_turn_turns_all_of_it() -> None:
    model = seeded.mano()
    flat = torch.eye(3).expand(1, 16, 3, 3)
    joints, vertices = Mano(model, CPU)(flat, torch.zeros(1, 10))
    assert vertices[0].numpy() == pytest.approx(model["v_template"], abs=1e-6)
    turn = torch.from_numpy(Rotation.from_rotvec([0.4, -1.0, 0.3]).as_matrix()).to(torch.float32)
    turned = flat.clone()
    turned[:, 0] = turn
    turned_joints, turned_vertices = Mano(model, CPU)(turned, torch.zeros(1, 10))
    for before, after in ((joints, turned_joints), (vertices, turned_vertices)):
        assert (after - turned_joints[:, :1]).numpy() == pytest.approx(((before - joints[:, :1]) @ turn.T).numpy(), abs=1e-6)


def test_axis_angles_are_those_of_the_rotations() -> None:
    R = Rotation.random(50, rng=np.random.default_rng(1)).as_matrix()
    assert Rotation.from_rotvec(axis_angles(R)).as_matrix() == pytest.approx(R, abs=1e-9)


def test_a_batch_of_eight_is_eight_batches_of_one() -> None:
    network, crops = Network(seeded.network(seeded.TINY), seeded.TINY), torch.from_numpy(seeded.crops(8))
    together = network(crops)
    for i in range(8):
        alone = network(crops[i : i + 1])
        for name in ("rotations", "betas", "camera"):
            assert getattr(alone, name)[0].numpy() == pytest.approx(getattr(together, name)[i].numpy(), abs=1e-5), (name, i)
