"""From settings to the run that they write to: what identifies a run, and what else its `run.json` says of how it was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egoworld_assets.chain.clips import has_manifest
from egoworld_assets.chain.packages import installed
from egoworld_ops import models, operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import WeightsMissing
from egoworld_ops.execution import code
from egoworld_ops.execution.identity import backend_of, operator_identity, operator_of
from egoworld_ops.files.tables import PARQUET
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.models import policy
from egoworld_ops.raw.intake import registered
from egoworld_ops.settings import Settings

_PACKAGES = ("egoworld", "dagster", "pyarrow", "duckdb", "av", "scenedetect-headless", "opencv-python-headless", "numpy", "pydantic")
"""Packages that every run depends on, whatever its backends."""


def frozen_configuration(settings: Settings) -> dict[str, Any]:
    """The configuration that identifies a run: schema, scene, camera and sampling settings, and every stage's code, settings and weights.

    Raises:
        BadSettings: an option is unknown, or a stage rests on weights whose licence `policy.licences` does not allow.
    """
    _check_options(settings)
    _check_licences(settings)
    return {
        "schema": schema.SCHEMA_VERSION,
        "manifest": {
            "version": code.version(code.MANIFEST),
            "scenes": settings.scenes.model_dump(mode="json"),
            "recordings": settings.recordings,
        },
        "camera": settings.camera.model_dump(mode="json"),
        "sample_stride": settings.sample_stride,
        "stages": {stage: operator_identity(stage, settings) for stage in operators.stages()},
        "fallbacks": {
            stage: operator_identity(stage, with_backend(settings, stage, chosen.fallback))
            for stage, chosen in settings.stages.items()
            if chosen.fallback
        },
    }


def _check_options(settings: Settings) -> None:
    """Raise BadSettings where an option is unknown, also one of a backend that is not chosen: else nobody would say that it is misspelt."""
    for stage, chosen in settings.stages.items():
        for backend in chosen.model_extra or {}:
            operators.check_options(operators.load(stage, backend), stage, backend, chosen.options(backend))


def _check_licences(settings: Settings) -> None:
    """Raise BadSettings where a stage or its fallback rests on weights that the policy rules out, whether they are here or not."""
    fallen_back = [(stage, with_backend(settings, stage, chosen.fallback)) for stage, chosen in settings.stages.items() if chosen.fallback]
    for stage, chosen in [*((stage, settings) for stage in operators.stages()), *fallen_back]:
        operator, options = operator_of(stage, chosen)
        policy.check(f"backend {backend_of(stage, chosen)} of stage {stage}", operator.weights(options), settings.policy)


def with_backend(settings: Settings, stage: str, backend: str) -> Settings:
    """These settings with another backend for a stage."""
    chosen = settings.stages[stage].model_copy(update={"backend": backend})
    return settings.model_copy(update={"stages": {**settings.stages, stage: chosen}})


def open_run(settings: Settings) -> Run:
    """The run that these settings write to."""
    store = Lake(settings.lake)
    return store.open_run(frozen_configuration(settings), settings.run_id, lambda: _about(settings, store))


def find_run(settings: Settings) -> Run | None:
    """The run that these settings write to, if it exists. Creates and changes nothing.

    Where weights were never fetched their digest is not known, so that no run of these settings can be told from others: there is none then.
    """
    try:
        frozen = frozen_configuration(settings)
    except WeightsMissing:
        return None
    return Lake(settings.lake).find_run(frozen, settings.run_id)


def peek_run(settings: Settings, video_id: str) -> Run:
    """The run in which to look at a video: the one that these settings write to, else the newest other one, that has a manifest of it.

    Makes and changes nothing. If there is none, the returned run does not exist on the disk yet.
    """
    store, found = Lake(settings.lake), find_run(settings)
    runs = [*([found] if found else []), *store.runs()]
    return next((run for run in runs if has_manifest(run, video_id)), found or Run(store, settings.run_id or "not_made_yet"))


def _about(settings: Settings, run_lake: Lake) -> dict[str, Any]:
    """What `run.json` holds beside the configuration: enough to know later how, and on which machine, the run was made."""
    from gpu_workers.gpus import Nvml

    frozen = frozen_configuration(settings)
    known = {name: digest for s in (*frozen["stages"].values(), *frozen["fallbacks"].values()) for name, digest in s["weights"].items()}
    return {
        "settings": settings.model_dump(mode="json"),
        "packages": {name: installed(name) for name in sorted({*_PACKAGES, *_packages_of_operators(settings)})},
        "python": sys.version.split()[0],
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "gpus": [g.name for g in Nvml().discover()[0]],
        },
        "git": _git_state(),
        "weights": {name: {"sha256": digest, "licence": models.weight(name).licence.name} for name, digest in sorted(known.items())},
        "inputs": _input_digest(run_lake),
        "parquet": PARQUET,
        "conventions": {"schema": schema.SCHEMA_VERSION, **schema.CONVENTIONS},
    }


def _packages_of_operators(settings: Settings) -> Iterator[str]:
    """The packages that the chosen backends and their fallbacks say they use, and those that bring them."""
    for stage in operators.stages():
        chosen = settings.stages.get(stage)
        for backend in {backend_of(stage, settings), chosen.fallback if chosen else ""} - {""}:
            yield from operators.load(stage, backend).packages
            yield from operators.brought_by(stage, backend)


def _input_digest(store: Lake) -> dict[str, Any]:
    """The videos that were registered when the run was opened: how many, and a digest of what they hold."""
    contents = sorted(entry.sha256 for entry in registered(store).values())
    return {"videos": len(contents), "sha256": sha256_of({"videos": contents})}


def _git_state() -> dict[str, Any] | None:
    """Commit of this checkout and whether it has changes; None where the code is not in a checkout."""
    here = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status)}
