"""Section `depth` of the sidecar: pictures of depth beside the video, from a depth camera or another program. Read by `depth_files.py`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from egoworld_ops.video.beside import file_sha256, files_in, plain_file

MAX_FILE_BYTES = 256 * 1024 * 1024
WHAT = "folder of depth"


class SidecarDepth(BaseModel):
    """Depth of each pixel of the video's picture, of its shape and at any size: 16-bit grey PNG, or NumPy's `.npy` with (H, W) numbers.

    `folder`: in the video's folder. `prefix`: what the files' names begin with, where others lie beside them (ZED's export: `depth`).
    `encoding`: `linear`, each count is `metres_per_unit` (0.001: ZED, RealSense D400; 0.0001: D405; 0.00025: L515; 1 for `.npy` in metres); or
    `inverse`, counts are 65535 / (metres + 1). 0, and what is not finite, is no depth. `measures`: `z`, along the optical axis, as depth cameras have
    it, or `range`, along the ray. `numbered_by`: what the last number in a name is: the `frame` of the video, or with `fps` of the depth's own
    rate, or a time in `s`, `ms`, `us` or `ns`. `starts_at_s`: that time, in seconds, of the video's time 0.
    `error_share`: standard error of the depths, as a share of them, that is common to a clip: of a depth camera as its maker or a measurement says.
    null: nobody knows it, as of depth that was estimated from pictures; such depth corrects neither hands nor objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    prefix: Annotated[str, Field(max_length=100)] = ""
    encoding: Literal["linear", "inverse"] = "linear"
    metres_per_unit: Annotated[float, Field(ge=1e-7, le=100)] = 0.001
    measures: Literal["z", "range"] = "z"
    numbered_by: Literal["frame", "s", "ms", "us", "ns"] = "frame"
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    starts_at_s: Annotated[float, Field(ge=-1e12, le=1e12)] = 0.0
    error_share: Annotated[float, Field(ge=0, le=1)] | None = None

    @field_validator("folder")
    @classmethod
    def _beside_the_video(cls, name: str) -> str:
        return plain_file(name, "folder")

    def files(self, folder: Path) -> list[Path]:
        """The files of the depth of a video in `folder`, by name. Raises BadSidecar where there are none, StorageUnavailable."""
        return files_in(folder, self.folder, WHAT, re.escape(self.prefix) + r".*\.(png|npy)")

    def digest(self, folder: Path) -> str:
        """SHA-256 over names and contents of the files. Raises as `files`."""
        digest = hashlib.sha256()
        for path in self.files(folder):
            digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0" + file_sha256(path, MAX_FILE_BYTES))
        return digest.hexdigest()
