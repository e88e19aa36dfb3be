"""The digest of a result: equal digests mean equal tables. It depends on nothing about where or when a result was made.

The one exception is the manifest, whose table holds the path of the video (see docs/adr/0003).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from egoworld_ops import models, operators
from egoworld_ops.contract.schema import SCHEMA_VERSION
from egoworld_ops.errors import UnsupportedLens
from egoworld_ops.execution import code
from egoworld_ops.hashing import sha256_of
from egoworld_ops.operators.base import NEVER, BackendSettings, Operator, Stage
from egoworld_ops.types import Camera, Clip
from egoworld_ops.video.sidecar import Sidecar

if TYPE_CHECKING:
    from egoworld_ops.settings import Settings


def backend_of(stage: str, settings: Settings) -> str:
    """The name of the backend that the settings choose for a stage."""
    chosen = settings.stages.get(stage)
    return chosen.backend if chosen else operators.stages()[stage].default_backend


def operator_of(stage: str, settings: Settings) -> tuple[type[Operator], BackendSettings]:
    """The operator class of a stage and its checked settings.

    Raises:
        UnknownBackend: no such backend.
        BadSettings: an option is unknown or out of range.
    """
    backend = backend_of(stage, settings)
    operator = operators.load(stage, backend)
    chosen = settings.stages.get(stage)
    return operator, operators.check_options(operator, stage, backend, chosen.options(backend) if chosen else {})


def inputs_of(stage: str, settings: Settings) -> tuple[str, ...]:
    """The stages whose tables a stage reads with these settings. Imports no backend."""
    known, chosen = operators.stages()[stage], settings.stages.get(stage)
    options = chosen.options(chosen.backend) if chosen else {}
    return (*known.inputs, *(read.table for read in known.optional if options.get(read.option, NEVER) != NEVER))


def upstream_of(stage: str, settings: Settings) -> set[str]:
    """The stages that a stage's result depends on with these settings, directly or not."""
    found: set[str] = set()
    for name in inputs_of(stage, settings):
        found |= {name, *upstream_of(name, settings)}
    return found


def operator_identity(stage: str, settings: Settings) -> dict[str, Any]:
    """The parts of code, settings and weights that decide a stage's results, as JSON."""
    operator, options = operator_of(stage, settings)
    return {
        "stage": stage,
        "backend": backend_of(stage, settings),
        "version": code.version_of_backend(stage, backend_of(stage, settings)),
        "settings": options.model_dump(mode="json"),
        "weights": {name: models.sha256(name) for name in operator.weights(options)},
        **({"brought": brought} if (brought := operator.brought(options)) else {}),
    }


def check_lens(stage: Stage, backend: str, camera: Camera, culprit: object) -> None:
    """Refuse a camera whose lens a backend would take for a pinhole, where its stage reads the camera.

    Raises:
        UnsupportedLens: it would.
    """
    if "camera" not in stage.sidecar or camera.is_pinhole or operators.load(stage.name, backend).handles_lenses:
        return
    raise UnsupportedLens(
        culprit,
        f"backend {backend} of {stage.name} takes pinhole cameras only; this one is {camera.model} {list(camera.distortion)}",
        "Choose a backend that handles lenses; or rectify the video, and give the camera of the rectified one",
    )


def code_version(stage: str, settings: Settings) -> str:
    """The parts of code and settings that a stage's results depend on, short, for Dagster. Imports no backend."""
    backend = backend_of(stage, settings)
    chosen = settings.stages.get(stage)
    options = chosen.options(backend) if chosen else {}
    parts = {"schema": SCHEMA_VERSION, "version": code.version_of_backend(stage, backend), "options": options}
    return f"{backend}-{sha256_of(json.loads(json.dumps(parts, default=str)))[:12]}"


def sidecar_identity(stage: Stage, clip: Clip, sidecar: Sidecar) -> dict[str, str]:
    """What of a sidecar, and of the files that it names, decides a stage's tables: the same for all clips of a video. Every file is looked at.

    Raises:
        BadSidecar, StorageUnavailable: as `Sidecar.section_digest`.
    """
    return {s: sidecar.section_digest(s, clip.video_path.parent) for s in stage.sidecar if s != "camera"}


def clip_identity(
    stage: Stage,
    operator: Mapping[str, Any],
    clip: Clip,
    camera: Camera,
    sidecar: Mapping[str, str],
    sample_stride: int,
    inputs: Mapping[str, str],
    before: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Everything that decides the table of one clip and stage, as JSON; its `sha256_of` is the digest.

    Args:
        operator: as from `operator_identity`.
        sidecar: as from `sidecar_identity`.
        inputs: digests of the input tables, by stage.
        before: of a clip that goes on with the one before it, that clip and the digest of its table, None where it has none.
    """
    return {
        "schema": SCHEMA_VERSION,
        "decode": code.version(code.DECODE),
        "operator": dict(operator),
        "video": clip.video_sha256,
        "frames": [clip.frame_start, clip.frame_end],
        "sample_stride": sample_stride,
        "camera": _camera_identity(camera) if "camera" in stage.sidecar else None,
        "sidecar": dict(sidecar),
        "inputs": dict(inputs),
        **({"before": dict(before)} if before else {}),
    }


def _camera_identity(camera: Camera) -> list[Any]:
    """What of a camera decides results; its size is the picture's, which follows from the content."""
    lens = [] if camera.is_pinhole else [camera.model, *camera.distortion]
    return [camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px, camera.source, camera.focal_error_share, *lens]
