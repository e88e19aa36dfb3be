"""What each stage costs beside decoding alone: seconds of processor time per second of video, of the profile `laptop`.

    python -m benchmarks.bench_stages [VIDEO ...]

Each video goes through the chain stage by stage in one process with one thread; a stage's time has the decoding of the frames that it reads, planning
and writing in it. Models are loaded before a stage is timed. Without VIDEO: the example scene with its one known object, and blocks on a table
(`../shared/data`, where that is there), without a sidecar. A sidecar beside a video is taken along.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from egoworld_assets.chain import configuration, pipeline
from egoworld_ops import operators
from egoworld_ops.files.tables import read_table
from egoworld_ops.raw import register
from egoworld_ops.settings import load_settings
from egoworld_ops.video.decoding import decode
from gpu_workers.inline import InlinePool

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "synthetic" / "kitchen.mp4"
BLOCKS = ROOT.parent / "shared" / "data" / "sam2_03_blocks.mp4"


def measure(video: Path, folder: Path) -> None:
    """Print the figures of one video."""
    copy = folder / "raw" / video.name
    copy.parent.mkdir(parents=True)
    for path in (video, video.with_suffix(".egoworld.json")):
        if path.exists():
            shutil.copyfile(path, copy.with_name(path.name))
    settings = load_settings("laptop").model_copy(update={"lake": folder / "lake"})
    [video_id] = register.register(settings.lake, [copy]).video_ids
    run, pool = configuration.open_run(settings), InlinePool(threads=1)
    taken: dict[str, float] = {}
    for stage in (pipeline.MANIFEST, *operators.stages()):
        for _ in range(2):  # the first loads models and modules
            began = time.process_time()
            for _, result in pipeline.process(run, [video_id], settings, pool, pipeline.Part(stage, stage, anew=True)):
                assert result.state == "computed", (stage, result)
            taken[stage] = time.process_time() - began
    said = read_table(run.video_table("videos", video_id), "videos").to_pylist()[0]
    length_s, n_frames = said["duration_s"], said["n_frames"]
    began = time.process_time()
    for _ in decode(copy, 0, n_frames, threads=1):
        pass
    decoding_s = time.process_time() - began
    print(
        f"FIGURE stages, {video.name} ({said['width']} x {said['height']}, {n_frames} frames, {length_s:.1f} s): decoding {decoding_s / length_s:.3f}"
    )
    for stage, seconds in (*taken.items(), ("all", sum(taken.values()))):
        print(
            f"FIGURE stages, {video.name}, {stage}: {seconds / length_s:.3f} s a second of video, {seconds / decoding_s:.1f} x decoding",
            flush=True,
        )


def main(videos: Sequence[Path]) -> int:
    for video in videos or [path for path in (EXAMPLE, BLOCKS) if path.exists()]:
        with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as folder:
            measure(video, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
