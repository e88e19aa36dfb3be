"""The backend of the stage `contact`."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.operators.base import ClipInput, Operator


class Backend(Operator):
    """Divides areas."""

    version = "1"

    def reads_frames(self, tables: dict[str, pa.Table]) -> bool:
        """Never."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """One row for each of `detections`."""
        kept = ("video_id", "clip_id", "frame_index", "timestamp_s", "sample_stride", "role", "track_id")
        picture_px = item.clip.width * item.clip.height
        rows = [
            {name: row[name] for name in kept} | {"backend": "share", "covered_share": row["box_px"][2] * row["box_px"][3] / picture_px}
            for row in item.tables["detections"].to_pylist()
        ]
        return schema.from_rows("contact", rows)
