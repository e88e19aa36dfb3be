"""Table `metrics`: what was measured, by clip and video, is what measuring each alone says, counts only as long as the files do, and adds up."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import quality, sketch
from egoworld_ops.files.tables import provenance_at, read_table, write_table
from egoworld_ops.lake import counted, judging
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query.catalog import write_catalog
from tests.lakes import write_video

STAGES = tuple(operators.stages())
EVERYTHING = "SELECT * REPLACE (round(value, 9) AS value) FROM raw.metrics ORDER BY ALL"
"""Sums of floating-point numbers depend on the order in which threads add them."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judged lake of two videos of three clips, which overlap."""
    run = Lake(tmp_path_factory.mktemp("whole") / "lake").open_run({}, "20260101_0000", dict)
    for name in ("a", "b"):
        counted.count(run, write_video(run, name, n_frames=60))
    judging.of_run(run, {})
    return run.lake.root


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Run:
    shutil.copytree(whole, tmp_path / "lake")
    return Run(Lake(tmp_path / "lake"), "20260101_0000")


def ask(run: Run, question: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(write_catalog(run.lake)), read_only=True) as connection:
        return connection.execute(question).fetchall()


def test_clips_and_videos_measured_together_are_as_each_alone(whole: Path) -> None:
    run = Run(Lake(whole), "20260101_0000")
    said = {
        tuple(row[:4]): row[4:]
        for row in ask(run, "SELECT video_id, clip_id, stage, metric, value, rows FROM metrics WHERE sketch IS NULL")
    }
    wrong, n = [], 0
    with duckdb.connect() as connection:
        for stage in STAGES:
            for folder in run.path.glob("video_id=*"):
                files, video_id = list(judging.files(run, stage, folder.name.partition("=")[2])), folder.name.partition("=")[2]
                for clip_id, group in {"": files, **{path.parent.name.partition("=")[2]: [path] for path in files}}.items():
                    rows = sum(read_table(path, stage).num_rows for path in group)
                    for name, value in quality.measure(connection, stage, group, spans=judging.spans(group)).items():
                        n += 1
                        wrong += [(stage, clip_id, name)] if said[video_id, clip_id, stage, name] != (value, rows) else []
    assert not wrong
    assert n > 300


def test_numbers_of_files_that_do_not_count_any_more_are_not_shown_until_they_are_measured_again(run: Run) -> None:
    everything = ask(run, "SELECT stage, count(*) FROM metrics GROUP BY 1 ORDER BY 1")
    assert {stage for stage, _ in everything} == {"manifest", *STAGES}
    path = next(iter(run.path.glob("video_id=a-*/clip_id=*/points.parquet")))
    said = provenance_at(path) or {}
    write_table(path, "points", read_table(path, "points").slice(0, 0), said | {"digest": "another", "rows": 0})
    video_id = path.parents[1].name.partition("=")[2]
    counted.count(run, video_id)
    assert ask(run, f"SELECT count(*) FROM metrics WHERE video_id = '{video_id}' AND stage = 'points'") == [(0,)]
    assert ask(run, f"SELECT count(*) > 0 FROM raw.metrics WHERE video_id = '{video_id}' AND stage = 'points'") == [(True,)]
    judging.of_run(run, {})
    assert ask(run, "SELECT stage, count(*) FROM metrics GROUP BY 1 ORDER BY 1") == everything
    clip_id = path.parent.name.partition("=")[2]
    assert ask(
        run, f"SELECT DISTINCT rows, digest FROM metrics WHERE video_id = '{video_id}' AND clip_id = '{clip_id}' AND stage = 'points'"
    ) == [(0, "another")]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_table_that_is_gone_or_damaged_is_made_anew_for_all_stages(run: Run, damage: Any) -> None:
    judging.of_run(run, {})  # a copy's files are other files: from now on all is known
    before = ask(run, EVERYTHING)
    [path] = run.path.glob("video_id=b-*/metrics.parquet")
    damage(path)
    judging.of_run(run, {})
    judging.of_run(run, {})  # where one was damaged, the first call finds the others' notes gone
    assert ask(run, EVERYTHING) == before


def test_sketches_add_up_and_their_quantiles_are_within_one_percent() -> None:
    rng = np.random.default_rng(5)
    parts = [rng.lognormal(0, 3, 4000), -rng.lognormal(-4, 1, 3000), np.zeros(500), rng.normal(0, 1e-12, 500), [1e300, -1e300, 5e-324]]
    total: Counter[int] = Counter()
    with duckdb.connect() as connection:
        query = f"SELECT {sketch.BUCKET.format('v')}, count(*) FROM (SELECT unnest($v::DOUBLE[]) AS v) GROUP BY 1"
        for part in parts:
            total.update(dict(connection.execute(query, {"v": list(map(float, part))}).fetchall()))
    values = np.sort(np.concatenate(parts))
    assert total.total() == len(values)
    found = np.repeat([_value(bucket) for bucket in sorted(total)], [total[bucket] for bucket in sorted(total)])
    np.testing.assert_array_less(np.abs(found - values), 0.0101 * np.abs(values) + 1e-323)


def _value(bucket: int) -> float:
    """What stands for the values of a bucket, as table `metrics` describes buckets."""
    growth = 1.01 / 0.99
    return float(np.sign(bucket) * 2 * growth ** (abs(bucket) - 40_000) / (growth + 1)) if bucket else 0.0


def test_the_sketch_of_a_column_holds_all_its_numbers(whole: Path) -> None:
    run = Run(Lake(whole), "20260101_0000")
    kept = "SELECT rows, list_sum([b.count for b in sketch]), value FROM metrics WHERE metric = 'score.mean' AND stage = 'masks' ORDER BY video_id"
    true = "SELECT count(score), count(score), avg(score) FROM raw.masks GROUP BY video_id ORDER BY video_id"
    for found, want in zip(ask(run, kept), ask(run, true), strict=True):
        assert found == pytest.approx(want)
        assert found[0] > 0
