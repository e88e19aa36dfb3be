"""Poses of one object of known shape over a clip: register, follow through the keyframes, refine jointly, then solve every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.object_pose._bundle import Points, link, refine
from egoworld_ops.operators.object_pose._fitting import fit_edges, fit_outline, judge, overlap_with
from egoworld_ops.operators.object_pose._keyframes import Keyframe
from egoworld_ops.operators.object_pose._points import MIN_POINTS, Agreement, near_points, sample_points, solve_points
from egoworld_ops.operators.object_pose._registration import register
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._tracking import Sighting, Track
from egoworld_ops.operators.object_pose._view import lift
from egoworld_ops.operators.object_pose._way import straightened
from egoworld_ops.operators.object_pose._working import scaled
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert

MIN_OVERLAP = 0.55
MIN_FOLLOWED = 0.75
"""Overlap with the mask from which a pose fitted to edges or outline alone is the same object's, a few frames on."""
OUTLINE_STEPS = 6
REGISTER_IN = 3
HYPOTHESES = 4
LIKELY = 0.8
CONVINCING, AHEAD, GOOD, FAR_AHEAD = 1.4, 1.3, 2.1, 1.5
"""No other keyframe is asked for more if a hypothesis costs less than the first or the third, and every other at least so many times as much."""
ENOUGH, FORLORN = 2, 2.8
"""Cost above which, after so many keyframes, the shape is taken not to be the object's; nothing is refined then, and verification refuses it."""
FIRST_STEPS = 3
SECOND_TRIALS = 3
HOPELESS = 1.6
"""Trials of this many times the least cost are not refined further."""
TRIAL_STEPS = 7
ASTRAY = 0.08
FINAL_STEPS = 12
TRIAL_KEYFRAMES = 6
LOST_KEYFRAME = 3.0
"""Cost of a keyframe that a hypothesis cannot explain at all; see the costs in `_bundle`."""
_MATCH_RATIO = 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A pose of one frame: T_camera_object, how it was found, and what agrees with it: of points their number, error and share.

    One found by its outline has no such points.

    Args:
        turn_sd_deg: standard deviation of the orientation about its least certain axis, as the points' places and errors give it.
    """

    T_camera_object: np.ndarray
    method: str
    inliers: int | None = None
    reprojection_px: float | None = None
    score: float | None = None
    turn_sd_deg: float | None = None


@dataclass
class SurfaceMap:
    """The known surface of the object: followed points and descriptors, with their places (3,) in the object frame."""

    places: dict[int, np.ndarray] = field(default_factory=dict)
    descriptors: list[np.ndarray] = field(default_factory=list)
    descriptor_places: list[np.ndarray] = field(default_factory=list)

    def known(self, ids: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (N, 3) and pixels (N, 2) of the points that are in the map."""
        held = [i for i, n in enumerate(ids) if int(n) in self.places]
        places = np.array([self.places[int(ids[i])] for i in held]).reshape(-1, 3)
        return places, pixels[held]

    def learn(self, camera: Camera, shape: Shape, T_camera_object: np.ndarray, ids: np.ndarray, pixels: np.ndarray) -> None:
        """Add points not in the map yet, where they meet the surface seen from this pose."""
        new = np.array([int(n) not in self.places for n in ids], bool)
        if not new.any():
            return
        face, places = lift(camera, shape, T_camera_object, pixels[new])
        for number, place in zip(ids[new][face >= 0], places[face >= 0], strict=True):
            self.places[int(number)] = place

    def learn_looks(self, camera: Camera, shape: Shape, T_camera_object: np.ndarray, keyframe: Keyframe) -> None:
        """Add the keyframe's descriptors, for recognising the object again."""
        pixels, descriptors = keyframe.features
        if len(pixels):
            face, places = lift(camera, shape, T_camera_object, pixels)
            self.descriptors.append(descriptors[face >= 0])
            self.descriptor_places.append(places[face >= 0])


@dataclass(frozen=True, slots=True)
class Solved:
    """Of each sighting an estimate or the reason why there is none.

    Args:
        found: T_camera_object of each by itself, before those were chosen that make one way; None without a pose.
        runners_up: T_object_other (4, 4) of hypotheses that explain hardly less, turned otherwise.
    """

    outcomes: list[Estimate | Reason]
    found: list[np.ndarray | None]
    runners_up: list[np.ndarray]


def solve(camera: Camera, shape: Shape, track: Track) -> Solved:
    """Pose an object of known shape in every frame that it is masked in."""
    poses, runners_up = _settle(camera, shape, track)
    if not poses:
        count = len(track.sightings)
        return Solved([Reason("no_fit", "the known shape fits the mask in no keyframe")] * count, [None] * count, [])
    methods = {max(poses, key=lambda k: track.keyframes[k].clearness): "registered"}
    methods |= dict.fromkeys(_find_again(camera, shape, track, poses), "reregistered")
    surface = SurfaceMap()
    chosen = sorted(poses)
    points = [points_in(track, track.keyframes[k]) for k in chosen]
    _learn_links(camera, shape, surface, [poses[k] for k in chosen], points)
    anchors = {track.keyframes[k].position: (poses[k], methods.get(k, "tracked")) for k in chosen}
    outcomes = every_frame(camera, shape, track, surface, anchors)
    found = [None if isinstance(outcome, Reason) else outcome.T_camera_object for outcome in outcomes]
    return Solved(_on_the_way(camera, shape, track, outcomes, found), found, runners_up)


def _on_the_way(
    camera: Camera, shape: Shape, track: Track, outcomes: list[Estimate | Reason], found: list[np.ndarray | None]
) -> list[Estimate | Reason]:
    """The estimates; instead of those that leave the way of the track, and of some that are missing, others found by the outline."""
    sure = [0.0 if isinstance(outcome, Reason) else outcome.score or 0.0 for outcome in outcomes]
    chosen = straightened(camera, shape, track.sightings, found, sure)
    return [o if T is None or T is own else Estimate(T, "outline") for o, own, T in zip(outcomes, found, chosen, strict=True)]


def points_in(track: Track, keyframe: Keyframe) -> Points:
    """The points followed into a keyframe."""
    sighting = track.sightings[keyframe.position]
    return sighting.ids, sighting.points_px


def _settle(camera: Camera, shape: Shape, track: Track) -> tuple[dict[int, np.ndarray], list[np.ndarray]]:
    """Poses by keyframe, refined, that follow from the hypothesis that explains most; none where the shape fits the mask in no keyframe.

    Also T_object_other of those that explain hardly less. Hypotheses come from the clearest keyframe, from others only while none is convincing.
    """
    trials: list[Trial] = []
    score, least = 0.0, np.inf
    clearest = sorted(range(len(track.keyframes)), key=lambda k: -track.keyframes[k].clearness)
    for tried, start in enumerate(clearest[:REGISTER_IN], 1):
        found = [c for c in register(camera, shape, track.keyframes[start], HYPOTHESES) if c.overlap >= MIN_OVERLAP]
        score = max([score, *(c.score for c in found)])
        made = [_trial(camera, shape, track, start, c.T_camera_object) for c in found if c.score >= LIKELY * score]
        costs, trials = sorted(trial.total_cost for trial in made), trials + made
        least = min((trial.total_cost for trial in trials), default=np.inf)
        ahead = costs[1] / least if costs[:1] == [least] and len(costs) > 1 else 1.0
        if (ahead > AHEAD and least < CONVINCING) or (ahead > FAR_AHEAD and least < GOOD) or (tried == ENOUGH and least > FORLORN):
            break
    if not trials:
        return {}, []
    trials = sorted((t for t in trials if t.total_cost <= HOPELESS * least), key=lambda trial: trial.total_cost)[:SECOND_TRIALS]
    if least > FORLORN:
        return _spread(camera, shape, track, trials[0]).poses, []
    best, *others = sorted((_spread(camera, shape, track, trial) for trial in trials), key=lambda trial: trial.total_cost)
    poses, _ = _refine(camera, shape, track, best.poses, FINAL_STEPS)
    shared = [(other, min(other.poses.keys() & poses.keys(), default=None)) for other in others]
    return _mend(camera, shape, track, poses), [invert(poses[k]) @ other.poses[k] for other, k in shared if k is not None]


def _trial(camera: Camera, shape: Shape, track: Track, start: int, T_camera_object: np.ndarray) -> Trial:
    """Follow a hypothesis through the keyframes around it, and refine it in these: the time of all would grow with the length of the clip."""
    window = track.around(start, TRIAL_KEYFRAMES)
    poses = _follow(camera, shape, track, {start: T_camera_object}, window)
    return Trial(1 - len(poses) / len(window), *_refine(camera, shape, track, poses, FIRST_STEPS))


@dataclass(frozen=True, slots=True)
class Trial:
    """A hypothesis: the share of the keyframes it was followed through that were lost, the poses of the others, and what refined ones cost."""

    lost: float
    poses: dict[int, np.ndarray]
    cost: float

    @property
    def total_cost(self) -> float:
        """Of all these keyframes, for comparing."""
        return self.cost * (1 - self.lost) + LOST_KEYFRAME * self.lost


def _spread(camera: Camera, shape: Shape, track: Track, trial: Trial) -> Trial:
    """A hypothesis followed through its whole segment: refined in a few keyframes far apart, the others changed as the nearest of these were."""
    segment = track.segment_of(min(trial.poses))
    poses = _follow(camera, shape, track, trial.poses, segment)
    order = sorted(poses)
    chosen = {order[i] for i in np.linspace(0, len(order) - 1, TRIAL_KEYFRAMES).round().astype(int)}
    refined, cost = _refine(camera, shape, track, {k: poses[k] for k in chosen}, TRIAL_STEPS)
    near = {k: min(refined, key=lambda other: abs(other - k)) for k in poses}
    changed = {k: T @ invert(poses[near[k]]) @ refined[near[k]] for k, T in poses.items()}
    return Trial(1 - len(poses) / len(segment), changed, cost)


def _mend(camera: Camera, shape: Shape, track: Track, poses: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Solve badly fitting keyframes anew, from what the others have learnt, and refine once more where that helped."""
    scores = {k: judge(camera, shape, track.keyframes[k], T).score for k, T in poses.items()}
    usual = float(np.median(list(scores.values())))
    good = [k for k, score in scores.items() if score >= usual - ASTRAY]
    surface, mended = SurfaceMap(), dict(poses)
    for k in good:
        surface.learn(camera, shape, poses[k], *points_in(track, track.keyframes[k]))
    for k in poses.keys() - set(good):
        guess = poses[min(good, key=lambda other: abs(other - k))]
        agreement = solve_points(camera, *surface.known(*points_in(track, track.keyframes[k])), guess)
        if agreement is not None and agreement.good:
            T = fit_edges(camera, shape, track.keyframes[k], agreement.T_camera_object)
            if judge(camera, shape, track.keyframes[k], T).score > scores[k]:
                mended[k] = T
    return poses if len(good) == len(poses) else _refine(camera, shape, track, mended, FINAL_STEPS)[0]


def _refine(camera: Camera, shape: Shape, track: Track, poses: dict[int, np.ndarray], steps: int) -> tuple[dict[int, np.ndarray], float]:
    order = sorted(poses)
    keyframes = [track.keyframes[k] for k in order]
    refined, cost = refine(camera, shape, [poses[k] for k in order], [points_in(track, k) for k in keyframes], keyframes, steps)
    return dict(zip(order, refined, strict=True)), cost


def _follow(camera: Camera, shape: Shape, track: Track, known: dict[int, np.ndarray], among: range) -> dict[int, np.ndarray]:
    """Poses of keyframes, from known ones outwards through `among`, by the points they share; ends each way where the object is lost."""
    poses = dict(known)
    for direction, edge in ((1, max(known)), (-1, min(known))):
        surface, T = SurfaceMap(), known[edge]
        for k in sorted(poses, key=lambda k: abs(k - edge)):
            surface.learn(camera, shape, poses[k], *points_in(track, track.keyframes[k]))
        for k in among[edge + direction - among.start :] if direction > 0 else among[: edge - among.start][::-1]:
            ids, pixels = points_in(track, track.keyframes[k])
            agreement = near_points(camera, *surface.known(ids, pixels), T)
            if agreement is None or not agreement.clear:
                T = _by_way_of(camera, shape, track, surface, (k - direction, k), T)
                agreement = solve_points(camera, *surface.known(ids, pixels), T)
            if agreement is not None and agreement.good:
                T = agreement.T_camera_object
            else:
                T = _seen_again(camera, shape, track.keyframes[k], T)
                if overlap_with(camera, shape, track.keyframes[k], T) < MIN_FOLLOWED:
                    break
            poses[k] = T
            surface.learn(camera, shape, T, ids, pixels)
    return poses


def _by_way_of(
    camera: Camera, shape: Shape, track: Track, surface: SurfaceMap, keyframes: tuple[int, int], T_start: np.ndarray
) -> np.ndarray:
    """T_camera_object just before a keyframe, followed from another through the frames between; the surface learns their points."""
    first, last = (track.keyframes[k].position for k in keyframes)
    way, T = (1 if last > first else -1), T_start
    for sighting in track.sightings[first + way : last : way]:
        agreement = near_points(camera, *surface.known(sighting.ids, sighting.points_px), T)
        if agreement is not None and agreement.good:
            T = agreement.T_camera_object
            surface.learn(camera, shape, T, sighting.ids, sighting.points_px)
        elif (fitted := _by_outline(camera, shape, sighting, T)) is not None:
            T = fitted
    return T


def _seen_again(camera: Camera, shape: Shape, keyframe: Keyframe, T_near: np.ndarray) -> np.ndarray:
    """T_camera_object that fits edges, from the pose in a neighbouring keyframe or from that fitted to the outline, whichever covers more."""
    moved = fit_outline(camera, shape, keyframe, T_near, OUTLINE_STEPS)
    starts = [T for T in (T_near, moved) if T is not None]
    return fit_edges(camera, shape, keyframe, max(starts, key=lambda T: overlap_with(camera, shape, keyframe, T)))


def _find_again(camera: Camera, shape: Shape, track: Track, poses: dict[int, np.ndarray]) -> list[int]:
    """Pose the keyframes that could not be followed, by their appearance, and those that follow from them; adds to `poses`, returns those found."""
    found: list[int] = []
    while missing := [k for k in range(len(track.keyframes)) if k not in poses]:
        surface = SurfaceMap()
        for k, T in poses.items():
            surface.learn_looks(camera, shape, T, track.keyframes[k])
        seen = {k: _recognise(camera, shape, surface, track.keyframes[k]) for k in missing}
        hits = {k: T for k, T in seen.items() if T is not None}
        if not hits:
            break
        start = max(hits, key=lambda k: track.keyframes[k].clearness)
        found.append(start)
        for k, T in _follow(camera, shape, track, {start: hits[start]}, track.segment_of(start)).items():
            poses.setdefault(k, T)
    if found:
        poses.update(_refine(camera, shape, track, poses, TRIAL_STEPS)[0])
    return found


def _recognise(camera: Camera, shape: Shape, surface: SurfaceMap, keyframe: Keyframe) -> np.ndarray | None:
    """T_camera_object from descriptors alone (Lowe's ratio test, 2004; PnP on random samples), checked against the outline."""
    pixels, descriptors = keyframe.features
    if len(pixels) < MIN_POINTS or not surface.descriptors:
        return None
    known, places = np.concatenate(surface.descriptors), np.concatenate(surface.descriptor_places)
    if len(known) < MIN_POINTS:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors, known, k=6)
    near = 0.05 * float(shape.dimensions_m.max())
    matches = [(m[0].queryIdx, m[0].trainIdx) for m in pairs if _distinctive(m, places, near)]
    if len(matches) < MIN_POINTS:
        return None
    rows, columns = np.array(matches).T
    agreement = sample_points(camera, places[columns], pixels[rows])
    if agreement is None or agreement.inlier.sum() < MIN_POINTS:
        return None
    T = fit_edges(camera, shape, keyframe, agreement.T_camera_object)
    return T if judge(camera, shape, keyframe, T).overlap >= MIN_OVERLAP else None


def _distinctive(matches: Sequence[cv2.DMatch], places: np.ndarray, near_m: float) -> bool:
    """Whether the best match is clearly better than the best one elsewhere on the surface."""
    first = places[matches[0].trainIdx]
    others = [m.distance for m in matches[1:] if np.linalg.norm(places[m.trainIdx] - first) > near_m]
    return not others or matches[0].distance < _MATCH_RATIO * others[0]


def _learn_links(camera: Camera, shape: Shape, surface: SurfaceMap, poses: list[np.ndarray], points: list[Points]) -> None:
    """Take each followed point's place from the keyframe that sees it best."""
    links = link(camera, shape, poses, points)
    if links is not None:
        for view in range(len(poses)):
            ids, pixels = points[view]
            home = {tuple(p) for p in links.home_px[links.home == view]}
            chosen = np.array([tuple(p) in home for p in pixels], bool)
            if chosen.any():
                surface.learn(camera, shape, poses[view], ids[chosen], pixels[chosen])
    for T, (ids, pixels) in zip(poses, points, strict=True):
        if len(ids):
            surface.learn(camera, shape, T, ids, pixels)


def every_frame(
    camera: Camera, shape: Shape | None, track: Track, surface: SurfaceMap, anchors: dict[int, tuple[np.ndarray, str]]
) -> list[Estimate | Reason]:
    """Solve all sightings, nearest to an anchor first; each starts from its solved neighbour and adds the points it newly sees."""
    found: dict[int, Estimate] = {}
    for direction in (1, -1):
        guess: tuple[int, np.ndarray] | None = None
        for i in range(len(track.sightings))[::direction]:
            sighting = track.sightings[i]
            if guess is not None and sighting.segment != guess[0]:
                guess = None
            if i in found:
                guess = (sighting.segment, found[i].T_camera_object)
                continue
            anchor = anchors.get(i)
            start = anchor[0] if anchor else guess[1] if guess else None
            if start is None:
                continue
            agreement = solve_points(camera, *surface.known(sighting.ids, sighting.points_px), start)
            if agreement is not None and agreement.good:
                found[i] = _estimate(agreement, anchor[1] if anchor else "tracked")
            elif shape is not None and (T := start if anchor else _by_outline(camera, shape, sighting, start)) is not None:
                found[i] = Estimate(T, "outline")
            else:
                continue
            guess = (sighting.segment, found[i].T_camera_object)
            if shape is not None:
                surface.learn(camera, shape, found[i].T_camera_object, sighting.ids, sighting.points_px)
    return [found.get(i, _why_not(track, i)) for i in range(len(track.sightings))]


def _by_outline(camera: Camera, shape: Shape, sighting: Sighting, T_guess: np.ndarray) -> np.ndarray | None:
    """T_camera_object that fits the mask's outline, from that of a neighbouring frame; None where it does not overlap enough."""
    seen = sighting.seen
    small, view = scaled(camera, seen.scale), seen.as_keyframe()
    T = fit_outline(small, shape, view, T_guess, OUTLINE_STEPS, outside=1.0)
    return T if T is not None and overlap_with(small, shape, view, T) >= MIN_FOLLOWED else None


def _estimate(agreement: Agreement, method: str) -> Estimate:
    count = int(agreement.inlier.sum())
    score = float(agreement.inlier.mean()) * min(count / 30, 1.0)
    return Estimate(agreement.T_camera_object, method, count, agreement.reprojection_px, score, agreement.turn_sd_deg)


def _why_not(track: Track, position: int) -> Reason:
    count = len(track.sightings[position].ids)
    if count < MIN_POINTS:
        return Reason("too_few_points", f"only {count} points could be followed on the object, {MIN_POINTS} are needed")
    return Reason("no_fit", "the points followed on the object agree on no pose")
