"""The layers of a clip: what is drawn over each of its frames, from the tables of a run that count. One source for every picture and page.

Belongs here: which rows a frame has, and why a layer has none. Does not belong here: how anything is drawn (`_overlay.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import states
from egoworld_ops.lake.lake import Run
from egoworld_ops.operators.rows import camera_of
from egoworld_ops.report import _layer_rows as made
from egoworld_ops.report.layer_values import BONES, LAYERS, CameraAt, Event, FrameLayers
from egoworld_ops.types import Camera

STAGES = tuple(dict.fromkeys(stage for of_layer in LAYERS.values() for stage in of_layer))
"""The tables that layers are made of."""
_WHY = {
    "missing": "was not computed",
    "blocked": "waits for a stage before it",
    "failed": "failed",
    "stale": "was made of inputs that no longer count",
    "damaged": "is damaged: `egoworld verify` says more",
    "unreadable": "cannot be read now",
    "not given": "is not there",
}


def read_layers(run: Run, video_id: str, clip_id: str) -> ClipLayers:
    """The layers of one clip of a run, made of its tables that count; a layer whose tables do not count says so.

    Raises:
        ContractError: a table is damaged.
        StorageUnavailable: a table cannot be read now.
    """
    found = states.clip_states(run, video_id, clip_id)
    tables = {s: read_table(run.clip_table(s, video_id, clip_id), s) for s in STAGES if s in found and found[s].state == "done"}
    return ClipLayers(tables, {stage: state.state for stage, state in found.items()}, _sample_stride(found.values()))


def _sample_stride(found: Iterable[states.StageState]) -> int:
    """Which frames of a clip were processed, as its results say of their origin: tables may be empty. 1 where there are none."""
    identities = [state.said.get("identity") for state in found if state.state == "done"]
    return next((int(said["sample_stride"]) for said in identities if isinstance(said, dict) and "sample_stride" in said), 1)


class ClipLayers:
    """The layers of one clip. Holds its tables, and makes what is drawn of one frame when it is asked for.

    Args:
        tables: any of the contract's tables of the clip by stage, sorted by frame as the contract has them; others are ignored.
        stages: the state of the clip in each stage, to say why a table is not there.
        sample_stride: frames whose index it divides were processed.
    """

    def __init__(self, tables: Mapping[str, pa.Table], stages: Mapping[str, str] = MappingProxyType({}), sample_stride: int = 1) -> None:
        self.tables = {stage: tables.get(stage, schema.empty(stage)) for stage in STAGES if stage in operators.stages()}
        self._frames = {stage: table["frame_index"].to_numpy() for stage, table in self.tables.items()}
        self._states = {s: stages.get(s, "not given") for s in self.tables if s not in tables}
        self.sample_stride = sample_stride

    @cached_property
    def camera(self) -> Camera | None:
        """The camera of the clip, as the hands in it name it; rows of `fusion` and `mapping` do not."""
        rows = self.tables["hand_pose"].slice(0, 1).to_pylist()
        return camera_of(rows[0]) if rows else None

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """All events of the clip, in order."""
        return tuple(made.event(row) for row in self.tables["events"].to_pylist())

    @cached_property
    def without(self) -> dict[str, str]:
        """Why a layer has nothing to draw in any frame, in words; layers that have are left out."""
        found = {}
        for layer, stages in LAYERS.items():
            if not any(self.tables[stage].num_rows for stage in stages if stage in self.tables):
                found[layer] = "; ".join(self._why_not(stage) for stage in stages)
        return found

    def _why_not(self, stage: str) -> str:
        return f"{stage} {_WHY.get(self._states[stage], self._states[stage])}" if stage in self._states else f"{stage} found nothing"

    def frame(self, frame_index: int, layers: Collection[str] = tuple(LAYERS)) -> FrameLayers:
        """What is drawn over one frame of the video; layers that are not asked for are empty.

        Raises:
            ContractError: a mask is damaged.
        """
        wanted = {stage for layer in layers for stage in LAYERS[layer]} - {"events"}
        rows = {stage: self._rows(stage, frame_index) if stage in wanted else [] for stage in self.tables}
        on = tuple(e for e in self.events if e.frame_index <= frame_index <= e.last_frame_index)
        hands = [made.found_hand(row) for row in rows["hand_pose"]]
        fused = [made.fused_hand(row, self.camera) for row in rows["fusion"]]
        return FrameLayers(
            frame_index,
            processed=frame_index % self.sample_stride == 0,
            metric=all(row.get("metric") is not False for of_stage in rows.values() for row in of_stage),
            masks=tuple(map(made.mask, rows["masks"])),
            boxes=tuple(made.box(row, on) for row in rows["detections"]),
            hands=(*hands, *(hand for hand in fused if hand)),
            objects=tuple(thing for row in rows["object_pose"] if (thing := made.thing(row))),
            robots=tuple(made.robot(row, self.camera) for row in rows["mapping"]),
            holds=tuple(map(made.hold, rows["movement"])),
            events=on if "events" in layers else (),
            flags=tuple(flag for row in rows["agreement"] if (flag := made.flag(row))),
            camera=next((made.camera_at(row) for row in rows["camera"]), None),
        )

    @cached_property
    def flagged(self) -> dict[int, list[str]]:
        """What cannot be right, by frame, in words: `name: disagreement`."""
        found: dict[int, list[str]] = defaultdict(list)
        for row in self.tables["agreement"].to_pylist():
            if flag := made.flag(row):
                found[row["frame_index"]].append(f"{flag.name}: {flag.disagreement}")
        return dict(found)

    @cached_property
    def camera_path(self) -> dict[int, CameraAt]:
        """The place of the camera by frame, where it is known; all in one unit."""
        places = {row["frame_index"]: at for row in self.tables["camera"].to_pylist() if (at := made.camera_at(row))}
        units = {at.unit for at in places.values()}
        return {frame: at for frame, at in places.items() if at.unit == "m"} if len(units) > 1 else places

    def to_json(self) -> dict[str, Any]:
        """What holds for all frames of the clip, as plain JSON values.

        `bones` are pairs of joints; `layers` the names of the layers in the order they are drawn, with the tables of each; `without` says of those
        that have nothing to draw why; `flagged` has words by frame; `camera_path` is [frame, x, y, z] of each frame with a place, in `camera_unit`.
        """
        path = self.camera_path
        return {
            "sample_stride": self.sample_stride,
            "bones": [list(bone) for bone in BONES],
            "layers": {layer: list(stages) for layer, stages in LAYERS.items()},
            "without": self.without,
            "events": [event.to_json() for event in self.events],
            "flagged": {str(frame): words for frame, words in self.flagged.items()},
            "camera_unit": next((at.unit for at in path.values()), None),
            "camera_path": [[frame, *at.position] for frame, at in path.items()],
        }

    def _rows(self, stage: str, frame_index: int) -> list[dict[str, Any]]:
        first, end = np.searchsorted(self._frames[stage], [frame_index, frame_index + 1])
        return self.tables[stage].slice(first, end - first).to_pylist()
