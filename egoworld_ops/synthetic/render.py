"""The picture of one frame: what each pixel sees, and its colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.synthetic import surfaces
from egoworld_ops.synthetic.clutter import things
from egoworld_ops.synthetic.config import SceneConfig
from egoworld_ops.synthetic.grasp import cuboid_distance
from egoworld_ops.synthetic.hand import Capsules, HandPose, Skeleton, flesh, skeleton, sleeve
from egoworld_ops.synthetic.rigid import Array
from egoworld_ops.synthetic.script import SceneState, shots
from egoworld_ops.synthetic.sdf import Floats, Hits, normals, prepare, rays, trace
from egoworld_ops.synthetic.shadow import Occluders, shadow
from egoworld_ops.vision.geometry import invert, transform

BACKGROUND, HAND_LEFT, HAND_RIGHT, OBJECT, SLEEVE = range(5)
HAND_IDS = {"left": HAND_LEFT, "right": HAND_RIGHT}
_TABLE_M = (-0.8, 0.8, -0.6, 0.56)
_FLOOR_M = -0.72
_FLOOR_GRID_PX = 4
_NOISE_RGB = 1.3
_PLAIN_RGB = (np.array([150, 146, 140], np.float32), np.array([90, 90, 92], np.float32))
"""Of table and floor in a scene without texture."""
_PSF = (0.14, 0.72, 0.14)
Lengths = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Light:
    """A lamp of one shot: direction towards it in the person's frame, its share and the ambient share, and a tint."""

    towards: tuple[float, float, float]
    lamp: float
    ambient: float
    tint: tuple[float, float, float]


LIGHTS = (
    Light((-0.45, 0.35, 1.0), 0.62, 0.48, (1.0, 0.97, 0.92)),
    Light((0.55, 0.30, 0.9), 0.70, 0.50, (0.98, 1.0, 1.03)),
    Light((-0.2, -0.25, 1.0), 0.60, 0.42, (1.05, 0.98, 0.88)),
)
_SKIN_RGB = ((222, 172, 140), (206, 152, 120), (186, 130, 98))


@dataclass(frozen=True, slots=True)
class Picture:
    """A rendered frame: `rgb` (H, W, 3) uint8; per pixel what it sees (`ids`, H x W) and at what depth (metres)."""

    rgb: np.ndarray
    ids: np.ndarray
    depth_m: Floats


@dataclass(slots=True)
class _Canvas:
    rgb: Floats
    ids: np.ndarray
    depth_m: Floats

    def paint(self, hits: Hits, number: int, rgb: Floats) -> None:
        """Paint the hits that are nearer than the surfaces painted before."""
        near = hits.depth_m < self.depth_m[hits.rows, hits.columns]
        where = hits.rows[near], hits.columns[near]
        self.rgb[where], self.ids[where], self.depth_m[where] = rgb[near], number, hits.depth_m[near]


@dataclass(frozen=True, slots=True)
class _Stage:
    """Data that all painters of one frame share; `to_light` (3,) is in the camera frame, occluders in the world."""

    config: SceneConfig
    state: SceneState
    T_camera_world: Array
    T_camera_object: Array
    light: Light
    to_light_world: Array
    to_light: Floats
    occluders: Occluders
    skeletons: dict[str, Skeleton]
    bodies: dict[str, Capsules]

    def lit(self, normal: Floats, shade: Floats | float = 0.0) -> Floats:
        """Brightness (n, 1) of surfaces with these normals, `shade` in [0, 1] of the lamp withheld."""
        lamp = np.clip(normal @ self.to_light, 0, 1) * (1 - shade)
        return np.asarray(self.light.ambient + self.light.lamp * lamp)[:, None]


def render(config: SceneConfig, state: SceneState, frame_index: int) -> Picture:
    """Render a state; the sensor's noise depends on seed and frame alone."""
    stage = _stage(config, state)
    canvas = _background(stage)
    _paint_clutter(stage, canvas)
    _paint_box(stage, canvas)
    for pose in state.hands:
        _paint_sleeve(stage, canvas, pose)
        _paint_hand(stage, canvas, pose)
    canvas.rgb[_unseen(config)] = 0
    rgb = surfaces.blurred(canvas.rgb * np.array(stage.light.tint, np.float32), _PSF)
    rng = np.random.default_rng([config.seed, 5, frame_index])
    rgb += np.float32(_NOISE_RGB) * rng.standard_normal(rgb.shape, dtype=np.float32)
    return Picture(np.clip(np.rint(rgb), 0, 255).astype(np.uint8), canvas.ids, canvas.depth_m)


def _stage(config: SceneConfig, state: SceneState) -> _Stage:
    light = LIGHTS[state.shot]
    T_camera_world = invert(state.T_world_camera)
    towards = shots(config)[state.shot].T_world_person[:3, :3] @ np.array(light.towards)
    towards /= np.linalg.norm(towards)
    skeletons = {pose.hand: skeleton(pose) for pose in state.hands}
    bodies = {pose.hand: flesh(pose, skeletons[pose.hand]) for pose in state.hands}
    return _Stage(
        config=config,
        state=state,
        T_camera_world=T_camera_world,
        T_camera_object=T_camera_world @ state.T_world_object,
        light=light,
        to_light_world=towards,
        to_light=(T_camera_world[:3, :3] @ towards).astype(np.float32),
        occluders=Occluders(
            capsules=[*bodies.values(), *(sleeve(pose)[0] for pose in state.hands)],
            T_world_cuboid=state.T_world_object,
            dimensions_m=np.array(config.dimensions_m),
        ),
        skeletons=skeletons,
        bodies=bodies,
    )


def _pixel_rays(config: SceneConfig, step_px: int = 1) -> Floats:
    rows, columns = np.mgrid[0 : config.height : step_px, 0 : config.width : step_px].astype(np.float32)
    return rays(config.camera, columns, rows)


def _seen(directions: Floats) -> Floats:
    """Rays (..., 3), those that the lens does not show replaced by its axis."""
    return np.where(np.isnan(directions), np.array([0, 0, 1], np.float32), directions)


def _unseen(config: SceneConfig) -> np.ndarray:
    """(H, W) bool: pixels in which the lens shows nothing; they are black."""
    return np.asarray(np.isnan(_pixel_rays(config)[..., 2]))


def _background(stage: _Stage) -> _Canvas:
    """Table and floor: rays against two horizontal planes."""
    config, kind = stage.config, stage.state.shot
    T_person_camera = invert(shots(config)[kind].T_world_person) @ stage.state.T_world_camera
    eye = T_person_camera[:3, 3].astype(np.float32)
    directions = _seen(_pixel_rays(config)) @ T_person_camera[:3, :3].T.astype(np.float32)
    down = np.minimum(directions[..., 2], -1e-3)
    field = surfaces.noise(config.seed)
    depth = -eye[2] / down
    x_m, y_m = eye[0] + depth * directions[..., 0], eye[1] + depth * directions[..., 1]
    on_table = (x_m > _TABLE_M[0]) & (x_m < _TABLE_M[1]) & (y_m > _TABLE_M[2]) & (y_m < _TABLE_M[3])
    rgb = surfaces.table_rgb(kind, field, x_m, y_m)
    floor_depth = (_FLOOR_M - eye[2]) / down
    floor_x, floor_y = eye[0] + floor_depth * directions[..., 0], eye[1] + floor_depth * directions[..., 1]
    rgb = np.where(on_table[..., None], rgb, 0.6 * surfaces.floor_rgb(kind, field, floor_x, floor_y))
    if config.plain:
        rgb = np.where(on_table[..., None], *_PLAIN_RGB)
    depth = np.where(on_table, depth, floor_depth).astype(np.float32)
    up = (stage.T_camera_world[:3, 2] @ stage.to_light) * stage.light.lamp
    bright = stage.light.ambient + up * (1 - _table_shadow(stage) * on_table)
    return _Canvas((rgb * bright[..., None]).astype(np.float32), np.zeros(depth.shape, np.uint8), depth)


def _table_shadow(stage: _Stage) -> Floats:
    """Shadow on the table's plane, computed on a coarse grid and stretched: it is soft."""
    config = stage.config
    directions = _seen(_pixel_rays(config, _FLOOR_GRID_PX)) @ stage.state.T_world_camera[:3, :3].T.astype(np.float32)
    eye = stage.state.T_world_camera[:3, 3].astype(np.float32)
    points = eye + directions * (eye[2] / np.maximum(-directions[..., 2:], 1e-3))
    coarse = shadow(points.reshape(-1, 3), stage.to_light_world, stage.occluders).reshape(points.shape[:2])
    for axis, n in enumerate((config.height, config.width)):
        at = np.minimum(np.arange(n) / _FLOOR_GRID_PX, coarse.shape[axis] - 1.001)
        low = at.astype(int)
        share = (at - low).astype(np.float32)[:, None] if axis == 0 else (at - low).astype(np.float32)
        coarse = coarse.take(low, axis) * (1 - share) + coarse.take(low + 1, axis) * share
    return coarse


def _paint_box(stage: _Stage, canvas: _Canvas) -> None:
    config = stage.config
    hands_only = Occluders(stage.occluders.capsules, None, stage.occluders.dimensions_m)
    painted = _cuboid(stage, stage.state.T_world_object, config.dimensions_m, config.seed, hands_only)
    if painted is None:
        return
    hits, normal, rgb = painted
    for body in stage.bodies.values():
        near = prepare(body.moved(stage.T_camera_world)).distance(hits.points_m + 0.008 * normal)
        rgb *= np.clip(0.55 + 0.45 * near / 0.02, 0.5, 1)[:, None]
    canvas.paint(hits, OBJECT, rgb)


def _paint_clutter(stage: _Stage, canvas: _Canvas) -> None:
    """Things that stay where they are; they throw no shadow and count as background."""
    T_world_person = shots(stage.config)[stage.state.shot].T_world_person
    for thing in things(stage.config, stage.state.shot):
        painted = _cuboid(stage, T_world_person @ thing.T_person_thing, thing.dimensions_m, thing.print_seed, stage.occluders)
        if painted is not None:
            hits, _, rgb = painted
            canvas.paint(hits, BACKGROUND, rgb)


def _cuboid(
    stage: _Stage, T_world_cuboid: Array, dimensions_m: Lengths, print_seed: int | None, occluders: Occluders
) -> tuple[Hits, Floats, Floats] | None:
    """Where a printed cuboid is met, its normals there and its colour in light and shadow, each (n, 3); None where it is out of sight."""
    T_camera_cuboid = stage.T_camera_world @ T_world_cuboid
    hits, face, points_cuboid = cuboid_hits(stage.config, dimensions_m, T_camera_cuboid)
    if not len(hits.rows):
        return None
    normal_cuboid = np.zeros((len(face), 3), np.float32)
    normal_cuboid[np.arange(len(face)), face // 2] = np.where(face % 2, 1, -1)
    normal = normal_cuboid @ T_camera_cuboid[:3, :3].T.astype(np.float32)
    if print_seed is None:
        albedo = surfaces.striped_rgb(dimensions_m, points_cuboid, face)
    else:
        albedo = surfaces.box_rgb(surfaces.box_faces(print_seed, dimensions_m), dimensions_m, points_cuboid, face)
    points_world = transform(T_world_cuboid, points_cuboid).astype(np.float32)
    shade = shadow(points_world + 1e-3 * (normal_cuboid @ T_world_cuboid[:3, :3].T), stage.to_light_world, occluders)
    return hits, normal, albedo * stage.lit(normal, shade)


def cuboid_hits(config: SceneConfig, dimensions_m: Lengths, T_camera_object: Array) -> tuple[Hits, np.ndarray, Floats]:
    """Pixels whose ray meets the cuboid (slab method); the face met, numbered -x, +x, -y, +y, -z, +z; points on it."""
    T_object_camera = invert(T_camera_object)
    half = np.array(dimensions_m) / 2
    origin = T_object_camera[:3, 3]
    directions = _pixel_rays(config).reshape(-1, 3).astype(np.float64) @ T_object_camera[:3, :3].T
    directions = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
    first, second = (-half - origin) / directions, (half - origin) / directions
    enter, leave = np.minimum(first, second), np.maximum(first, second)
    depth = enter.max(-1)
    met = np.flatnonzero((depth < leave.min(-1)) & (depth > 0))
    axis = enter[met].argmax(-1)
    points = origin + depth[met, None] * directions[met]
    face = 2 * axis + (points[np.arange(len(met)), axis] > 0)
    rows, columns = np.divmod(met, config.width)
    depth_m = depth[met].astype(np.float32)
    camera_points = rays(config.camera, columns, rows) * depth_m[:, None]
    return Hits(rows, columns, depth_m, camera_points), face, points.astype(np.float32)


def _paint_sleeve(stage: _Stage, canvas: _Canvas, pose: HandPose) -> None:
    capsules, cuff_m, wristwards = sleeve(pose)
    capsules = capsules.moved(stage.T_camera_world)
    body = prepare(capsules)
    cuff = transform(stage.T_camera_world, cuff_m).astype(np.float32)
    along = (stage.T_camera_world[:3, :3] @ wristwards).astype(np.float32)

    def distance(points_m: Floats) -> Floats:
        return np.asarray(np.maximum(body.distance(points_m), (points_m - cuff) @ along))

    hits = trace(distance, stage.config.camera, capsules)
    if not len(hits.rows):
        return
    normal = normals(distance, hits.points_m)
    beyond = (cuff - hits.points_m) @ along + 0.03
    side = np.cross(along, stage.to_light)
    rgb = surfaces.sleeve_rgb(stage.state.shot, beyond, np.arctan2(normal @ side, normal @ np.cross(side, along)))
    canvas.paint(hits, SLEEVE, rgb * stage.lit(normal))


def _paint_hand(stage: _Stage, canvas: _Canvas, pose: HandPose) -> None:
    capsules = stage.bodies[pose.hand].moved(stage.T_camera_world)
    body = prepare(capsules)
    hits = trace(body.distance, stage.config.camera, capsules)
    if not len(hits.rows):
        return
    normal = normals(body.distance, hits.points_m)
    rgb = _skin(stage, pose, hits, normal)
    open_air = np.clip(body.distance(hits.points_m + 0.012 * normal) / 0.012, 0, 1)
    to_box = cuboid_distance(transform(invert(stage.T_camera_object), hits.points_m), np.array(stage.config.dimensions_m))
    open_air *= np.clip(0.6 + 0.4 * to_box / 0.012, 0.6, 1)
    rim = 1 + (normal * hits.points_m).sum(1) / np.linalg.norm(hits.points_m, axis=1)
    rgb *= stage.lit(normal) * (0.5 + 0.5 * open_air[:, None]) * (1 - 0.35 * np.clip(rim, 0, 1)[:, None] ** 2)
    canvas.paint(hits, HAND_IDS[pose.hand], rgb.astype(np.float32))


def _skin(stage: _Stage, pose: HandPose, hits: Hits, normal: Floats) -> Floats:
    """Albedo of the hand: tone, mottling, redder knuckles with creases, nails."""
    tone = np.random.default_rng([stage.config.seed, 6]).integers(len(_SKIN_RGB))
    rgb = np.broadcast_to(np.array(_SKIN_RGB[tone], np.float32), (len(hits.rows), 3)).copy()
    local = transform(invert(stage.T_camera_world @ pose.T_world_wrist), hits.points_m).astype(np.float32)
    mottle = surfaces.noise(stage.config.seed).octaves(local[:, 0] * 160 + local[:, 2] * 90, local[:, 1] * 160, 3) - 0.5
    rgb += mottle[:, None] * np.array([10, 16, 16], np.float32)
    bones = stage.skeletons[pose.hand]
    joints = transform(stage.T_camera_world, bones.fingers_m).astype(np.float32)
    dorsal = (bones.dorsal @ stage.T_camera_world[:3, :3].T).astype(np.float32)
    for finger in range(joints.shape[0]):
        for joint in range(1 if finger == 0 else 0, 3):
            _knuckle(
                rgb,
                hits.points_m - joints[finger, joint],
                normal @ dorsal[finger, joint],
                joints[finger, joint + 1] - joints[finger, joint],
                joint,
            )
        _nail(
            rgb,
            hits.points_m - joints[finger, 3],
            normal @ dorsal[finger, 3],
            dorsal[finger, 3],
            joints[finger, 3] - joints[finger, 2],
            pose.scale,
        )
    return rgb


def _knuckle(rgb: Floats, offset_m: Floats, facing: Floats, bone_m: Floats, joint: int) -> None:
    near = np.flatnonzero((offset_m * offset_m).sum(1) < 0.016**2)
    offset_m, facing = offset_m[near], facing[near]
    redness = np.exp(-(offset_m**2).sum(1) / (2 * 0.0075**2))
    rgb[near, 1] -= 10 * redness
    rgb[near, 2] -= 9 * redness
    if joint == 0:
        return
    along = offset_m @ (bone_m / np.linalg.norm(bone_m))
    creases = sum(np.exp(-(((along - shift) / 0.0007) ** 2)) for shift in (-0.0022, 0.0, 0.0022))
    rgb[near] *= (1 - 0.22 * creases * (np.abs(facing) > 0.35))[:, None]


def _nail(rgb: Floats, offset_m: Floats, facing: Floats, dorsal: Floats, bone_m: Floats, scale: float) -> None:
    along = offset_m @ (bone_m / np.linalg.norm(bone_m)) - 0.001
    sideways2 = (offset_m**2).sum(1) - (along + 0.001) ** 2 - (offset_m @ dorsal) ** 2
    inside = (facing > 0.45) & ((along / (0.0066 * scale)) ** 2 + sideways2 / (0.0050 * scale) ** 2 < 1)
    rgb[inside] = 0.55 * rgb[inside] + 0.45 * np.array([240, 205, 195], np.float32)
