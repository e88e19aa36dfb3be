"""The parts of FoundationPose around its networks: meshes, renderer, pairs of pictures, first rotations, and the way home of every hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.errors import BadSidecar
from egoworld_ops.operators.object_pose import _foundationpose, _renderer
from egoworld_ops.operators.object_pose._foundationpose import Estimator, Target, first_position, first_rotations, part_around, wrong_size
from egoworld_ops.operators.object_pose._foundationpose_networks import SIDE_PX
from egoworld_ops.operators.object_pose._foundationpose_pairs import REFINED, eroded, for_network, observed, view_of, windows
from egoworld_ops.operators.object_pose._painted_mesh import PaintedMesh, diameter, of_trimesh, read_painted_mesh
from egoworld_ops.operators.object_pose._renderer import Rendered, Renderer
from egoworld_ops.operators.object_pose._symmetry import NONE, Symmetry
from egoworld_ops.vision.geometry import make_transform, project, rotation_angle_deg, transform
from tests.egoworld_ops.operators.painted import CAMERA, Reading, Scene, Still, cast, draw, painted, thing

T_CAMERA_THING = make_transform(Rotation.from_rotvec([0.3, 1.0, -0.5]).as_matrix(), np.array([0.05, -0.03, 0.45]))


@pytest.fixture
def unlit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_renderer, "AMBIENT", 1.0)
    monkeypatch.setattr(_renderer, "DIFFUSE", 0.0)
    return


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw(T_CAMERA_THING)


def target_of(scene: Scene, mesh: PaintedMesh) -> Target:
    part = part_around(CAMERA, scene.mask, 0.45, mesh.diameter_m)
    return Target(view_of(CAMERA, scene.rgb, scene.depth_m[part], part), scene.mask, np.zeros_like(scene.mask))


def centred(mesh: PaintedMesh, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R (1, 3, 3) and the middle (1, 3) of the mesh's box, as the renderer has poses."""
    return T[None, :3, :3], transform(T, mesh.centre_m)[None]


def rendered(mesh: PaintedMesh, T: np.ndarray, left: float = 130, top: float = 20, step: float = 1.0) -> Rendered:
    return Renderer(mesh, "cpu")(CAMERA, *centred(mesh, T), np.array([[left, top, step]]), SIDE_PX)


# --- renderer ------------------------------------------------------------------------------------------------------------------------------


def test_the_renderer_sees_what_brute_force_sees(unlit: None, scene: Scene) -> None:
    """Coverage, depth and colour of every pixel, at the places that the window names."""
    found = rendered(painted(), T_CAMERA_THING)
    part = np.s_[20 : 20 + SIDE_PX, 130 : 130 + SIDE_PX]
    mask = scene.mask[part]
    off_m = np.abs(found.xyz_m[0, ..., 2] - scene.depth_m[part])[mask].max()
    off_rgb = np.abs(found.rgb[0] * 255 - scene.rgb[part])[mask].max()
    differ = int((found.seen[0] != mask).sum())
    print(
        f"FIGURE foundationpose renderer: {differ} of {mask.sum()} pixels differ, depth off by {off_m:.1e} m, colours by {off_rgb:.2f} of 255"
    )
    assert differ == 0
    assert off_m < 1e-5
    assert off_rgb <= 0.51
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns + 130, rows + 20], 1)
    assert project(CAMERA, found.xyz_m[0][mask].astype(np.float64)) == pytest.approx(pixels, abs=1e-3)


def test_light_comes_from_the_camera() -> None:
    """A plain cube seen head on, and turned by half a right angle: 0.8 and 0.5 times the cosine, and no more than white."""
    cube = trimesh.creation.box((0.1, 0.1, 0.1))
    cube.unmerge_vertices()
    for colour, turn_deg, want in ((100, 0, 1.3 * 100), (100, 45, (0.8 + 0.5 * np.sqrt(0.5)) * 100), (240, 0, 255)):
        cube.visual = trimesh.visual.ColorVisuals(cube, vertex_colors=np.full((len(cube.vertices), 4), colour, np.uint8))
        T = make_transform(Rotation.from_rotvec([0, np.radians(turn_deg), 0]).as_matrix(), np.array([0.0, 0, 0.5]))
        rgb = rendered(of_trimesh(cube), T, CAMERA.cx_px - 10, CAMERA.cy_px - 10).rgb
        assert rgb[0, 10, 14] * 255 == pytest.approx([want] * 3, abs=0.1)


def test_a_texture_is_laid_on_as_the_file_says(tmp_path: Path) -> None:
    """A square of four colours through a GLB file: which is left and which is above."""
    picture = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8).repeat(8, 0).repeat(8, 1)
    corners = np.array([[-0.05, -0.05, 0], [0.05, -0.05, 0], [0.05, 0.05, 0], [-0.05, 0.05, 0]])
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], float)  # y is down before the camera, v is up in the picture
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture))
    square = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=trimesh.visual.TextureVisuals(uv, material=material), process=False)
    both = trimesh.util.concatenate([square, square.copy().apply_translation([0, 0, 0.02])])
    both.export(tmp_path / "square.glb")
    mesh = read_painted_mesh(tmp_path / "square.glb")
    rgb = rendered(mesh, make_transform(np.eye(3), np.array([0.0, 0, 0.5])), CAMERA.cx_px - 80, CAMERA.cy_px - 80).rgb[0]
    at = {name: rgb[80 + i, 80 + j] for name, i, j in (("above left", -15, -15), ("above right", -15, 15), ("below left", 15, -15))}
    assert at["above left"].argmax() == 0
    assert at["above right"].argmax() == 1
    assert at["below left"].argmax() == 2


def test_brute_force_weights_are_those_of_the_corners() -> None:
    """Of what the renderer is compared with: a place is the weighted mean of its triangle's corners."""
    mesh, rays = thing(), np.random.default_rng(1).uniform([-0.1, -0.1, 1], [0.1, 0.1, 1], (50, 3))
    vertices = np.asarray(mesh.vertices) + np.array([0, 0, 0.4])
    face, far, weights = cast(vertices, np.asarray(mesh.faces), rays)
    hit = face >= 0
    assert hit.any()
    places = np.einsum("ni,nij->nj", weights, vertices[mesh.faces[face]])[hit]
    assert places == pytest.approx((rays * far[:, None])[hit], abs=1e-9)


# --- meshes --------------------------------------------------------------------------------------------------------------------------------


def test_a_mesh_is_about_the_middle_of_its_box_and_as_wide_as_its_farthest_corners() -> None:
    for seed, mesh in enumerate((thing(), trimesh.creation.box((0.1, 0.06, 0.03)), trimesh.creation.cone(0.04, 0.12))):
        points = np.asarray(mesh.vertices) + np.random.default_rng(seed).normal(0, 0.2, 3)
        apart = np.linalg.norm(points[:, None] - points, axis=2).max()
        assert diameter(points) == pytest.approx(apart, rel=1e-9)
    mesh = painted()
    assert mesh.vertices_m.max(0) == pytest.approx(-mesh.vertices_m.min(0), abs=1e-7)
    assert mesh.centre_m == pytest.approx((thing().vertices.max(0) + thing().vertices.min(0)) / 2)


def test_a_mesh_inside_out_looks_the_same() -> None:
    other = thing().copy()
    other.invert()
    first, second = (rendered(of_trimesh(mesh), T_CAMERA_THING) for mesh in (thing(), other))
    assert np.abs(first.xyz_m - second.xyz_m).max() < 1e-6
    assert np.abs(first.rgb - second.rgb).max() < 1e-3


def test_a_mesh_of_a_million_faces_is_rendered_as_it_is(tmp_path: Path) -> None:
    """A torus of 720 x 700 squares: where its own formula says, and not made coarser."""
    n, m, ring_m, tube_m = 720, 700, 0.05, 0.02
    a, b = np.meshgrid(np.arange(n) * 2 * np.pi / n, np.arange(m) * 2 * np.pi / m, indexing="ij")
    vertices = np.stack([(ring_m + tube_m * np.cos(b)) * np.cos(a), (ring_m + tube_m * np.cos(b)) * np.sin(a), tube_m * np.sin(b)], -1)
    i, j = np.meshgrid(np.arange(n), np.arange(m), indexing="ij")
    corner = [((i + di) % n * m + (j + dj) % m).ravel() for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1))]
    faces = np.concatenate([np.stack([corner[0], corner[1], corner[2]], 1), np.stack([corner[0], corner[2], corner[3]], 1)])
    trimesh.Trimesh(vertices.reshape(-1, 3), faces, process=False).export(tmp_path / "torus.ply")
    mesh = read_painted_mesh(tmp_path / "torus.ply")
    assert len(mesh.triangles) == len(faces) == 1_008_000
    assert mesh.symmetry.kind == "round"
    found = rendered(mesh, make_transform(np.eye(3), np.array([0.0, 0, 0.5])), CAMERA.cx_px - 80, CAMERA.cy_px - 80)
    x, y, z = found.xyz_m[0][found.seen[0]].T.astype(np.float64)
    assert len(x) > 1000
    assert (np.hypot(x, y) - ring_m) ** 2 + (z - 0.5) ** 2 == pytest.approx(tube_m**2, abs=2e-6)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\nf 1 3 2\nf 2 3 1\nf 2 1 3\n", "holds no surface"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "holds no surface|cannot be read"),
        ("ply\nformat ascii 1.0\ncomment TextureFile mug.png\nend_header\n", "its colours are in other files"),
        ("mtllib mug.mtl\nv 0 0 0\n", "its colours are in other files, which are not read. Save the mesh as GLB"),
        (
            "v 0 0 0\nv 80 0 0\nv 0 90 0\nv 0 0 70\nf 1 2 3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n",
            "90 m long.*0.08, 0.09, 0.07 if these are millimetres",
        ),
    ],
)
def test_a_mesh_that_cannot_be_used_is_named_with_its_cure(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / ("mug.ply" if content.startswith("ply") else "mug.obj")
    path.write_text(content)
    with pytest.raises(BadSidecar, match=rf"mug\..*({said})"):
        read_painted_mesh(path)


def test_colours_take_away_the_symmetry_of_a_shape() -> None:
    ball = trimesh.creation.icosphere(3, 0.04)
    assert of_trimesh(ball).symmetry.kind == "ball"
    ball.visual = trimesh.visual.ColorVisuals(ball, vertex_colors=np.where(ball.vertices[:, :1] > 0, 255, 40) * np.ones((1, 4), np.uint8))
    assert of_trimesh(ball).symmetry.kind == "none"
    box = trimesh.creation.box((0.1, 0.06, 0.03))
    assert len(of_trimesh(box).symmetry.turns) == 4
    box.visual = trimesh.visual.ColorVisuals(box, face_colors=np.where(box.face_normals[:, :1] > 0.5, 255, 40) * np.ones((1, 4), np.uint8))
    assert len(of_trimesh(box).symmetry.turns) == 2  # the half turn about the axis through the bright side is left


@pytest.mark.parametrize("shape", ["box", "cylinder", "cone", "ball"])
def test_of_equal_poses_the_one_nearest_to_the_last_is_taken(shape: str) -> None:
    """Turned by one of its symmetries about its own middle, which is not its origin, a thing is the same; it comes back as it was."""
    rng, away = np.random.default_rng(4), [0.02, -0.01, 0.03]
    made = {
        "box": trimesh.creation.box((0.1, 0.06, 0.03)),
        "cylinder": trimesh.creation.cylinder(0.03, 0.1),
        "cone": trimesh.creation.cone(0.03, 0.1),
        "ball": trimesh.creation.icosphere(3, 0.04),
    }[shape].apply_translation(away)
    mesh = of_trimesh(made)
    turn = {
        "box": Rotation.from_rotvec([0, np.pi, 0]),
        "cylinder": Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec([0, 0, 1.2]),
        "cone": Rotation.from_rotvec([0, 0, 1.2]),
        "ball": Rotation.random(rng=rng),
    }[shape].as_matrix()
    middle = np.average(made.triangles_center, axis=0, weights=made.area_faces)
    T = make_transform(Rotation.random(rng=rng).as_matrix(), np.array([0.1, 0.05, 0.6]))
    equal = T @ make_transform(turn, middle - turn @ middle)
    near = T @ make_transform(Rotation.from_rotvec([0.0, 0.0, 0.02]).as_matrix(), np.zeros(3))
    assert mesh.equal_nearest_to(equal, T) == pytest.approx(T, abs=1e-6)
    assert rotation_angle_deg(mesh.equal_nearest_to(near, T)[:3, :3], T[:3, :3]) < 1.2


# --- hypotheses and pairs ------------------------------------------------------------------------------------------------------------------


def test_252_first_rotations_leave_no_rotation_far_and_symmetric_things_have_fewer() -> None:
    starts = first_rotations(NONE)
    assert starts.shape == (252, 3, 3)
    assert np.linalg.det(starts) == pytest.approx(1)
    assert starts @ starts.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(3), (252, 3, 3)), abs=1e-12)
    farthest = max(float(NONE.angles_deg(R, starts).min()) for R in Rotation.random(300, rng=np.random.default_rng(3)).as_matrix())
    turned = first_rotations(Symmetry("round", np.eye(3)[None], np.array([0.0, 0, 1])))
    print(
        f"FIGURE foundationpose hypotheses: 252, no rotation is farther than {farthest:.0f} degrees; {len(turned)} of a round thing, 1 of a ball"
    )
    assert farthest < 45
    assert 20 < len(turned) < 60
    assert len(first_rotations(Symmetry("ball", np.eye(3)[None]))) == 1


def test_both_pictures_of_a_pair_show_the_same_rays(unlit: None, scene: Scene) -> None:
    """At the true pose they agree, in places and in colours, and best where neither is shifted: half a pixel would show."""
    mesh, target = painted(), target_of(scene, painted())
    R, t = centred(mesh, T_CAMERA_THING)
    window = windows(CAMERA, t, mesh.diameter_m, REFINED)
    found = Renderer(mesh, "cpu")(CAMERA, R, t, window, SIDE_PX)
    A = for_network(found.rgb, found.xyz_m, t, mesh.diameter_m, 0.001)[0]
    off = {}
    for shift in (-0.5, 0.0, 0.5):
        B = for_network(*observed(target.view, window + np.array([[shift, shift, 0]])), t, mesh.diameter_m, 0.001)[0]
        on = (A[..., 5] != 0) & (B[..., 5] != 0) & (B[..., :3] > 0.02).all(-1)
        off[shift] = [float(np.median(np.abs(A - B)[on][:, part])) for part in (slice(0, 3), slice(3, 6))]
    print(f"FIGURE foundationpose pairs: median differences of colour and place, by a shift in pixels: {off}")
    assert on.sum() > 5000
    assert off[0.0][0] < 0.5 * min(off[-0.5][0], off[0.5][0])
    assert off[0.0][1] < min(off[-0.5][1], off[0.5][1])
    assert np.abs(A[..., 3:]).max() <= 1.0


def test_what_is_two_units_away_or_unknown_is_zero() -> None:
    xyz = np.array([[0, 0, 0.5], [0.0999, 0, 0.5], [0.1001, 0, 0.5], [0, 0, 0.05], [0, 0, 0]], np.float32).reshape(1, 1, 5, 3)
    made = for_network(np.ones((1, 1, 5, 3), np.float32), xyz, np.array([[0, 0, 0.5]]), 0.1, 0.1)
    assert made[0, 0, :, 3] == pytest.approx([0, 1.998, 0, 0, 0], abs=1e-3)
    assert (made[..., :3] == 1).all()


def test_slanted_surfaces_keep_their_depth_in_a_picture_of_few_lines() -> None:
    """Red with a millimetre at every focal length, as published: before this camera of 330 px half of the thing had no depth at 0.8 m."""
    scene = draw(make_transform(T_CAMERA_THING[:3, :3], np.array([0.05, -0.03, 0.8])))
    kept = [float((eroded(scene.depth_m, focal_px) > 0)[scene.mask].mean()) for focal_px in (CAMERA.fx_px, np.inf)]
    print(
        f"FIGURE foundationpose depth: {100 * kept[0]:.0f} % of the thing keeps its depth, {100 * kept[1]:.0f} % with a millimetre everywhere"
    )
    assert kept[0] > 0.85
    assert kept[1] < 0.6
    flying = np.where(scene.mask, scene.depth_m, 0)
    flying[5, 5] = 0.7
    assert eroded(flying, CAMERA.fx_px)[5, 5] == 0


# --- the way home --------------------------------------------------------------------------------------------------------------------------


def test_every_one_of_252_hypotheses_comes_home(unlit: None, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a refiner that has nothing but the pixels of the pairs: crops, light, frames, units and decoding agree, or it would end elsewhere.

    It may turn by any angle at once here, so that one round does; the next test has the published limit.
    """
    monkeypatch.setattr(_foundationpose, "MAX_TURN_RAD", 3.2)
    mesh, target = painted(), target_of(scene, painted())
    estimator = Estimator(Reading(mesh), Renderer(mesh, "cpu"), mesh, 84)
    position_m = first_position(target)
    assert not isinstance(position_m, Reason)
    assert wrong_size(mesh.diameter_m, target) is None
    R, t = estimator._refined(target.view, estimator.starts, np.tile(position_m, (252, 1)), 1)
    R_true, t_true = centred(mesh, T_CAMERA_THING)
    off_deg, off_mm = max(rotation_angle_deg(found, R_true[0]) for found in R), 1e3 * np.linalg.norm(t - t_true, axis=1).max()
    print(f"FIGURE foundationpose home: 252 of 252 hypotheses within {off_deg:.2f} degrees and {off_mm:.2f} mm")
    assert off_deg < 0.5
    assert off_mm < 0.5


def test_a_round_turns_by_at_most_20_degrees_about_each_axis(unlit: None, scene: Scene) -> None:
    """From some of the hypotheses home by the published steps; the scorer that sees how pictures differ takes one that is there."""
    mesh, target = painted(), target_of(scene, painted())
    estimator = Estimator(Reading(mesh), Renderer(mesh, "cpu"), mesh, 84)
    estimator.starts = estimator.starts[::64]
    position_m = np.tile(first_position(target), (len(estimator.starts), 1))
    once, _ = estimator._refined(target.view, estimator.starts, position_m, 1)
    steps = [np.abs(Rotation.from_matrix(a @ b.T).as_rotvec()).max() for a, b in zip(estimator.starts, once, strict=True)]
    assert max(steps) == pytest.approx(np.radians(20), abs=1e-3)
    T = estimator.register(target, 12)
    assert not isinstance(T, Reason)
    assert rotation_angle_deg(T[:3, :3], T_CAMERA_THING[:3, :3]) < 0.5
    assert np.linalg.norm(T[:3, 3] - T_CAMERA_THING[:3, 3]) < 5e-4
    fit = estimator.fit(target, T)
    assert fit.mask_iou > 0.95
    assert fit.depth_off_m < 1e-3


def test_a_refiner_that_says_nothing_changes_nothing(scene: Scene) -> None:
    mesh, target = painted(), target_of(scene, painted())
    estimator = Estimator(Still(), Renderer(mesh, "cpu"), mesh, 84)
    estimator.starts = estimator.starts[:5]
    T = estimator.register(target, 3)
    assert not isinstance(T, Reason)
    position_m = first_position(target)
    assert T[:3, :3] == pytest.approx(estimator.starts[-1], abs=1e-12)
    assert transform(T, mesh.centre_m) == pytest.approx(position_m, abs=1e-12)
    assert estimator.follow(target.view, T, 2) == pytest.approx(T, abs=1e-12)


@pytest.mark.parametrize("away_m", [(0.03, 0, 0), (0, 0, 0.05), (0, 0, -1.0)])
def test_a_pose_that_is_off_does_not_fit(away_m: tuple[float, float, float], scene: Scene) -> None:
    mesh, target = painted(), target_of(scene, painted())
    estimator = Estimator(Still(), Renderer(mesh, "cpu"), mesh, 1)
    good = estimator.fit(target, T_CAMERA_THING)
    bad = estimator.fit(target, make_transform(T_CAMERA_THING[:3, :3], T_CAMERA_THING[:3, 3] + away_m))
    assert good.mask_iou > 0.95
    assert bad.mask_iou < 0.6 or bad.depth_off_m > 0.1 * mesh.diameter_m
    hidden = scene.mask & (np.arange(CAMERA.width) > 195)
    partly = Target(target.view, scene.mask & ~hidden, hidden)
    assert 0.2 < hidden.sum() / scene.mask.sum() < 0.8
    assert estimator.fit(partly, T_CAMERA_THING).mask_iou > 0.9


@pytest.mark.parametrize(
    ("unit", "said"),
    [(1000, "millimetres"), (100, "centimetres"), (39.37, "inches"), (0.001, "one of them is in another unit"), (1, None)],
)
def test_a_mesh_in_another_unit_than_mask_and_depth_is_named(unit: float, said: str | None, scene: Scene) -> None:
    wrong = wrong_size(painted().diameter_m * unit, target_of(scene, painted()))
    assert (wrong is None) == (said is None)
    assert said is None or (wrong is not None and wrong.kind == "wrong_scale" and said in wrong)


def test_a_mask_without_depth_registers_nothing(scene: Scene) -> None:
    """The published code returns the identity rotation there."""
    mesh = painted()
    bare = Scene(scene.rgb, np.where(scene.mask, np.nan, scene.depth_m).astype(np.float32), scene.mask, scene.face)
    found = Estimator(Still(), Renderer(mesh, "cpu"), mesh, 1).register(target_of(bare, mesh), 1)
    assert isinstance(found, Reason)
    assert found.kind == "no_depth"
