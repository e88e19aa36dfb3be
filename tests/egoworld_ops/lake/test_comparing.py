"""Two runs compared: medians per metric, and the clips that got worst, in the bad direction of each metric."""

from egoworld_ops.lake.comparing import Comparison
from egoworld_ops.lake.runs import ClipDifference, Difference


def clip(n: int, *metrics: Difference, stage: str = "hand_pose") -> ClipDifference:
    return ClipDifference("v", f"c{n:02}", stage, list(metrics))


def test_medians_and_the_ten_clips_that_got_most_worse() -> None:
    found = Comparison()
    for n in range(31):
        found.add(
            clip(n, Difference("reprojection_share_median", 5.0, 5.0 + n - 15), Difference("solved_share", 0.9, 0.9 - (n - 15) / 100))
        )
    error, share = found.metrics()
    assert (found.results, error.stage, error.name, error.clips, error.a, error.b) == (
        31,
        "hand_pose",
        "reprojection_share_median",
        31,
        5.0,
        5.0,
    )
    assert [worse.clip_id for worse in error.worst] == [f"c{n}" for n in range(30, 20, -1)], (
        "higher is worse, and clips that got better are left out"
    )
    assert [worse.clip_id for worse in share.worst] == [f"c{n}" for n in range(30, 20, -1)], "lower is worse"
    assert (error.worst[0].a, error.worst[0].b) == (5.0, 20.0)


def test_where_neither_direction_is_known_the_largest_change_counts() -> None:
    found = Comparison()
    for n, b in enumerate((0.4, 0.1, 0.6)):
        found.add(clip(n, Difference("depth_m_median", 0.5, b)))
    [depth] = found.metrics()
    assert depth.worst[0].clip_id == "c01"


def test_clips_of_one_run_alone_are_counted_and_not_compared() -> None:
    found = Comparison()
    found.add(clip(0, Difference("solved_share", None, 0.5)))
    found.add(clip(1, Difference("solved_share", 0.5, None)))
    found.add(clip(2, Difference("solved_share", 0.5, None)))
    assert found.alone == {"hand_pose": (2, 1)}
    assert list(found.metrics()) == []


def test_no_clips_no_difference() -> None:
    assert (list(Comparison().metrics()), Comparison().results) == ([], 0)
