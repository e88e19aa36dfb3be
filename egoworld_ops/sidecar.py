"""The sidecar file beside a video, `<stem>.egoworld.json`: what a person knows about it. Read and checked here, used by the stages.

{"camera": {"fx", "fy", "cx", "cy", "width", "height"},
 "objects": [{"label", "dimensions_m": [x, y, z], "mesh": "file beside the video", "text": "...",
              "prompts": [{"frame_index", "box_px": [x, y, w, h], "points_px": [[x, y], ...]}]}]}
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from egoworld_ops.errors import BadSidecar

MAX_BYTES = 16 * 1024 * 1024
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SidecarCamera(_Part):
    """Pinhole intrinsics in pixels for an upright image of `width` x `height`."""

    fx: Positive
    fy: Positive
    cx: Finite
    cy: Finite
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class Prompt(_Part):
    """Where an object is in one frame: a box [x, y, width, height], points on it, or both; pixels."""

    frame_index: Annotated[int, Field(ge=0)]
    box_px: tuple[Finite, Finite, Positive, Positive] | None = None
    points_px: tuple[tuple[Finite, Finite], ...] = ()


class SidecarObject(_Part):
    """One object of interest. `mesh` names a file in the video's folder, in metres."""

    label: Annotated[str, Field(min_length=1, max_length=200)]
    dimensions_m: tuple[Positive, Positive, Positive] | None = None
    mesh: str | None = None
    text: str | None = None
    prompts: tuple[Prompt, ...] = ()

    @field_validator("mesh")
    @classmethod
    def _beside_the_video(cls, name: str | None) -> str | None:
        if name is not None and (Path(name).name != name or name in ("", ".", "..") or "\0" in name):
            raise ValueError("mesh must be the plain name of a file in the video's folder")
        return name


class Sidecar(_Part):
    """All that the sidecar says; empty where there is no file."""

    camera: SidecarCamera | None = None
    objects: tuple[SidecarObject, ...] = ()

    def section_digest(self, section: str, folder: Path) -> str:
        """SHA-256 over one section and, for objects, over the content of the meshes it names in `folder`."""
        value = self.model_dump(mode="json", include={section})
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode())
        if section == "objects":
            for item in self.objects:
                if item.mesh:
                    digest.update(mesh_path(folder, item.mesh).read_bytes())
        return digest.hexdigest()


def sidecar_path(video_path: Path) -> Path:
    """Where the sidecar of a video lies."""
    return video_path.with_name(video_path.stem + ".egoworld.json")


def read_sidecar(video_path: Path) -> Sidecar:
    """The sidecar of a video; an empty one where there is no file.

    Raises:
        BadSidecar: the file is not valid JSON of the format above, or names a mesh that is not there.
    """
    path = sidecar_path(video_path)
    if not path.exists():
        return Sidecar()
    cure = "Mend the file or move it away; the format is in docs/data_contract.md, section Sidecar"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadSidecar(path, f"larger than {MAX_BYTES} bytes", cure)
        value: Any = json.loads(path.read_text("utf-8"))
        sidecar = Sidecar.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "the whole file"
        raise BadSidecar(path, f"{where}: {first['msg']}", cure) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadSidecar(path, str(error), cure) from error
    for item in sidecar.objects:
        if item.mesh:
            mesh_path(path.parent, item.mesh)
    return sidecar


def mesh_path(folder: Path, name: str) -> Path:
    """The mesh file of that name in the video's folder.

    Raises:
        BadSidecar: it is not a regular file there.
    """
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise BadSidecar(path, "the mesh named in the sidecar is not a regular file", "Put the mesh beside the video")
    return path
