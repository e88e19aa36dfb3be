"""What a machine must have for a profile, part by part: each is looked at alone, and a look that fails is a finding too, never a traceback."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops.errors import EgoworldError, SetupError, printable

if TYPE_CHECKING:
    from egoworld_ops.operators.base import BackendSettings, Operator
    from egoworld_ops.settings import Settings

MB = 1_000_000
_LOW_DISK_MB = 10_000
_LOW_MEMORY_MB = 4_000
_LOW_SHM_MB = 64
_FEW_FILES = 1024


class Verdict(Enum):
    """How it is with one part."""

    OK = "ok"
    NOTE = "note"
    """It runs, but a person should know."""
    MISSING = "MISSING"
    """It cannot run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part, and what to do about it; no cure where there is nothing to do."""

    verdict: Verdict
    part: str
    said: str
    cure: str = ""


def examined(profile: str | None) -> Iterator[Finding]:
    """All findings for a profile, in the order in which one would see to them. Never raises for what it finds."""
    from egoworld_ops.settings import load_settings

    yield from _looked("python", _python)
    try:
        settings = load_settings(profile)
    except Exception as error:  # noqa: BLE001 - as in `_looked`
        yield _of_error("settings", error)
        return
    yield Finding(Verdict.OK, "settings", f"profile {profile or os.environ.get('EGOWORLD_PROFILE') or 'laptop'} can be read")
    looks: dict[str, Callable[[Settings], Iterator[Finding]]] = {
        "backends": _backends,
        "weights": _weights,
        "licences": _licences,
        "gpu": _gpu,
        "memory": _memory,
        "disk": _disk,
        "decoder": _decoder,
        "videos": _videos,
        "limits": _limits,
    }
    for part, look in looks.items():
        yield from _looked(part, lambda look=look: look(settings))  # type: ignore[misc]


def _looked(part: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of one look; where it fails itself, that."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - a doctor that falls over helps nobody; what it could not see, it says
        yield _of_error(part, error)


def _of_error(part: str, error: Exception, verdict: Verdict = Verdict.MISSING) -> Finding:
    if isinstance(error, EgoworldError):
        return Finding(verdict, part, f"{error.culprit}: {error.reason}", error.cure)
    said = f"could not be looked at: {type(error).__name__}: {printable(error, 300)}"
    return Finding(verdict, part, said, "This is a bug of egoworld or a broken package: report it with this line")


def _chosen(settings: Settings) -> Iterator[tuple[str, str, type[Operator], BackendSettings]]:
    """Stage, backend, operator and options of all that the settings choose; a stage whose backend cannot be loaded is left to `_backends`."""
    from egoworld_ops import operators
    from egoworld_ops.execution.identity import backend_of, operator_of

    for stage in operators.stages():
        try:
            operator, options = operator_of(stage, settings)
        except EgoworldError:
            continue
        yield stage, backend_of(stage, settings), operator, options


def weights_of(settings: Settings) -> list[str]:
    """The weights that the chosen backends work with, in the order of the chain."""
    return list(dict.fromkeys(name for _, _, operator, options in _chosen(settings) for name in operator.weights(options)))


def _python() -> Iterator[Finding]:
    found = f"Python {sys.version.split()[0]} in {sys.prefix}"
    if sys.version_info[:2] == (3, 11):
        yield Finding(Verdict.OK, "python", found)
    else:
        yield Finding(Verdict.MISSING, "python", f"{found}; egoworld is made for 3.11", "Make its environment with Python 3.11: README.md")


def _backends(settings: Settings) -> Iterator[Finding]:
    from egoworld_assets.chain.packages import installed
    from egoworld_ops import operators
    from egoworld_ops.execution.identity import backend_of, operator_of

    working = 0
    for stage in operators.stages():
        backend = backend_of(stage, settings)
        chosen = settings.stages.get(stage)
        python = chosen.python if chosen else ""
        try:
            operator, _ = operator_of(stage, settings)
        except EgoworldError as error:
            yield _of_error("backends", error)
            continue
        if python and not os.access(python, os.X_OK):
            cure = f"Make that environment, or set stages.{stage}.python to the python of one"
            yield Finding(Verdict.MISSING, "interpreter", f"{python}, in which {stage}.{backend} is to run, is no program", cure)
            continue
        absent = [package for package in operator.packages if not python and installed(package) is None]
        if absent:
            cure = f"Install into {sys.prefix}: {' '.join(absent)}"
            yield Finding(
                Verdict.MISSING, "backends", f"{stage}.{backend} needs packages that are not installed: {', '.join(absent)}", cure
            )
        else:
            working += 1
    yield Finding(Verdict.OK, "backends", f"{working} stages have a backend that can be loaded")


def _weights(settings: Settings) -> Iterator[Finding]:
    from egoworld_ops import models
    from egoworld_ops.errors import WeightsMismatch, WeightsMissing

    here = []
    for stage, backend, operator, options in _chosen(settings):
        for name in operator.weights(options):
            try:
                models.path(name)
            except (WeightsMissing, WeightsMismatch) as error:
                size = models.weight(name).bytes
                about = f"{name}, with which {stage}.{backend} works{f' ({size / MB:.0f} MB)' if size else ''}"
                yield Finding(Verdict.MISSING, "weights", f"{about}: {error.reason}", error.cure)
            else:
                here.append(name)
    yield Finding(Verdict.OK, "weights", f"{', '.join(dict.fromkeys(here)) or 'none'} in {models.folder().absolute()}")


def _licences(settings: Settings) -> Iterator[Finding]:
    from egoworld_ops import models
    from egoworld_ops.models import policy

    names = sorted(weights_of(settings))
    policy.check("this profile", names, settings.policy)
    for licence, under in models.licences(names).items() if names else ():
        verdict = Verdict.OK if licence.commercial == "yes" else Verdict.NOTE
        cure = "" if licence.commercial == "yes" else f"Read {licence.url} before you use what comes of it in a product"
        yield Finding(verdict, "licences", f"{', '.join(under)}: {licence.name}, commercial use: {licence.commercial}", cure)


def _gpu(settings: Settings) -> Iterator[Finding]:
    from gpu_workers.gpus import Nvml

    wanting = {
        f"{stage}.{backend}": operator.memory_mb(options)
        for stage, backend, operator, options in _chosen(settings)
        if operator.device(options) == "cuda"
    }
    try:
        found, lost = Nvml().discover()
    except SetupError as error:
        yield _of_error("gpu", error, Verdict.MISSING if wanting else Verdict.NOTE)
        return
    for gpu in found:
        memory = f"{gpu.memory_mb} MB" if gpu.memory_mb else "memory shared with the host"
        yield Finding(Verdict.OK, "gpu", f"{gpu.name}, {memory}")
    for away in lost:
        cure = "See what nvidia-smi says; often only a restart of the host mends it"
        yield Finding(Verdict.NOTE, "gpu", f"GPU {away.index} is there and does not answer: {away.reason}", cure)
    if not found:
        yield from _without_gpu(wanting)
        return
    most = max((gpu.memory_mb or 0 for gpu in found), default=0)
    for name, needed_mb in wanting.items():
        if most and needed_mb > most:
            cure = "Choose a smaller model, a smaller micro-batch or another backend in the profile, or a larger card"
            yield Finding(Verdict.MISSING, "gpu", f"{name} needs {needed_mb} MB of GPU memory; the largest card has {most} MB", cure)
    if wanting:
        yield from _cuda()


def _without_gpu(wanting: dict[str, int]) -> Iterator[Finding]:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    why = (
        "CUDA_VISIBLE_DEVICES hides all GPUs"
        if hidden
        else "no NVIDIA GPU answers (NVML, the library of NVIDIA's driver, finds no driver or no card)"
    )
    if not wanting:
        yield Finding(Verdict.OK, "gpu", f"{why}; this profile needs none")
        return
    get = "Unset CUDA_VISIBLE_DEVICES" if hidden else "On a machine with such a card install its driver, until `nvidia-smi` lists it"
    said = f"{why}, and {', '.join(wanting)} {'is' if len(wanting) == 1 else 'are'} to run on one"
    yield Finding(Verdict.MISSING, "gpu", said, f"{get}; or use a profile without, say `--profile laptop`")


def _cuda() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield Finding(Verdict.OK, "cuda", f"torch {torch.__version__} can compute on it")
        return
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
    cure = "Update NVIDIA's driver to one for that version of CUDA; or install a torch for the driver you have: https://pytorch.org/get-started"
    yield Finding(Verdict.MISSING, "cuda", f"torch {torch.__version__} {built} and cannot compute on the GPU that is there", cure)


def _memory(settings: Settings) -> Iterator[Finding]:
    total_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MB
    needed = [(op.memory_mb(options), f"{s}.{b}") for s, b, op, options in _chosen(settings) if op.device(options) == "cpu"]
    most_mb, name = max(needed, default=(0, ""))
    said = f"{total_mb / 1000:.1f} GB, {len(os.sched_getaffinity(0))} cores"
    if most_mb > total_mb:
        yield Finding(
            Verdict.MISSING, "memory", f"{said}; {name} needs {most_mb / 1000:.1f} GB", "Choose a smaller backend, or a larger machine"
        )
    elif total_mb < _LOW_MEMORY_MB:
        yield Finding(
            Verdict.NOTE, "memory", f"{said}; that is little", "Lower scenes.max_clip_s and pool.workers if clips fail with OutOfMemory"
        )
    else:
        yield Finding(Verdict.OK, "memory", said)


def _disk(settings: Settings) -> Iterator[Finding]:
    from egoworld_ops import models

    for what, path in (("the lake", settings.lake), ("weights", models.folder().absolute())):
        there = next(p for p in (path, *path.parents) if p.exists())
        free_mb = shutil.disk_usage(there).free // MB
        said = f"{free_mb / 1000:.1f} GB free for {what} in {path}"
        if not os.access(there, os.W_OK | os.X_OK):
            cure = "Let this user write there, or name another folder: EGOWORLD_LAKE, EGOWORLD_WEIGHTS"
            yield Finding(Verdict.MISSING, "disk", f"this user may not write in {there}, where {what} is to be", cure)
        elif free_mb < _LOW_DISK_MB:
            yield Finding(
                Verdict.NOTE, "disk", f"{said}; that is little", "Free some space, or name another folder: EGOWORLD_LAKE, EGOWORLD_WEIGHTS"
            )
        else:
            yield Finding(Verdict.OK, "disk", said)


def _decoder(settings: Settings) -> Iterator[Finding]:
    import av

    wanted = ("h264", "hevc", "av1", "vp9")
    absent = [name for name in wanted if name not in av.codecs_available]
    if absent:
        cure = "Install the package av from the package index: its wheels bring all of them"
        yield Finding(Verdict.NOTE, "decoder", f"PyAV {av.__version__} cannot decode {', '.join(absent)}", cure)
    else:
        yield Finding(Verdict.OK, "decoder", f"PyAV {av.__version__} decodes {', '.join(wanted)}")
    if settings.pool.decode_on == "cuda":
        yield _gpu_decoder()


def _gpu_decoder() -> Finding:
    from egoworld_ops.video.decoder import DecoderSetup
    from egoworld_ops.video.nvdec import opened
    from egoworld_ops.video.packet_index import IndexDiffers

    try:
        opened(DecoderSetup("h264", b"", {}))
    except IndexDiffers as error:
        said = f"pool.decode_on is cuda, and {error}: the CPU decodes in its place"
        return Finding(Verdict.NOTE, "decoder", said, "Install NVIDIA's driver with libnvcuvid, or set pool.decode_on to cpu")
    return Finding(Verdict.OK, "decoder", "a GPU decodes H.264")


def _videos(settings: Settings) -> Iterator[Finding]:
    from egoworld_ops.types import VIDEO_SUFFIXES
    from egoworld_ops.video.sidecar import read_sidecar, sidecar_path

    found = sorted(p for p in settings.raw.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES) if settings.raw.is_dir() else []
    if not found:
        cure = "Put videos there, or name the folder: EGOWORLD_RAW; `egoworld demo` needs none"
        yield Finding(Verdict.NOTE, "videos", f"there are none in {settings.raw}", cure)
        return
    yield Finding(Verdict.OK, "videos", f"{len(found)} in {settings.raw}")
    unknown = []
    for path in found:
        try:
            if not sidecar_path(path).exists() or read_sidecar(path).camera is None:
                unknown.append(path.name)
        except EgoworldError as error:
            yield _of_error("sidecar", error, Verdict.NOTE)
    if unknown:
        some = f"{', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}"
        verdict = Verdict.MISSING if settings.camera.require_known else Verdict.NOTE
        said = f"no sidecar states the intrinsics (focal length) of {len(unknown)} video(s): {some}; lengths in them may not be metric"
        yield Finding(
            verdict,
            "intrinsics",
            said,
            "Calibrate the camera and run `egoworld calibrate import FILE VIDEO`; or `egoworld calibrate estimate VIDEO`",
        )


def _limits(settings: Settings) -> Iterator[Finding]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        yield Finding(
            Verdict.NOTE,
            "limits",
            f"a process may open {files} files",
            f"Raise it: `ulimit -n {4 * _FEW_FILES}` in the shell that starts egoworld",
        )
    else:
        yield Finding(Verdict.OK, "limits", f"a process may open {'any number of' if files == resource.RLIM_INFINITY else files} files")
    shm = Path("/dev/shm")  # noqa: S108 - only looked at
    if not shm.is_dir():
        yield Finding(
            Verdict.NOTE, "shm", f"there is no shared memory at {shm}", "In a container, start it with --ipc=host or --shm-size=1g"
        )
    elif (free_mb := shutil.disk_usage(shm).free // MB) < _LOW_SHM_MB:
        yield Finding(
            Verdict.NOTE, "shm", f"{free_mb} MB of shared memory are free at {shm}", "In a container, start it with --shm-size=1g"
        )
    else:
        yield Finding(Verdict.OK, "shm", f"{free_mb} MB of shared memory are free at {shm}")
