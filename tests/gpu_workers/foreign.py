"""A runner for an interpreter of its own: a backend of `detections` that knows nothing of egoworld. Standard library, numpy and pyarrow only."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), False),
        pa.field("clip_id", pa.string(), False),
        pa.field("frame_index", pa.int64(), False),
        pa.field("timestamp_s", pa.float64(), False),
        pa.field("sample_stride", pa.int32(), False),
        pa.field("role", pa.string(), False),
        pa.field("track_id", pa.int32(), False),
        pa.field("label", pa.string()),
        pa.field("box_px", pa.list_(pa.float32(), 4), False),
        pa.field("points_px", pa.list_(pa.list_(pa.float32(), 2), 21)),
        pa.field("landmarks_m", pa.list_(pa.list_(pa.float32(), 3), 21)),
        pa.field("rle", pa.struct([pa.field("size", pa.list_(pa.int32(), 2)), pa.field("counts", pa.string())])),
        pa.field("score", pa.float32()),
        pa.field("score_age_s", pa.float64()),
        pa.field("owner", pa.string()),
        pa.field("owner_reason", pa.string()),
        pa.field("jumped", pa.bool_()),
        pa.field("source", pa.string(), False),
        pa.field("backend", pa.string(), False),
    ]
)


class Foreign:
    """One object in the first frame of each clip; its label says where this ran."""

    def __init__(self, threads):
        self.code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

    def prepare(self, task):
        return task

    def compute(self, task, job):
        job.frame()
        clip = task["clip"]
        said = {
            "executable": sys.executable,
            "numpy": np.__version__,
            "sys_path": sys.path,
            "egoworld_ops": importlib.util.find_spec("egoworld_ops") is not None,
            "modules": sorted({name.split(".")[0] for name in sys.modules}),
        }
        row = {name: clip[name] for name in ("video_id", "clip_id")} | {"frame_index": clip["frame_start"], "timestamp_s": clip["start_s"]}
        row |= {"sample_stride": task["sample_stride"], "role": "object", "track_id": 10, "label": json.dumps(said)}
        row |= {"box_px": np.arange(4, dtype=np.float32).tolist(), "score": 0.5, "source": "text", "backend": "foreign"}
        return pa.Table.from_pylist([row], SCHEMA)

    def self_test(self):
        pass

    def describe(self, error, task):
        return "OperatorCrash", task["clip"]["clip_id"], f"{type(error).__name__}: {error}", "Mend the foreign runner"


class Careless(Foreign):
    """Breaks the contract in the first clip, leaves the clip in the second, is right in the others."""

    def compute(self, task, job):
        table = super().compute(task, job)
        start = task["clip"]["frame_start"]
        if start == 0:
            return table.drop_columns(["score"])
        if start < 20:
            return table.set_column(2, SCHEMA.field("frame_index"), pa.array([10_000], pa.int64()))
        return table
