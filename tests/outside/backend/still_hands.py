"""A backend of `detections` from another package: a box in each frame, which says who made it."""

import os

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator

WIDTH_PX = 30.0


class StillSettings(BackendSettings):
    """Settings of the backend `still`."""

    height_px: float = 40.0


class Backend(Operator):
    """Finds one thing, always there."""

    version = "1"
    packages = ("numpy",)
    Settings = StillSettings
    seconds_per_frame = 0.001

    def run(self, item: ClipInput) -> pa.Table:
        """One row a frame; the label names the process."""
        clip, height_px = item.clip, self.settings.height_px
        about = {"video_id": clip.video_id, "clip_id": clip.clip_id, "sample_stride": item.sample_stride, "backend": "still"}
        about |= {"role": "object", "track_id": 10, "label": str(os.getpid()), "source": "motion_color", "score": 1.0}
        rows = [
            about | {"frame_index": f.index, "timestamp_s": f.timestamp_s, "box_px": [0.0, 0.0, WIDTH_PX, height_px]} for f in item.frames()
        ]
        return schema.from_rows("detections", rows)
