"""A scene of a BOP data set: scene_gt.json, and its models where they are near (Hodan et al., BOP challenge)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from egoworld_ops.errors import InputError
from egoworld_ops.score import shapes
from egoworld_ops.score.truth import ObjectTruth, ShapeTruth, Truth
from egoworld_ops.vision.geometry import make_transform, rotations

_MODELS = ("models_eval", "models")
_TURNS = 36
"""Steps into which a continuous symmetry is cut, as in the BOP toolkit's default of 0.01 diameters for small objects."""
MIN_VISIBLE = 0.1
"""Instances of which less is seen are not scored, as in the BOP challenge."""


def reads(path: Path) -> bool:
    """Whether it is such a folder."""
    return (path / "scene_gt.json").is_file()


def read(path: Path, stream: str | None) -> Truth:
    """Poses of the targets; image ids are frames. `stream` is not used. Of objects that are there several times, each has a label of its own.

    Raises:
        InputError: a file is not what BOP's format says.
    """
    try:
        images = json.loads((path / "scene_gt.json").read_text("utf-8"))
        info = json.loads((path / "scene_gt_info.json").read_text("utf-8")) if (path / "scene_gt_info.json").exists() else {}
        objects = tuple(thing for image, listed in images.items() for thing in _objects(int(image), listed, info.get(image)))
        models = _models(path, {int(thing["obj_id"]) for listed in images.values() for thing in listed})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(path, f"is no BOP scene: {error!r}", "Restore the scene from its data set") from error
    of_label = {thing.label: models[number] for thing in objects if (number := _number(thing.label)) in models}
    return Truth(str(path), frozenset(map(int, images)), objects=objects, shapes=of_label, complete=False)


def _objects(frame_index: int, listed: list[dict[str, Any]], info: list[dict[str, Any]] | None) -> Iterator[ObjectTruth]:
    seen: Counter[int] = Counter()
    for n, thing in enumerate(listed):
        number = int(thing["obj_id"])
        seen[number] += 1
        label = f"obj_{number:06d}" + (f"_{seen[number]}" if seen[number] > 1 else "")
        T = make_transform(np.array(thing["cam_R_m2c"], np.float64).reshape(3, 3), np.array(thing["cam_t_m2c"], np.float64) / 1000)
        yield ObjectTruth(frame_index, label, T, visible=info is None or info[n]["visib_fract"] >= MIN_VISIBLE)


def _number(label: str) -> int:
    return int(label.split("_")[1])


def _models(path: Path, wanted: set[int]) -> dict[int, ShapeTruth]:
    """The models of objects, metres, from the data set's folder of models, where the scene lies in one."""
    folder = next((up / name for up in path.absolute().parents[:3] for name in _MODELS if (up / name / "models_info.json").is_file()), None)
    if folder is None:
        return {}
    info = json.loads((folder / "models_info.json").read_text("utf-8"))
    found = {}
    for number in wanted & set(map(int, info)):
        found[number] = shapes.read_mesh(folder / f"obj_{number:06d}.ply", 0.001, _symmetries(info[str(number)]))
    return found


def _symmetries(info: dict[str, Any]) -> np.ndarray:
    """(K, 3, 3) rotations; symmetries about an axis that misses the origin are left out, because they move the centre."""
    discrete = [np.eye(3), *(np.array(T).reshape(4, 4)[:3, :3] for T in info.get("symmetries_discrete", ()))]
    turns = [np.eye(3)]
    for about in info.get("symmetries_continuous", ()):
        axis = np.array(about["axis"], np.float64)
        angles = np.arange(_TURNS) * 2 * np.pi / _TURNS
        turns += list(rotations(angles[:, None] * axis / np.linalg.norm(axis)))
    return np.array([turn @ S for turn in turns for S in discrete])
