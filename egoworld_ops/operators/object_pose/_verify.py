"""Whether a pose is right, judged by what was not fitted: outline against mask, edges in frames kept out of the solution, and other orientations.

A solver's own points prove nothing: lifted onto a wrong pose they agree with it as well. This module asks three things instead, of any backend:

- does the outline of the shape at its pose cover the mask, in this frame, where nothing hides it (`mask_iou`);
- does it do so, with edges of the picture where the shape has edges, in frames that the solver did not use (`Verdict.support`);
- does no other orientation do so about as well (`Verdict.margin`), and cover the masks better (`Verdict.covered`), the shape's symmetry aside.
A frame that shows too little by itself is then held by those before and after it (`held_between`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.object_pose._fitting import (
    edge_support,
    edge_view,
    fit_edges,
    fit_outline,
    intersection_over_union,
    mask_iou,
    overlap_with,
)
from egoworld_ops.operators.object_pose._keyframes import Glimpse, Keyframe
from egoworld_ops.operators.object_pose._registration import ALIKE_DEG, apart, candidates, lookalikes
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._view import silhouette
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert, make_transform, rotation_angle_deg, rotations

MIN_IOU = 0.75
MAX_BELOW, DOUBTED_TURN_LOSS = 0.12, 0.05
"""Where outline and mask overlap by so much less than in most frames of the track, a turn must cost so much for the pose to be trusted."""
MAX_TURN_DEG_S = 600.0
"""Hands turn things slower than this; a pose that jumps is wrong before or after."""
PASSED_OVER = 1.5
"""By poses that jump a track leads on if it has turned by no more than it may in so many frames: longer ways say less and less."""
MAX_BETWEEN_S = 0.3
DETOUR_DEG, DETOUR_SHARE = 5.0, 0.03
"""A pose lies on the way from one to another if going by it is longer by no more than this angle, and this share of the depth."""
MIN_OVERLAP, MIN_SUPPORT = 0.8, 0.8
MIN_MARGIN, MIN_MARGIN_SHARE = 0.015, 0.3
"""The margin must be at least this, and at least this share of what the pose leaves unexplained: masks that are off blur the difference."""
OTHER_DEG = 15.0
TURNED_DEG = 15.0
MIN_TURN_LOSS = 0.04
MAX_TURN_SD_DEG = 2.0
_TURNS = rotations(np.radians(TURNED_DEG) * np.concatenate([np.eye(3), -np.eye(3)]))
HELD_OUT, USED = 3, 2
RIVALS = 4
SHARPENED, GLANCES, CLEAR = 2, 2, 0.25
"""So many rivals are fitted to all views and their edges, unless a glance at a few views shows so much less support that this cannot help them."""
RIVAL_STEPS = 6
BEGUN, BEGUN_STEPS = 10, 2
SEARCHED, SEARCHED_KEPT = 1000, 30
NEAR_DEG, NEAR_DEPTH = 6.0, 0.05
AGAIN, BETTER = 2, 0.05
"""In so many more views, each by itself, other poses are looked for; where in each one explains so much more, the track is wrong."""
SEARCHED_AGAIN, KEPT_AGAIN = 500, 12
EDGES = 0.4
UNVERIFIED = 0.5


@dataclass(frozen=True)
class Judged:
    """The evidence for the poses of an object.

    Args:
        ious: of each frame, see `mask_iou`; None without a pose, and where too much is hidden.
        turn_losses: of each frame, see `turn_loss`.
        torn_off: of each frame, whether a jump parts its pose from those of most frames.
        verdict: None where there is no pose to judge.
        symmetry: the kind, see `Symmetry`.
    """

    ious: list[float | None]
    turn_losses: list[float | None]
    torn_off: list[bool]
    verdict: Verdict | None
    symmetry: str

    @cached_property
    def _usual_iou(self) -> float:
        """What most good frames reach: the upper quartile."""
        return float(np.percentile([iou for iou in self.ious if iou is not None], 75))

    def score(self, position: int, verified: bool) -> float:
        """From 0 to 1; at most UNVERIFIED where the pose is not to be trusted."""
        iou, support = self.ious[position], 0.0 if self.verdict is None else self.verdict.support
        if verified:
            return float(np.clip(support if iou is None else min(iou, support), 0, 1))
        return UNVERIFIED * float(np.clip(0.0 if iou is None else min(iou, support), 0, 1))

    def reason(self, position: int, turn_sd_deg: float | None = None) -> Reason | None:
        """Why the pose in a frame is not to be trusted; None where it is.

        Args:
            turn_sd_deg: of its orientation, from points, if there are any.
        """
        iou, loss = self.ious[position], self.turn_losses[position]
        if self.verdict is None or iou is None or loss is None:
            return Reason("too_hidden", "too little of the object is seen to tell whether the pose is right")
        if self.verdict.reason is not None:
            return self.verdict.reason
        if self.torn_off[position]:
            return Reason("ambiguous", f"the pose jumps between here and most frames, by more than {MAX_TURN_DEG_S:.0f} degrees a second")
        usual = self._usual_iou
        if iou < MIN_IOU:
            return Reason("no_fit", f"outline and mask overlap by {100 * iou:.0f} %, {100 * MIN_IOU:.0f} % are needed")
        if iou < usual - MAX_BELOW and loss < DOUBTED_TURN_LOSS:
            return Reason("no_fit", f"outline and mask overlap by {100 * iou:.0f} %, in most frames by {100 * usual:.0f} %")
        if loss < 0:
            return Reason("no_fit", f"turned by {TURNED_DEG:.0f} degrees, the shape would fit the mask better here")
        if loss < MIN_TURN_LOSS and (turn_sd_deg is None or turn_sd_deg > MAX_TURN_SD_DEG):
            return Reason("ambiguous", f"turned by {TURNED_DEG:.0f} degrees, the shape would fit the mask about as well here")
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What frames kept out of the solution say about the poses of an object.

    Args:
        overlap: median over them of intersection over union of outline and mask: in some of them the pose may be wrong.
        support: the same, up to 1, of which a share EDGES is only given for edges.
        unexplained: 1 less its mean, which a median would hide.
        margin: by how much the mean is more than that of the best other orientation; None where overlap is so small that none was sought.
        rival_deg: how far that one is turned away, degrees.
        covered: by how much another orientation overlaps with the masks better, which the margin must exceed: edges may prefer a wrong one.
    """

    overlap: float
    support: float
    unexplained: float
    margin: float | None
    rival_deg: float
    covered: float

    @property
    def reason(self) -> Reason | None:
        """Why the poses are not to be trusted; None where they are."""
        if self.overlap < MIN_OVERLAP or self.margin is None:
            return Reason("no_fit", f"the outline of the known shape overlaps with the masks by {100 * self.overlap:.0f} % only")
        if self.support < MIN_SUPPORT:
            return Reason("no_fit", f"outline and edges of the known shape explain {100 * self.support:.0f} % of what other frames show")
        if self.margin - self.covered < max(MIN_MARGIN, MIN_MARGIN_SHARE * self.unexplained):
            return Reason("ambiguous", f"turned by {self.rival_deg:.0f} degrees, the shape explains masks and edges about as well")
        return None


def judge_track(
    camera: Camera,
    shape: Shape,
    poses: Sequence[np.ndarray | None],
    times_s: Sequence[float],
    seen: Sequence[Glimpse],
    held_out: Sequence[Keyframe],
    used: Sequence[Keyframe] = (),
    runners_up: Sequence[np.ndarray] = (),
    found: Sequence[np.ndarray | None] | None = None,
) -> Judged:
    """Judge the poses T_camera_object of an object in all frames: by each other, by their masks, and by views, whose `position` counts the frames.

    Most views should be kept out of the solution. A few of those that were used are looked at as well: poses must fit there too.

    Args:
        runners_up: T_object_other (4, 4) of orientations that the solver found to explain hardly less.
        found: the poses before they were made to agree with each other, by which the track is judged: after it, wrong ones look consistent.
    """
    ious = [None if T is None else mask_iou(camera, shape, T, mask) for T, mask in zip(poses, seen, strict=True)]
    losses = [
        None if T is None or iou is None else turn_loss(camera, shape, T, mask, iou) for T, iou, mask in zip(poses, ious, seen, strict=True)
    ]
    chosen = [
        pair for views, most in ((held_out, HELD_OUT), (used, USED)) for pair in _apart(poses if found is None else found, views, most)
    ]
    verdict = verify(camera, shape, [T for T, _ in chosen], [view for _, view in chosen], runners_up) if chosen else None
    return Judged(ious, losses, _torn_off(shape, poses, times_s), verdict, shape.symmetry.kind)


def held_between(
    shape: Shape, poses: Sequence[np.ndarray | None], times_s: Sequence[float], reasons: Sequence[Reason | None]
) -> list[Reason | None]:
    """The reasons not to trust poses, less those of poses on the way between two that are trusted and no more than MAX_BETWEEN_S apart.

    A hand moves a thing without detours. What hides it, or a mask that lacks a part, says little of a frame; the frames around it say more.
    """
    found = list(reasons)
    trusted = [(i, T) for i, (T, reason) in enumerate(zip(poses, reasons, strict=True)) if T is not None and reason is None]
    for (a, T_a), (b, T_b) in pairwise(trusted):
        if times_s[b] - times_s[a] <= MAX_BETWEEN_S:
            for i in range(a + 1, b):
                T = poses[i]
                if T is not None and _on_the_way(shape, T_a, T, T_b):
                    found[i] = None
    return found


def _on_the_way(shape: Shape, T_a: np.ndarray, T: np.ndarray, T_b: np.ndarray) -> bool:
    turns = [shape.symmetry.angle_deg(T_x[:3, :3], T_y[:3, :3]) for T_x, T_y in ((T_a, T), (T, T_b), (T_a, T_b))]
    shifts_m = [float(np.linalg.norm(T_x[:3, 3] - T_y[:3, 3])) for T_x, T_y in ((T_a, T), (T, T_b), (T_a, T_b))]
    return turns[0] + turns[1] - turns[2] <= DETOUR_DEG and shifts_m[0] + shifts_m[1] - shifts_m[2] <= DETOUR_SHARE * float(T[2, 3])


def _torn_off(shape: Shape, poses: Sequence[np.ndarray | None], times_s: Sequence[float]) -> list[bool]:
    """Which frames are not of the longest chain of poses in which none jumps; poses that do are passed over, if no more than MAX_BETWEEN_S."""
    posed = [(i, T) for i, T in enumerate(poses) if T is not None]
    seconds = [times_s[b] - times_s[a] for (a, _), (b, _) in pairwise(posed)]
    turns = [shape.symmetry.angle_deg(T_a[:3, :3], T_b[:3, :3]) for (_, T_a), (_, T_b) in pairwise(posed)]
    jumps = [turn > MAX_TURN_DEG_S * passed for turn, passed in zip(turns, seconds, strict=True)]
    if not any(jumps):
        return [False] * len(poses)
    within_deg = MAX_TURN_DEG_S * PASSED_OVER * min(seconds)

    def follows(a: int, b: int) -> bool:
        if b == a + 1:
            return not jumps[a]
        (i, T_a), (k, T_b) = posed[a], posed[b]
        return times_s[k] - times_s[i] <= MAX_BETWEEN_S and shape.symmetry.angle_deg(T_a[:3, :3], T_b[:3, :3]) <= within_deg

    at_s = [times_s[i] for i, _ in posed]
    reach = np.searchsorted(at_s, np.array(at_s) - MAX_BETWEEN_S - 1e-6).tolist()
    kept = {posed[k][0] for k in _longest_chain(reach, follows)}
    return [T is not None and i not in kept for i, T in enumerate(poses)]


def _longest_chain(reach: Sequence[int], follows: Callable[[int, int], bool]) -> list[int]:
    """The most numbers, in their order, of which each follows the one before; the last first. Number b may follow b - 1, and all from reach[b] on."""
    length, before = [1] * len(reach), [-1] * len(reach)
    for b, first in enumerate(reach):
        for a in range(b - 1, min(first, b - 1) - 1, -1):
            if length[a] >= length[b] and follows(a, b):
                length[b], before[b] = length[a] + 1, a
    chain = [int(np.argmax(length))]
    while before[chain[-1]] >= 0:
        chain.append(before[chain[-1]])
    return chain


def _apart(poses: Sequence[np.ndarray | None], views: Sequence[Keyframe], most: int) -> list[tuple[np.ndarray, Keyframe]]:
    """At most so many views with a pose: the clearest first, then always the one that sees the shape from the side least seen so far."""
    posed = [(T, view) for view in views if (T := poses[view.position]) is not None]
    if not posed:
        return []
    clear = [view.clearness for _, view in posed]
    left = [i for i in range(len(posed)) if clear[i] >= 0.5 * max(clear)]
    chosen = [int(np.argmax(clear))]
    while len(chosen) < min(most, len(left)):
        away = {i: min(rotation_angle_deg(posed[i][0][:3, :3], posed[c][0][:3, :3]) for c in chosen) for i in left if i not in chosen}
        chosen.append(max(away, key=lambda i: away[i]))
    return [posed[i] for i in chosen]


def turn_loss(camera: Camera, shape: Shape, T_camera_object: np.ndarray, seen: Glimpse, iou: float) -> float:
    """By how much the overlap with the mask decreases at least where the pose is turned by TURNED_DEG, about any axis that changes what is seen."""
    centre_m = T_camera_object[:3, :3] @ shape.centre_m + T_camera_object[:3, 3]
    least = np.inf
    for turn in _TURNS:
        T = make_transform(turn, centre_m - turn @ centre_m) @ T_camera_object
        if shape.symmetry.angle_deg(T[:3, :3], T_camera_object[:3, :3]) > TURNED_DEG / 2:
            least = min(least, iou - (mask_iou(camera, shape, T, seen) or 0.0))
    return float(least)


def verify(
    camera: Camera, shape: Shape, poses: Sequence[np.ndarray], views: Sequence[Keyframe], runners_up: Sequence[np.ndarray]
) -> Verdict:
    """Judge poses T_camera_object of one object in some frames that were kept out of the solution; the first view is searched for rivals."""
    own = [_near_fit(camera, shape, view, T) for T, view in zip(poses, views, strict=True)]
    overlap, support = (float(np.median([getattr(one, name) for one in own])) for name in ("overlap", "support"))
    mean_overlap, mean_support = (float(np.mean([getattr(one, name) for one in own])) for name in ("overlap", "support"))
    if overlap < MIN_OVERLAP:
        return Verdict(overlap, support, 1 - mean_support, None, 0.0, 0.0)
    rivals = [*runners_up, *(invert(poses[0]) @ T for T in _rivals(camera, shape, poses[0], views[0]))]
    glances = [(_rival(camera, shape, poses[:GLANCES], views[:GLANCES], other, False), other) for other in rivals]
    glances = sorted((g for g in glances if g[0].turned_deg > OTHER_DEG), key=lambda g: -g[0].support)[:SHARPENED]
    best, covered = _Rival(0.0, 0.0, 0.0), 0.0
    for glance, T_object_other in glances:
        behind = float(np.mean([one.support for one in own[:GLANCES]])) - glance.support
        if behind < CLEAR:
            rival = _rival(camera, shape, poses, views, T_object_other, True)
            covered = max(covered, rival.overlap - mean_overlap) if rival.turned_deg > OTHER_DEG else covered
        else:
            rival = replace(glance, support=mean_support - behind)
        if rival.support > best.support and rival.turned_deg > OTHER_DEG:
            best = rival
    verdict = Verdict(overlap, support, 1 - mean_support, mean_support - best.support, best.turned_deg, covered)
    return verdict if verdict.reason else _looked_at_again(camera, shape, poses, views, own, verdict)


def _looked_at_again(
    camera: Camera, shape: Shape, poses: Sequence[np.ndarray], views: Sequence[Keyframe], own: Sequence[Support], verdict: Verdict
) -> Verdict:
    """The verdict; another if in more views, each by itself, other poses explain clearly more: wrong tracks turn from the true one."""
    ahead: list[tuple[float, float]] = []
    for T, view, seen in list(zip(poses, views, own, strict=True))[1 : 1 + AGAIN]:
        rivals = _rivals(camera, shape, T, view, SEARCHED_AGAIN, KEPT_AGAIN)
        others = [(support_of(camera, shape, view, other).support, other) for other in rivals]
        best, other = max(others, key=lambda pair: pair[0], default=(0.0, T))
        if best - seen.support < BETTER:
            return verdict
        ahead.append((best - seen.support, shape.symmetry.angle_deg(other[:3, :3], T[:3, :3])))
    return replace(verdict, margin=-min(ahead)[0], rival_deg=min(ahead)[1]) if ahead else verdict


@dataclass(frozen=True, slots=True)
class Support:
    """Of a pose in one view: intersection over union of outline and mask, and the share of the shape's edges that the picture shows."""

    overlap: float
    edges: float

    @property
    def support(self) -> float:
        """The overlap, of which a share EDGES is only given for edges."""
        return self.overlap * (1 - EDGES + EDGES * self.edges)


def support_of(camera: Camera, shape: Shape, view: Keyframe, T_camera_object: np.ndarray) -> Support:
    """How well a pose explains mask and edges of a view."""
    outline = silhouette(camera, shape, T_camera_object, view.mask.shape, 1.0, view.origin_px)
    overlap = intersection_over_union(outline, view.mask.astype(np.uint8), (~view.hands).astype(np.uint8))
    return Support(overlap, edge_support(view, edge_view(camera, shape, view, T_camera_object)))


def _near_fit(camera: Camera, shape: Shape, view: Keyframe, T_camera_object: np.ndarray) -> Support:
    """Support of a pose, or of one fitted from it that explains more, if that is the same pose but for an error that may be."""
    tried = [T_camera_object, *_fits(camera, shape, view, T_camera_object, True)]
    near = [T for T in tried if _is_near(shape, T, T_camera_object)]
    return max((support_of(camera, shape, view, T) for T in near), key=lambda one: one.support)


def _is_near(shape: Shape, T_a: np.ndarray, T_b: np.ndarray) -> bool:
    return shape.symmetry.angle_deg(T_a[:3, :3], T_b[:3, :3]) <= NEAR_DEG and abs(T_a[2, 3] / T_b[2, 3] - 1) <= NEAR_DEPTH


def _fits(camera: Camera, shape: Shape, view: Keyframe, T_camera_object: np.ndarray, sharpen: bool) -> list[np.ndarray]:
    """The pose fitted to a view's mask, and from there to its edges where `sharpen`."""
    fitted = fit_outline(camera, shape, view, T_camera_object, RIVAL_STEPS, outside=1.0)
    if fitted is None:
        return []
    return [fitted, fit_edges(camera, shape, view, fitted)] if sharpen else [fitted]


def _rivals(
    camera: Camera, shape: Shape, T_camera_object: np.ndarray, view: Keyframe, searched: int = SEARCHED, kept_most: int = SEARCHED_KEPT
) -> list[np.ndarray]:
    """Poses turned away from the given one, that may explain a view as well: from a search over all orientations, quarter turns, and look-alikes."""
    centre = shape.centre_m
    turns = [rotations(angle * axis[None])[0] for axis in np.eye(3) for angle in (np.pi / 2, -np.pi / 2)]
    own = [T_camera_object @ make_transform(turn, centre - turn @ centre) for turn in turns] + lookalikes(shape, T_camera_object)
    found = [T for T, _ in candidates(camera, shape, view, searched, kept_most)]
    begun = [T for start in (*own, *found) if (T := fit_outline(camera, shape, view, start, BEGUN_STEPS, outside=1.0)) is not None]
    begun = sorted((T for T in begun if _other(shape, T, T_camera_object)), key=lambda T: -overlap_with(camera, shape, view, T))
    kept: list[tuple[float, np.ndarray]] = []
    for T in apart(shape, begun, BEGUN, ALIKE_DEG):
        fitted = fit_outline(camera, shape, view, T, RIVAL_STEPS, outside=1.0)
        if fitted is not None and _other(shape, fitted, T_camera_object):
            kept.append((support_of(camera, shape, view, fitted).support, fitted))
    kept.sort(key=lambda pair: -pair[0])
    return apart(shape, [T for _, T in kept], RIVALS, OTHER_DEG)


def _other(shape: Shape, T_a: np.ndarray, T_b: np.ndarray) -> bool:
    return shape.symmetry.angle_deg(T_a[:3, :3], T_b[:3, :3]) > OTHER_DEG


@dataclass(frozen=True, slots=True)
class _Rival:
    """Of another orientation, mean support and overlap over views, and how far it is turned away, degrees."""

    support: float
    overlap: float
    turned_deg: float


def _rival(
    camera: Camera, shape: Shape, poses: Sequence[np.ndarray], views: Sequence[Keyframe], T_object_other: np.ndarray, sharpen: bool
) -> _Rival:
    """An orientation that differs from the poses by T_object_other, fitted in each view.

    Where the fit leaves it for the pose itself, it is only shifted. Edges are fitted too where `sharpen`.
    """
    found, angles = [], []
    for T, view in zip(poses, views, strict=True):
        shifted = fit_outline(camera, shape, view, T @ T_object_other, RIVAL_STEPS, turn=False, outside=1.0)
        made = [] if shifted is None else [shifted, *_fits(camera, shape, view, shifted, sharpen)]
        tried = [T_made for T_made in made if _other(shape, T_made, T)]
        seen = [support_of(camera, shape, view, T_made) for T_made in tried]
        found.append((max((s.support for s in seen), default=0.0), max((s.overlap for s in seen), default=0.0)))
        angles.append(max((shape.symmetry.angle_deg(T_made[:3, :3], T[:3, :3]) for T_made in tried), default=0.0))
    support, overlap = np.mean(found, axis=0)
    return _Rival(float(support), float(overlap), float(np.median(angles)))
