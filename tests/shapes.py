"""Everyday things with known truth: meshes of twelve kinds, moved as by a hand and drawn exactly, with occluders and with noisy masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import trimesh

from egoworld_ops.contract import quality, schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.movement import classical as movement
from egoworld_ops.operators.object_pose import classical as object_pose
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from egoworld_ops.vision.geometry import make_transform, project, rotations, transform
from tests.boxes import FPS, mask_row
from tests.rows import PER_FRAME, hand_pose_row

TRACK = 10
FINE_RINGS = 28
ONE = np.eye(3)[None]


@dataclass(frozen=True)
class Thing:
    """A closed mesh centred in its box, and its true symmetries: `turns` (S, 3, 3), and `round_axis` about which it is round (3 for a ball)."""

    name: str
    mesh: trimesh.Trimesh
    turns: np.ndarray
    round_axis: int | None = None

    def angle_deg(self, R_found: np.ndarray, R_true: np.ndarray, box_too: bool) -> float:
        """Degrees between two rotations (3, 3), up to the symmetries; and up to those of its box, for who knows the box alone."""
        boxes = box_symmetries(self.mesh.extents) if box_too else ONE
        angles = []
        for box, turn in product(boxes, self.turns):
            R = (R_found @ box).T @ R_true @ turn
            if self.round_axis == 3:
                return 0.0
            cos = (np.trace(R) - 1) / 2 if self.round_axis is None else R[self.round_axis, self.round_axis]
            angles.append(float(np.degrees(np.arccos(np.clip(cos, -1, 1)))))
        return min(angles)


def box_symmetries(size: np.ndarray) -> np.ndarray:
    """Rotations (S, 3, 3) that map a box onto itself, sides within 3 % of each other taken for equal."""
    found = []
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for signs in product((1, -1), repeat=3):
            turn = np.eye(3)[list(order)] * np.array(signs)[:, None]
            if np.allclose(size[list(order)], size, rtol=0.03) and np.linalg.det(turn) > 0:
                found.append(turn)
    return np.array(found)


def half_turn(axis: int) -> np.ndarray:
    """(2, 3, 3): none, and a half turn about an axis."""
    return np.stack([np.eye(3), np.diag(np.where(np.arange(3) == axis, 1.0, -1.0))])


def _box(size: Sequence[float], at: Sequence[float] = (0, 0, 0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(size)
    mesh.apply_translation(at)
    return mesh


def _lathe(profile: Sequence[Sequence[float]]) -> trimesh.Trimesh:
    return trimesh.creation.revolve(np.array(profile), sections=FINE_RINGS)


def _handle(radius: float, thick: float, at_x: float) -> trimesh.Trimesh:
    """Half a ring that stands out along x."""
    mesh = trimesh.creation.torus(radius, thick, major_sections=24, minor_sections=8)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    mesh.apply_translation([at_x, 0, 0])
    return mesh


def _blob(seed: int) -> trimesh.Trimesh:
    """A crumpled cloth: a flattened ball with a few smooth bulges."""
    mesh = trimesh.creation.icosphere(3, 1.0)
    rng = np.random.default_rng(seed)
    way = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    bulge = np.ones(len(way))
    for _ in range(7):
        towards = rng.normal(size=3)
        bulge += rng.uniform(-0.45, 0.6) * np.exp(4 * (way @ (towards / np.linalg.norm(towards)) - 1))
    mesh.vertices = way * bulge[:, None] * np.array([0.085, 0.06, 0.028])
    return mesh


_MUG = [[0, -0.045], [0.038, -0.045], [0.040, 0.045], [0.036, 0.045], [0.034, -0.038], [0, -0.038]]
_BOWL = [[0, -0.03], [0.035, -0.03], [0.062, -0.005], [0.072, 0.03], [0.068, 0.03], [0.058, -0.003], [0.032, -0.024], [0, -0.024]]
_BOTTLE = [[0, -0.11], [0.033, -0.11], [0.034, 0.03], [0.026, 0.06], [0.013, 0.075], [0.013, 0.11], [0, 0.11]]
_CAN = [[0, -0.058], [0.033, -0.058], [0.033, 0.058], [0, 0.058]]
_PLATE = [[0, -0.011], [0.065, -0.011], [0.105, 0.009], [0.104, 0.012], [0.063, -0.006], [0, -0.006]]
_PAN = [[0, -0.02], [0.085, -0.02], [0.1, 0.02], [0.096, 0.02], [0.082, -0.016], [0, -0.016]]
_MAKE: dict[str, Callable[[], tuple[list[trimesh.Trimesh], np.ndarray, int | None]]] = {
    "mug": lambda: ([_lathe(_MUG), _handle(0.026, 0.006, 0.042)], ONE, None),
    "bowl": lambda: ([_lathe(_BOWL)], ONE, 2),
    "knife": lambda: ([_box((0.12, 0.028, 0.003), (0.055, 0, 0)), _box((0.1, 0.02, 0.016), (-0.055, 0.011, 0))], ONE, None),
    "tray": lambda: (
        [_box((0.3, 0.2, 0.006)), *(_box((0.3, 0.006, 0.03), (0, s * 0.097, 0.012)) for s in (1, -1)),
         *(_box((0.006, 0.2, 0.03), (s * 0.147, 0, 0.012)) for s in (1, -1))], half_turn(2), None,
    ),
    "bottle": lambda: ([_lathe(_BOTTLE)], ONE, 2),
    "book": lambda: ([_box((0.21, 0.14, 0.025))], box_symmetries(np.array([0.21, 0.14, 0.025])), None),
    "can": lambda: ([_lathe(_CAN)], half_turn(0), 2),
    "ball": lambda: ([trimesh.creation.icosphere(3, 0.037)], ONE, 3),
    "plate": lambda: ([_lathe(_PLATE)], ONE, 2),
    "box": lambda: ([_box((0.16, 0.11, 0.06))], box_symmetries(np.array([0.16, 0.11, 0.06])), None),
    "pan": lambda: ([_lathe(_PAN), _box((0.16, 0.022, 0.012), (0.17, 0, 0.012))], ONE, None),
    "cloth": lambda: ([_blob(5)], ONE, None),
}  # fmt: skip
KINDS = tuple(_MAKE)


@cache
def thing(name: str) -> Thing:
    """One of the kinds."""
    parts, turns, round_axis = _MAKE[name]()
    mesh = trimesh.util.concatenate(parts)
    mesh.apply_translation(-mesh.bounds.mean(0))
    return Thing(name, mesh, turns, round_axis)


@dataclass(frozen=True)
class Shot:
    """How a thing is filmed.

    Args:
        lines, hfov_deg: of the picture, 16 by 9, a pinhole's.
        textured: whether the thing and its ground have a pattern.
        noisy: whether the mask's border is off by some percent of the thing's size, and now and then a piece of it is missing.
        given: `mesh`, `dimensions` or `none`: what the sidecar says. With `none` a hand holds the thing, its joints on the surface.
        occluded: whether a hand covers a part of it, and something without a mask passes before it.
    """

    kind: str
    seed: int
    lines: int = 480
    hfov_deg: float = 70.0
    textured: bool = True
    noisy: bool = False
    given: str = "mesh"
    occluded: bool = True
    frames: int = 24

    @property
    def camera(self) -> Camera:
        """The camera it is filmed with."""
        width = 2 * round(self.lines * 8 / 9)
        focal = width / 2 / np.tan(np.radians(self.hfov_deg) / 2)
        return Camera(focal, focal, (width - 1) / 2, (self.lines - 1) / 2, width, self.lines, "file")


def motion(shot: Shot) -> list[np.ndarray]:
    """T_camera_object of each frame: smooth turns of some tens of degrees and shifts of some centimetres, as in a hand. The same at each size."""
    rng = np.random.default_rng(shot.seed)
    start = rotations(_uniform_rotation(rng)[None])[0]
    time = np.linspace(0, 1, shot.frames)[:, None]
    turn = _wave(rng, time, np.radians(28.0))
    shift = _wave(rng, time, 0.02)
    size = float(np.linalg.norm(thing(shot.kind).mesh.extents))
    spread = np.tan(np.radians(shot.hfov_deg) / 2)
    depth = size * rng.uniform(1.35, 2.3) / spread * 0.9
    depth = max(depth, 1.6 * size)
    middle = np.array([rng.uniform(-0.25, 0.25) * spread, rng.uniform(-0.14, 0.14) * spread, 1.0]) * depth
    return [make_transform(R @ start, middle + s) for R, s in zip(rotations(turn), shift, strict=True)]


def _uniform_rotation(rng: np.random.Generator) -> np.ndarray:
    """(3,) rotation vector, uniform over all rotations."""
    q = rng.normal(size=4)
    q /= np.linalg.norm(q) * np.sign(q[0])
    return q[1:] / np.linalg.norm(q[1:]) * 2 * np.arccos(np.clip(q[0], -1, 1))


def _wave(rng: np.random.Generator, time: np.ndarray, height: float) -> np.ndarray:
    """(N, 3) smooth curves."""
    waves = [rng.uniform(-1, 1, 3) * np.sin(2 * np.pi * (f * time + rng.uniform(0, 1, 3))) / (1 + k) for k, f in enumerate((0.55, 1.3))]
    return height * np.asarray(waves[0] + waves[1])


def _pattern(seed: int, points: np.ndarray, blob: float, strong: float) -> np.ndarray:
    """(N, 3) colour offsets of places (N, D): sums of waves that change within `blob`."""
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(18, points.shape[1])) / blob
    phase, color = rng.uniform(0, 2 * np.pi, 18), rng.normal(size=(18, 3))
    return strong * np.sin(points.astype(np.float32) @ ways.T.astype(np.float32) + phase.astype(np.float32)) @ color.astype(np.float32)


def faces_at(camera: Camera, mesh: trimesh.Trimesh, T: np.ndarray) -> np.ndarray:
    """(H, W) int32: one more than the number of the triangle that is seen there, 0 beside the thing. Triangles are painted from back to front."""
    corners = transform(T, np.asarray(mesh.vertices))
    numbers = np.zeros((camera.height, camera.width), np.int32)
    pixels = (project(camera, corners) * 16).round().astype(np.int32)
    triangles = np.asarray(mesh.faces)
    eye = -T[:3, :3].T @ T[:3, 3]
    front = ((eye - mesh.triangles[:, 0]) * mesh.face_normals).sum(1) > 0
    far = np.linalg.norm(corners[triangles].mean(1), axis=1)
    for i in np.argsort(-far):
        if front[i]:
            cv2.fillConvexPoly(numbers, pixels[triangles[i]], int(i) + 1, shift=4)
    return numbers


@cache
def _fine(name: str) -> trimesh.Trimesh:
    """The mesh with triangles small enough to be painted from back to front."""
    mesh = thing(name).mesh
    if name in ("book", "box", "ball"):
        return mesh
    vertices, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, float(mesh.extents.max()) / 8)
    return trimesh.Trimesh(vertices, faces, process=False)


def draw(shot: Shot, T: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture (H, W, 3) uint8, mask of what is seen of the thing and mask of the hand before it, both (H, W) bool."""
    camera, mesh = shot.camera, _fine(shot.kind)
    rng = np.random.default_rng([shot.seed, index])
    rgb = _ground(shot, index)
    numbers = faces_at(camera, mesh, T)
    mask = numbers > 0
    at = np.argwhere(mask)
    rays = np.stack([(at[:, 1] - camera.cx_px) / camera.fx_px, (at[:, 0] - camera.cy_px) / camera.fy_px, np.ones(len(at))], 1) @ T[:3, :3]
    eye, face = -T[:3, :3].T @ T[:3, 3], numbers[mask] - 1
    normal = mesh.face_normals[face]
    depth = ((mesh.triangles[face, 0] - eye) * normal).sum(1) / np.minimum((rays * normal).sum(1), -1e-6)
    places = eye + rays * depth[:, None]
    base = np.random.default_rng(shot.seed + 2).uniform(70, 190, 3)
    color = base + (_pattern(shot.seed + 3, places, float(mesh.extents.max()) / 16, 17.0) if shot.textured else 0)
    light = np.array([-0.4, -0.75, -0.53]) @ T[:3, :3]
    rgb[mask] = color * (0.62 + 0.38 * np.clip(normal @ light, -0.4, 1))[:, None]
    seen, hand = mask.copy(), np.zeros_like(mask)
    if shot.occluded and mask.any():
        hand = _hand(shot, mask, index)
        rgb[hand] = np.array([205, 158, 130]) + 10 * np.sin(40 * np.argwhere(hand)[:, 1:] / camera.height)
        passing = _passing(shot, mask, index)
        rgb[passing] = (62, 70, 80)
        seen &= ~hand & ~passing
        hand &= ~passing
    rgb = cv2.GaussianBlur(rgb, (0, 0), 0.6 * camera.height / 480) + np.roll(_grain(camera.height, camera.width), rng.integers(900), (0, 1))
    return np.clip(rgb, 0, 255).astype(np.uint8), seen, hand


def _ground(shot: Shot, index: int) -> np.ndarray:
    """(H, W, 3) float32: a smooth pattern that drifts."""
    rows, columns = np.mgrid[0:180, 0:320]
    plane = np.stack([columns / 180, rows / 180], -1).reshape(-1, 2)
    ground = _pattern(shot.seed + 1, plane + 0.004 * index, 0.09, 5.0 if shot.textured else 2.0) + 25 * np.sin(2.5 * plane[:, :1])
    picture = (ground.reshape(180, 320, 3) + np.array([118, 112, 104])).astype(np.float32)
    return cv2.resize(picture, (shot.camera.width, shot.camera.height), interpolation=cv2.INTER_CUBIC)


@cache
def _grain(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2.0, (height, width, 3)).astype(np.float32)


def _hand(shot: Shot, mask: np.ndarray, index: int) -> np.ndarray:
    """A palm at the thing's border and three fingers over it, at the same place of the thing's box in each frame."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    rng = np.random.default_rng(shot.seed + 4)
    angle, size = rng.uniform(0, 2 * np.pi) + 0.1 * np.sin(index / 7), np.sqrt(mask.sum())
    away = np.array([np.cos(angle), np.sin(angle)])
    middle, across = np.array([x + w / 2, y + h / 2]), np.array([-away[1], away[0]])
    edge = middle + away * 0.5 * np.hypot(w * away[0], h * away[1])
    picture = np.zeros(mask.shape, np.uint8)
    for k in (-1, 0, 1):
        start, end = edge + across * k * 0.13 * size, edge + across * k * 0.16 * size - away * 0.3 * size
        cv2.line(picture, *(tuple(map(int, p)) for p in (start, end)), 1, max(int(0.1 * size), 1))
    cv2.circle(picture, tuple(map(int, edge + away * 0.16 * size)), int(0.24 * size), 1, -1)
    return picture.astype(bool)


def _passing(shot: Shot, mask: np.ndarray, index: int) -> np.ndarray:
    """A bar without a mask of its own that crosses the thing in some frames."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    share = (index / shot.frames - 0.55) / 0.25
    picture = np.zeros(mask.shape, np.uint8)
    if 0 <= share <= 1:
        at = int(x - 0.1 * w + share * 1.2 * w)
        cv2.line(picture, (at, y - h), (at + w // 6, y + 2 * h), 1, max(int(0.12 * w), 1))
    return picture.astype(bool)


def worsened(shot: Shot, mask: np.ndarray, index: int) -> np.ndarray:
    """The mask as a network would give it: the border moved in and out by some percent of the size, and in some frames a piece missing."""
    rng = np.random.default_rng([shot.seed, 77, index])
    size = float(np.sqrt(mask.sum()))
    inside = mask.astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    field = cv2.resize(rng.normal(0, 0.022 * size, (9, 16)).astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
    noisy = distance + field > 0
    if index % 6 == 5:
        at = np.argwhere(mask)[rng.integers(mask.sum())]
        piece = np.zeros(mask.shape, np.uint8)
        cv2.circle(piece, (int(at[1]), int(at[0])), int(0.16 * size), 1, -1)
        noisy &= ~piece.astype(bool)
    return np.asarray(noisy)


def _holding(shot: Shot, T: np.ndarray, index: int) -> dict[str, Any]:
    """A hand whose fingertips lie on the surface that the camera sees."""
    rng = np.random.default_rng(shot.seed + 9)
    mesh = thing(shot.kind).mesh
    eye = -T[:3, :3].T @ T[:3, 3]
    front = np.flatnonzero(((eye - mesh.triangles[:, 0]) * mesh.face_normals).sum(1) > 0)
    joints = np.tile(transform(T, np.zeros(3)), (21, 1))
    joints[[4, 8, 12, 16, 20]] = transform(T, mesh.triangles_center[rng.choice(front, 5)])
    return hand_pose_row(index, joints_m=joints, joints_px=project(shot.camera, joints))


@dataclass(frozen=True, slots=True)
class Said:
    """What the stages say of a clip: poses by frame as rows of `object_pose`, states of `movement` by frame, and metrics of both that warn."""

    poses: dict[int, dict[str, Any]]
    states: dict[int, str | None]
    warnings: set[str]


def said_of(item: ClipInput, folder: Path) -> Said:
    """Pose the thing and judge its movement. Tables are written to the folder, for the metrics."""
    tables, warnings = dict(item.tables) | {"camera": schema.empty("camera")}, set[str]()
    for stage, backend in (("object_pose", object_pose.Backend), ("movement", movement.Backend)):
        tables[stage] = backend(backend.Settings(), 1).run(replace(item, tables=tables))
        pq.write_table(tables[stage], folder / f"{stage}.parquet")
        measured = quality.measure(duckdb.connect(), stage, [folder / f"{stage}.parquet"])
        warnings |= {metric.name for metric in quality.metrics(stage) if metric.verdict(measured[metric.name])}
    poses = {row["frame_index"]: row for row in tables["object_pose"].to_pylist()}
    return Said(poses, {row["frame_index"]: row["state"] for row in tables["movement"].to_pylist()}, warnings)


def clip_of(shot: Shot, folder: Path) -> tuple[ClipInput, list[np.ndarray]]:
    """The clip as the stage gets it, and the true pose of each frame. A mesh is written to the folder."""
    truth, frames, rows, hands = motion(shot), [], [], []
    for i, T in enumerate(truth):
        rgb, mask, hand = draw(shot, T, i)
        frames.append(Frame(i, i / FPS, rgb))
        said = worsened(shot, mask, i) & ~hand if shot.noisy and mask.any() else mask
        for track, role, one in ((2, "hand_right", hand), (TRACK, "object", said)):
            if one.any():
                rows.append(mask_row(i, track, role, one, "thing"))
        if shot.given == "none":
            hands.append(_holding(shot, T, i))
    mesh = thing(shot.kind).mesh
    if shot.given == "mesh":
        mesh.export(folder / f"{shot.kind}.ply")
    named: dict[str, Any] = {"mesh": {"mesh": f"{shot.kind}.ply"}, "dimensions": {"dimensions_m": tuple(mesh.extents.tolist())}}.get(
        shot.given, {}
    )
    tables: dict[str, pa.Table] = {
        "masks": schema.from_rows("masks", sorted(rows, key=lambda r: (r["frame_index"], r["track_id"]))),
        "hand_pose": schema.from_rows("hand_pose", hands) if hands else schema.empty("hand_pose"),
    }
    n, camera = shot.frames, shot.camera
    clip = Clip(
        PER_FRAME["video_id"], PER_FRAME["clip_id"], folder / "thing.mp4", "0" * 64, 0, n, 0, n, 0.0, n / FPS, Fraction(FPS), camera.width,
        camera.height,
    )  # fmt: skip
    sidecar = Sidecar(objects=(SidecarObject(label="thing", **named),))
    return ClipInput(clip, tables, sidecar, camera, 1, lambda: iter(frames)), truth
