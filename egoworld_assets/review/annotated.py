"""The one video that `egoworld annotate` shows: its frames by number, proposals of things in them, trials of what is drawn, and its sidecar."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from egoworld_assets.chain.raw_files import RawFiles, raw_state
from egoworld_assets.chain.watching import clips_to_watch
from egoworld_ops.errors import BadSidecar, ContractError, RawFileAway, UnknownVideo, UnstableFile
from egoworld_ops.execution.trying import Trial
from egoworld_ops.files.whole import is_there, names_in
from egoworld_ops.lake import runs, states
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.naming import did_you_mean
from egoworld_ops.operators.object_pose._shapes import read_mesh
from egoworld_ops.raw import intake, walk
from egoworld_ops.raw.intake import Registered
from egoworld_ops.report import rendering
from egoworld_ops.report.layers import ClipLayers, read_layers
from egoworld_ops.settings import Settings
from egoworld_ops.types import Clip, sampled_frames
from egoworld_ops.video import sidecar_writing
from egoworld_ops.video.annotating import MESHES, camera_section, check_drawn
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.sidecar import Sidecar, mesh_path, read_sidecar, sidecar_path

POSED_FRAMES = 24
"""Processed frames that a preview solves poses in: enough for a pose to be judged by frames it was not solved by."""
LOOKED_AT_FRAMES = 48
"""Processed frames in which things are looked for where no run has looked: what moves with a hand is found by its motion."""
_PICTURES, _DECODED_TOGETHER, _QUALITY = 48, 8, 88
_MOST_SIDE_PX = 1920
_CURE = "Mend it in the form"


@dataclass
class Annotated:
    """A video and what is known of it.

    Args:
        path: the raw file.
        clips: how it is cut, in order.
        known: its entry in the lake; None where it is not registered.
        run: that has results of it; None where none has.
        settings: of the trials.
        told: called with the path and the next commands when the sidecar was written.
    """

    path: Path
    clips: list[Clip]
    known: Registered | None
    run: Run | None
    settings: Settings
    told: Callable[[Path, list[str]], object] = lambda path, commands: None
    _pictures: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    _layers: dict[str, ClipLayers] = field(default_factory=dict)
    _found: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _decoding: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._state = raw_state(self.clips[0])
        self._trial = Trial(self.settings)
        self.size_px = self.clips[0].width, self.clips[0].height
        self.n_frames = max(clip.frame_end for clip in self.clips)
        self.video_id = self.clips[0].video_id

    def check(self) -> None:
        """Make sure that the raw file is the one that was opened.

        Raises:
            RawFileAway, UnstableFile: it is not.
        """
        now = raw_state(self.clips[0])
        if now is None:
            raise RawFileAway(self.path, "is not there, or cannot be read now", "Put the file back")
        if now != self._state:
            raise UnstableFile(self.path, "is another file than when it was opened", "End `egoworld annotate`, and start it again")

    def clip_of(self, frame: int) -> Clip:
        """The clip that owns a frame."""
        return next(clip for clip in self.clips if clip.own_start <= frame < clip.own_end)

    def picture(self, frame: int) -> bytes:
        """A frame as JPEG, at most 1920 pixels wide or high; some that follow are decoded with it.

        Raises:
            InputError, StorageUnavailable: it cannot be read.
        """
        self.check()
        with self._decoding:
            if frame not in self._pictures:
                clip, end = self.clips[0], min(frame + _DECODED_TOGETHER, self.n_frames)
                for each in decode(self.path, frame, end, damaged=clip.damaged, index=clip.packet_index):
                    self._pictures[each.index] = rendering.jpeg(_smaller(each.rgb), _QUALITY)
            self._pictures.move_to_end(frame)
            while len(self._pictures) > _PICTURES:
                self._pictures.popitem(last=False)
            return self._pictures[frame]

    def proposals(self, frame: int) -> list[dict[str, Any]] | None:
        """Things in a frame that no person named, as `layer_values.Box` has them: by the run, else by `look`.

        None where neither has looked there, as in frames between those that are processed.
        """
        if frame in self._found or self.run is None:
            return self._found.get(frame)
        clip = self.clip_of(frame)
        if clip.clip_id not in self._layers:
            self._layers = {clip.clip_id: read_layers(self.run, self.video_id, clip.clip_id)}
        layers = self._layers[clip.clip_id]
        return None if frame % layers.sample_stride else _things(layers, frame)

    def look(self, frame: int) -> tuple[int, list[dict[str, Any]]]:
        """Look for things in a frame and those around it, as the first stages of the chain do; kept.

        Returns:
            The frame if it is one that is processed, else the next one of its clip, or the last; and the things in it.

        Raises:
            EgoworldError: as `Trial.tables`.
        """
        self.check()
        clip, stride = self.clip_of(frame), self.settings.sample_stride
        processed = sampled_frames(clip.frame_start, clip.frame_end, stride)
        at = next((n for n in processed if n >= frame), processed[-1] if processed else frame)
        if (known := self.proposals(at)) is not None:
            return at, known
        first = max(clip.frame_start, at - LOOKED_AT_FRAMES // 2 * stride)
        layers = ClipLayers(self._trial.tables(clip, first, LOOKED_AT_FRAMES, Sidecar(), "masks"))
        looked_at = sampled_frames(first, min(first + LOOKED_AT_FRAMES * stride, clip.frame_end), stride)
        self._found |= {n: _things(layers, n) for n in (*looked_at, at)}
        return at, self._found[at]

    def sidecar(self, said: Mapping[str, Any]) -> tuple[dict[str, Any], Sidecar]:
        """The content of the sidecar with objects and camera as a browser sent them, and what it says; checked as far as can be. Writes nothing.

        Args:
            said: `objects` as the sidecar has them, `camera` as `camera_section` takes it.

        Raises:
            BadSidecar: something of it is wrong.
            RawFileAway, UnstableFile, StorageUnavailable: the video or its folder is not there, or not as it was.
        """
        self.check()
        try:
            camera = camera_section(said.get("camera") or {}, self.size_px)
        except (ValueError, AttributeError, TypeError) as error:
            raise BadSidecar(sidecar_path(self.path), f"camera: {error}", _CURE) from error
        sections = {"objects": said.get("objects", [])} | ({"camera": camera} if camera else {})
        content, sidecar = sidecar_writing.with_sections(self.path, sections, _CURE)
        check_drawn(self.path, sidecar, self.n_frames, self.size_px)
        for item in sidecar.objects:
            if item.mesh:
                read_mesh(mesh_path(self.path.parent, item.mesh))
        self._camera(sidecar)
        return content, sidecar

    def preview(self, said: Mapping[str, Any], frame: int) -> dict[str, Any]:
        """What the object pose backend finds in a frame and those that follow, with what is drawn; nothing is written.

        Raises:
            EgoworldError: as `sidecar` and `Trial.tables`.
        """
        _, sidecar = self.sidecar(said)
        tables = self._trial.tables(self.clip_of(frame), frame, POSED_FRAMES, sidecar, "object_pose")
        layers = ClipLayers(tables, sample_stride=self.settings.sample_stride)
        rows = [row for row in tables["object_pose"].to_pylist() if row["label"] is not None]
        names = ("label", "frame_index", "converged", "reason", "z_m", "scale_source", "metric")
        first = {row["label"]: {name: row[name] for name in names} for row in reversed(rows)}
        counts = {
            label: [sum(r["converged"] for r in rows if r["label"] == label), sum(r["label"] == label for r in rows)] for label in first
        }
        return {"layers": layers.frame(frame).to_json(), "poses": [first[label] | {"verified": counts[label]} for label in sorted(first)]}

    def save(self, said: Mapping[str, Any]) -> Path:
        """Write the sidecar; returns its path.

        Args:
            said: as `sidecar` takes it, with `before`, the state in which a person saw the file.

        Raises:
            SidecarChanged: it is no longer in that state.
            EgoworldError: as `sidecar`, or the storage refuses.
        """
        content, _ = self.sidecar(said)
        return sidecar_writing.write(self.path, content, str(said.get("before", "")))

    def about(self) -> dict[str, Any]:
        """What the page shows before anything is drawn."""
        self.check()
        before, sidecar = sidecar_writing.state(self.path), read_sidecar(self.path)
        content = sidecar_writing.as_it_is(self.path)
        camera = self._camera(sidecar)
        return {
            "n_frames": self.n_frames,
            "size_px": list(self.size_px),
            "clips": [[clip.frame_start, clip.frame_end] for clip in self.clips],
            "objects": content.get("objects", []),
            "before": before,
            "camera": {"source": camera.source, "model": camera.model, "fx_px": camera.fx_px, "error_share": camera.focal_error_share},
            "meshes": sorted(name for name in names_in(self.path.parent) if name.lower().endswith(MESHES)),
            "has_results": self.run is not None,
        }

    def commands(self) -> list[str]:
        """What to run after the sidecar is written."""
        import shlex

        register = [] if self.known else [f"egoworld register {shlex.quote(str(self.path))}"]
        return [*register, f"egoworld process {self.video_id}"]

    def _camera(self, sidecar: Sidecar) -> Any:
        """The camera that the video is processed with."""
        clip, chosen = self.clips[0], self.settings.camera.model_copy(update={"require_known": False})
        return resolve(*self.size_px, sidecar, chosen, self.path, clip.raster, clip.focal_35mm_mm, clip.lens)


def _things(layers: ClipLayers, frame: int) -> list[dict[str, Any]]:
    """The boxes of things in a frame: of their masks, else of their detections."""
    shown = layers.frame(frame, ("masks", "boxes"))
    found = {box.track_id: box.to_json() for box in shown.boxes if box.role == "object"}
    for mask in shown.masks:
        if mask.role == "object":
            found[mask.track_id] = {
                "track_id": mask.track_id,
                "name": mask.name,
                "score": mask.score,
                "box_px": mask.box_px,
                "source": "masks",
            }
    return [found[track_id] for track_id in sorted(found)]


def _smaller(rgb: Any) -> Any:
    share = _MOST_SIDE_PX / max(rgb.shape[:2])
    return rgb if share >= 1 else cv2.resize(rgb, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)


def open_video(named: str | None, settings: Settings, scratch: Path) -> Annotated:
    """The video of that name: as the lake knows it, else as it is found now, for which all of it is decoded once.

    Args:
        named: a file, or a registered video, or the beginning of its name; None for the one last worked on.
        scratch: folder for what is made of it.

    Raises:
        UnknownVideo: there is none.
        InputError, StorageUnavailable: it cannot be used.
    """
    lake = Lake(settings.lake)
    path, known = _found(lake, named)
    read_sidecar(path)
    run = lake.latest_run()
    if known is not None and run is not None:
        try:
            clips = clips_to_watch(run, known.video_id)
        except (UnknownVideo, ContractError):
            pass  # nothing was made of it yet, or under another contract
        else:
            RawFiles(None).check(clips[0], known)
            return Annotated(path, clips, known, run, settings)
    return Annotated(path, _cut(path, known, settings, scratch), known, None, settings)


def _found(lake: Lake, named: str | None) -> tuple[Path, Registered | None]:
    """The raw file that is meant, and its entry in the lake."""
    registered = intake.registered(lake)
    if named is None:
        run = lake.latest_run()
        named = runs.video_of(run) if run else next(iter(registered), "")
    if named and is_there(path := Path(named).absolute()):
        return path, next((entry for entry in registered.values() if entry.path.resolve() == path.resolve()), None)
    begin_so = [entry for video_id, entry in registered.items() if video_id.startswith(named)]
    meant = registered.get(named) or (begin_so[0] if len(begin_so) == 1 else None)
    if meant is None:
        reason = f"is the beginning of {len(begin_so)} videos" if begin_so else "is no file, and not registered"
        raise UnknownVideo(f"video {named}".strip(), reason, did_you_mean(named, [e.video_id for e in begin_so] or registered))
    return meant.path, meant


def _cut(path: Path, known: Registered | None, settings: Settings, scratch: Path) -> list[Clip]:
    """The clips of a video, made as the stage `manifest` makes them, with a packet index in `scratch`."""
    from egoworld_ops.video import index_file, manifest
    from egoworld_ops.video.containers import hash_file
    from egoworld_ops.video.decoding import DECODE_VERSION
    from egoworld_ops.video.indexing import IndexMaker

    sha256 = known.sha256 if known else hash_file(path)[0]
    video_id = known.video_id if known else walk.video_id_for(path, sha256)
    maker, as_pinhole = IndexMaker(), read_sidecar(path).picture.use_as_pinhole
    videos, clips = manifest.make_manifest(path, video_id, sha256, settings.scenes, as_pinhole=as_pinhole, index=maker)
    if (rejected := states.rejection(videos.to_pylist()[0])) is not None:
        raise rejected
    packets = None
    if maker.index is not None:
        packets = scratch / "packets"
        packets.write_bytes(index_file.to_bytes(maker.index, DECODE_VERSION))
    made = manifest.clips_from_tables(videos, clips, packets)
    return [replace(clip, video_path=path) for clip in sorted(made, key=lambda clip: clip.own_start)]
