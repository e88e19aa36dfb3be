"""What it costs and gains that a clip goes on with the masks of the clip before it: cold, linked by overlap and warm, against one uncut pass.

    python -m egoworld_ops.synthetic --out FOLDER --name warm --size 320x240 --frames-per-shot 90 --clutter 3 --seed 71 --count 2
    python -m benchmarks.bench_warm_start FOLDER/*.mp4

Each shot of a rendered scene is cut into windows that share frames, as the manifest does it, and goes through detections and `masks.classical`:
once uncut, once clip by clip, and once clip by clip with `warm_start`. Twice: with the sidecar's object, prompted in the first frame of a
shot alone, and without a sidecar, where objects are found automatically.

Figures: mean IoU with the rendered truth over all frames that have the thing (0 where it has no mask), mean IoU with the uncut pass, how often the
number of the mask on a thing changes, by the numbers of clips alone and linked by view `track_links`, and seconds of processor time of the masks.

Then SAM 2.1 tiny at 256 px with random weights, which says nothing of its accuracy: seconds and rows, cold and warm.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa

from egoworld_ops.contract.links import LINKS
from egoworld_ops.operators.base import ClipInput, Operator
from egoworld_ops.operators.detections import mediapipe
from egoworld_ops.operators.masks import classical
from egoworld_ops.synthetic.truth import SceneTruth, load_truth
from egoworld_ops.types import Camera, Clip
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.sidecar import Sidecar, read_sidecar
from egoworld_ops.vision import rle

VIDEO = "bench_000000000000"
WINDOW, OVERLAP = 40, 15
SEEN = 0.5
"""IoU from which a mask is on a thing."""
Number = tuple[str, int]
Found = Mapping[tuple[int, str], tuple[Number, np.ndarray]]
"""By frame and role: clip and track of the mask that overlaps the truth most, and the mask."""


@dataclass(frozen=True, slots=True)
class Way:
    """The masks of one scene made in one way: a table of each clip, and seconds of processor time."""

    clips: Sequence[Clip]
    masks: Sequence[pa.Table]
    seconds: float


def windows(path: Path, truth: SceneTruth, length: int, overlap: int) -> Iterator[Clip]:
    """Windows of about `length` frames within the shots, each sharing `overlap` with the one before."""
    said = truth.scene
    starts = [0, *truth.cuts]
    for start, end in zip(starts, [*truth.cuts, said["n_frames"]], strict=True):
        own = start
        while own < end:
            first = own if own == start else own - overlap
            last = end if end - first < 1.5 * length else first + length
            times = (first / said["fps"], last / said["fps"])
            name = f"f{first:07d}_{last:07d}"
            yield Clip(VIDEO, name, path, "0" * 64, first, last, own, last, *times, Fraction(said["fps"]), said["width"], said["height"])
            own = last


def inputs(clips: Sequence[Clip], sidecar: Sidecar, camera: Camera) -> list[ClipInput]:
    """Each clip with its own detections."""
    found = []
    backend = mediapipe.Backend(mediapipe.Settings(), 1)
    for clip in clips:
        item = ClipInput(clip, {}, sidecar, camera, 1, lambda clip=clip: decode(clip.video_path, clip.frame_start, clip.frame_end))
        found.append(replace(item, tables={"detections": backend.run(item)}))
    return found


def masks(items: Sequence[ClipInput], backend: Operator, warm: bool) -> Way:
    """The masks of each clip; `warm`: each with those of the one before that it shares frames with."""
    tables: list[pa.Table] = []
    began = time.process_time()
    for item in items:
        before = {"masks": tables[-1]} if warm and item.clip.frame_start < item.clip.own_start else {}
        tables.append(backend.run(replace(item, tables=item.tables | before)))
    return Way([item.clip for item in items], tables, time.process_time() - began)


def on_truth(way: Way, truth: SceneTruth) -> tuple[Found, dict[tuple[int, str], float]]:
    """The mask on each true thing in each owned frame, and its IoU with the truth, 0 where there is none."""
    rows: dict[tuple[int, str], list[tuple[Number, np.ndarray]]] = defaultdict(list)
    for clip, table in zip(way.clips, way.masks, strict=True):
        for row in table.to_pylist():
            if clip.own_start <= row["frame_index"] < clip.own_end:
                rows[row["frame_index"], row["role"]].append(((clip.clip_id, row["track_id"]), np.asarray(rle.decode(row["rle"]), bool)))
    found, overlaps = {}, {}
    for said in truth.masks.to_pylist():
        key = said["frame_index"], said["role"]
        true = np.asarray(rle.decode({"size": [said["height"], said["width"]], "counts": said["rle_counts"]}), bool)
        tried = [(iou(mask, true), i) for i, (_, mask) in enumerate(rows[key])]
        overlaps[key], best = max(tried, default=(0.0, -1))
        if best >= 0:
            found[key] = rows[key][best]
    return found, overlaps


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def linked(way: Way, starts: Sequence[int]) -> dict[Number, Number]:
    """Each track with the first one it is linked to by view `track_links`."""
    scenes = [sum(clip.frame_start >= start for start in starts) for clip in way.clips]
    columns = ("video_id", "clip_id", "frame_start", "frame_end")
    clips = pa.table({"scene_index": scenes} | {name: [getattr(clip, name) for clip in way.clips] for name in columns})
    seen = pa.concat_tables(way.masks).select(["video_id", "clip_id", "frame_index", "track_id", "role", "bbox_px", "area_px"])
    rows = LINKS["track_links"].rows(clips, seen).to_pylist()
    return {(row["clip_id"], row["track_id"]): (row["first_clip_id"], row["first_track_id"]) for row in rows}


def switches(found: Found, overlaps: Mapping[tuple[int, str], float], names: Mapping[Number, Number], cuts: Sequence[int]) -> int:
    """How often the number of the mask on a thing is another one than when it was last on it, within a shot."""
    count, last = 0, {}
    for (frame, role), (number, _) in sorted(found.items(), key=lambda entry: entry[0]):
        if overlaps[frame, role] < SEEN:
            continue
        shot = sum(frame >= cut for cut in cuts)
        name = names.get(number, number)
        count += last.get((shot, role), name) != name
        last[shot, role] = name
    return count


def report(name: str, way: Way, uncut: Way, truth: SceneTruth) -> None:
    """Print the figures of one way."""
    found, overlaps = on_truth(way, truth)
    whole, _ = on_truth(uncut, truth)
    by_links = linked(way, [0, *truth.cuts])
    for role in ("hand_left", "hand_right", "object"):
        of_role = [value for (_, r), value in overlaps.items() if r == role]
        same = [iou(found[key][1], mask) if key in found else 0.0 for key, (_, mask) in whole.items() if key[1] == role]
        mine = {key: value for key, value in found.items() if key[1] == role}
        raw, tied = (switches(mine, overlaps, names, truth.cuts) for names in ({}, by_links))
        print(
            f"FIGURE warm start, {name}, {role}: IoU {np.mean(of_role):.3f} with the truth in {len(of_role)} frames, {np.mean(same):.3f} with the "
            f"uncut pass; number changes {raw} times by clips, {tied} linked"
        )
    print(f"FIGURE warm start, {name}: {way.seconds:.1f} s of processor time for {sum(c.n_frames for c in way.clips)} frames", flush=True)


def measure(path: Path) -> None:
    """Print the figures of one scene."""
    truth, said = load_truth(path.with_suffix(".truth")), read_sidecar(path)
    first = [
        item.model_copy(update={"prompts": tuple(p for p in item.prompts if p.frame_index in (0, *truth.cuts))}) for item in said.objects
    ]
    assert said.camera is not None
    camera = Camera(said.camera.fx, said.camera.fy, said.camera.cx, said.camera.cy, truth.scene["width"], truth.scene["height"], "file")
    for objects, sidecar in (("named object", Sidecar(objects=tuple(first))), ("automatic objects", Sidecar())):
        whole = inputs(list(windows(path, truth, truth.scene["n_frames"], 0)), sidecar, camera)
        cut = inputs(list(windows(path, truth, WINDOW, OVERLAP)), sidecar, camera)
        cold, warm = (classical.Backend(classical.ClassicalSettings(warm_start=on), 1) for on in (False, True))
        uncut = masks(whole, cold, False)
        for name, way in (("uncut", uncut), ("cold", masks(cut, cold, False)), ("warm", masks(cut, warm, True))):
            report(f"{path.stem}, {objects}, {name}", way, uncut, truth)
    networks(cut[:2])


def networks(items: Sequence[ClipInput]) -> None:
    """Print what a warm start costs SAM 2.1, with random weights."""
    from egoworld_ops.operators.masks import sam2

    for warm in (False, True):
        backend = sam2.Backend(sam2.Settings(model="tiny", image_size=256, device="cpu", random_weights_seed=3, warm_start=warm), 1)
        way = masks(items, backend, warm)
        rows = sum(table.num_rows for table in way.masks)
        how = "warm" if warm else "cold"
        print(f"FIGURE warm start, SAM 2.1 tiny with random weights, {how}: {way.seconds:.1f} s, {rows} rows", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", type=Path, metavar="SCENE", help="a rendered scene, beside its truth and its sidecar")
    scenes = parser.parse_args().scenes
    if not scenes:
        print("no scene is named, and nothing measured: --help says how to render one")
    for path in scenes:
        measure(path)


if __name__ == "__main__":
    main()
