"""A new lake and Dagster instance for a test, and runs of the real graph in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from egoworld_assets.partitions import add_videos
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings, load_settings
from tests.egoworld_ops import media


@dataclass
class Place:
    """Settings and instance of one test."""

    settings: Settings
    dagster: dg.DagsterInstance

    def register(self, *paths: Path) -> list[str]:
        """Register files that are no longer being written and add their partitions, as `egoworld register` does."""
        for path in paths:
            for file in path.rglob("*") if path.is_dir() else [path]:
                media.aged(file)
        found = register.register(self.settings.lake, paths)
        add_videos(self.dagster, found.video_ids)
        return found.video_ids

    def run(self, video_ids: Sequence[str], *stages: str) -> dg.ExecuteInProcessResult:
        """One run of some assets and their checks over several videos, in the order of registration."""
        from egoworld_assets.definitions import defs

        tags = {"dagster/asset_partition_range_start": video_ids[0], "dagster/asset_partition_range_end": video_ids[-1]}
        one = {"dagster/partition": video_ids[0]}
        job = defs.resolve_implicit_global_asset_job_def()
        selection = dg.AssetSelection.assets(*stages)
        keys = selection.resolve(defs.resolve_asset_graph())
        checks = selection.resolve_checks(defs.resolve_asset_graph())
        return job.get_subset(asset_selection=keys, asset_check_selection=checks).execute_in_process(
            instance=self.dagster, tags=one if len(video_ids) == 1 else tags, raise_on_error=False
        )

    def run_unpartitioned(self, *assets: str) -> dg.ExecuteInProcessResult:
        """One run of assets that are about all videos together."""
        from egoworld_assets.definitions import defs

        job = defs.resolve_implicit_global_asset_job_def()
        keys = dg.AssetSelection.assets(*assets).resolve(defs.resolve_asset_graph())
        return job.get_subset(asset_selection=keys).execute_in_process(instance=self.dagster, raise_on_error=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty lake and an instance in memory."""
    (tmp_path / "raw").mkdir()
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("EGOWORLD_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("EGOWORLD_POOL__THREADS", "1")
    with dg.DagsterInstance.ephemeral() as dagster:
        yield Place(load_settings(), dagster)


def metadata(result: dg.ExecuteInProcessResult, stage: str) -> dict[str, dict[str, object]]:
    """Metadata of each materialization of an asset in a run, by partition."""
    found = result.asset_materializations_for_node(stage)
    return {str(m.partition): {k: v.value for k, v in m.metadata.items()} for m in found}


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    """Evaluations of a run, by check and partition."""
    return {(e.check_name, str(e.partition)): e for e in result.get_asset_check_evaluations()}
