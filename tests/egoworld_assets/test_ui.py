"""What Dagster's UI shows when it opens: the chain as an open graph, one name of the code location, and few events per video."""

import tomllib
from collections import Counter
from pathlib import Path

import dagster as dg
import yaml

from egoworld_assets.assets import ASSETS
from egoworld_assets.definitions import defs
from egoworld_assets.jobs import PURPOSE_TAG
from egoworld_assets.partitions import VIDEO_IDS
from egoworld_ops.contract import quality
from tests.conftest import ROOT
from tests.egoworld_assets.conftest import Place
from tests.egoworld_ops import media

ERROR = dg.AssetCheckSeverity.ERROR
A_STAGE = {"ASSET_MATERIALIZATION_PLANNED": 1, "ASSET_MATERIALIZATION": 1, "ASSET_CHECK_EVALUATION": 3}
"""Events that each further video adds to the log of a stage: those by which Dagster shows its partition and three checks."""


def test_the_lineage_page_opens_with_the_chain_in_sight() -> None:
    graph = defs.resolve_asset_graph()

    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == {"egoworld"}  # of several groups it shows closed boxes
    edges = {(parent.to_user_string(), key.to_user_string()) for key in graph.get_all_asset_keys() for parent in graph.get(key).parent_keys}
    assert {child for parent, child in edges if parent == "detections"} == {"hand_pose", "masks", "agreement"}


def test_each_asset_and_each_job_says_what_it_is_for() -> None:
    graph = defs.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    assert all(node.description and node.kinds and node.owners for node in nodes), [node.key for node in nodes]
    backends = {node.key.to_user_string(): node.tags.get("egoworld/backend") for node in nodes}
    assert (backends["detections"], backends["mapping"], backends["release"]) == ("mediapipe", "dex", None)
    jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    assert all(job.description and job.tags[PURPOSE_TAG] == job.name.replace("_", " ") for job in jobs)


def test_a_job_holds_all_that_its_last_asset_is_made_of_and_nothing_else() -> None:
    hands = {key.to_user_string() for key in defs.resolve_job_def("find_hands").asset_layer.executable_asset_keys}
    assert {"manifest", "detections", "hand_pose", "fusion"} <= hands
    assert not hands & {"object_pose", "mapping", "movement", "preview"}


def test_the_job_holds_what_is_made_of_one_video() -> None:
    job = defs.resolve_job_def("process_videos")

    assert job.asset_layer.executable_asset_keys == {asset.key for asset in ASSETS}
    assert {asset.partitions_def for asset in ASSETS} == {VIDEO_IDS}


def test_the_code_location_has_one_name_however_dagster_is_started() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    [of_workspace] = yaml.safe_load((ROOT / "workspace.yaml").read_text("utf-8"))["load_from"]

    names = {
        project["dagster"]["code_location_name"],
        project["dg"]["project"]["code_location_name"],
        of_workspace["python_module"]["location_name"],
    }
    assert names == {"egoworld"}


def test_a_further_video_adds_only_what_dagster_shows_it_by_and_no_plots_of_counts(place: Place, tmp_path: Path) -> None:
    stages = ("manifest", "detections")
    paths = [media.make(tmp_path / "raw" / f"{n}.mp4", 12 + n) for n in range(6)]
    ids = [v for path in paths for v in place.register(path)]

    results = [place.run(videos, *stages) for videos in (ids[:1], ids)]

    one, six = (_events(place, result) for result in results)

    further = {kind: (n - one[kind]) / (len(ids) - 1) / len(stages) for kind, n in six.items() if n != one[kind]}
    assert further == A_STAGE
    assert six["LOG"] == 0
    plotted = {
        name for e in results[1].get_asset_check_evaluations() for name, value in e.metadata.items() if isinstance(value.value, int | float)
    }
    assert plotted <= {
        metric.name for stage in stages for metric in quality.metrics(stage)
    }  # Dagster plots numbers over all videos: no counts
    assert {e.severity for e in results[1].get_asset_check_evaluations() if e.check_name.endswith("_complete")} == {ERROR}


def _events(place: Place, result: dg.ExecuteInProcessResult) -> Counter[str]:
    return Counter(e.dagster_event.event_type_value if e.dagster_event else "LOG" for e in place.dagster.all_logs(result.run_id))
