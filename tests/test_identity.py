"""Every input of a digest changes it, and nothing else does.

The inputs are found by reflection: a new field of a clip, a sidecar, a task, the settings or a backend's options must be named here, as an input of
the stages whose results depend on it or as one of none, and is then changed to see whether that is true.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.planning import Planner
from egoworld_ops import models, operators, sources
from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSidecar, UnknownIntrinsics, UnsupportedLens
from egoworld_ops.execution import identity
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.raw import register
from egoworld_ops.robots import Finger, Robot, RobotHand
from egoworld_ops.settings import Settings, StageSettings, load_settings
from egoworld_ops.types import Camera, Clip, Raster, StatedLens
from egoworld_ops.video.sidecar import Sidecar, read_sidecar
from tests import finished
from tests.conftest import ROOT
from tests.egoworld_ops import media
from tests.fields import others, paths

MANIFEST = "manifest"
ALL = frozenset(operators.stages())
CAMERA = frozenset(name for name, stage in operators.stages().items() if "camera" in stage.sidecar)
OBJECTS = frozenset(name for name, stage in operators.stages().items() if "objects" in stage.sidecar)
TRAJECTORY = frozenset(name for name, stage in operators.stages().items() if "trajectory" in stage.sidecar)
HANDS = frozenset(name for name, stage in operators.stages().items() if "hands" in stage.sidecar)
DEPTH = frozenset(name for name, stage in operators.stages().items() if "depth" in stage.sidecar)
OF_MANIFEST = frozenset({MANIFEST})
NONE: frozenset[str] = frozenset()

OF_CLIP: Mapping[str, frozenset[str]] = {
    "video_sha256": ALL,
    "frame_start": ALL,
    "frame_end": ALL,
    "width": CAMERA,
    "height": CAMERA,
    "focal_35mm_mm": CAMERA,
    **{f"raster.{field.name}": CAMERA for field in fields(Raster)},
    **{f"lens.{field.name}": CAMERA for field in fields(StatedLens)},
    # names and places
    **dict.fromkeys(("video_id", "clip_id", "video_path", "packet_index"), NONE),
    # decides which of the clip's rows are shown, not their values
    **dict.fromkeys(("own_start", "own_end"), NONE),
    # follow from the content and the version of the decoder
    **dict.fromkeys(("start_s", "end_s", "fps", "damaged"), NONE),
}
OF_SIDECAR: Mapping[str, frozenset[str]] = {
    **{
        f"camera.{name}": CAMERA
        for name in ("fx", "fy", "cx", "cy", "width", "height", "model", "distortion", "focal_error_share", "source")
    },
    **{f"objects.{name}": OBJECTS for name in ("label", "dimensions_m", "mesh", "text")},
    **{f"objects.prompts.{name}": OBJECTS for name in ("frame_index", "box_px", "points_px")},
    **{
        f"trajectory.{name}": TRAJECTORY
        for name in ("file", "format", "starts_at_s", "T_device_camera", "metres_per_unit", "scale_error_share")
    },
    **{
        f"depth.{name}": DEPTH
        for name in ("folder", "prefix", "encoding", "metres_per_unit", "measures", "numbered_by", "fps", "starts_at_s", "error_share")
    },
    "hands.length_m": HANDS,
    "recording": OF_MANIFEST,
    "picture.use_as_pinhole": OF_MANIFEST,
}
OF_SETTINGS: Mapping[str, frozenset[str]] = {
    "sample_stride": ALL,
    **{f"scenes.{name}": OF_MANIFEST for name in ("detector", "threshold", "dissolves", "min_scene_s", "max_clip_s", "overlap_s")},
    "recordings": NONE,  # the recording that they derive from a video's name is an input of the manifest, see below
    **{f"camera.{name}": CAMERA for name in ("assumed_hfov_deg", "require_known")},
    "stages.backend": frozenset({"masks"}),  # of the stage that is set in `described`
    **dict.fromkeys(("stages.fallback", "stages.python"), NONE),
    **dict.fromkeys(("raw", "lake", "run_id", "ledger", "retry_after_s"), NONE),
    **dict.fromkeys(("quality.minimum", "quality.maximum"), NONE),
    **{f"alerts.{name}": NONE for name in ("slack", "webhook", "mail_to", "mail_from", "timeout_s", "quiet_s", "again_after_h")},
    **{f"alerts.{name}": NONE for name in ("smtp_host", "smtp_port", "smtp_user", "smtp_password", "smtp_starttls")},
    **dict.fromkeys(("alerts.disk_free_share", "alerts.failed_share", "alerts.failed_least"), NONE),
    **{f"drift.{name}": NONE for name in ("p", "share", "psi", "minimum_videos", "last_videos")},
    "policy.licences": NONE,
    "logs.format": NONE,
    **{
        f"pool.{name}": NONE
        for name in ("kind", "options", "threads", "folder", "start", "workers", "idle_exit_s", "lost_after_s", "decode_on")
    },
    **{
        f"release.{name}": NONE
        for name in (
            "part_mb",
            "row_group_mb",
            "page_mb",
            "compression",
            "level",
            "bloom_columns",
            "writers",
            "incomplete",
            "assumed_metric",
            "verdict",
            "without",
        )
    },
}
GIVEN: Mapping[str, tuple[Any, ...]] = {
    "recordings": ({"parts": ""}, {"mine": "v(?P<recording>.*)"}),
    "stages.backend": ("sam2",),
    "stages.fallback": ("sam2",),
    "pool.kind": ("inline",),
    **dict.fromkeys(("alerts.slack", "alerts.webhook"), ("https://hooks.example.org/x",)),
    "alerts.mail_to": (("a@example.org",),),
    "release.without": (("bad",),),
    "phrases": (("cup",),),
    "robot": ("mine",),
    "trajectory.file": ("other.txt",),
    "depth.folder": ("other",),
    "depth.prefix": ("d",),
    "urdf": ({"right": str(ROOT / "pyproject.toml")},),
    **{f"robots.{side}.urdf_sha256": ("b" * 64,) for side in ("left", "right")},
    **{f"raster.scale_{axis}": (1.2, 1.3) for axis in "xy"},
}
"""Other values for fields in which few are valid."""
OF_TASK: Mapping[str, str] = {
    "key": "the digest",
    "stage": "operator",
    "backend": "operator",
    "options": "operator",
    "clip": "OF_CLIP",
    "inputs": "their digests; their places do not matter",
    "camera": "OF_CLIP, OF_SIDECAR, OF_SETTINGS",
    "sidecar": "OF_SIDECAR",
    "sample_stride": "OF_SETTINGS",
    "python": "OF_SETTINGS",
    "decode_on": "none: frames are the same",
    "weights": "what lies there; not where it lies",
}
OF_CLIP_INPUT = {"clip", "tables", "sidecar", "camera", "sample_stride", "open_frames", "unseen", "indexed_times"}
CAMERA_FIELDS = {
    **dict.fromkeys(("fx_px", "fy_px", "cx_px", "cy_px", "source", "model", "distortion", "focal_error_share"), True),
    **dict.fromkeys(("width", "height"), False),
}
"""Whether a camera's field is in the digest itself: its size is the picture's, which follows from the content and the decoder's version."""
LENS = (0.01, 0.0, 0.0, 0.0)
"""Coefficients that two models have."""
VERSIONS = {
    ("egoworld_ops.contract.columns", "SCHEMA_VERSION"): ALL | OF_MANIFEST,
    ("egoworld_ops.video.decoding", "DECODE_VERSION"): ALL | OF_MANIFEST,
    ("egoworld_ops.video.manifest", "VERSION"): OF_MANIFEST,
    ("egoworld_ops.synthetic.config", "GENERATOR_VERSION"): NONE,
    ("egoworld_ops.query.catalog", "STORAGE_VERSION"): NONE,
    ("egoworld_ops.release.plan", "VERSION"): NONE,
    ("egoworld_ops.ledger.tables", "VERSION"): NONE,
    ("gpu_workers.wire.messages", "PROTOCOL_VERSION"): NONE,
}
BACKENDS = [
    (stage, backend) for stage in operators.stages() for backend in operators.backends(stage) if operators.is_built_in(stage, backend)
]


@pytest.fixture(scope="module", autouse=True)
def _as_if_fetched() -> Iterator[None]:
    """Weights of which nobody publishes a SHA-256 have one, as if they had come."""
    with pytest.MonkeyPatch.context() as fetched:
        for name, entry in models.REGISTRY.items():
            fetched.setitem(models.REGISTRY, name, replace(entry, sha256=entry.sha256 or sha256_of(name)))
        yield


@dataclass(frozen=True)
class World:
    """Everything that could be an input of a clip's results."""

    run: Run
    settings: Settings
    clip: Clip
    sidecar: Sidecar
    inputs: Mapping[str, str]
    """Digests, by stage."""

    def of_stage(self, stage: str) -> str:
        """The digest of the clip's result, as it is planned; if it is refused, the reason."""
        given = {name: self.inputs[name] for name in operators.stages()[stage].inputs}
        try:
            task, wanted = Planner(self.run, stage, self.settings).task(self.clip, self.sidecar, {}, given)
        except UnknownIntrinsics as error:
            return f"refused: {error.reason}"
        assert task.key == sha256_of(wanted)
        return task.key

    def digests(self) -> dict[str, str]:
        """By stage."""
        return {stage: self.of_stage(stage) for stage in operators.stages()}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A video with every optional input."""
    folder = tmp_path_factory.mktemp("described")
    (folder / "mug.obj").write_text("v 0 0 0\n")
    for name in ("path.txt", "other.txt"):
        (folder / name).write_text("0 0 0 0 0 0 0 1\n")
    for name in ("depth", "other"):
        (folder / name).mkdir()
        (folder / name / "d0.png").write_bytes(b"")
    sha256 = "5" * 64
    clip = Clip(
        f"v-{sha256[:12]}", "c00000-f00000010", folder / "v.mp4", sha256, 10, 60, 12, 55, 1 / 3, 2.0, Fraction(30), 640, 480, False,
        Raster(480, 480, 4 / 3, 1.0, 2, 3),
    )  # fmt: skip
    sidecar = {
        "camera": {
            "fx": 300,
            "fy": 400,
            "cx": 239.5,
            "cy": 239.5,
            "width": 480,
            "height": 480,
            "model": "kannala_brandt",
            "distortion": LENS,
        },
        "objects": [
            {
                "label": "mug",
                "dimensions_m": [0.08, 0.09, 0.1],
                "mesh": "mug.obj",
                "text": "a mug",
                "prompts": [{"frame_index": 12, "box_px": [10, 20, 30, 40], "points_px": [[15, 25]]}],
            }
        ],
        "trajectory": {
            "file": "path.txt",
            "format": "tum",
            "starts_at_s": 1.0,
            "T_device_camera": np.eye(4).ravel().tolist(),
            "metres_per_unit": 1.0,
            "scale_error_share": 0.01,
        },
        "hands": {"length_m": 0.185},
        "depth": {"folder": "depth", "fps": 30.0},
        "recording": "r",
        "picture": {"use_as_pinhole": False},
    }
    settings = load_settings("laptop").model_copy(
        update={
            "lake": folder / "lake",
            "raw": folder,
            "stages": {"masks": StageSettings(backend="classical")},
            "quality": {"hand_pose": {"solved_share": {"minimum": 0.1, "maximum": 0.9}}},
        }
    )
    settings = settings.model_copy(update={"quality": Settings.model_validate({"quality": settings.quality}).quality})
    (folder / "v.egoworld.json").write_text(json.dumps(sidecar))
    return World(Run(Lake(folder / "lake"), "20260101_0000"), settings, clip, read_sidecar(clip.video_path), {s: f"{s}-1" for s in ALL})


@pytest.fixture(scope="module")
def bare(described: World) -> World:
    """A video without optional inputs."""
    return replace(described, sidecar=Sidecar(), clip=replace(described.clip, raster=None))


def changed(world: World, other: World) -> set[str]:
    """The stages whose digests differ."""
    before, after = world.digests(), other.digests()
    return {stage for stage in before if before[stage] != after[stage]}


def allowed(variants: Sequence[World]) -> list[World]:
    """The variants that are accepted: refused are a camera of another shape than the picture, and a missing mesh."""

    def is_allowed(variant: World) -> bool:
        with suppress(BadSidecar):
            return bool(variant.digests())
        return False

    found = [variant for variant in variants if is_allowed(variant)]
    assert found
    return found


def test_every_field_is_named_as_an_input_or_as_none() -> None:
    """A new field fails here first: name it above as an input of the stages that depend on it, or as one of none."""
    assert set(paths(Clip)) == set(OF_CLIP)
    assert set(paths(Sidecar)) == set(OF_SIDECAR)
    assert set(paths(Settings)) == set(OF_SETTINGS)
    assert {field.name for field in fields(ClipTask)} == set(OF_TASK)
    assert {field.name for field in fields(ClipInput)} == OF_CLIP_INPUT
    assert {field.name for field in fields(Camera)} == set(CAMERA_FIELDS)
    assert set(inspect.signature(identity.clip_identity).parameters) == {
        "stage", "operator", "clip", "camera", "sidecar", "sample_stride", "inputs", "before",
    }  # fmt: skip


@pytest.mark.parametrize("path", OF_CLIP)
def test_of_a_clip(described: World, bare: World, path: str) -> None:
    """A size counts if the camera is given by it, a raster if the camera is given for it, a stated lens if no sidecar gives another."""
    if path.startswith("lens."):
        lens = StatedLens(0.4, "kannala_brandt", LENS, 0.1)
        described, bare = (replace(world, clip=replace(world.clip, lens=lens)) for world in (described, bare))
    for other in allowed([replace(described, clip=clip) for clip in others(described.clip, path, GIVEN.get(path, ()))]):
        of_bare = changed(bare, replace(bare, clip=replace(other.clip, raster=None)))
        assert changed(described, other) | of_bare == OF_CLIP[path], other.clip


@pytest.mark.parametrize("path", OF_SIDECAR)
def test_of_a_sidecar(described: World, path: str) -> None:
    for other in allowed([replace(described, sidecar=sidecar) for sidecar in others(described.sidecar, path, GIVEN.get(path, ()))]):
        assert changed(described, other) == OF_SIDECAR[path] - OF_MANIFEST, other.sidecar


@pytest.mark.parametrize("path", OF_SETTINGS)
def test_of_the_settings(described: World, bare: World, path: str) -> None:
    """A setting that changes a result also makes another run; other settings do not."""
    world = bare if path.startswith("camera.") else described
    for settings in others(world.settings, path, GIVEN.get(path, ())):
        assert changed(world, replace(world, settings=settings)) == OF_SETTINGS[path] - OF_MANIFEST, path
        is_other_run = configuration.frozen_configuration(settings) != configuration.frozen_configuration(world.settings)
        assert is_other_run == (bool(OF_SETTINGS[path]) or path in ("recordings", "stages.fallback")), path


def _sample_options(stage: str, backend: str) -> dict[str, Any]:
    """Options in which every field has a value."""
    if (stage, backend) != ("mapping", "dex"):
        return {}
    hand = RobotHand(
        urdf="/a.urdf", urdf_sha256="a" * 64, base_link="b", base_position_m=(0, 0, 0), hand_length_m=0.2,
        fingers={"thumb": Finger(tip="t", middle="m"), "index": Finger(tip="i")}, joint_names=("j", "k"),
    )  # fmt: skip
    return {"robots": {"mine": Robot(left=hand, right=hand)}}


def _chosen(world: World, stage: str, backend: str, options: Mapping[str, Any]) -> World:
    stages = {**world.settings.stages, stage: StageSettings(backend=backend, **{backend: dict(options)})}
    return replace(world, settings=world.settings.model_copy(update={"stages": stages}))


@pytest.mark.parametrize(("stage", "backend"), BACKENDS)
def test_of_the_options_of_a_backend(bare: World, stage: str, backend: str) -> None:
    """Every option counts: a setting that changes no result is no option of a backend."""
    kind = operators.load(stage, backend).Settings
    options = kind.model_validate(_sample_options(stage, backend))
    world = _chosen(bare, stage, backend, options.model_dump())
    for path in paths(kind):
        for option in others(options, path, GIVEN.get(path, ())):
            other = _chosen(bare, stage, backend, option.model_dump())
            assert changed(world, other) == {stage}, (path, option)
            assert identity.code_version(stage, world.settings) != identity.code_version(stage, other.settings)


@pytest.mark.parametrize(("stage", "backend"), BACKENDS)
def test_of_the_code_and_the_weights_of_a_backend(bare: World, stage: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = _chosen(bare, stage, backend, {})
    before, version_before = world.digests(), identity.code_version(stage, world.settings)
    operator = operators.load(stage, backend)
    for name in operator.weights(operator.Settings()):
        with monkeypatch.context() as other:
            other.setitem(models.REGISTRY, name, replace(models.REGISTRY[name], sha256="0" * 64))
            after = world.digests()
        assert {s for s in ALL if after[s] != before[s]} == {stage}, name
    of_others = operators.version_of
    with monkeypatch.context() as other:
        other.setattr(operators, "version_of", lambda s, b: "another" if (s, b) == (stage, backend) else of_others(s, b))
        after, version_after = world.digests(), identity.code_version(stage, world.settings)
    assert {s for s in ALL if after[s] != before[s]} == {stage}
    assert version_after != version_before


def test_of_the_results_of_other_stages(described: World) -> None:
    """Those that a stage reads, and no other."""
    for name in ALL:
        readers = {stage for stage, known in operators.stages().items() if name in known.inputs}
        assert changed(described, replace(described, inputs={**described.inputs, name: "2"})) == readers


def test_of_a_camera(described: World) -> None:
    """Each number counts by itself, whatever the camera's source."""
    camera = Camera(300.0, 400.0, 319.5, 239.5, 640, 480, "file", "kannala_brandt", LENS)
    for stage in operators.stages().values():
        operator = identity.operator_identity(stage.name, described.settings)
        of = lambda camera: identity.clip_identity(stage, operator, described.clip, camera, Sidecar(), 1, {})  # noqa: E731, B023
        for name, counts in CAMERA_FIELDS.items():
            others_of = [replace(camera, source="estimated")] if name == "source" else others(camera, name)
            assert all((of(other) != of(camera)) == (counts and stage.name in CAMERA) for other in others_of), (stage.name, name)


def test_a_backend_for_pinholes_is_given_no_clip_of_another_lens(described: World, bare: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALL:
        backend = identity.operator_identity(name, described.settings)["backend"]
        monkeypatch.setattr(operators.load(name, backend), "handles_lenses", False)
        if name in CAMERA:
            with pytest.raises(UnsupportedLens, match=r"takes pinhole cameras only; this one is kannala_brandt \[0.01") as refused:
                described.of_stage(name)
            assert "rectify" in refused.value.cure
        else:
            assert described.of_stage(name)
        assert bare.of_stage(name)


def test_of_versions_in_the_code(bare: World, video: tuple[Settings, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every constant of the code that is a version; a new one must be named above."""
    found = set()
    for path in [*(ROOT / "egoworld_ops").rglob("*.py"), *(ROOT / "gpu_workers").rglob("*.py")]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for line in ast.parse(path.read_text("utf-8")).body:
            names = [t.id for t in line.targets if isinstance(t, ast.Name)] if isinstance(line, ast.Assign) else []
            found |= {(module, name) for name in names if name.endswith("VERSION")}
    assert found == set(VERSIONS)
    before = {**bare.digests(), MANIFEST: manifest_digest(*video)}
    constant = sources.constant
    for (module, name), stages in VERSIONS.items():
        with monkeypatch.context() as other:
            for user in (identity, schema):
                if name == "SCHEMA_VERSION":
                    other.setattr(user, name, "another")
            other.setattr(sources, "constant", lambda m, n, at=(module, name): "another" if (m, n) == at else constant(m, n))
            after = {**bare.digests(), MANIFEST: manifest_digest(*video)}
        assert {s for s in before if before[s] != after[s]} == stages, (module, name)


def test_of_the_content_of_a_mesh_and_not_of_its_time_and_place(described: World, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(described.clip.video_path.parent, moved)
    there = replace(described, clip=replace(described.clip, video_path=moved / "v.mp4"))
    assert changed(described, there) == set()
    os.utime(moved / "mug.obj", (1, 1))
    assert changed(described, there) == set()
    (moved / "mug.obj").write_text("v 0 0 1\n")
    assert changed(described, there) == OBJECTS


def test_of_what_a_sidecar_says_and_not_of_how_it_is_written(described: World, tmp_path: Path) -> None:
    shutil.copytree(described.clip.video_path.parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "v.egoworld.json"

    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: backwards(value[key]) for key in reversed(value)}
        return [backwards(item) for item in value] if isinstance(value, list) else value

    path.write_text(json.dumps(backwards(json.loads(path.read_text())), indent=7))
    video = tmp_path / "v.mp4"
    assert changed(described, replace(described, sidecar=read_sidecar(video), clip=replace(described.clip, video_path=video))) == set()


def test_of_values_and_not_of_the_order_of_options(bare: World) -> None:
    options = operators.load("movement", "classical").Settings().model_dump()
    backwards = {name: options[name] for name in reversed(options)}
    assert changed(_chosen(bare, "movement", "classical", options), _chosen(bare, "movement", "classical", backwards)) == set()


def test_weights_count_wherever_they_lie(bare: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bare.digests()
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(tmp_path))
    assert bare.digests() == before


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str]:
    """A registered video of a few frames."""
    folder = tmp_path_factory.mktemp("manifests")
    settings = finished.settings_in(folder)
    settings.raw.mkdir()
    media.make(settings.raw / "v_part1.mp4", 4, size=(64, 48))
    [video_id] = register.register(settings.lake, [settings.raw / "v_part1.mp4"]).video_ids
    return settings, video_id


def manifest_digest(settings: Settings, video_id: str) -> str:
    """Of the manifest that these settings lead to."""
    [result] = pipeline.manifest_results(Run(Lake(settings.lake), "20260101_0000"), [video_id], settings)
    pipeline.store(Run(Lake(settings.lake), "20260101_0000"), MANIFEST, result)
    return result.digest


@pytest.mark.parametrize("path", [path for path in OF_SETTINGS if path not in ("lake", "ledger", "raw", "run_id")])
def test_of_the_settings_for_a_manifest(video: tuple[Settings, str], described: World, path: str) -> None:
    settings, video_id = video
    settings = described.settings.model_copy(update={"lake": settings.lake, "raw": settings.raw})
    before = manifest_digest(settings, video_id)
    is_input = {manifest_digest(other, video_id) != before for other in others(settings, path, GIVEN.get(path, ()))}
    assert is_input == {MANIFEST in OF_SETTINGS[path] or path == "recordings"}


@pytest.mark.parametrize("path", OF_SIDECAR)
def test_of_a_sidecar_for_a_manifest(video: tuple[Settings, str], described: World, path: str) -> None:
    settings, video_id = video
    beside = settings.raw / "v_part1.egoworld.json"

    def digest(sidecar: Sidecar) -> str:
        for item in sidecar.objects:
            if item.mesh:
                (settings.raw / item.mesh).touch()
        if sidecar.trajectory:
            (settings.raw / sidecar.trajectory.file).touch()
        if sidecar.depth:
            (settings.raw / sidecar.depth.folder).mkdir(exist_ok=True)
            (settings.raw / sidecar.depth.folder / f"{sidecar.depth.prefix}0.png").touch()
        beside.write_text(sidecar.model_dump_json(exclude_none=True))
        return manifest_digest(settings, video_id)

    try:
        before = digest(described.sidecar)
        assert {digest(other) != before for other in others(described.sidecar, path, GIVEN.get(path, ()))} == {MANIFEST in OF_SIDECAR[path]}
    finally:
        beside.unlink()


def test_a_manifest_says_where_its_video_lies(video: tuple[Settings, str]) -> None:
    """The one place in a digest, see docs/adr/0003."""
    settings, video_id = video
    before = manifest_digest(settings, video_id)
    path = (settings.raw / "v_part1.mp4").rename(settings.raw / "v_part1 moved.mp4")
    register.register(settings.lake, [path])
    assert manifest_digest(settings, video_id) != before


def test_what_is_remembered_of_a_video_is_forgotten_where_a_digest_is_another(described: World, tmp_path: Path) -> None:
    """A plan that uses `memo.json` notices every change that a plan clip by clip does."""
    settings = described.settings.model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path / "raw"})
    run, video_id = finished.registered_video(settings)
    for _ in range(2):  # results of a later stage remove the notes on the earlier ones
        finished.go(run, video_id, settings)
    for stage in operators.stages():
        assert all(result.recalled for result in Planner(run, stage, settings).plan(video_id))
        for path, stages in OF_SETTINGS.items():
            for other in others(settings, path, GIVEN.get(path, ())):
                states = {getattr(result, "state", "task") for result in Planner(run, stage, other).plan(video_id)}
                assert (states == {"done"}) == (stage not in stages), (stage, path, states)
