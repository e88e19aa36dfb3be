"""Clips with known hands for `bench_hand_sides`: real videos whose sides were labelled by eye, and what is made from them.

Belongs here: which frames, and whose hand is where. Mirroring swaps the sides and a turn keeps them. A hand that is cut out of another video and
pasted with its arm coming from the top is another person's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from egoworld_ops.types import Frame
from egoworld_ops.video import decoding

Who = Literal["left", "right", "other"]
Pictures = Iterator[np.ndarray]
Whose = Callable[[int, np.ndarray], Who]

DEX, BLOCKS = "dexretarget_human_hand_video.mp4", "sam2_03_blocks.mp4"
_PATCH_PX = 420
CAM0, CAM1 = "handpose3d_stereo/cam0_test.mp4", "handpose3d_stereo/cam1_test.mp4"
BLOCKS_LABELS = (
    *((0, 0.42), (10, 0.42), (15, 0.5), (20, 0.65), (25, 0.8), (30, 0.85), (35, 0.76), (40, 0.61), (55, 0.61), (60, 0.67), (70, 0.67)),
    *(
        (75, 0.64),
        (80, 0.74),
        (85, 0.8),
        (90, 0.8),
        (95, 0.72),
        (120, 0.68),
        (125, 0.55),
        (195, 0.55),
        (200, 0.65),
        (205, 0.7),
        (210, 0.68),
    ),
    *((220, 0.7), (225, 0.78), (230, 0.72), (235, 0.5), (292, 0.5)),
)
"""Frame, and the border as a share of the width: the hand left of it is the person's right one (black sleeve), the hand right of it the left one
(ring). By eye on every fifth frame. The person sits opposite the camera. Only the left hand is seen from frame 235."""


@dataclass(frozen=True, slots=True)
class KnownClip:
    """One clip.

    Args:
        name: for the printout.
        half: rules were made by looking at `tuned` clips; `held` clips are other frames, videos or combinations.
        pictures: opens its frames, (H, W, 3) uint8 each.
        who: whose hand is at a point (2,) px in frame i.
        wearer: hands of the wearer in frame i, as seen by eye; empty where that was not labelled.
    """

    name: str
    half: Literal["tuned", "held"]
    pictures: Callable[[], Pictures]
    who: Whose
    wearer: Callable[[int], tuple[Who, ...]] = lambda i: ()

    def frames(self) -> Iterator[Frame]:
        """The frames, at 30 a second."""
        for i, rgb in enumerate(self.pictures()):
            yield Frame(i, i / 30, np.ascontiguousarray(rgb))


def known_clips(data: Path) -> list[KnownClip]:
    """All clips that can be made of the videos under `data`."""

    def video(name: str, start: int, end: int) -> Callable[[], Pictures]:
        return lambda: (f.rgb for f in decoding.decode(data / name, start, end, threads=1))

    def single(name: str, half: Literal["tuned", "held"], pictures: Callable[[], Pictures], who: Who) -> KnownClip:
        return KnownClip(name, half, pictures, lambda i, at: who, lambda i: (who,))

    dex_a, dex_b = video(DEX, 0, 90), video(DEX, 300, 390)
    blocks = video(BLOCKS, 0, 292)
    cam0, cam1 = video(CAM0, 30, 378), video(CAM1, 30, 378)
    found: list[KnownClip] = [
        single("one right hand", "tuned", dex_a, "right"),
        single("its mirror image", "held", mapped(dex_b, mirror), "left"),
        single("stereo, camera 0", "tuned", cam0, "right"),
        single("stereo, camera 1", "held", cam1, "right"),
        single("stereo, camera 0 mirrored", "held", mapped(cam0, mirror), "left"),
        KnownClip("blocks from above", "tuned", blocks, _blocks(0, False, False)),
        KnownClip("blocks turned by 180 degrees", "tuned", mapped(blocks, turn), _blocks(0, False, True)),
        KnownClip("blocks mirrored", "held", mapped(blocks, mirror), _blocks(0, True, False)),
        KnownClip("blocks turned and mirrored", "held", mapped(blocks, lambda p: mirror(turn(p))), _blocks(0, True, True)),
    ]
    found += _second_people(video)
    found += _cuts(video)
    found += _crossings(dex_a, dex_b)
    found += _edges(dex_a, dex_b)
    return found


def _second_people(video: Callable[[str, int, int], Callable[[], Pictures]]) -> list[KnownClip]:
    """The wearer's hands, with a hand of somebody opposite or beside in another part of the picture, on either side and of either side."""

    def clip(
        name: str,
        half: Literal["tuned", "held"],
        own: Callable[[], Pictures],
        others: Callable[[], Pictures],
        who: Who | Whose,
        at: tuple[int, int],
    ) -> KnownClip:
        own_hand: Whose = who if callable(who) else lambda i, _: who

        def whose(i: int, point: np.ndarray) -> Who:
            inside = (point >= np.subtract(at, 30)).all() and (point < np.add(at, _PATCH_PX + 30)).all()
            return "other" if inside else own_hand(i, point)

        wearer: tuple[Who, ...] = () if callable(who) else (who,)
        return KnownClip(name, half, lambda: pasted(own(), others(), at), whose, lambda i: wearer)

    lowered_a, lowered_b = (mapped(video(DEX, n, n + 90), lambda p: shifted(p, 0, 240)) for n in (0, 300))
    mirrored_a, mirrored_b = mapped(lowered_a, mirror), mapped(lowered_b, mirror)
    opposite_a, opposite_b = video(CAM0, 150, 240), video(CAM0, 280, 370)
    beside_a, beside_b = video(CAM1, 150, 240), video(CAM1, 280, 370)
    both = mapped(video(BLOCKS, 125, 165), lambda p: shifted(turn(p), 0, 240))
    return [
        clip("right hand, a right hand opposite", "tuned", lowered_a, opposite_a, "right", (60, 0)),
        clip("left hand, a right hand opposite", "tuned", mirrored_a, opposite_a, "left", (800, 0)),
        clip("right hand, a right hand beside", "tuned", lowered_a, beside_a, "right", (0, 150)),
        clip("right hand, a left hand opposite", "held", lowered_b, mapped(opposite_b, mirror), "right", (60, 0)),
        clip("left hand, a left hand opposite", "held", mirrored_b, mapped(opposite_b, mirror), "left", (800, 0)),
        clip("right hand, its copy opposite", "held", lowered_b, mapped(video(DEX, 300, 390), turn), "right", (60, 0)),
        clip("left hand, a left hand beside", "held", mirrored_b, mapped(beside_b, mirror), "left", (860, 150)),
        clip("both hands, one opposite", "held", both, opposite_b, _blocks(125, False, True), (430, 0)),
    ]


def _cuts(video: Callable[[str, int, int], Callable[[], Pictures]]) -> list[KnownClip]:
    """A clip with two hard cuts that were not found: A, B mirrored, A."""

    def clip(name: str, half: Literal["tuned", "held"], file: str, at: int) -> KnownClip:
        parts = video(file, at, at + 40), mapped(video(file, at + 60, at + 100), mirror), video(file, at + 120, at + 160)

        def who(i: int, _: np.ndarray) -> Who:
            return "left" if 40 <= i < 80 else "right"

        return KnownClip(name, half, lambda: chain(*(part() for part in parts)), who, lambda i: (who(i, np.zeros(2)),))

    return [
        clip("two cuts, right, left, right", "tuned", DEX, 0),
        clip("two cuts, another video", "held", CAM0, 180),
        clip("two cuts, other frames", "held", DEX, 400),
    ]


def _crossings(dex_a: Callable[[], Pictures], dex_b: Callable[[], Pictures]) -> list[KnownClip]:
    """A right hand and a left one that pass over each other, there and back."""

    def clip(name: str, half: Literal["tuned", "held"], pictures: Callable[[], Pictures], back: bool) -> KnownClip:
        def place(i: int) -> int:
            return round(260 * np.cos(2 * np.pi * i / 90)) if back else round(260 - 520 * i / 90)

        def crossed() -> Pictures:
            for i, picture in enumerate(pictures()):
                centred = shifted(picture, -120, 0)
                yield over(shifted(mirror(centred), -place(i), 0), shifted(centred, place(i), 60))

        def who(i: int, at: np.ndarray) -> Who:
            return "right" if (at[0] > 640) == (place(i) > 0) else "left"

        return KnownClip(name, half, crossed, who, lambda i: ("left", "right"))

    return [clip("hands cross and return", "tuned", dex_a, True), clip("hands cross", "held", dex_b, False)]


def _edges(dex_a: Callable[[], Pictures], dex_b: Callable[[], Pictures]) -> list[KnownClip]:
    """A hand of which the picture's edge cuts off about half, at each edge; short, so that searching counts."""
    places = (("left", -700, 0), ("right", 520, 0), ("bottom", 0, 420), ("top", 0, -230))
    return [
        KnownClip(
            f"hand half out at the {name}",
            half,
            mapped(pictures, lambda p, x=x, y=y: shifted(p, x, y)),
            lambda i, at: "right",
            lambda i: ("right",),
        )
        for name, x, y in places
        for half, pictures in (("tuned", dex_a), ("held", dex_b))
    ]


def mirror(picture: np.ndarray) -> np.ndarray:
    """Left and right swapped."""
    return picture[:, ::-1]


def turn(picture: np.ndarray) -> np.ndarray:
    """Turned by 180 degrees."""
    return picture[::-1, ::-1]


def shifted(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    """The picture moved by (x, y) px; what comes in repeats the edge."""
    moved = np.array([[1, 0, x], [0, 1, y]], np.float64)
    return np.asarray(cv2.warpAffine(picture, moved, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE))


def mapped(pictures: Callable[[], Pictures], change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], Pictures]:
    """The same frames, each changed."""
    return lambda: (np.ascontiguousarray(change(p)) for p in pictures())


def flesh(picture: np.ndarray) -> np.ndarray:
    """(H, W, 1) float32 in 0 to 1: where the picture shows skin, by its red chroma, with soft edges."""
    chroma = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)[..., 1]
    skin = cv2.morphologyEx((chroma > 140).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(skin)
    largest = labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax() if count > 1 else skin > 0
    filled = cv2.morphologyEx(largest.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    return cv2.GaussianBlur(filled.astype(np.float32), (7, 7), 0)[..., None]


def over(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The skin of one picture over the other picture."""
    alpha = flesh(above)
    return np.asarray(below * (1 - alpha) + above * alpha).round().astype(np.uint8)


def pasted(below: Pictures, above: Pictures, at: tuple[int, int]) -> Pictures:
    """The skin in the middle square of `above`, `_PATCH_PX` wide, over `below`, its upper left corner at the pixel `at`."""
    x, y = at
    for picture, other in zip(below, above, strict=False):
        margin = (other.shape[1] - other.shape[0]) // 2
        patch = cv2.resize(other[:, margin : margin + other.shape[0]], (_PATCH_PX, _PATCH_PX), interpolation=cv2.INTER_AREA)
        canvas = np.zeros_like(picture)
        canvas[y : y + _PATCH_PX, x : x + _PATCH_PX] = patch
        yield over(picture, canvas)


def _blocks(first: int, mirrored: bool, turned: bool) -> Whose:
    frames, borders = np.array(BLOCKS_LABELS).T

    def who(i: int, at: np.ndarray) -> Who:
        x = float(at[0]) / 1280
        x = 1 - x if mirrored != turned else x
        right = x < np.interp(first + i, frames, borders)
        return "right" if right != mirrored else "left"

    return who
