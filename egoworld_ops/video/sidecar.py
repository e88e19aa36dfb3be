"""The sidecar file beside a video, `<stem>.egoworld.json`: what a person knows about it. Read and checked here, used by the stages.

{"camera": {"fx", "fy", "cx", "cy", "width", "height", "model": "pinhole", "distortion": [],
            "focal_error_share", "source": "file"},
 "objects": [{"label", "dimensions_m": [x, y, z], "mesh": "file beside the video", "text": "...",
              "prompts": [{"frame_index", "box_px": [x, y, w, h], "points_px": [[x, y], ...]}]}],
 "recording": "name", "picture": {"use_as_pinhole": true},
 "trajectory": {"file": "file beside the video", "format": "tum", "starts_at_s": 0.0, "T_device_camera": [16 numbers],
                "metres_per_unit": 1.0, "scale_error_share": 0.01},
 "depth": {"folder": "folder beside the video", "prefix": "", "encoding": "linear", "metres_per_unit": 0.001, "measures": "z",
           "numbered_by": "frame", "fps": 30, "starts_at_s": 0.0, "error_share": 0.02},
 "hands": {"length_m": 0.185}}

`recording`: files that name the same one are parts or copies of one recording and fall in one split.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from egoworld_ops.errors import BadSidecar, unreadable
from egoworld_ops.files.whole import is_there
from egoworld_ops.section import first_fault
from egoworld_ops.types import UNSTATED_ERROR_SHARE, VIDEO_SUFFIXES, Camera, LensModel, check_distortion
from egoworld_ops.video.beside import CURE, file_at, file_sha256, plain_file, read_regular
from egoworld_ops.video.sidecar_depth import SidecarDepth
from egoworld_ops.video.sidecar_trajectory import SidecarTrajectory
from egoworld_ops.vision.lenses import is_one_to_one

MAX_BYTES = 16 * 1024 * 1024
MAX_MESH_BYTES = 512 * 1024 * 1024
_LENS_CURE = (
    "Give as many coefficients as the model has, in the order of docs/data_contract.md, section Sidecar; or name the model they are of"
)
MIN_FOCAL_PX, MAX_PX, MAX_SIDE_PX = 0.01, 1e6, 65_536
"""Limits far beyond every real camera; values within them stay finite and positive at any size of the picture."""
MAX_OBJECTS = 1000
SUFFIX = ".egoworld.json"
HAND_HELD_M = (0.002, 3.0)
"""Minimum and maximum of a hand-held object's longest side: a thick needle, a long broom. Sizes beyond were given in another unit."""
Focal = Annotated[float, Field(ge=MIN_FOCAL_PX, le=MAX_PX)]
Position = Annotated[float, Field(ge=-MAX_PX, le=MAX_PX)]
Length = Annotated[float, Field(gt=0, le=MAX_PX)]
Side = Annotated[int, Field(gt=0, le=MAX_SIDE_PX)]
Share = Annotated[float, Field(ge=0, le=1)]
Metres = Annotated[float, Field(ge=1e-6, le=1e4)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SidecarCamera(_Part):
    """Intrinsics in pixels for an upright image of `width` x `height`: the one shown, of square pixels, or the one stored, where crop
    or pixel aspect make it another; its size tells which. `model` names the lens, `distortion` has its coefficients, which have no unit:
    `pinhole` (none), `plumb_bob` (OpenCV's k1, k2, p1, p2 or k1, k2, p1, p2, k3), `rational_polynomial` (OpenCV's k1, k2, p1, p2, k3, k4, k5, k6),
    `kannala_brandt` (k1 to k4 of OpenCV's `fisheye`), `fisheye62` (Project Aria's k0 to k5, p0, p1), `fisheye624` (and s0 to s3).

    `focal_error_share`: standard error of the focal length as a share of it. Where it is not stated it counts as 0.03, as cameras of one make differ
    (Intel states its D435's field of view as 69 +- 3 degrees); 0 is an exact camera, as of rendered pictures. `source`: `file` where it was
    calibrated, `estimated` where it was found from the video's own motion (`egoworld calibrate estimate`).
    """

    fx: Focal
    fy: Focal
    cx: Position
    cy: Position
    width: Side
    height: Side
    model: LensModel = "pinhole"
    distortion: Annotated[tuple[Position, ...], Field(max_length=12)] = ()
    focal_error_share: Share | None = None
    source: Literal["file", "estimated"] = "file"

    @model_validator(mode="after")
    def _plausible_lens(self) -> SidecarCamera:
        try:
            check_distortion(self.model, self.distortion)
        except ValueError as error:
            raise PydanticCustomError("distortion", "{said}", {"said": str(error), "cure": _LENS_CURE}) from error
        if not is_one_to_one(self.seen_as(1.0, 1.0, self.cx, self.cy, self.width, self.height)):
            raise PydanticCustomError(
                "folded",
                "the {model} lens with distortion {distortion} shows two rays in one pixel of the {width}x{height} picture, or none",
                {
                    "model": self.model,
                    "distortion": str(list(self.distortion)),
                    "width": self.width,
                    "height": self.height,
                    "cure": "Give the coefficients in the order of docs/data_contract.md, section Sidecar, with the fx, fy, cx, cy they were "
                    "calibrated with; or calibrate again with views of a board up to the picture's corners",
                },
            )
        return self

    def seen_as(self, scale_x: float, scale_y: float, cx_px: float, cy_px: float, width: int, height: int) -> Camera:
        """The camera of the picture scaled by `scale_x` and `scale_y`; distortion is the same at every scale."""
        return Camera(
            self.fx * scale_x,
            self.fy * scale_y,
            cx_px,
            cy_px,
            width,
            height,
            self.source,
            self.model,
            self.distortion,
            UNSTATED_ERROR_SHARE if self.focal_error_share is None else self.focal_error_share,
        )


class SidecarPicture(_Part):
    """How the picture is to be taken. `use_as_pinhole`: though it says that it is stereo or spherical, it is that of a pinhole camera."""

    use_as_pinhole: bool = False


class Prompt(_Part):
    """Where an object is in one frame: a box [x, y, width, height], points on it, or both; pixels."""

    frame_index: Annotated[int, Field(ge=0, lt=2**31)]
    box_px: tuple[Position, Position, Length, Length] | None = None
    points_px: tuple[tuple[Position, Position], ...] = ()


class SidecarObject(_Part):
    """One object of interest. `mesh` names a file in the video's folder, in metres."""

    label: Annotated[str, Field(min_length=1, max_length=200)]
    dimensions_m: tuple[Metres, Metres, Metres] | None = None
    mesh: str | None = None
    text: str | None = None
    prompts: tuple[Prompt, ...] = ()

    @field_validator("dimensions_m")
    @classmethod
    def _hand_held(cls, size: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if size is not None and (cure := wrong_unit(size)):
            said = PydanticCustomError("wrong_unit", "{long} m long, no hand-held thing is", {"long": f"{max(size):g}", "cure": cure})
            raise said
        return size

    @field_validator("mesh")
    @classmethod
    def _beside_the_video(cls, name: str | None) -> str | None:
        return name if name is None else plain_file(name, "mesh")


class SidecarHands(_Part):
    """The hands of the person who films. `length_m`: from the crease of the wrist to the tip of the middle finger, hand flat."""

    length_m: Annotated[float, Field(ge=0.08, le=0.26)]


class Sidecar(_Part):
    """All that the sidecar says; empty where there is no file."""

    camera: SidecarCamera | None = None
    objects: Annotated[tuple[SidecarObject, ...], Field(max_length=MAX_OBJECTS)] = ()
    recording: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    picture: SidecarPicture = SidecarPicture()
    trajectory: SidecarTrajectory | None = None
    depth: SidecarDepth | None = None
    hands: SidecarHands | None = None

    @field_validator("objects")
    @classmethod
    def _differently_named(cls, objects: tuple[SidecarObject, ...]) -> tuple[SidecarObject, ...]:
        labels = [item.label for item in objects]
        for i, label in enumerate(labels):
            if label in labels[:i]:
                repeated = PydanticCustomError("repeated_label", "'{label}' names another object too", {"label": label})
                raise ValidationError.from_exception_data("objects", [{"type": repeated, "loc": (i, "label"), "input": label}])
        return objects

    def section_digest(self, section: str, folder: Path) -> str:
        """SHA-256 over one section and over the content of the files it names in `folder`: meshes of objects, a trajectory, depth.

        Raises:
            BadSidecar: a file is not a regular file there, or too large.
            StorageUnavailable: a file cannot be read now.
        """
        value = self.model_dump(mode="json", include={section})
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode())
        if section == "objects":
            for item in self.objects:
                if item.mesh:
                    digest.update(file_sha256(mesh_path(folder, item.mesh), MAX_MESH_BYTES))
        if section == "trajectory" and self.trajectory:
            digest.update(self.trajectory.digest(folder))
        if section == "depth" and self.depth:
            digest.update(self.depth.digest(folder).encode())
        return digest.hexdigest()


def wrong_unit(size_m: Sequence[float]) -> str:
    """What to do about a size (x, y, z in metres) that no hand-held object has; empty if the size is plausible."""
    if HAND_HELD_M[0] <= max(size_m) <= HAND_HELD_M[1]:
        return ""
    millimetres, centimetres = (", ".join(f"{side / unit:.4g}" for side in size_m) for unit in (1000, 100))
    if max(size_m) < HAND_HELD_M[0]:
        return "Give it in metres"
    return f"Give it in metres: {millimetres} if these are millimetres, {centimetres} if they are centimetres"


def sidecar_path(video_path: Path) -> Path:
    """Path of a video's sidecar, existing or not. Names that differ only in Unicode normal form, as after copies between systems, are the same.

    If there is none, the path of one evidently meant for it: named after the whole file (`clip.mp4.egoworld.json`), or in other letter case;
    `read_sidecar` says that it must be renamed.
    """
    path = video_path.with_name(video_path.stem + SUFFIX)
    forms = [video_path.with_name(unicodedata.normalize(form, video_path.stem) + SUFFIX) for form in ("NFC", "NFD")]
    if found := next((place for place in (path, *forms) if is_there(place)), None):
        return found
    near = [name for meant in (video_path.stem, video_path.name) for name in _sidecars_in(video_path.parent).get(plain_name(meant), ())]
    return next((place for place in map(video_path.with_name, near) if not videos_of(place)), path)


_listed: dict[Path, tuple[tuple[int, ...], dict[str, list[str]]]] = {}


def _sidecars_in(folder: Path) -> dict[str, list[str]]:
    """Names of the sidecars in a folder, by the plain name of the file they are named after; cached until the folder changes.

    Raises:
        StorageUnavailable: it cannot be listed now.
    """
    try:
        now = os.stat(folder)
        state = now.st_dev, now.st_ino, now.st_mtime_ns
        if _listed.get(folder, ((), {}))[0] != state:
            found: dict[str, list[str]] = {}
            for name in sorted(os.listdir(folder)):
                if plain_name(name).endswith(SUFFIX):
                    found.setdefault(plain_name(name).removesuffix(SUFFIX), []).append(name)
            _listed[folder] = state, found
    except OSError as error:
        if (away := unreadable(error, folder)) is not None:
            raise away from error
        return {}
    return _listed[folder][1]


def videos_of(sidecar: Path) -> list[str]:
    """Names of the videos that a sidecar is beside."""
    stem = sidecar.name.removesuffix(SUFFIX)
    forms = {unicodedata.normalize(form, stem) for form in ("NFC", "NFD")} | {stem}
    near = {p.name for form in forms for p in sidecar.parent.glob(f"{glob.escape(form)}.*")}
    return sorted(name for name in near if Path(name).suffix.lower() in VIDEO_SUFFIXES)


def plain_name(name: str) -> str:
    """A file's name normalised in letter case and Unicode form, differences that people and systems ignore."""
    return unicodedata.normalize("NFC", name).casefold()


def read_sidecar(video_path: Path) -> Sidecar:
    """The sidecar of a video; an empty one where there is no file.

    Raises:
        BadSidecar: the file cannot be read, is not valid JSON of the format above, names a mesh that is not there, or applies to two videos;
            or only a file with a slightly wrong name exists.
        StorageUnavailable: the storage does not answer now.
    """
    path = sidecar_path(video_path)
    if not is_there(path):
        return Sidecar()
    right = video_path.stem + SUFFIX
    if unicodedata.normalize("NFC", path.name) != unicodedata.normalize("NFC", right):
        raise BadSidecar(path, f"is not read, as its name is not quite that of {video_path.name}", f"Rename it to {right}")
    others = videos_of(path)
    if others and others != [video_path.name]:
        raise BadSidecar(path, f"stands beside several videos of that name: {sorted(others)}", "Rename all but one of the videos")
    try:
        sidecar = Sidecar.model_validate(as_written(path))
    except ValidationError as error:
        first = first_fault(error)
        where = ".".join(str(p) for p in first["loc"]) or "the whole file"
        raise BadSidecar(path, f"{where}: {first['msg']}", first.get("ctx", {}).get("cure", CURE)) from error
    except (ValueError, RecursionError) as error:
        raise BadSidecar(path, str(error), CURE) from error
    for item in sidecar.objects:
        if item.mesh:
            mesh_path(path.parent, item.mesh)
    if sidecar.trajectory:
        sidecar.trajectory.path(path.parent)
    if sidecar.depth:
        sidecar.depth.files(path.parent)
    return sidecar


def as_written(path: Path) -> Any:
    """What the file of a sidecar says, in UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
        BadSidecar, StorageUnavailable: as `read_regular`.
        ValueError, RecursionError: it is no JSON, or a key stands twice.
    """
    return json.loads(read_regular(path, MAX_BYTES), object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; refuses a key that appears twice, since nobody knows which value is meant."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)}: the key stands twice in one object")
    return made


def mesh_path(folder: Path, name: str) -> Path:
    """The mesh file of that name in the video's folder.

    Raises:
        BadSidecar: it is not a regular file there.
    """
    return file_at(folder, name, "mesh")
