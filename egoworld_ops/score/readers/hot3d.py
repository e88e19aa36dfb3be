"""A recording of HOT3D as CSV: dynamic_objects.csv, headset_trajectory.csv, box2d_objects.csv and camera_models.json (Banerjee et al., 2024)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from egoworld_ops.errors import InputError
from egoworld_ops.score import shapes
from egoworld_ops.score.truth import ObjectTruth, ShapeTruth, Truth
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion

MIN_VISIBLE = 0.5
"""Objects of which a smaller share of the box is visible are not scored."""
_FILES = ("dynamic_objects.csv", "headset_trajectory.csv", "box2d_objects.csv")


def reads(path: Path) -> bool:
    """Whether it is such a folder."""
    return (path / _FILES[0]).is_file()


def read(path: Path, stream: str | None) -> Truth:
    """Poses of the objects and the path of one camera. Frame n is the n-th time of the stream in box2d_objects.csv.

    The hands of HOT3D are parameters of models that do not come with it, so there is no truth of hands.

    Raises:
        InputError: files are missing or damaged, or there are several streams and none is named.
    """
    try:
        boxes = _rows(path / "box2d_objects.csv")
        mounts = _mounts(path / "camera_models.json")
        wanted = _stream(path, sorted(mounts), stream)
        times = sorted({int(row["timestamp[ns]"]) for row in boxes if row["stream_id"] == wanted})
        frame_of = {str(stamp): n for n, stamp in enumerate(times)}
        device = {r["timestamp[ns]"]: _pose(r) for r in _rows(path / "headset_trajectory.csv")}
        camera = {frame_of[t]: T @ mounts[wanted] for t, T in device.items() if t in frame_of}
        visible = {
            (row["timestamp[ns]"], row["object_uid"]): float(row["visibility_ratio[%]"] or 0) >= MIN_VISIBLE
            for row in boxes
            if row["stream_id"] == wanted
        }
        names = _names(path)
        objects = tuple(
            ObjectTruth(frame_of[t], names.get(uid, uid), invert(camera[frame_of[t]]) @ _pose(row), visible.get((t, uid), False))
            for row in _rows(path / "dynamic_objects.csv")
            if (t := row["timestamp[ns]"]) in frame_of and frame_of[t] in camera and (uid := row["object_uid"])
        )
        models = {names.get(uid, uid): shape for uid in {uid for _, uid in visible} if (shape := _shape(path, uid)) is not None}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(path, f"is no recording of HOT3D: {error!r}", "Restore the recording from the data set") from error
    return Truth(f"{path} {wanted}", frozenset(camera), objects=objects, camera=camera, shapes=models, complete=False)


def _stream(path: Path, known: list[str], stream: str | None) -> str:
    if stream in known:
        return str(stream)
    if stream is None and len(known) == 1:
        return known[0]
    raise InputError(path, f"has {'no stream ' + stream if stream else 'several streams'}", f"Name one of {', '.join(known)} with --stream")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _pose(row: dict[str, str]) -> np.ndarray:
    q_wxyz = np.array([float(row[f"q_wo_{a}"]) for a in "wxyz"])
    return make_transform(matrix_from_quaternion(q_wxyz), np.array([float(row[f"t_wo_{a}[m]"]) for a in "xyz"]))


def _mounts(path: Path) -> dict[str, np.ndarray]:
    """T_device_camera by stream."""
    found = {}
    for model in json.loads(path.read_text("utf-8")):
        mount = model["T_Device_Camera"]
        found[model["stream_id"]] = make_transform(
            matrix_from_quaternion(np.array(mount["quaternion_wxyz"])), np.array(mount["translation_xyz"])
        )
    return found


def _names(path: Path) -> dict[str, str]:
    """Names of objects by uid, where instance.json is in the folder or above it."""
    near = next((p for p in (path / "instance.json", path.absolute().parent / "instance.json") if p.is_file()), None)
    said = json.loads(near.read_text("utf-8")) if near else {}
    return {uid: str(about["instance_name"]) for uid, about in said.items()}


def _shape(path: Path, uid: str) -> ShapeTruth | None:
    """The object's mesh, metres, where `<uid>.glb` is in the folder or above it."""
    if not uid.isdecimal():
        raise ValueError(f"object_uid {uid!r} is no number")
    near = next((p for p in (path / f"{uid}.glb", path.absolute().parent / f"{uid}.glb") if p.is_file()), None)
    if near is None:
        return None
    return shapes.read_mesh(near)
