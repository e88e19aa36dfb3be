"""Peak memory of the whole chain over a short and a long video: it must not grow with the length of the video.

The long video is the short one's frames repeated; both are cut into the same windows. Each is processed in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SHORT_S, LONG_S = 30, 300
LIMIT = 1.10
STRIDE = 5
EXAMPLE = Path(__file__).parents[1] / "examples" / "synthetic" / "kitchen.mp4"


def make_video(target: Path, seconds: int) -> None:
    """The example's pictures over and over, at 30 frames/s."""
    import av

    with av.open(str(EXAMPLE)) as source:
        pictures = [frame.to_ndarray(format="yuv420p") for frame in source.decode(video=0)]
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0] * 2 // 3, "yuv420p"
        for n in range(seconds * 30):
            for packet in stream.encode(av.VideoFrame.from_ndarray(pictures[n % len(pictures)], format="yuv420p")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def process(video: Path, lake: Path) -> None:
    """Run every stage over the video in this process and print its peak memory in MB."""
    os.environ.update(EGOWORLD_LAKE=str(lake), EGOWORLD_SAMPLE_STRIDE=str(STRIDE), EGOWORLD_SCENES__MAX_CLIP_S="15")
    from egoworld_assets.chain import configuration, pipeline
    from egoworld_ops.raw import register
    from egoworld_ops.settings import load_settings
    from gpu_workers.inline import InlinePool

    settings = load_settings("laptop")
    [video_id] = register.register(settings.lake, [video]).video_ids
    run, pool = configuration.open_run(settings), InlinePool(settings.pool.threads)
    for _, result in pipeline.process(run, [video_id], settings, pool):
        assert result.state == "computed", result
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def measure(seconds: int, folder: Path) -> int:
    video = folder / f"v{seconds}.mp4"
    make_video(video, seconds)
    command = [sys.executable, "-m", "benchmarks.bench_memory", "--process", str(video), str(folder / f"lake{seconds}")]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--process", nargs=2, type=Path)
    arguments = parser.parse_args()
    if arguments.process:
        process(*arguments.process)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        short, long = measure(SHORT_S, Path(folder)), measure(LONG_S, Path(folder))
    ratio = long / short
    print(f"FIGURE peak memory, {LONG_S} s / {SHORT_S} s of video: {long} MB / {short} MB = {ratio:.3f} (limit {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
