"""How large the hands of a clip are, and who knows it: the person who wrote the sidecar, a depth of known error, or the backend of `hand_pose` alone.

One picture tells size and distance of a hand only together. So a hand whose size is corrected is scaled about the camera, which changes nothing in
the picture. Sizes differ between people and not within a clip: there is one factor for both hands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from egoworld_ops.video.sidecar import Sidecar

SOURCES = ("given", "depth", "network")
KNOWN_ERROR_SHARE = 0.04
"""Standard error of a length that a person gives, and of finding it in 21 joints: some 7 mm of 185, of where the wrist is. A guess."""
_CHAIN = (0, 9, 10, 11, 12)
"""From the wrist to the tip of the middle finger."""


@dataclass(frozen=True, slots=True)
class HandSize:
    """What size and distance of each hand in table `hand_pose` of a clip are to be multiplied by.

    Args:
        factor: 1 where nobody knows better than the network.
        source: who does.
        error_share: standard error of a hand's distance after that, as a share of it; None where the source is `network`: each row has its own.
    """

    factor: float
    source: Literal["given", "depth", "network"]
    error_share: float | None


ASSUMED = HandSize(1.0, "network", None)


def hand_size(tables: Mapping[str, pa.Table], sidecar: Sidecar) -> HandSize:
    """What is surest: a person's word, then a depth of known error (table `depth`: `hand_scale`), then the network's size."""
    if (known := given(tables["hand_pose"], sidecar)) is not None:
        return known
    seen = tables["depth"].slice(0, 1).select(["hand_scale", "hand_scale_error_share"]).to_pylist()
    if not seen or seen[0]["hand_scale"] is None:
        return ASSUMED
    return HandSize(seen[0]["hand_scale"], "depth", seen[0]["hand_scale_error_share"])


def given(hand_pose: pa.Table, sidecar: Sidecar) -> HandSize | None:
    """The factor that gives hands the length in the sidecar; None where it gives none, or no hand has a pose."""
    if sidecar.hands is None:
        return None
    posed = hand_pose.filter(hand_pose["joints_wrist_m"].is_valid())
    if not posed.num_rows:
        return None
    chain_m = np.array(posed["joints_wrist_m"].to_pylist(), np.float64)[:, _CHAIN]
    length_m = float(np.median(np.linalg.norm(np.diff(chain_m, axis=1), axis=-1).sum(1)))
    focal_error_share = posed["focal_error_share"][0].as_py()
    error_share = math.hypot(KNOWN_ERROR_SHARE, focal_error_share)
    return HandSize(sidecar.hands.length_m / length_m, "given", error_share) if length_m > 0 else None
