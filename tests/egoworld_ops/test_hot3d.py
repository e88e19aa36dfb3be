"""Projection against HOT3D (Meta, 2024): 3D centres of tracked objects must fall into the 2D boxes that the data set ships.

The sample's Quest 3 recording brings its camera models: FISHEYE624 lenses. Its Aria recording keeps them in the video file, which is not
part of the sample, so nothing can be projected there.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from egoworld_ops.types import Camera
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, project, transform
from egoworld_ops.vision.lenses import unproject

MIN_VISIBILITY = 0.5
BOX = ("x_min[pixel]", "y_min[pixel]", "x_max[pixel]", "y_max[pixel]")


def read_poses(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """T_world_thing by (uid, timestamp)."""
    with path.open() as file:
        return {(r["object_uid"], r["timestamp[ns]"]): pose_of(r) for r in csv.DictReader(file)}


def pose_of(row: dict[str, str]) -> np.ndarray:
    q_wxyz = np.array([float(row[f"q_wo_{a}"]) for a in "wxyz"])
    return make_transform(matrix_from_quaternion(q_wxyz), np.array([float(row[f"t_wo_{a}[m]"]) for a in "xyz"]))


def read_lens(model: dict[str, Any]) -> tuple[Camera, np.ndarray]:
    """One lens as a sidecar beside its video would give it, read as the stages get it; and T_device_camera."""
    assert model["projectionModelType"].endswith("FISHEYE624")
    fx, fy, cx, cy, *distortion = model["projectionParams"]
    width, height = model["imageWidth"], model["imageHeight"]
    given = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": width, "height": height, "model": "fisheye624", "distortion": distortion}
    camera = resolve(width, height, Sidecar.model_validate({"camera": given}), CameraSettings(), "v")
    mount = model["T_Device_Camera"]
    return camera, make_transform(matrix_from_quaternion(np.array(mount["quaternion_wxyz"])), np.array(mount["translation_xyz"]))


class Recording:
    """One Quest 3 recording: lenses, and T_camera_object of every object seen by a lens at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = read_poses(folder / "dynamic_objects.csv")
        self.devices = {stamp: T for (_, stamp), T in read_poses(folder / "headset_trajectory.csv").items()}
        self.lenses = {m["stream_id"]: read_lens(m) for m in json.loads((folder / "camera_models.json").read_text())}

    def boxes(self) -> list[dict[str, str]]:
        """Rows of well visible objects whose pose is known."""
        with (self.folder / "box2d_objects.csv").open() as file:
            return [r for r in csv.DictReader(file) if float(r["visibility_ratio[%]"] or 0) >= MIN_VISIBILITY and self.known(r)]

    def known(self, row: dict[str, str]) -> bool:
        return (row["object_uid"], row["timestamp[ns]"]) in self.objects and row["timestamp[ns]"] in self.devices

    def see(self, row: dict[str, str], points_object_m: np.ndarray) -> np.ndarray:
        """Pixels (n, 2) of points of the row's object in the row's image."""
        camera, T_device_camera = self.lenses[row["stream_id"]]
        T_camera_world = invert(self.devices[row["timestamp[ns]"]] @ T_device_camera)
        T_camera_object = T_camera_world @ self.objects[(row["object_uid"], row["timestamp[ns]"])]
        return project(camera, transform(T_camera_object, points_object_m))


@pytest.fixture(scope="module")
def recording(shared_data: Path) -> Recording:
    return Recording(shared_data / "hot3d_sample" / "Quest3")


def test_centres_fall_into_the_boxes(recording: Recording) -> None:
    rows = recording.boxes()
    boxes = np.array([[float(row[name]) for name in BOX] for row in rows])
    centres = np.array([recording.see(row, np.zeros((1, 3)))[0] for row in rows])
    share = float(((centres >= boxes[:, :2]) & (centres <= boxes[:, 2:])).all(1).mean())
    lenses = {row["stream_id"] for row in rows}
    print(f"FIGURE HOT3D: {100 * share:.2f} % of {len(rows)} object centres inside their 2D boxes, {len(lenses)} fisheye lenses (limit 99)")
    assert len(rows) > 100
    assert len(lenses) == 2
    assert share >= 0.99


def test_a_projected_mesh_fills_its_boxes(recording: Recording) -> None:
    uid = "37787722328019"  # the sample's other mesh is nowhere visible by half
    mesh = trimesh.load(recording.folder.parent / f"{uid}.glb", force="mesh")
    rows = [row for row in recording.boxes() if row["object_uid"] == uid]
    assert len(rows) >= 10
    gaps_px = []
    for row in rows:
        pixels = recording.see(row, np.asarray(mesh.vertices))
        box = np.array([float(row[name]) for name in BOX])
        gaps_px.append(np.abs(np.concatenate([pixels.min(0), pixels.max(0)]) - box).max())
    print(
        f"FIGURE HOT3D: box of the projected mesh {uid} off by {np.median(gaps_px):.2f} px median, {np.max(gaps_px):.2f} max, {len(rows)} views"
    )
    assert np.max(gaps_px) <= 2.0


def test_pixels_of_a_calibrated_lens_come_back(recording: Recording) -> None:
    """Over the whole picture but the corners, which a headset's fisheye leaves dark; there it must say nothing."""
    for camera, _ in recording.lenses.values():
        u, v = np.meshgrid(np.linspace(-0.5, camera.width - 0.5, 80), np.linspace(-0.5, camera.height - 0.5, 80))
        there = np.stack([u, v], -1)
        back = project(camera, unproject(camera, there))
        known = np.isfinite(back).all(-1)
        assert np.abs(back - there)[known].max() < 1e-6
        middle = np.hypot(u - camera.cx_px, v - camera.cy_px) < camera.height / 2
        assert known[middle].all()
        print(
            f"FIGURE HOT3D: {100 * known.mean():.1f} % of a {camera.width}x{camera.height} picture shows rays, and returns within 1e-6 px"
        )
