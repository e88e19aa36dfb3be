"""Stage `agreement`: whether what the stages say of a thing fits together. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

DISAGREEMENTS = {
    "collapsed": "the joints of the hand lie in one point",
    "doubled": "another track has the same pixels",
    "frozen": "the pose is to the bit that of the frame before, and the mask is not",
    "other_thing": "its pose or box fits another thing's mask, and not its own",
    "wrong_side": "the fingers bend as those of the other hand do, around this frame",
    "shifted": "pose, box and mask move alike at another time, by `lag_frames`",
    "projection": "joints_m are not seen where joints_px are",
    "jumping": "the joints are far from where they are between the frames before and after",
    "elsewhere": "the object's mask is farther from where it was last seen than things are moved in that time",
    "no_mask": "found, without a mask in the frame",
    "empty_mask": "the mask has hardly a pixel in the box",
    "box_off_mask": "the mask is not in the box of the detection",
    "joints_off_mask": "the joints are not in the mask",
    "fused_off_mask": "the hand is not in the mask after fusion",
    "outline_off_mask": "the outline of the object's verified pose is not that of the mask",
}
"""What can be wrong, the first that holds in this order."""


def _share(name: str, role: str, maximum: float, cure: str) -> Metric:
    return Metric(
        f"{name}_share",
        f"avg((disagreement IS NOT DISTINCT FROM '{name}')::INT){role}",
        f"share of rows in which {DISAGREEMENTS[name]}",
        maximum=maximum,
        cure=cure,
    )


_HANDS = " FILTER (role <> 'object')"
_OBJECTS = " FILTER (role = 'object')"
_LOOK = "Look at these frames in the preview"

TABLE = schema.Table(
    "agreement",
    "How well detection, mask and pose of one thing fit together in one frame. Nothing is dropped: a row that disagrees says why.",
    ("video_id", "clip_id", "frame_index", "track_id"),
    schema.per_frame(
        schema.TRACK,
        schema.ROLE,
        schema.LABEL,
        schema.Column("box_iou", pa.float32(), "overlap of the detection's box and that of the mask", "", "", True, minimum=0, maximum=1),
        schema.Column(
            "joints_inside_share", pa.float32(), "share of the hand's image points that lie in its mask", "", "", True, minimum=0, maximum=1
        ),
        schema.Column(
            "fused_inside_share",
            pa.float32(),
            "share of the projected joints_m of table fusion that lie in the hand's mask",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        schema.Column(
            "projection_share",
            pa.float32(),
            "distance of the projected joints_m to joints_px, root mean square, over the hand's size: the root of the area of the box of its joints",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "side_score",
            pa.float32(),
            "cosine between the way the fingers bend and the palm of a hand of this side, median over half a second to each side; below 0 the hand "
            "is shaped like the other one",
            "",
            "",
            True,
            minimum=-1,
            maximum=1,
        ),
        schema.Column(
            "outline_iou",
            pa.float32(),
            "overlap of the mask and the outline of the object's cuboid at its pose, where no other thing's mask is",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        schema.Column(
            "mask_in_outline_share",
            pa.float32(),
            "share of the object's mask that lies in that outline",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        schema.Column(
            "jitter_share",
            pa.float32(),
            "mean distance of the projected joints from the middle between the frames before and after, over the hand's size",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "lag_frames",
            pa.int32(),
            "processed frames by which the pose or the box comes after the mask in this clip, or the pose after the box: the largest; null where "
            "they move too little to tell",
            "frames",
            nullable=True,
        ),
        schema.Column("matched_track_id", pa.int32(), "the thing whose mask fits best, each mask for one thing", nullable=True, minimum=1),
        schema.Column(
            "disagreement",
            pa.string(),
            "; ".join(f"{name}: {doc}" for name, doc in DISAGREEMENTS.items()) + ". The first of these that holds; null where none does",
            nullable=True,
            allowed=tuple(DISAGREEMENTS),
        ),
    ),
)

STAGE = Stage(
    name="agreement",
    doc="Whether detection, mask and pose of each thing fit together, by matching them frame by frame.",
    inputs=("detections", "masks", "hand_pose", "fusion", "object_pose"),
    default_backend="matched",
    table=TABLE,
    metrics=(
        _share("collapsed", _HANDS, 0.01, "The model gives zeros: its weights or its input are wrong"),
        _share("doubled", "", 0.05, f"{_LOOK}: one thing is tracked twice"),
        _share(
            "frozen", "", 0.02, "The model, or what carries its poses on, repeats itself: poses of these frames are not of these frames"
        ),
        _share("other_thing", "", 0.05, f"{_LOOK}: left and right, or two tracks, are exchanged"),
        _share("wrong_side", _HANDS, 0.1, f"{_LOOK}: left and right are exchanged, or the picture is mirrored"),
        _share("shifted", "", 0.0, "Tables are of different frames: process the video again; a backend that skips frames does this"),
        _share("projection", _HANDS, 0.05, "Poses were solved with another camera or lens than their rows say"),
        _share("elsewhere", _OBJECTS, 0.0, f"{_LOOK}: a cut was not found, or the mask went over to another thing"),
        _share("empty_mask", "", 0.05, "The masks are nearly empty: choose another backend"),
        _share("box_off_mask", "", 0.1, f"{_LOOK}: masks ran away from what was found"),
        _share("joints_off_mask", _HANDS, 0.1, f"{_LOOK}: hands or their masks are wrong"),
        _share("fused_off_mask", _HANDS, 0.1, f"{_LOOK}: smoothing moved hands away, or filled gaps wrongly; hand_pose has what was seen"),
        _share("outline_off_mask", _OBJECTS, 0.1, f"{_LOOK}: the object is turned, or of another size than is said"),
        Metric(
            "jitter_share_median",
            "median(jitter_share)",
            "how far joints jump between frames, in hand sizes",
            maximum=0.06,
            cure="Poses are too noisy to follow: smooth them, or choose another backend",
        ),
    ),
    parents=(Parent("detections", ("track_id", "role")),),
    sample=(
        {
            "track_id": 1,
            "role": "hand_left",
            "box_iou": 0.8,
            "joints_inside_share": 1.0,
            "fused_inside_share": 1.0,
            "projection_share": 0.02,
            "side_score": 0.7,
            "jitter_share": 0.02,
            "lag_frames": 0,
            "matched_track_id": 1,
        },
    ),
)
