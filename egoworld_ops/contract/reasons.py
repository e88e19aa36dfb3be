"""Why a value is null, in a word that programs can count: column `reason_class` beside `reason`, and the cure of each kind."""

from __future__ import annotations

from collections.abc import Mapping

CURES: Mapping[str, str] = {
    "no_size": "Give the object's dimensions or mesh in VIDEO.egoworld.json",
    "no_fit": "Give intrinsics, dimensions or a mesh that are nearer to the truth in VIDEO.egoworld.json",
    "poor_fit": "Give the camera's intrinsics in VIDEO.egoworld.json; or raise max_reprojection_share of the backend in stages.hand_pose",
    "degenerate": "Nothing to do: the hand is seen end on",
    "off_lens": "Nothing to do at the edge of what a lens shows; elsewhere see that model and distortion in VIDEO.egoworld.json are the lens's",
    "too_few_points": "Nothing to do where the thing is hidden or blurred; a sharper video helps",
    "ambiguous": "Give a mesh instead of dimensions, or a clip in which the object is seen from more sides; nothing to do where equal things touch",
    "scale_uncertain": "Give the object's dimensions or mesh in VIDEO.egoworld.json",
    "too_small": "Nothing to do where the object is far away; a video of more lines helps",
    "too_hidden": "Nothing to do where the object is hidden",
    "no_upstream": "See the reason in the table upstream",
    "implausible": "See the hand's row in hand_pose; intrinsics in VIDEO.egoworld.json fix the scale",
    "no_such_hand": "Name a robot that has this hand in stages.mapping.dex.robot",
    "not_converged": "Raise the backend's number of evaluations; or look at the row upstream",
    "too_far_apart": "Nothing to do where the object is out of sight for long; a smaller sample_stride helps",
    "outlier": "Nothing to do where few frames are: the row in hand_pose contradicts those before and after it",
    "no_motion": "Nothing to do: nothing fixes the world where the camera is at rest",
    "rotation_only": "Nothing to do: the path needs a camera that moves; its rotation alone gives no distances",
    "no_texture": "Nothing to do where all is plain; more light or a sharper video helps",
    "camera_walks": "Name a trajectory of the camera in VIDEO.egoworld.json, or choose stages.camera.backend = colmap",
    "cut": "Lower scenes.threshold, or choose another scenes.detector; or cut the video there",
    "not_registered": "A trajectory of the camera can be named in VIDEO.egoworld.json, with stages.camera.backend = given",
    "ambiguous_motion": "Mask what moves: name the objects in VIDEO.egoworld.json; or name a trajectory of the camera there",
    "no_scale": "Give the dimensions of an object that lies in the scene, or the `metres_per_unit` of a trajectory, in VIDEO.egoworld.json",
    "not_metric": "Give the camera's intrinsics in VIDEO.egoworld.json",
    "no_depth": "Name pictures of depth that cover the video in VIDEO.egoworld.json, or choose a network as stages.depth.backend",
    "no_mesh": "Give the object's mesh in VIDEO.egoworld.json; or take the backend classical, which needs dimensions only",
    "wrong_scale": "Give the mesh in metres; and see that the depth is in metres and of the right scale, and the mask that of this object",
    "lost": "Nothing to do where the object is hidden, blurred or out of sight; a smaller retry_s of the backend looks for it more often",
    "random_weights": "Fetch the weights, and leave random_weights_seed out of the settings",
    "no_trajectory": "Name a trajectory that covers the video in VIDEO.egoworld.json",
}
"""By kind; the kinds are the values that `reason_class` may take."""


class Reason(str):
    """Why there is no value: the sentence for people, of a kind for programs.

    Args:
        kind: of CURES.
        text: the sentence.
    """

    __slots__ = ("kind",)
    kind: str

    def __new__(cls, kind: str, text: str) -> Reason:
        """Raise ValueError for a kind that there is not."""
        if kind not in CURES:
            raise ValueError(f"kind: want one of {', '.join(CURES)}, got {kind!r}")
        made = super().__new__(cls, text)
        made.kind = kind
        return made

    def columns(self) -> dict[str, str]:
        """Columns `reason` and `reason_class`."""
        return {"reason": str(self), "reason_class": self.kind}
