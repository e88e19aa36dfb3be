"""Poses of one object of known shape over a clip: register, follow through the keyframes, refine jointly, then solve every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.object_pose._bundle import Points, link, refine
from egoworld_ops.operators.object_pose._keyframes import Keyframe
from egoworld_ops.operators.object_pose._registration import Candidate, fit_edges, judge, register, solve_step, tilts
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._tracking import Track
from egoworld_ops.operators.object_pose._view import lift, project_with_jacobian, step
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform

INLIER_PX = 3.0
MIN_POINTS = 8
MIN_SHARE = 0.4
MIN_OVERLAP = 0.55
REGISTER_IN = 2
HYPOTHESES = 4
MAX_TRIALS = 7
FIRST_STEPS = 4
SECOND_TRIALS = 3
TRIAL_STEPS = 7
ASTRAY = 0.08
FINAL_STEPS = 20
LOST_KEYFRAME = 3.0
"""Cost of a keyframe that a hypothesis cannot explain at all; see the costs in `_bundle`."""
_MATCH_RATIO = 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A pose of one frame: T_camera_object, how it was found, and the evidence for it."""

    T_camera_object: np.ndarray
    method: str
    inliers: int
    reprojection_px: float
    score: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """A pose, which of the given points agree with it (N,) bool, and their root mean square error in pixels."""

    T_camera_object: np.ndarray
    inlier: np.ndarray
    reprojection_px: float

    @property
    def good(self) -> bool:
        """Whether enough points agree, in number and in share."""
        return int(self.inlier.sum()) >= MIN_POINTS and float(self.inlier.mean()) >= MIN_SHARE


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


def solve(camera: Camera, shape: Shape, track: Track) -> list[Estimate | Reason]:
    """For each sighting an estimate, or the reason why there is none."""
    hypotheses = _hypotheses(camera, shape, track)
    if not hypotheses:
        return [Reason("no_fit", "the known shape fits the mask in no keyframe")] * len(track.sightings)
    poses = _settle(camera, shape, track, hypotheses)
    methods = {max(poses, key=lambda k: track.keyframes[k].clearness): "registered"}
    methods |= dict.fromkeys(_find_again(camera, shape, track, poses), "reregistered")
    surface = SurfaceMap()
    chosen = sorted(poses)
    points = [points_in(track, track.keyframes[k]) for k in chosen]
    _learn_links(camera, shape, surface, [poses[k] for k in chosen], points)
    return every_frame(camera, shape, track, surface, {track.keyframes[k].position: (poses[k], methods.get(k, "tracked")) for k in chosen})


def points_in(track: Track, keyframe: Keyframe) -> Points:
    """The points followed into a keyframe."""
    sighting = track.sightings[keyframe.position]
    return sighting.ids, sighting.points_px


def _hypotheses(camera: Camera, shape: Shape, track: Track) -> list[tuple[int, Candidate]]:
    order = sorted(range(len(track.keyframes)), key=lambda k: -track.keyframes[k].clearness)
    found = [(k, c) for k in order[:REGISTER_IN] for c in register(camera, shape, track.keyframes[k], HYPOTHESES)]
    best = max((c.score for _, c in found), default=0.0)
    likely = [(k, c) for k, c in found if c.overlap >= MIN_OVERLAP and c.score >= 0.8 * best]
    return sorted(likely, key=lambda pair: -pair[1].score)[:MAX_TRIALS]


def _settle(camera: Camera, shape: Shape, track: Track, hypotheses: list[tuple[int, Candidate]]) -> dict[int, np.ndarray]:
    """Follow every hypothesis through its segment, and keep the one that explains most; its poses by keyframe, refined."""
    trials = []
    for start, candidate in hypotheses:
        poses = _follow(camera, shape, track, start, candidate.T_camera_object)
        lost = 1 - len(poses) / sum(k.segment == track.keyframes[start].segment for k in track.keyframes)
        trials.append((lost, *_refine(camera, shape, track, poses, FIRST_STEPS)))
    trials = sorted(trials, key=_trial_cost)[:SECOND_TRIALS]
    trials = [(lost, *_refine(camera, shape, track, poses, TRIAL_STEPS)) for lost, poses, _ in trials]
    _, poses, _ = min(trials, key=_trial_cost)
    turned = [{k: make_transform(T[:3, :3] @ turn, T[:3, 3]) for k, T in poses.items()} for turn in tilts()]
    again = [_refine(camera, shape, track, t, TRIAL_STEPS) for t in turned]
    poses, _ = _refine(camera, shape, track, min(again, key=lambda trial: trial[1])[0], FINAL_STEPS)
    return _mend(camera, shape, track, poses)


def _trial_cost(trial: tuple[float, dict[int, np.ndarray], float]) -> float:
    """Cost of a trial (share of keyframes lost, poses, mean cost of the others)."""
    lost, _, cost = trial
    return cost * (1 - lost) + LOST_KEYFRAME * lost


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


def _follow(camera: Camera, shape: Shape, track: Track, start: int, T_start: np.ndarray) -> dict[int, np.ndarray]:
    """Poses of the keyframes of one segment, from one keyframe outwards, by the points they share."""
    surface, poses = SurfaceMap(), {start: T_start}
    surface.learn(camera, shape, T_start, *points_in(track, track.keyframes[start]))
    for direction in (1, -1):
        T, k = T_start, start + direction
        while 0 <= k < len(track.keyframes) and track.keyframes[k].segment == track.keyframes[start].segment:
            ids, pixels = points_in(track, track.keyframes[k])
            agreement = solve_points(camera, *surface.known(ids, pixels), T)
            if agreement is None or not agreement.good:
                break
            T = agreement.T_camera_object
            poses[k] = T
            surface.learn(camera, shape, T, ids, pixels)
            k += direction
    return poses


def _find_again(camera: Camera, shape: Shape, track: Track, poses: dict[int, np.ndarray]) -> list[int]:
    """Pose the keyframes that could not be followed, by their appearance, and those that follow from them; adds to `poses`, returns those found."""
    found: list[int] = []
    for _ in range(len(track.keyframes)):
        surface = SurfaceMap()
        for k, T in poses.items():
            surface.learn_looks(camera, shape, T, track.keyframes[k])
        missing = [k for k in range(len(track.keyframes)) if k not in poses]
        seen = {k: _recognise(camera, shape, surface, track.keyframes[k]) for k in missing}
        hits = {k: T for k, T in seen.items() if T is not None}
        if not hits:
            break
        start = max(hits, key=lambda k: track.keyframes[k].clearness)
        found.append(start)
        for k, T in _follow(camera, shape, track, start, hits[start]).items():
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


def sample_points(camera: Camera, places_m: np.ndarray, pixels: np.ndarray) -> Agreement | None:
    """Pose of points (N, 3) seen at pixels (N, 2), from random samples (RANSAC) without a guess."""
    if len(places_m) < 6:
        return None
    cv2.setRNGSeed(0)
    ok, rvec, tvec, inlier = cv2.solvePnPRansac(
        places_m, pixels, camera.K, None, iterationsCount=300, reprojectionError=INLIER_PX, confidence=0.999, flags=cv2.SOLVEPNP_SQPNP
    )
    if not ok or inlier is None or len(inlier) < 6 or tvec[2, 0] <= 0:
        return None
    return fit_points(camera, places_m, pixels, make_transform(cv2.Rodrigues(rvec)[0], tvec.ravel()))


def fit_points(camera: Camera, places_m: np.ndarray, pixels: np.ndarray, T_guess: np.ndarray) -> Agreement | None:
    """Pose of points (N, 3) seen at pixels (N, 2), from a guess (Gauss-Newton, outliers weighted down as by Cauchy)."""
    if len(places_m) < 4:
        return None
    T = T_guess
    for width_px in (12.0, 8.0, 5.0, 3.0, 2.0, 1.5, 1.5, 1.5):
        seen, J = project_with_jacobian(camera, T, places_m)
        residual = seen - pixels
        if not np.isfinite(residual).all():
            return None
        w = 1 / (1 + (residual**2).sum(1) / width_px**2)
        rows = np.sqrt(w)[:, None, None] * J
        move = solve_step([((np.sqrt(w)[:, None] * residual).ravel(), rows.reshape(-1, 6), np.inf, 1.0)], 1e-6, float(T[2, 3]))
        T = step(T, move)
    error = np.linalg.norm(project_with_jacobian(camera, T, places_m)[0] - pixels, axis=1)
    inlier = error < INLIER_PX
    return Agreement(T, inlier, float(np.sqrt((error[inlier] ** 2).mean())) if inlier.any() else np.inf)


def solve_points(camera: Camera, places_m: np.ndarray, pixels: np.ndarray, T_guess: np.ndarray) -> Agreement | None:
    """From a guess if that leads to agreement, else from random samples; a flat set of points has two poses, and the guess selects one."""
    guided = fit_points(camera, places_m, pixels, T_guess)
    if guided is not None and guided.good and guided.inlier.mean() > 0.6:
        return guided
    sampled = sample_points(camera, places_m, pixels)
    both = [a for a in (guided, sampled) if a is not None]
    return max(both, key=lambda a: int(a.inlier.sum()), default=None)


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
            if agreement is None or not agreement.good:
                continue
            found[i] = _estimate(agreement, anchor[1] if anchor else "tracked")
            guess = (sighting.segment, agreement.T_camera_object)
            if shape is not None:
                surface.learn(camera, shape, agreement.T_camera_object, sighting.ids, sighting.points_px)
    return [found.get(i, _why_not(track, i)) for i in range(len(track.sightings))]


def _estimate(agreement: Agreement, method: str) -> Estimate:
    count = int(agreement.inlier.sum())
    score = float(agreement.inlier.mean()) * min(count / 30, 1.0)
    return Estimate(agreement.T_camera_object, method, count, agreement.reprojection_px, score)


def _why_not(track: Track, position: int) -> Reason:
    count = len(track.sightings[position].ids)
    if count < MIN_POINTS:
        return Reason("too_few_points", f"only {count} points could be followed on the object, {MIN_POINTS} are needed")
    return Reason("no_fit", "the points followed on the object agree on no pose")
