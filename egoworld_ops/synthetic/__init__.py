"""A rendered first-person scene with exact ground truth for every stage: two hands, a cuboid, a table, hard cuts.

`python -m egoworld_ops.synthetic --out DIR --name NAME --seed N` makes more of them.
"""

from egoworld_ops.synthetic.config import SceneConfig
from egoworld_ops.synthetic.truth import FrameTruth, HandTruth, SceneTruth, load_truth, render_frame
from egoworld_ops.synthetic.write import render_scene

__all__ = ["FrameTruth", "HandTruth", "SceneConfig", "SceneTruth", "load_truth", "render_frame", "render_scene"]
