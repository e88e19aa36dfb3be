"""Scene detection against decoding alone, on the same video, in turns: the cost of finding the cuts while the manifest decodes.

    python benchmarks/bench_scenes.py [VIDEO]

The reference decodes every frame with PyAV and throws it away. Exits with 1 above the limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import av

from egoworld_ops.video.probing import probe
from egoworld_ops.video.scenes import SceneScores, find_scenes
from egoworld_ops.video.settings import SceneSettings

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = (ROOT.parent / "shared" / "data" / "cosmos_test_video_30s.mp4", ROOT / "examples" / "synthetic" / "kitchen.mp4")
LIMIT = 1.20
ROUNDS = 15


def decode_alone(path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.thread_type = "AUTO"
        for _ in container.decode(stream):
            pass


def detect_scenes(path: Path) -> None:
    settings = SceneSettings()
    scores = SceneScores(settings.detector, settings.dissolves)
    seen = probe(path, scores)
    find_scenes(scores, seen.timestamps_s, settings)


def timed(work: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """Seconds of wall-clock time and of all processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(path)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else next(p for p in CANDIDATES if p.exists())
    detect_scenes(path)
    rounds = [(timed(decode_alone, path), timed(detect_scenes, path)) for _ in range(ROUNDS)]
    (alone, alone_cpu), (scenes, scenes_cpu) = ((min(r[way][0] for r in rounds), min(r[way][1] for r in rounds)) for way in range(2))
    print(f"{path.name}, best of {ROUNDS} in turns: decode alone {alone:.3f} s, with scene detection {scenes:.3f} s")
    print(f"processor time: {alone_cpu:.3f} s and {scenes_cpu:.3f} s, ratio {scenes_cpu / alone_cpu:.2f}")
    print(f"FIGURE scene detection / decode alone: {scenes / alone:.2f} (limit {LIMIT:.2f})")
    return int(scenes / alone > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
