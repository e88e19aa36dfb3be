"""The work of one stage on one clip, as plain values. Light to import: tasks are made where no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.types import Camera, Clip, DecodesOn
from egoworld_ops.video.sidecar import Sidecar


@dataclass(frozen=True, slots=True)
class ClipTask:
    """One clip to be worked on by one stage. Plain values only: it crosses process borders as JSON.

    Args:
        key: digest of the result.
        stage, backend: which operator.
        options: the backend's settings as JSON values.
        clip: path and frame range.
        inputs: paths of the clip's input tables, by stage; under its own stage the table of the clip before, if it goes on with that.
        camera, sidecar, sample_stride: as in `ClipInput`.
        weights: folder with the weight files of the run that asks; the digest has their content, not their place.
        python: the interpreter of the worker, if the operator needs one of its own.
        decode_on: what decodes, where the operator computes on a GPU; frames are the same.
    """

    key: str
    stage: str
    backend: str
    options: Mapping[str, Any]
    clip: Clip
    inputs: Mapping[str, Path]
    camera: Camera
    sidecar: Sidecar
    sample_stride: int
    weights: Path
    python: str = ""
    decode_on: DecodesOn = "cpu"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return {
            "key": self.key,
            "stage": self.stage,
            "backend": self.backend,
            "options": dict(self.options),
            "clip": self.clip.to_json(),
            "inputs": {name: str(path.absolute()) for name, path in self.inputs.items()},
            "camera": asdict(self.camera),
            "sidecar": self.sidecar.model_dump(mode="json"),
            "sample_stride": self.sample_stride,
            "weights": str(self.weights.absolute()),
            "python": self.python,
            "decode_on": self.decode_on,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClipTask:
        """The task that `to_json` was called on."""
        return cls(
            key=value["key"],
            stage=value["stage"],
            backend=value["backend"],
            options=value["options"],
            clip=Clip.from_json(value["clip"]),
            inputs={name: Path(path) for name, path in value["inputs"].items()},
            camera=Camera.from_json(value["camera"]),
            sidecar=Sidecar.model_validate(value["sidecar"]),
            sample_stride=value["sample_stride"],
            weights=Path(value["weights"]),
            python=value["python"],
            decode_on=value["decode_on"],
        )
