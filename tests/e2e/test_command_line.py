"""The two commands of Dagster's own command line, each from a raw file to tables that DuckDB can query."""

import dagster as dg
import duckdb
import pytest

from egoworld_ops import operators
from tests.e2e.conftest import command, instance
from tests.e2e.stack import Deployment
from tests.egoworld_ops import media

ALL = ("manifest", *operators.stages())
MATERIALIZE = ("dagster", "asset", "materialize", "-m", "egoworld_assets.definitions", "--select", "manifest,detections", "--partition")
LAUNCH = ("dg", "launch", "--job", "process_videos", "--partition")


@pytest.mark.parametrize(
    ("arguments", "stages"), [(MATERIALIZE, ("manifest", "detections")), (LAUNCH, ALL)], ids=["dagster-asset-materialize", "dg-launch"]
)
def test_a_registered_video_is_processed(fresh: Deployment, arguments: tuple[str, ...], stages: tuple[str, ...]) -> None:
    media.make(fresh.raw / "two scenes.mp4", 36, picture=media.scenes([18]))
    registered = command(fresh, "egoworld", "register", str(fresh.raw))
    assert registered.returncode == 0, registered.stderr
    video_id = registered.stdout.split()[1]

    done = command(fresh, *arguments, video_id)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with instance(fresh) as dagster:
        assert {s for s in ALL if dagster.get_materialized_partitions(dg.AssetKey(s)) == {video_id}} == set(stages)
    with duckdb.connect(str(fresh.lake / "egoworld.duckdb"), read_only=True) as database:
        assert database.execute("SELECT frame_start, frame_end FROM clips ORDER BY 1").fetchall() == [(0, 18), (18, 36)]
        assert database.execute("SELECT status, n_frames FROM videos").fetchall() == [("ok", 36)]
